"""The rotation of the identity key: as if it had never changed, and nothing of the old one is left."""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import START, Run, Start, a_ring, one
from test_shoal import feed

from detector.engine import Engine
from detector.policy import read_policy
from detector.sweep import look
from features.catalog import Catalog
from features.event import AnyEvent, decode, encode
from features.identity import Secret, canonical, identifiers
from features.memory import MemoryWindow
from features.plan import plan
from features.rows import Kinds, Names
from features.seal import Sealer
from service import cold as cold_module
from service import rotation
from service.cold import ColdLog, archive_all
from service.folder import Folder, FolderProblem, Rotation
from service.log import EventLog
from service.records import Records
from service.rotation import PAIRS, Overlap, Renaming, RotationProblem
from service.shoal import Shoal, Unavailable
from service.valkey import EmbeddedValkey

OLD, NEW = Secret(b"the key of epoch one"), Secret(b"the key of epoch two")
ROTATION = Rotation(2, b"the key of epoch two", b"the key of what was not met", 0, 0)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey") / "data") as running:
        yield running


def sealer(secret: Secret) -> Sealer:
    return Sealer(secret, Kinds(()), Names())


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_renamed_event_is_what_the_next_key_would_have_sealed(
    valkey: EmbeddedValkey, any_event: st.SearchStrategy[AnyEvent], data: st.DataObject
) -> None:
    client = valkey.client()
    client.delete(PAIRS)
    events = data.draw(st.lists(any_event, min_size=1, max_size=4))
    overlap = Overlap(OLD, ROTATION, client)
    sealed, _ = sealer(OLD).seal([decode(encode(e)) for e in events])
    overlap.note(sealed.events)
    anew, _ = sealer(NEW).seal([decode(encode(e)) for e in events])
    assert Renaming(client, ROTATION.rest).bodies(sealed.bodies) == anew.bodies


# --- as if the key had never changed

_KEYS = st.sampled_from(["x", "y", "z", "h:" + "ab" * 16, "h:the edge's own"])
_NEEDED: dict[str, dict[str, Any]] = {"payment": {"kind": "card_added"}, "request": {"status": 200}}
_VALUES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "account_signup": {
        "device_id": _KEYS,
        "ip": st.integers(1, 4).map(lambda n: f"192.0.2.{n}"),
        "phone": st.integers(1, 4).map(lambda n: f"+493012345{n}00"),
        "email": st.integers(1, 3).map(lambda n: f"who{n}@own.example"),
        "promo_id": _KEYS,
    },
    "payment": {
        "instrument_id": _KEYS,
        "billing_address_id": _KEYS,
        "entities": st.dictionaries(st.sampled_from(["funded_by", "paid_to"]), _KEYS),
    },
    "request": {
        "device_id": _KEYS,
        "workspace_id": _KEYS,
        "chain_root": _KEYS,
        "chain": st.lists(_KEYS, min_size=1, max_size=3),
        "minted_refs": st.lists(_KEYS, max_size=2),
        "emitted_refs": st.lists(_KEYS, max_size=2),
    },
    "ownership_declared": {
        "owners": st.lists(
            st.fixed_dictionaries(
                {"owner": _KEYS, "share": st.just(0.5), "of": _KEYS | st.just("self")}
            ),
            max_size=2,
        ),
    },
}


