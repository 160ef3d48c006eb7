"""One writer a log: leases, tokens, and what becomes of whoever is no longer the writer."""

import time
from pathlib import Path

import msgspec
import pytest
from served import Start, a_ring, one
from test_shoal import feed, same_state

from service import lease
from service.lease import Lease
from service.log import EventLog, Fenced
from service.shoal import Shoal, Unavailable
from service.valkey import EmbeddedValkey, FolderInUse, ValkeyError


def test_a_token_ends_the_writing_of_the_one_before(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        first, second = (Lease(valkey.client(), name) for name in ("first", "second"))
        a, b = EventLog(valkey.client()), EventLog(valkey.client())
        a.token = first.take()
        assert a.append([b"x"], b"[]") == a.last_id()
        assert second.take() is None
        assert first.renew(a.token or 0)
        b.token = second.take(by_force=True)
        assert b.token == (a.token or 0) + 1
        assert not first.renew(a.token or 0)
        for write in (lambda: a.append([b"y"], b"[]"), lambda: a.append_control("z")):
            with pytest.raises(Fenced):
                write()
        with pytest.raises(Fenced):
            a.rewrite(lambda body: True)
        assert [e.events for e in b.read()] == [[b"x"]]
        b.append([b"y"], b"[]")
        assert b.length() == 2


def test_a_lease_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 0.1)
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        first, second = (Lease(valkey.client(), name) for name in ("first", "second"))
        token = first.take()
        deadline = time.monotonic() + 10
        while (taken := second.take()) is None:
            assert time.monotonic() < deadline
        assert taken == (token or 0) + 1


def until_same(writer: Shoal, standby: Shoal) -> None:
    deadline = time.monotonic() + 30
    while standby.fault is not None or standby.accepted != writer.accepted:
        assert time.monotonic() < deadline, standby.fault
        time.sleep(0.02)
    for shoal in (writer, standby):
        shoal.look(everyone=True)
    same_state(writer, standby)


def test_a_standby_has_the_state_of_its_writer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 1.0)
    lines = a_ring()
    writer = start()
    feed(writer, lines[:30])
    with pytest.raises(FolderInUse, match="is in use by process"):
        start()
    standby = start(standby=True)
    feed(writer, lines[30:])
    until_same(writer, standby)
    with pytest.raises(Unavailable, match="this is a standby"):
        feed(standby, lines)
    assert not standby.snapshot_due()

    assert writer.erase("ring3")  # whoever follows forgets it, too
    deadline = time.monotonic() + 30
    while "ring3" in standby.engine.ledger:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    until_same(writer, standby)

    writer.close()
    deadline = time.monotonic() + 30
    while standby.standby or standby.fault is not None:
        assert time.monotonic() < deadline, standby.fault
        time.sleep(0.02)
    told = feed(standby, lines)
    assert {a.status for a in told if a.event_id not in ("e109", "e110", "e111")} == {"duplicate"}
    (new,) = feed(standby, [msgspec.json.encode(one(999))])
    assert new.status == "new"


def test_a_standby_without_a_service_becomes_one(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 0.5)
    alone = start(standby=True)
    deadline = time.monotonic() + 30
    while alone.standby:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert feed(alone, [msgspec.json.encode(one(1))])[0].status == "new"


def test_a_folder_that_nobody_serves_is_said(tmp_path: Path) -> None:
    from service.valkey import server_of

    with pytest.raises(ValkeyError, match="no service has ever run"):
        server_of(tmp_path, 1.0)
