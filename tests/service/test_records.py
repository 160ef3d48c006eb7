import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from databases import load_sql, run, schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

import service
from service.audit import CHAIN_START, AuditBroken, append, parse_head
from service.database import HEAD, RecordsError, SchemaUnknown, _upgrade
from service.records import (
    CaseConflict,
    Decision,
    Label,
    Note,
    NotFound,
    Records,
    Source,
    Verdict,
)
from service.tables import audit_head, audit_rows, metadata

DATABASE_PER_EXAMPLE = settings(
    max_examples=12,  # a database takes a tenth of a second to make
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
Fresh = Callable[[], Records]
words = st.text(min_size=1, max_size=12)


class Clock:
    """A clock that a test advances."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


@pytest.fixture
def url(database: Callable[[], str]) -> str:
    return database()


@pytest.fixture
def records(url: str, clock: Clock) -> Iterator[Records]:
    """Empty records, on each kind of database."""
    with Records(url, clock=clock) as records:
        yield records


@pytest.fixture
def fresh(database: Callable[[], str]) -> Callable[[], Records]:
    """Records of its own for each example of a property."""
    return lambda: Records(database(), clock=Clock())


_numbers = itertools.count()


def decision(event_id: str, account_id: str = "acct_1", at: int = 5, **more: Any) -> Decision:
    return replace(
        Decision(event_id, account_id, at, "review", 0.5, [{"code": "C1"}], "m1", "p1"), **more
    )


# --- opening


def test_settings_of_sqlite(path: Path, clock: Clock) -> None:
    with Records(f"sqlite:///{path}", clock=clock) as records, records._read() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    assert pragma == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "synchronous": 2,
    }


def test_reopened_records_are_there(url: str, clock: Clock) -> None:
    with Records(url, clock=clock) as records:
        records.add_labels([Label("honest", "import", 1, account_id="中转站 🐟")])
    with Records(url, clock=clock) as records:
        assert [label.account_id for label in records.labels()] == ["中转站 🐟"]


def test_a_newer_schema_is_refused_and_left_as_it_is(url: str, clock: Clock) -> None:
    Records(url, clock=clock).close()
    run(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaUnknown, match=f"schema 9999, this Shoal reads {HEAD} and older"):
        Records(url, clock=clock)
    assert run(url, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_shoal_before_migrations_says_that_it_is_too_old(url: str, clock: Clock) -> None:
    Records(url, clock=clock).close()
    assert run(url, "SELECT max(version) FROM schema_version") == [(2,)]


def test_foreign_tables_are_refused(url: str, clock: Clock) -> None:
    run(url, "CREATE TABLE labels (x INTEGER)", "INSERT INTO labels VALUES (7)")
    with pytest.raises(SchemaUnknown, match="table 'labels' that Shoal did not make"):
        Records(url, clock=clock)
    assert run(url, "SELECT * FROM labels") == [(7,)]
    with pytest.raises(ProgrammingError if "postgresql" in url else OperationalError):
        run(url, "SELECT * FROM cases")


# --- migrations


def test_migrations_lead_to_the_tables(url: str, clock: Clock) -> None:
    """What the versions made, column by column, is what tables.py declares."""
    with Records(url, clock=clock) as records, records._read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        kept = {"alembic_version"}
        assert [
            change for change in compare_metadata(context, metadata) if change[1].name not in kept
        ] == []
        script = ScriptDirectory(str(Path(service.__file__).parent / "migrations"))
        assert script.get_heads() == [HEAD]


OLD = (Path(__file__).parent / "fixtures" / "records_schema_1.sql").read_text()


def contents(url: str, name: str) -> list[tuple[object, ...]]:
    return sorted(run(url, f"SELECT * FROM {name}"), key=repr)


def test_records_of_schema_1_are_brought_up_to_date_without_loss(path: Path, clock: Clock) -> None:
    load_sql(path, OLD)
    url = f"sqlite:///{path}"
    tables = [
        str(name) for (name,) in run(url, "SELECT name FROM sqlite_master WHERE type='table'")
    ]
    before = {name: contents(url, name) for name in tables if name != "schema_version"}
    assert all(before.values())
    with Records(url, clock=clock) as records:
        for name, rows in before.items():  # a later version may have added columns
            assert [row[: len(rows[0])] for row in contents(url, name)] == rows
        assert records.verify_audit() == 3
        key = records.find_key("shoal_00112233445566ff_golden-secret-golden-secret-golden-secret-g")
        assert key is not None
        assert key.name == "exporter"
        closed, live = reversed(records.list_cases().cases)
        assert (closed.status, live.status) == ("closed", "open")
        assert [n.text for n in records.get_case(closed.id).notes] == ["seen before"]
        (label,) = records.label_history(account_id="acct_1")
        assert label.note == "中转站 🐟"
        records.claim_case(live.id, "bob")
        assert records.verify_audit() == 4


def test_postgresql_of_schema_1_is_brought_up_to_date(server: str, clock: Clock) -> None:
    """As its tables were before migrations: the first version, without Alembic's own table."""
    url = schema(server)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.begin() as connection:
        _upgrade(connection, None, url, to="0001")
    engine.dispose()
    run(
        url,
        "DROP TABLE alembic_version",
        "INSERT INTO labels VALUES (1, 'acct', NULL, 'honest', NULL, 'import', 5, NULL, 6)",
        "SELECT setval('labels_id_seq', 1)",
    )
    with Records(url, clock=clock) as records:
        records.add_labels([Label("abusive", "analyst", 7, account_id="acct")])
        assert [x.label for x in records.label_history(account_id="acct")] == ["honest", "abusive"]


@pytest.mark.parametrize("version", [0, 2, 99])
def test_a_schema_before_migrations_that_never_was(path: Path, clock: Clock, version: int) -> None:
    load_sql(path, OLD.replace('"schema_version" VALUES(1)', f'"schema_version" VALUES({version})'))
    with pytest.raises(SchemaUnknown, match=f"schema {version}, this Shoal reads {HEAD}"):
        Records(f"sqlite:///{path}", clock=clock)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "cannot be read"),
        ("mysql://me:hunter2@h/x", "only sqlite and postgresql"),
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:////absent/folder/x.db", "unable to open database file"),
    ],
)
def test_bad_urls_are_said(url: str, said: str, clock: Clock) -> None:
    with pytest.raises(RecordsError, match=said) as caught:
        Records(url, clock=clock)
    assert "hunter2" not in str(caught.value)