@st.composite
def a_log(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events as they are sent, some of them twice; in order, minutes or weeks apart."""
    told: list[dict[str, Any]] = []
    t = START
    for n in range(draw(st.integers(1, 14))):
        if told and draw(st.integers(0, 4)) == 0:
            told.append(draw(st.sampled_from(told)))
            continue
        t += draw(st.sampled_from([60_000, 86_400_000, 20 * 86_400_000]))
        type_ = draw(st.sampled_from(sorted(_VALUES)))
        more = draw(st.fixed_dictionaries({}, optional=_VALUES[type_]))
        account = f"a{draw(st.integers(0, 3))}"
        more |= _NEEDED.get(type_, {})
        told.append(one(n, account, type_) | more | {"occurred_at": t})
    return told


def met(events: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The identifiers in events as they are sent. What the edge has hashed is the same in every family."""
    sent = [*map(decoded, events)]
    for event in sent:
        canonical(event)
    found = [i for event in sent for i in identifiers(event)]
    return {("" if value.startswith("h:") else family, value) for family, value in found}


def decoded(event: dict[str, Any]) -> AnyEvent:
    return decode(msgspec.json.encode(event))


def shape(window: MemoryWindow) -> list[tuple[int, list[tuple[int, int]]]]:
    """Who was seen on the same entity, and when, whatever its name."""
    seen = window.sightings()
    by: dict[tuple[int, int], list[tuple[int, int]]] = {}
    rows = zip(*(c.tolist() for c in (seen.kind, seen.entity, seen.owner, seen.last)), strict=True)
    for kind, entity, owner, last in rows:
        by.setdefault((kind, entity), []).append((owner, last))
    return sorted((kind, sorted(who)) for (kind, _), who in by.items())


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a_log(), st.data())
def test_features_and_links_are_those_of_a_key_that_never_changed(
    valkey: EmbeddedValkey, log: list[dict[str, Any]], data: st.DataObject
) -> None:
    opened = data.draw(st.integers(0, len(log)), "opened")
    switched = data.draw(st.integers(opened, len(log)), "switched")
    before, between, after = log[:opened], log[opened:switched], log[switched:]
    # what comes again after the switch was met in the overlap: the overlap is there to see to that
    stale = met(before) - met(between)
    after = [e for e in after if not met([e]) & stale]
    client = valkey.client()
    client.delete(PAIRS)

    window = MemoryWindow(Catalog())
    never, _ = sealer(OLD).seal([*map(decoded, before + between + after)])
    expected = window.fold(never.rows)

    overlap, old = Overlap(OLD, ROTATION, client), sealer(OLD)
    first, _ = old.seal([*map(decoded, before)])
    second, _ = old.seal([*map(decoded, between)])
    overlap.note(second.events)
    new, turned = sealer(NEW), MemoryWindow(Catalog())
    bodies = Renaming(client, ROTATION.rest).bodies([*first.bodies, *second.bodies])
    assert not {t for b in bodies for t in tokens(b)} & ours(first.bodies + second.bodies)
    kept = new.read(bodies)  # first: kinds that nobody declared are numbered as they are met
    third, _ = new.seal([*map(decoded, after)])
    parts = [turned.fold(kept.rows), turned.fold(third.rows)]
    for name in ("vectors", "status", "ordinal"):
        found = np.concatenate([getattr(p, name) for p in parts])
        np.testing.assert_array_equal(found, getattr(expected, name))
    assert shape(turned) == shape(window)


def test_a_world_split_by_a_rotation_has_the_same_clusters(
    valkey: EmbeddedValkey, world: list[bytes]
) -> None:
    client = valkey.client()
    client.delete(PAIRS)
    sent = [msgspec.json.decode(line) for line in world]
    third = len(sent) // 3
    before, between, after = sent[:third], sent[third : 2 * third], sent[2 * third :]
    stale = met(before) - met(between)
    after = [e for e in after if not met([e]) & stale]
    assert len(after) > 1000

    never = Engine(read_policy(), OLD)
    vectors = [never.ingest([*map(decoded, p)])[0].vectors for p in (before + between, after)]
    old = Engine(read_policy(), OLD)
    first, second = (old.ingest([*map(decoded, p)])[0].sealed for p in (before, between))
    Overlap(OLD, ROTATION, client).note(second.events)
    bodies = Renaming(client, ROTATION.rest).bodies([*first.bodies, *second.bodies])
    turned = Engine(read_policy(), NEW)
    folded = turned.restore(turned.sealer.read(bodies, [*map(decode, bodies)]))
    np.testing.assert_array_equal(folded.vectors, vectors[0])
    np.testing.assert_array_equal(turned.ingest([*map(decoded, after)])[0].vectors, vectors[1])
    assert shape(turned.window) == shape(never.window)
    assert seen_by(turned) == seen_by(never)


