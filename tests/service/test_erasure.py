"""Erasure, and its proof: nothing of the person is left, and the audit says so without a name."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from served import Start, a_ring, one

from features.event import decode
from service import lease
from service.erasure import digest_of_log
from service.intake import read_body
from service.records import Decision, Label, Records
from service.shoal import BEGUN, Shoal, Unavailable

ALICE = "acct_alice_7f3a"
OWN = {  # what nobody else has
    "device_id": "alice-device",
    "ip": "192.0.2.77",
    "email": "alice@example.org",
    "phone": "+4915112345678",
}


def feed(shoal: Shoal, lines: list[bytes]) -> None:
    shoal.ingest(read_body(b"\n".join(lines), "application/x-ndjson").events)


def of_alice(n: int) -> bytes:
    shared = {"promo_id": "everybody"}
    return msgspec.json.encode(one(900 + n, ALICE, "account_signup", **OWN, **shared))


def test_no_file_holds_the_person_or_what_only_she_had(start: Start, tmp_path: Path) -> None:
    shoal = start()
    feed(shoal, [*a_ring(), of_alice(0)])
    (body,) = (b for e in shoal.log.read() for b in e.events if decode(b).account_id == ALICE)
    shared = {t for e in shoal.log.read() for b in e.events if b != body for t in tokens(b)}
    own = tokens(body) - shared
    assert len(own) >= 6
    records = shoal.records
    records.add_labels([Label("abusive", "analyst", 1, account_id=ALICE, note=f"see {ALICE}")])
    case = records.open_or_update_case(
        "k",
        "review",
        {
            "members": [ALICE, "ring1"],
            "evidence": [{"entity": sorted(own)[0], "accounts": [ALICE, "ring1"]}],
        },
    )
    records.note_case(case.id, "ann", f"{ALICE} again; not {ALICE}2.")
    records.decide_case(case.id, "ann", "suspend", label="abusive", accounts=[ALICE])
    records.add_decisions([acted("e1", ALICE), acted("e2", "ring1", evidence=[ALICE, "ring2"])])
    records.add_webhook("https://example.org/", ["decision"], "example.org")
    records.add_decisions([acted("e3", ALICE), acted("e4", "ring1")])
    shoal.snapshot()
    assert holding(tmp_path, ALICE.encode())  # or the search below would show nothing
    before, _ = digest_of_log(shoal.history.read())
    proof = shoal.erase(ALICE, by="ann")
    assert proof is not None
    # while it still runs: nothing waits for an end that may not come
    assert holding(tmp_path, ALICE.encode() + b"(?!2)") == []  # the other one may stay
    for token in own:
        assert holding(tmp_path, token.encode()) == []
        for number in (name := bytes.fromhex(token[2:18])), name[::-1]:  # as the window names it
            assert holding(tmp_path, re.escape(number)) == []
    logged = b"".join(b for e in shoal.log.read() for b in [*e.events, e.answers, e.body])
    assert not any(t.encode() in logged for t in (ALICE, *own))

    assert (proof.log_before, proof.log_after) == (before, digest_of_log(shoal.history.read())[0])
    assert proof.log_before.events - proof.log_after.events == proof.events == 1
    assert proof.state_before != proof.state_after
    assert proof.snapshots == 1
    assert proof.records == {
        "labels": 2, "decisions": 3, "canary_hits": 0, "deliveries": 1, "cases": 1, "case_notes": 1
    }  # fmt: skip
    row = records.list_audit(limit=500)[-1]
    began = records.list_audit(limit=500)[-2]
    assert [(r.actor, r.action) for r in (began, row)] == [("ann", BEGUN), ("ann", "erase")]
    assert row.subject == began.subject
    assert row.body["log_after"]["sha256"] == proof.log_after.sha256
    assert ALICE not in str(records.list_audit(limit=500))
    records.verify_audit()
    assert [n.text for n in records.get_case(case.id).notes] == [f"[erased] again; not {ALICE}2."]
    assert records.get_case(case.id).body == {"members": ["ring1"], "evidence": []}
    (other,) = (d for d in records.decisions_of("ring1") if d.event_id == "e2")
    assert other.reasons == [{"code": "C", "evidence": ["ring2"]}]


def test_one_that_was_cut_off_is_ended_by_asking_again(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the account may be left to be found then, and still there is a proof."""
    shoal = start()
    feed(shoal, [*a_ring(), of_alice(0)])
    shoal.records.add_labels([Label("abusive", "analyst", 1, account_id=ALICE)])

    def cut(*_: object) -> None:
        raise redis.ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(shoal.log, "append_control", cut)  # after the last of her events went
        with pytest.raises(Unavailable):
            shoal.erase(ALICE, by="ann")
    assert not any(ALICE.encode() in b for e in shoal.history.read() for b in e.events)
    shoal.close()
    shoal = start()
    proof = shoal.erase(ALICE, by="bob")
    assert proof is not None
    assert (proof.resumed, proof.events, sum(proof.records.values())) == (True, 0, 0)
    rows = [r for r in shoal.records.list_audit(limit=500) if r.subject.startswith("account ")]
    assert [(r.actor, r.action) for r in rows] == [
        ("ann", BEGUN), ("bob", BEGUN), ("bob", "erase")
    ]  # fmt: skip
    assert len({r.subject for r in rows}) == 1
    assert holding(tmp_path, ALICE.encode()) == []
    assert shoal.erase(ALICE) is None


def test_a_long_one_keeps_the_lease(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 0.2)
    shoal = start()
    feed(shoal, [*a_ring(), of_alice(0)])
    standby = start(standby=True)
    rewrite = shoal.log.rewrite

    def slow(drop: Callable[[bytes], bool]) -> int:
        time.sleep(5 * lease.LEASE_S)
        return rewrite(drop)

    monkeypatch.setattr(shoal.log, "rewrite", slow)
    assert shoal.erase(ALICE) is not None
    assert (shoal.standby, standby.standby) == (False, True)
    feed(shoal, [of_alice(1)])


def test_an_account_that_is_not_there(start: Start) -> None:
    shoal = start()
    feed(shoal, a_ring())
    rows = len(shoal.records.list_audit())
    assert shoal.erase("nobody") is None
    assert len(shoal.records.list_audit()) == rows


def acted(event: str, account: str, **reason: Any) -> Decision:
    return Decision(event, account, 1, "review", 0.5, [{"code": "C", **reason}], "m", "p")


def tokens(body: bytes) -> set[str]:
    return {t.decode() for t in re.findall(rb"h:[0-9a-f]{32}", body)}


def holding(folder: Path, pattern: bytes) -> list[Path]:
    """The files below a folder that hold what a pattern describes."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return [p for p in files if re.search(pattern, p.read_bytes())]


@pytest.fixture
def records(database: Callable[[], str]) -> Iterator[Records]:
    with Records(database(), clock=lambda: 5) as records:
        yield records


def test_records_of_every_database_forget(records: Records) -> None:
    records.add_labels([Label("honest", "import", 1, account_id="100%_a\\")])
    records.add_labels([Label("honest", "import", 1, account_id="100xya", note="100%_a\\ b")])
    records.open_or_update_case("k", "review", {"members": ["100%_a\\", "b"]})
    told = records.erase_account("100%_a\\")
    assert {table: n for table, n in told.items() if n} == {"labels": 2, "cases": 1}
    assert records.label_history(account_id="100%_a\\") == []
    (kept,) = records.labels()
    assert (kept.account_id, kept.note) == ("100xya", "[erased] b")
    assert not any(records.erase_account("100%_a\\").values())