def test_file_that_is_no_database(path: Path, clock: Clock) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(RecordsError, match=r"records\.db: file is not a database"):
        Records(f"sqlite:///{path}", clock=clock)


# --- keys


def test_key_is_found_by_its_secret_only(records: Records, clock: Clock) -> None:
    secret = records.create_key("ingest key ☂", ["read", "ingest", "read"])
    prefix, id, rest = secret.split("_", 2)
    assert prefix == "shoal"
    assert len(rest) >= 43
    found = records.find_key(secret)
    assert found is not None
    assert (found.id, found.name, sorted(found.scopes)) == (id, "ingest key ☂", ["ingest", "read"])
    assert found.created_at == clock.now
    other = records.create_key("other", ["read"]).split("_", 2)[2]
    for wrong in (f"shoal_{id}_{other}", f"shoal_{id}_", f"shoal_{id}", id, "", "é_é_é", "shoal__"):
        assert records.find_key(wrong) is None


def test_secret_is_not_stored(path: Path, clock: Clock) -> None:
    records = Records(f"sqlite:///{path}", clock=clock)
    secret = records.create_key("k", ["admin"]).split("_", 2)[2].encode()
    records.close()
    for file in path.parent.iterdir():
        assert secret not in file.read_bytes()


def test_revoked_key_is_not_found_but_listed(records: Records, clock: Clock) -> None:
    secret = records.create_key("k", ["act"])
    key = records.find_key(secret)
    assert key is not None
    clock.now += 1
    revoked = records.revoke_key(key.id)
    assert revoked.revoked_at == clock.now
    clock.now += 1
    assert records.revoke_key(key.id) == revoked
    assert records.find_key(secret) is None
    assert records.list_keys() == [revoked]
    with pytest.raises(NotFound, match="no key 'absent'"):
        records.revoke_key("absent")