def seen_by(engine: Engine) -> list[tuple[list[int], float]]:
    """The clusters of a look at all links, each with its score."""
    found = look(engine.window, engine.kinds, None, None)
    by: dict[int, list[int]] = {}
    for account, place in zip(found.account.tolist(), found.place.tolist(), strict=True):
        by.setdefault(place, []).append(account)
    assert len(by) > 3
    return sorted(
        (sorted(who), pytest.approx(float(found.cluster_score[c])) if c >= 0 else 0.0)
        for c, who in by.items()
    )


def tokens(body: bytes) -> set[str]:
    return {t.decode() for t in re.findall(rb"h:[0-9a-f]{32}", body)}


def ours(bodies: list[bytes]) -> set[str]:
    """Tokens that we made: all but what an edge sends in these tests."""
    return {t for b in bodies for t in tokens(b)} - {"h:" + "ab" * 16}


def test_an_overlap_is_as_long_as_anything_counts() -> None:
    p = plan(Catalog())
    assert rotation.overlap_ms() > max(p.sets[:, 3].max(), p.tallies[:, 2].max())


# --- a whole service


def parts() -> tuple[list[bytes], list[bytes], list[bytes]]:
    """A ring before, in and after the overlap; the last part shows what the others have, and more."""
    ring = a_ring(18)
    late = [
        one(500 + n, f"late{n}", "account_signup", device_id="shared", ip="203.0.113.9")
        for n in range(4)
    ] + [
        one(
            520 + n,
            f"late{n}",
            "payment",
            kind="card_added",
            instrument_id="card",
            device_id="shared",
        )
        for n in range(4)
    ]
    strange = one(490, "silent", "account_signup", device_id="seen once", phone="+4915112345678")
    return (
        [*ring[:60], msgspec.json.encode(strange)],
        [*ring[60:], ring[45]],  # one of them again
        [*(msgspec.json.encode(e) for e in late), ring[70]],
    )


def clusters(shoal: Shoal) -> list[dict[str, Any]]:
    shoal.look(everyone=True)
    return [{k: v for k, v in c.items() if k != "cluster_id"} for c in shoal.cluster_list()]


def everything(shoal: Shoal) -> dict[str, Any]:
    """What a service tells that does not show a token."""
    accounts = sorted(shoal.engine.names[a] for a in shoal.engine.window.accounts()[0].tolist())
    ring = clusters(shoal)
    vectors = {a: list(map(str, shoal.vector_of(a))) for a in accounts}
    return {
        "clusters": ring, "vectors": vectors, "links": {a: shoal.links_of(a) for a in accounts}
    }  # fmt: skip


def told(answers: list[Any]) -> list[Any]:
    return [msgspec.structs.replace(a, decision=None) for a in answers]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "data")


def test_a_service_goes_on_as_if_nothing_had_happened(
    start: Start, run: Run, folder: Folder, tmp_path: Path
) -> None:
    one_key = start(data="never")
    before, between, after = parts()
    expected = [feed(one_key, part) for part in (before, between, after)]

    shoal = start()
    found = [feed(shoal, before)]
    shoal.snapshot()
    shoal.close()
    on = ("--data", folder.path)
    ran = run("keys", "rotate-identity", *on)
    assert (ran.code, ran.out) == (0, ""), ran
    assert "epoch 2" in ran.err
    shoal = start()
    old = shoal.secret
    found.append(feed(shoal, between))
    mark = shoal.records.add_canary(shoal.canary_mark("a marked prompt"), "station").mark
    dead = shoal.records.add_canary(old.token("prompt", "never met again"), "station")
    assert clusters(shoal)
    case = shoal.records.list_cases().cases[0]
    shown = case.body["evidence"][0]
    shoal.records.note_case(case.id, "ann", f"look at {shown['entity']}, {mark} and h:{'cd' * 16}")
    shoal.records.decide_case(case.id, "ann", "suspend")  # nobody writes its body anew
    shoal.close()  # with a snapshot
    assert archive_all(folder) > 0
    gone = {t for body in bodies(folder) for t in tokens(body)} | {mark, dead.mark}
    assert len(gone) > 60
    assert any("/" in where for where in left_of(folder, gone))  # or the search below shows nothing
    old_key = (folder.path / "identity.key").read_text().strip()

    ran = run("keys", "rotate-identity", "--finish", "--now", *on)
    assert (ran.code, ran.out) == (0, ""), ran
    assert f"canary {dead.id} was not met" in ran.err
    assert left_of(folder, gone) == []
    keys = (folder.path / "identity.key").read_bytes()
    assert holding(folder, old_key.encode()) == []
    assert holding(folder, re.escape(bytes.fromhex(old_key))) == []
    assert not (folder.path / "identity.rotation").exists()
    assert bytes.fromhex(keys.decode()) != bytes.fromhex(old_key)

    shoal = start()
    found.append(feed(shoal, after))
    assert [told(f) for f in found] == [told(e) for e in expected]
    assert everything(shoal) == everything(one_key)
    kept = shoal.records.get_case(case.id)
    new = kept.body["evidence"][0]
    assert new["entity"] != shown["entity"]
    assert new["entity"] in new["text"]
    token = f"h:{new['entity'][2:18]}"
    assert any(token in t for b in bodies_of(shoal) for t in tokens(b))  # it can be looked up
    (note,) = kept.notes
    assert note.text.startswith(f"look at {new['entity']}, h:")
    assert note.text.endswith(f" and h:{'cd' * 16}")  # nobody's token: perhaps an account
    feed(
        shoal,
        [
            msgspec.json.encode(
                one(900, "caught", "request", status=200, prompt_id="a marked prompt")
            )
        ],
    )
    assert shoal.scribe.flush(10)
    assert shoal.records.label_history(account_id="caught")[0].source == "canary"
    shoal.records.verify_audit()
    actions = [r.action for r in shoal.records.list_audit() if r.subject == "identity key"]
    assert actions == ["begin rotation", "switch"]


def test_one_rotation_after_the_other(start: Start, run: Run, folder: Folder) -> None:
    never = start(data="never")
    on = ("--data", folder.path)
    shoal = start()
    gone: set[str] = set()
    for part in parts():
        assert told(feed(shoal, part)) == told(feed(never, part))
        shoal.close()
        if folder.rotation() is not None:
            gone |= {t for b in bodies(folder) for t in tokens(b)}
            assert archive_all(folder) > 0
            assert run("keys", "rotate-identity", "--finish", "--now", *on).code == 0
            assert left_of(folder, gone) == []
        assert run("keys", "rotate-identity", *on).code == 0
        shoal = start()
    assert [line.split()[2] for line in run("keys", "epochs", *on).out.splitlines()] == [
        "destroyed", "destroyed", "in", "noted"
    ]  # fmt: skip
    assert everything(shoal) == everything(never)


def bodies_of(shoal: Shoal) -> list[bytes]:
    return [b for e in shoal.history.read() for b in e.events]


def bodies(folder: Folder) -> list[bytes]:
    return list(logged(folder)[0])


def logged(folder: Folder) -> tuple[list[bytes], list[bytes]]:
    """Events, and everything else, that hot log and archive hold."""
    cold = ColdLog(folder.cold)
    with EmbeddedValkey(folder.valkey) as valkey:
        entries = [*EventLog(valkey.client()).read(), *cold.read()]
        rest = sorted(k for k in valkey.client().scan_iter() if not k.endswith(b":lease"))
    return [b for e in entries for b in e.events], rest + [
        part for e in entries for part in (e.answers, e.body)
    ]