def test_unknown_scope_gets_a_hint(records: Records) -> None:
    with pytest.raises(ValueError, match=r"scope is 'reed'.*did you mean 'read'"):
        records.create_key("k", ["reed"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least one scope"):
        records.create_key("k", [])


# --- labels

any_label = st.builds(
    lambda label, source, at, account, subject, typology, note: Label(
        label,
        source,
        at,
        account_id=subject if account else None,
        cluster_id=None if account else subject,
        typology=typology,
        note=note,
    ),
    st.sampled_from(get_args(Verdict)),
    st.sampled_from(get_args(Source)),
    st.integers(0, 6),
    st.booleans(),
    st.sampled_from(["a", "b", "ç 🐟"]),
    st.none() | words,
    st.none() | st.text(),
)


@DATABASE_PER_EXAMPLE
@given(batches=st.lists(st.lists(any_label, max_size=6), max_size=4), as_of=st.integers(-1, 7))
def test_newest_label_wins_and_history_is_kept(
    fresh: Fresh, batches: list[list[Label]], as_of: int
) -> None:
    with fresh() as records:
        for batch in batches:
            assert records.add_labels(batch) == len(batch)
        given_labels = [label for batch in batches for label in batch]
        for bound in (None, as_of):
            newest: dict[tuple[str | None, str | None], Label] = {}
            for label in sorted(given_labels, key=lambda label: label.at):
                if bound is None or label.at <= bound:
                    newest[label.account_id, label.cluster_id] = label
            found = records.labels(bound)
            assert {(label.account_id, label.cluster_id): label for label in found} == newest
            assert len(found) == len(newest)
            assert [label.at for label in found] == sorted(label.at for label in found)
        for subject in ("a", "b", "ç 🐟"):
            assert records.label_history(account_id=subject) == sorted(
                (label for label in given_labels if label.account_id == subject),
                key=lambda label: label.at,
            )


def test_a_bad_label_keeps_none_of_its_batch(records: Records) -> None:
    good = Label("abusive", "analyst", 1, account_id="a")
    cases: list[tuple[Any, str]] = [
        (replace(good, label="abusiv"), "label 1: label is 'abusiv'.*did you mean 'abusive'"),  # type: ignore[arg-type]
        (replace(good, source="me"), "label 1: source is 'me'"),  # type: ignore[arg-type]
        (replace(good, account_id=None), "label 1: give account_id or cluster_id"),
        (replace(good, cluster_id="c"), "label 1: give account_id or cluster_id"),
    ]
    for bad, said in cases:
        with pytest.raises(ValueError, match=said):
            records.add_labels([good, bad])
    assert records.labels() == []


# --- cases


def test_case_from_opening_to_decision(records: Records, clock: Clock) -> None:
    opened = records.open_or_update_case("k1", "review", {"members": ["a", "b"], "says": "鱼"})
    assert (opened.status, opened.body) == ("open", {"members": ["a", "b"], "says": "鱼"})
    clock.now += 10
    claimed = records.claim_case(opened.id, "ana")
    assert (claimed.status, claimed.claimed_by, claimed.updated_at) == ("claimed", "ana", clock.now)
    assert records.claim_case(opened.id, "ana") == claimed
    clock.now += 10
    updated = records.open_or_update_case("k1", "suspend", {"members": ["a", "b", "c"]})
    assert (updated.id, updated.status, updated.claimed_by) == (opened.id, "claimed", "ana")
    assert (updated.proposed_action, updated.opened_at) == ("suspend", opened.opened_at)
    noted = records.note_case(opened.id, "bob", "seen before")
    assert noted.notes == (Note("bob", clock.now, "seen before"),)
    clock.now += 10
    closed = records.decide_case(
        opened.id,
        "ana",
        "suspend",
        label="abusive",
        typology="sms_farm",
        accounts=["a", "b", "a"],
        note="one desk",
    )
    assert (closed.status, closed.decided_action, closed.decided_by) == ("closed", "suspend", "ana")
    assert closed.decided_at == clock.now
    assert [note.text for note in closed.notes] == ["seen before", "one desk"]
    said = Label("abusive", "analyst", clock.now, typology="sms_farm", note="one desk")
    assert records.labels() == [
        replace(said, cluster_id="k1"),
        replace(said, account_id="a"),
        replace(said, account_id="b"),
    ]
    assert records.get_case(opened.id) == closed


def test_closed_case_stays_closed_unless_reopened(records: Records) -> None:
    first = records.open_or_update_case("k1", "review", {})
    closed = records.decide_case(first.id, "ana", "allow")
    again = records.open_or_update_case("k1", "suspend", {"grown": True})
    assert again == replace(closed, notes=())
    second = records.open_or_update_case("k1", "suspend", {"grown": True}, reopen=True)
    assert second.id > first.id
    assert second.status == "open"
    assert records.open_or_update_case("k1", "suspend", {}, reopen=True).id == second.id
    assert records.get_case(first.id) == closed


def test_conflicts_name_the_other_person(records: Records) -> None:
    id = records.open_or_update_case("k1", "review", {}).id
    records.claim_case(id, "ana")
    with pytest.raises(CaseConflict, match=f"cannot claim case {id}: ana has claimed it"):
        records.claim_case(id, "bob")
    with pytest.raises(CaseConflict, match=f"cannot decide case {id}: ana has claimed it"):
        records.decide_case(id, "bob", "allow", label="honest")
    assert records.labels() == []
    records.decide_case(id, "ana", "allow")
    again: list[Callable[[], object]] = [
        lambda: records.claim_case(id, "ana"),
        lambda: records.decide_case(id, "ana", "suspend"),
    ]
    for act in again:
        with pytest.raises(CaseConflict, match=f"case {id}: ana closed it with 'allow'"):
            act()
    assert records.note_case(id, "bob", "late thought").status == "closed"


@pytest.mark.parametrize("id", [0, -1, 7, 2**63, 10**30])
def test_absent_case(records: Records, id: int) -> None:
    acts: list[Callable[[], object]] = [
        lambda: records.get_case(id),
        lambda: records.claim_case(id, "ana"),
        lambda: records.note_case(id, "ana", "x"),
        lambda: records.decide_case(id, "ana", "allow"),
    ]
    for act in acts:
        with pytest.raises(NotFound, match=f"no case {id}"):
            act()


def test_a_bad_decision_changes_nothing(records: Records) -> None:
    opened = records.open_or_update_case("k1", "review", {})
    with pytest.raises(ValueError, match=r"action is 'suspnd'.*did you mean 'suspend'"):
        records.decide_case(opened.id, "ana", "suspnd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="label is 'bad'"):
        records.decide_case(opened.id, "ana", "suspend", label="bad")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="some text"):
        records.note_case(opened.id, "ana", " \n")
    assert records.get_case(opened.id) == opened
    assert records.labels() == []


@DATABASE_PER_EXAMPLE
@given(
    limit=st.integers(1, 5),
    before=st.lists(st.sampled_from(["open", "claimed", "closed"]), max_size=14),
    status=st.sampled_from([None, "open", "claimed", "closed"]),
    data=st.data(),
)
def test_pages_are_complete_and_do_not_repeat(
    fresh: Fresh, limit: int, before: list[str], status: Any, data: st.DataObject
) -> None:
    """A walk sees each case that kept its status once, while cases are opened and closed."""
    with fresh() as records:

        def open_case(state: str) -> int:
            id = records.open_or_update_case(f"k{next(_numbers)}", "review", {}).id
            if state == "claimed":
                records.claim_case(id, "ana")
            if state == "closed":
                records.decide_case(id, "ana", "allow")
            return id

        states = {open_case(state): state for state in before}
        steady = {id for id, state in states.items() if status in (None, state)}
        seen: list[int] = []
        cursor = None
        for _ in range(100):
            page = records.list_cases(status, cursor, limit)
            assert len(page.cases) <= limit
            assert not {case.id for case in page.cases} & set(seen)
            seen += [case.id for case in page.cases]
            cursor = page.next_cursor
            if cursor is None:
                break
            open_case("open")
            live = [id for id, state in states.items() if state != "closed"]
            changed = data.draw(st.sampled_from([None, *live]))
            if changed is not None:
                records.decide_case(changed, "ana", "allow")
                states[changed] = "closed"
                if status not in (None, "closed"):
                    steady.discard(changed)
        assert cursor is None
        assert seen == sorted(seen, reverse=True)
        assert steady <= set(seen)
        if status is None:
            assert set(seen) == set(states)


@pytest.mark.parametrize("cursor", ["", "x", "c", "c-1", "5", "c" + "9" * 19, "c１"])
def test_bad_cursor(records: Records, cursor: str) -> None:
    with pytest.raises(ValueError, match="next_cursor"):
        records.list_cases(cursor=cursor)


def test_bad_status_and_limit(records: Records) -> None:
    with pytest.raises(ValueError, match=r"status is 'opened'.*did you mean 'open'"):
        records.list_cases("opened")  # type: ignore[arg-type]
    for limit in (0, 501):
        with pytest.raises(ValueError, match="from 1 to 500"):
            records.list_cases(limit=limit)


# --- decisions


def test_first_decision_of_an_event_is_kept(records: Records) -> None:
    first = decision("e1", reasons=[{"code": "☂", "impact": 0.25}], cluster_id="k")
    assert records.add_decisions([first, decision("e1", action="allow"), decision("e2")]) == 2
    assert records.add_decisions([decision("e1", score=0.9), decision("e3")]) == 1
    assert records.decision_of_event("e1") == first
    assert records.decision_of_event("absent") is None
    assert records.add_decisions([]) == 0


@DATABASE_PER_EXAMPLE
@given(
    events=st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from("ab"), st.integers(0, 5)), max_size=40
    ),
    limit=st.integers(1, 50),
)
def test_decisions_of_an_account(
    fresh: Fresh, events: list[tuple[int, str, int]], limit: int
) -> None:
    with fresh() as records:
        kept: dict[str, Decision] = {}
        for number, account, at in events:
            new = decision(f"e{number:02}", account, at)
            assert records.add_decisions([new]) == (new.event_id not in kept)
            kept.setdefault(new.event_id, new)
        for account in "ab":
            expected = sorted(
                (d for d in kept.values() if d.account_id == account),
                key=lambda d: (d.at, d.event_id),
                reverse=True,
            )
            assert records.decisions_of(account, limit) == expected[:limit]