def left_of(folder: Folder, gone: set[str]) -> list[str]:
    """Where tokens are still found: in files as they are, and in what packed ones hold."""
    halves = {t[2:18] for t in gone}
    raw = [re.escape(n) for h in halves for n in (bytes.fromhex(h), bytes.fromhex(h)[::-1])]
    texts = [h.encode() for h in halves]
    found = [str(p) for p in holding(folder, b"|".join([*raw, *texts]))]
    events, rest = logged(folder)
    packed = b"\n".join([*events, *rest])
    for path in ColdLog(folder.cold).files():
        packed += str(pq.read_table(path).to_pylist()).encode()
        packed += str(pq.read_schema(path).metadata).encode()
    return found + [h for h in halves if h.encode() in packed]


def holding(folder: Folder, pattern: bytes) -> list[Path]:
    files = [p for p in folder.path.rglob("*") if p.is_file()]
    return [p for p in files if re.search(pattern, p.read_bytes())]


# --- crashes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in its overlap, with snapshots, three archive files, a hot log and a case."""
    folder = Folder(tmp_path_factory.mktemp("prepared") / "data")
    before, between, _ = parts()

    def run_once(events: list[bytes]) -> None:
        shoal = Shoal(folder, read_policy(), None)
        shoal.start()
        for event in events:
            feed(shoal, [event])
        shoal.look(everyone=True)
        if folder.rotation() is not None:
            shoal.records.add_canary(shoal.canary_mark("a prompt"), "station")
        shoal.close()

    run_once(before)
    with records_of(folder) as records:
        rotation.begin(folder, records, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cold_module, "FILE_EVENTS", 20)
        archive_all(folder)
    run_once(between)
    return folder.path


def records_of(folder: Folder) -> Records:
    return Records(folder.records_url, clock=lambda: 7, anchors=folder.anchors)


def finish(folder: Folder) -> None:
    with records_of(folder) as records:
        rotation.finish(folder, records, 9, early=True)


def outcome(folder: Folder) -> dict[str, Any]:
    """All that a switch leaves behind, but the times and numbers of runs."""
    with records_of(folder) as records:
        page = records.list_cases()
        kept = [(c.body, c.status) for c in page.cases], [c.mark for c in records.list_canaries()]
        switches = [r.body["epoch"] for r in records.list_audit() if r.action == "switch"]
        records.verify_audit()
    events, rest = logged(folder)
    return {
        "events": events,
        "rest": rest,
        "records": kept,
        "switches": switches,
        "key": (folder.path / "identity.key").read_bytes(),
        "files": sorted(p.name for p in folder.path.iterdir() if p.name.startswith("identity")),
        "epochs": folder.past_epochs(),
    }