def test_large_batch(records: Records) -> None:
    batch = [decision(f"e{number}") for number in range(1201)]
    assert records.add_decisions(batch[:700]) == 700
    assert records.add_decisions(batch) == 501


def test_a_bad_decision_row_keeps_none_of_its_batch(records: Records) -> None:
    for bad, said in (
        (decision("e2", action="ban"), "event e2: action is 'ban'"),
        (decision("e2", score=float("nan")), "event e2: score is nan"),
        (decision("e2", score=float("inf")), "event e2: score is inf"),
    ):
        with pytest.raises(ValueError, match=said):
            records.add_decisions([decision("e1"), bad])
    assert records.decision_of_event("e1") is None


# --- canaries


def test_canary_labels_the_accounts_it_surfaces_on(records: Records, clock: Clock) -> None:
    canary = records.add_canary("h:01", "station 甲", "ten dollars")
    assert records.list_canaries() == [canary]
    with pytest.raises(RecordsError, match="mark 'h:01' already"):
        records.add_canary("h:01", "another")
    assert records.hit_canary("h:01", "acct_1", "e1", 7)
    assert not records.hit_canary("h:01", "acct_1", "e2", 8)
    assert records.hit_canary("h:01", "acct_2", "e3", 9)
    assert records.canary_accounts(canary.id) == ["acct_1", "acct_2"]
    note = f"canary {canary.id} through station 甲, event e1"
    assert records.label_history(account_id="acct_1") == [
        Label("abusive", "canary", 7, account_id="acct_1", note=note)
    ]
    with pytest.raises(NotFound, match="mark 'h:99'"):
        records.hit_canary("h:99", "acct_1", "e1", 7)


# --- audit

json_bodies = st.dictionaries(
    st.text(max_size=5),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    max_size=4,
)


@DATABASE_PER_EXAMPLE
@given(rows=st.lists(st.tuples(words, words, words, json_bodies), max_size=6))
def test_audit_round_trip_and_chain(
    fresh: Fresh, rows: list[tuple[str, str, str, dict[str, Any]]]
) -> None:
    with fresh() as records:
        written = [records.audit(*row, at=number) for number, row in enumerate(rows)]
        assert [(r.actor, r.action, r.subject, r.body) for r in written] == rows
        assert [r.seq for r in written] == list(range(1, len(rows) + 1))
        assert records.list_audit() == written
        assert records.list_audit(after_seq=2) == written[2:]
        assert records.verify_audit() == len(rows)


def test_audit_takes_the_clock(records: Records, clock: Clock) -> None:
    assert records.audit("ana", "suspend", "acct_1", {}).at == clock.now


def test_audit_cannot_be_changed_by_statement(records: Records, url: str) -> None:
    records.audit("ana", "suspend", "case 1", {})
    for statement in ("UPDATE audit SET actor = 'bob'", "DELETE FROM audit"):
        with pytest.raises(DBAPIError, match="append-only"):
            run(url, statement)
    assert records.verify_audit() == 1