@pytest.fixture(scope="module")
def uninterrupted(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = Folder(tmp_path_factory.mktemp("whole") / "data")
    shutil.copytree(prepared, folder.path)
    finish(folder)
    return outcome(folder)


class Killed(BaseException):
    """What no code of ours expects."""


STEPS = [name for name, f in vars(rotation._Switch).items() if callable(f) and name[0] != "_"]
INSIDE = [
    (cold_module, "_save_entries"),
    (rotation.Renaming, "bodies"),
    (rotation.Renaming, "text"),
    (rotation.Renaming, "mark"),
    (EventLog, "rewrite_file"),
    (Folder, "_write"),
    (Folder, "drop_rotation"),
]


def dying(call: Callable[..., Any], at: int, before: bool) -> Callable[..., Any]:
    """`call`, which is killed the `at`th time that it is called: at its begin, or its end."""
    calls = 0

    def called(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and before:
            raise Killed
        told = call(*args, **more)
        if calls == at:
            raise Killed
        return told

    return called


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("where", "name", "at"),
    [(rotation._Switch, step, 1) for step in STEPS if step != "run"]
    + [(where, name, at) for where, name in INSIDE for at in (1, 2)],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_a_switch_that_is_killed_goes_on(
    prepared: Path,
    uninterrupted: dict[str, Any],
    folder: Folder,
    where: Any,
    name: str,
    at: int,
    before: bool,
) -> None:
    shutil.copytree(prepared, folder.path)
    died = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, dying(getattr(where, name), at, before))
        try:
            finish(folder)
        except Killed:
            died = True
    assert died or (name, at) in {("rewrite_file", 2), ("drop_rotation", 2), ("mark", 2)}
    open_ = folder.rotation()
    if open_ is not None and open_.switching:
        with pytest.raises(FolderProblem, match="--finish"):
            Shoal(folder, read_policy(), None)
        with pytest.raises(FolderProblem, match="--finish"):
            archive_all(folder)
        with records_of(folder) as records, pytest.raises(RotationProblem, match="--finish"):
            rotation.cancel(folder, records)
    if open_ is not None:
        finish(folder)
    assert outcome(folder) == uninterrupted


def test_a_switch_whose_process_is_killed_goes_on(
    prepared: Path, uninterrupted: dict[str, Any], folder: Folder
) -> None:
    shutil.copytree(prepared, folder.path)
    words = ["keys", "rotate-identity", "--finish", "--now", "--data", str(folder.path)]
    with subprocess.Popen([sys.executable, "-m", "service.cli", *words]) as command:
        while command.poll() is None:
            open_ = folder.rotation()
            if open_ is None or open_.switching:
                command.kill()
                break
    if folder.rotation() is not None:
        finish(folder)
    found = outcome(folder)
    assert len(found.pop("epochs")) == 1  # by the clock, if it was quicker than we
    assert found == {k: v for k, v in uninterrupted.items() if k != "epochs"}


def test_what_the_crashes_leave_is_worth_comparing(
    prepared: Path, uninterrupted: dict[str, Any]
) -> None:
    folder = Folder(prepared)
    assert len(ColdLog(folder.cold).files()) >= 3
    assert len(uninterrupted["events"]) > 100
    assert not {t for b in uninterrupted["events"] for t in tokens(b)} & ours(bodies(folder))
    assert all(uninterrupted["records"])
    assert (uninterrupted["switches"], uninterrupted["epochs"]) == ([2], [9])
    assert uninterrupted["files"] == ["identity.epochs", "identity.key"]
    assert not any(b"pairs" in key for key in uninterrupted["rest"])


# --- misuse, and what else happens meanwhile


def test_misuse_is_told_in_a_sentence(start: Start, run: Run, folder: Folder) -> None:
    on = ("--data", folder.path)

    def refused(*words: str) -> str:
        ran = run("keys", "rotate-identity", *words, *on)
        assert (ran.code, ran.out) == (2, ""), ran
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", ran.err).split())

    assert "no rotation of the identity key is open" in refused("--finish")
    assert "no rotation of the identity key is open" in refused("--cancel")
    assert "holds no log of its own" in refused()
    assert "no identity key" in run("keys", "epochs", *on).err
    assert not folder.path.exists()  # none of them has made anything
    assert "--now belongs to --finish" in refused("--now")
    assert "give one" in refused("--finish", "--cancel")
    shoal = start()
    feed(shoal, a_ring())
    assert "is in use by process" in refused()
    assert folder.rotation() is None
    shoal.close()
    assert run("keys", "epochs", *on).out == "epoch 1  in use\n"
    assert run("keys", "rotate-identity", *on).code == 0
    assert "is open" in refused()
    said = run("keys", "epochs", *on).out.splitlines()
    assert said[0] == "epoch 1  in use, to be destroyed at the switch"
    assert said[1].startswith("epoch 2  noted since 20")
    assert "events of 2021-01-26 00:53 UTC are in" in " ".join(said)  # 366 days after START
    assert "366 more days of events" in refused("--finish")
    shoal = start()
    assert "is in use by process" in refused("--finish", "--now")
    assert "is in use by process" in refused("--cancel")
    over = one(9000, "later", occurred_at=START + 366 * 86_400_000 + 10**6)
    feed(shoal, [msgspec.json.encode(over)])
    shoal.close()
    records = folder.path / "records.db"
    records.rename(records.with_suffix(".away"))
    assert "give --records" in refused("--finish")
    records.with_suffix(".away").rename(records)
    ran = run("keys", "rotate-identity", "--finish", *on)
    assert ran.code == 0, ran
    said = run("keys", "epochs", *on).out.splitlines()
    assert said[0].startswith("epoch 1  destroyed 20")
    assert said[1:] == ["epoch 2  in use"]
    assert "no rotation" in refused("--finish")


def test_a_folder_that_cannot_be_written(start: Start, run: Run, folder: Folder) -> None:
    start().close()

    def full(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "identity.rotation")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fchmod", full)
        ran = run("keys", "rotate-identity", "--data", folder.path)
    assert (ran.code, folder.rotation()) == (2, None)
    assert "cannot be used: Read-only file system" in ran.err


def test_nothing_is_opened_while_somebody_writes(
    start: Start, run: Run, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    start().close()

    def taken_over(_: Folder, client: Any) -> int:
        client.incr("{shoal:log}:token")  # as a standby does
        return 0

    monkeypatch.setattr(rotation, "_newest", taken_over)
    ran = run("keys", "rotate-identity", "--data", folder.path)
    assert (ran.code, folder.rotation()) == (2, None)
    assert "stop it first" in ran.err


def test_a_log_that_dies_is_told_in_a_sentence(
    start: Start, run: Run, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    start().close()

    def dead(*_: Any) -> int:
        raise redis.ConnectionError("it is gone")

    assert run("keys", "rotate-identity", "--data", folder.path).code == 0
    monkeypatch.setattr(EventLog, "rename", dead)
    ran = run("keys", "rotate-identity", "--finish", "--now", "--data", folder.path)
    assert ran.code == 2
    assert "it is gone. Nothing is lost: give the same command again" in ran.err
    said = run("keys", "epochs", "--data", folder.path).out
    assert "epoch 2  switch begun and not ended" in said


def test_what_was_given_up_leaves_nothing(start: Start, run: Run, folder: Folder) -> None:
    before, between, after = parts()
    shoal = start()
    feed(shoal, before)
    shoal.close()
    on = ("--data", folder.path)
    key = (folder.path / "identity.key").read_bytes()
    run("keys", "rotate-identity", *on)
    shoal = start()
    feed(shoal, between)
    found = bodies_of(shoal)
    assert shoal.client.hlen(PAIRS) > 15
    shoal.close()
    half = bytes.fromhex(min(ours(found))[2:18])
    assert run("keys", "rotate-identity", "--cancel", *on).code == 0
    assert (folder.path / "identity.key").read_bytes() == key
    assert [p for p in holding(folder, re.escape(half)) if p.parent.name == "appendonlydir"] == []
    assert folder.rotation() is None
    shoal = start()
    assert bodies_of(shoal) == found
    assert shoal.client.exists(PAIRS) == 0
    assert {a.status for a in feed(shoal, after)} == {"new", "duplicate"}


def test_who_is_erased_in_an_overlap_leaves_no_pair(start: Start, run: Run, folder: Folder) -> None:
    start().close()
    run("keys", "rotate-identity", "--data", folder.path)
    shoal = start()
    feed(shoal, a_ring())
    pairs = set(shoal.client.hkeys(PAIRS))
    alice = one(900, "alice", "account_signup", device_id="hers", ip="203.0.113.9")
    feed(shoal, [msgspec.json.encode(alice)])
    own = set(shoal.client.hkeys(PAIRS)) - pairs
    assert len(own) == 1  # the address is the ring's, too
    assert shoal.erase("alice") is not None
    assert set(shoal.client.hkeys(PAIRS)) == pairs
    assert holding(folder, re.escape(own.pop())) == []
    feed(shoal, [msgspec.json.encode(alice | {"event_id": "again", "account_id": "bob"})])
    assert len(shoal.client.hkeys(PAIRS)) == len(pairs) + 1


def test_a_token_that_an_edge_has_made_stays(start: Start, run: Run, folder: Folder) -> None:
    start().close()
    run("keys", "rotate-identity", "--data", folder.path)
    shoal = start()
    edge, upper = "h:" + "ab" * 16, "h:" + "AB12" * 8
    other = "h:of another form"
    hashed = [
        one(n, f"a{n}", "account_signup", device_id=d) for n, d in enumerate((edge, upper, other))
    ]
    feed(shoal, [msgspec.json.encode(e) for e in hashed])
    own, raw = [], ["raw first", "raw last"]
    for n, value in enumerate(raw):
        token = shoal.secret.token("device", value)  # from one who holds the old key, too
        own.append(token)
        for m, device in enumerate((value, token) if n == 0 else (token, value)):
            sent = one(10 + 2 * n + m, f"b{n}{m}", device_id=device)
            feed(shoal, [msgspec.json.encode(sent)])
    shoal.close()
    assert run("keys", "rotate-identity", "--finish", "--now", "--data", folder.path).code == 0
    shoal = start()
    devices = [decode(b).device_id for b in bodies_of(shoal)]
    assert devices[:3] == [edge, upper, other]
    new = [shoal.secret.token("device", value) for value in raw]
    assert devices[3:] == [new[0], new[0], new[1], new[1]]
    assert not {*new} & {*own}


def test_a_standby_of_another_key_does_not_take_over(start: Start, folder: Folder) -> None:
    writer = start()
    feed(writer, a_ring())
    standby = start(standby=True)
    standby._stopping.set()  # no thread of its own does what follows
    folder.keep_rotation(ROTATION)
    writer.client.delete("{shoal:log}:lease")
    with pytest.raises(rotation.KeyChanged, match="start it anew"):
        standby._follow_or_succeed()
    assert standby.standby
    folder.drop_rotation()
    standby._follow_or_succeed()
    assert not standby.standby


def test_over_a_shared_log_there_is_none(
    start: Start, run: Run, folder: Folder, valkey: EmbeddedValkey
) -> None:
    valkey.client().flushall()
    start(state=valkey.url).close()
    ran = run("keys", "rotate-identity", "--data", folder.path)
    assert ran.code == 2
    assert "over a shared Redis it cannot be yet" in ran.err
    folder.keep_rotation(ROTATION)
    with pytest.raises(Unavailable, match="--cancel"):
        start(state=valkey.url)


def test_records_of_every_database_are_renamed_once(database: Callable[[], str]) -> None:
    with Records(database(), clock=lambda: 5) as records:
        member = "h:" + "12" * 16  # an account's name may look like a token
        body = {"members": [member], "evidence": [{"entity": f"h:{'34' * 8}…", "text": "(h:…)"}]}
        records.open_or_update_case("k", "review", body)
        records.add_canary("h:" + "56" * 16, "station")
        calls = []
        second = {"epoch": 2, "mark": "m"}

        def text(words: str) -> str:
            calls.append(words)
            return words.replace("34" * 8, "43" * 8)

        told, dead = records.rename_tokens(second, text, lambda m: (m.replace("56", "65"), False))
        assert (told["cases"], told["canaries"], dead) == (1, 1, [1])
        seen = len(calls)
        assert records.rename_tokens(second, text, lambda m: (m, True)) == ({}, [])
        assert len(calls) == seen > 0
        assert records.list_canaries()[0].mark == "h:" + "65" * 16
        (case,) = records.list_cases().cases
        assert case.body["evidence"][0]["entity"] == f"h:{'43' * 8}…"
        records.audit("ann", "begin rotation", "identity key", {"epoch": 3})
        records.rename_tokens({"epoch": 3}, text, lambda m: (m, True))
        assert len(calls) > seen