@pytest.mark.parametrize(
    ("tampering", "said"),
    [
        ("UPDATE audit SET actor = 'bob' WHERE seq = 2", "row 2 is not what was written"),
        ("UPDATE audit SET body = '{}' WHERE seq = 2", "row 2 is not what was written"),
        ("UPDATE audit SET at = at + 1 WHERE seq = 1", "row 1 is not what was written"),
        ("UPDATE audit SET hash = prev_hash WHERE seq = 3", "row 3 is not what was written"),
        ("DELETE FROM audit WHERE seq = 2", "row 2 is missing"),
        ("DELETE FROM audit WHERE seq = 1", "row 1 is missing"),
        ("DELETE FROM audit WHERE seq = 3", "ends at row 2, but its head says row 3"),
        ("DELETE FROM audit", "ends at row 0, but its head says row 3"),
        ("DELETE FROM audit_head", "its head says nothing"),
    ],
)
def test_tampering_is_found(records: Records, url: str, tampering: str, said: str) -> None:
    for number in range(3):
        records.audit("ana", "act", f"s{number}", {"n": number})
    unguard(url)
    run(url, tampering)
    with pytest.raises(AuditBroken, match=said):
        records.verify_audit()


def unguard(url: str) -> None:
    """What a database's administrator does first."""
    if url.startswith("sqlite"):
        run(url, "DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete")
    else:
        run(url, "DROP TRIGGER audit_append_only ON audit")


@given(
    acts=st.integers(1, 6),
    data=st.data(),
    column=st.sampled_from(["actor", "action", "subject", "body"]),
)
@DATABASE_PER_EXAMPLE
def test_a_chain_rewritten_whole_is_found_by_its_anchors(
    database: Callable[[], str],
    tmp_path: Path,
    acts: int,
    data: st.DataObject,
    column: str,
) -> None:
    """Whoever may write all of the database changes a row, or cuts the tail, and hashes the rest."""
    url, anchors = database(), tmp_path / f"{next(_numbers)}.anchors"
    with Records(url, clock=Clock(), anchors=anchors) as records:
        for number in range(acts):
            records.audit("ana", "act", f"s{number}", {"n": number})
        known = records.audit_head()
        assert records.verify_audit(known) == acts
        first = data.draw(st.integers(1, acts))
        rows = [row._asdict() for row in _audit_rows(records)]
        cut = data.draw(st.booleans())
        kept, tail = rows[: first - 1], rows[first - 1 :]
        if not cut:
            tail[0][column] = '{"n":99}' if column == "body" else "somebody else"
            kept = rows
        unguard(url)
        _write_chain(records, kept)
        with pytest.raises(AuditBroken, match=f"row {acts if cut else first} "):
            records.verify_audit()
    # without the folder's anchors the chain looks whole, but not to who kept its head
    with Records(url, clock=Clock()) as alone:
        assert alone.verify_audit() == len(kept)
        with pytest.raises(AuditBroken, match=f"row {acts} "):
            alone.verify_audit(parse_head(str(known)))


def _audit_rows(records: Records) -> Sequence[Any]:
    with records._read() as connection:
        return connection.execute(select(audit_rows).order_by(audit_rows.c.seq)).all()


def _write_chain(records: Records, rows: Sequence[dict[str, Any]]) -> None:
    """These rows as the whole audit, every hash as it should be."""
    with records._write() as connection:
        connection.execute(audit_rows.delete())
        connection.execute(audit_head.update().values(seq=0, hash=CHAIN_START))
        for row in rows:
            words = (row[name] for name in ("at", "actor", "action", "subject"))
            append(connection, *words, json.loads(row["body"]))


def test_every_act_is_in_the_audit_with_its_actor(records: Records) -> None:
    secret = records.create_key("ann", ["act"], by="root")
    key = records.find_key(secret)
    assert key is not None
    records.revoke_key(key.id, by="root")
    records.revoke_key(key.id, by="root")  # changes nothing
    records.add_labels([Label("abusive", "analyst", 1, account_id="acct_secret")], by="ann")
    id = records.open_or_update_case("k", "review", {}).id
    records.claim_case(id, "ann")
    records.note_case(id, "ann", "acct_secret again")
    records.decide_case(id, "ann", "suspend", label="abusive", accounts=["acct_secret"])
    records.add_canary("h:1", "station", by="ann")
    told = records.list_audit()
    assert [(row.actor, row.action, row.subject) for row in told] == [
        ("root", "create key", f"key {key.id}"),
        ("root", "revoke key", f"key {key.id}"),
        ("ann", "label", "labels"),
        ("ann", "claim", f"case {id}"),
        ("ann", "write note", f"case {id}"),
        ("ann", "decide", f"case {id}"),
        ("ann", "add canary", "canary 1"),
    ]
    assert "acct_secret" not in str(told)
    assert secret not in str(told)
    assert records.verify_audit() == len(told)


def test_what_fails_is_not_in_the_audit(records: Records, tmp_path: Path) -> None:
    id = records.open_or_update_case("k", "review", {}).id
    with pytest.raises(ValueError, match="label is"):
        records.decide_case(id, "ann", "suspend", label="bad")  # type: ignore[arg-type]
    records.add_canary("h:1", "station")
    with pytest.raises(RecordsError, match="already"):
        records.add_canary("h:1", "station")
    assert [row.action for row in records.list_audit()] == ["add canary"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 {h}\n2 zzz\n", "line 2: not an anchor"),
        ("1 {h}\n1 {g}\n", "line 2: row 1 was anchored otherwise"),
    ],
)
def test_anchors_that_were_tampered_with(
    path: Path, clock: Clock, tmp_path: Path, text: str, said: str
) -> None:
    anchors = tmp_path / "audit.anchors"
    with Records(f"sqlite:///{path}", clock=clock, anchors=anchors) as records:
        records.audit("ana", "act", "s", {})
        whole = anchors.read_text()
        anchors.write_text(whole + "2 0123")  # cut short by a crash
        assert records.verify_audit() == 1
        anchors.write_text(text.format(h=whole.split()[1], g="0" * 64))
        with pytest.raises(AuditBroken, match=said):
            records.verify_audit()


def test_audit_refuses_what_is_no_json(records: Records) -> None:
    with pytest.raises(ValueError, match="JSON"):
        records.audit("a", "b", "c", {"x": float("nan")})
    with pytest.raises(TypeError, match="JSON"):
        records.audit("a", "b", "c", {"x": {1}})
    assert records.verify_audit() == 0


# --- many writers


def test_two_connections_write_at_once(url: str, clock: Clock) -> None:
    """Each keeps opening the same clusters, deciding the same events and auditing."""

    def work(records: Records, name: str) -> int:
        new = 0
        for number in range(25):
            records.audit(name, "act", str(number), {})
            records.open_or_update_case(f"k{number}", "review", {"by": name})
            new += records.add_decisions([decision(f"e{number}"), decision(f"{name}{number}")])
            records.add_labels([Label("honest", "import", number, account_id=name)])
        return new

    with (
        Records(url, clock=clock) as one,
        Records(url, clock=clock) as two,
        ThreadPoolExecutor(4) as pool,
    ):
        works = [pool.submit(work, r, n) for r, n in ((one, "a"), (two, "b"), (one, "c"))]
        assert sum(done.result() for done in works) == 25 * 4
        assert one.verify_audit() == 150
        assert len(two.list_cases(limit=500).cases) == 25
        assert len(two.label_history(account_id="b")) == 25


OPENER = """
import sys
from service.records import Records
with Records(sys.argv[1], clock=lambda: 0) as records:
    for number in range(20):
        records.audit(sys.argv[2], "act", str(number), {})
"""


def test_processes_open_and_write_a_new_database_at_once(url: str, clock: Clock) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, url, str(number)], stderr=subprocess.PIPE, text=True
        )
        for number in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with Records(url, clock=clock) as records:
        assert records.verify_audit() == 60


def test_a_claim_is_won_once(records: Records) -> None:
    id = records.open_or_update_case("k", "review", {}).id

    def claim(name: str) -> bool:
        try:
            return records.claim_case(id, name).claimed_by == name
        except CaseConflict:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(claim, ["a", "b", "c", "d"])) == 1


def test_failed_transaction_is_said_plainly(records: Records, url: str) -> None:
    run(url, "DROP TABLE labels")
    with pytest.raises(RecordsError, match=r'records at (sqlite|postgres).*: .*labels"?'):
        records.labels()


def test_text_of_any_content_is_kept_and_found(records: Records) -> None:
    """PostgreSQL has no NUL in text; an account whose id holds one is kept all the same."""
    records.add_decisions([decision("e\0", account_id="a\0b")])
    records.add_labels([Label("abusive", "analyst", 1, account_id="a\0b", note="\0")])
    assert [x.event_id for x in records.decisions_of("a\0b")] == ["e\0"]
    (label,) = records.label_history(account_id="a\0b")
    assert (label.account_id, label.note) == ("a\0b", "\0")
    assert records.decisions_of("ab") == []
    records.audit("a\0", "b", "c", {"x": "\0"})
    assert records.verify_audit() == 2
