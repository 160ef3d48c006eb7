"""Records: what people and the policy said. Labels, cases, decisions, keys, canaries, webhooks.

Small, durable and relational, where the log is large and sequential. An act of a person or a key
takes the name of who did it (`by`), and its row of the audit (service/audit.py) is written in the
same transaction, as are the messages that webhooks are to be told (service/outbox.py).

Times are epoch milliseconds from the clock that is passed in.
"""

import difflib
import hashlib
import hmac
import json
import math
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from sqlalchemy import Column, Connection, Row, Text, cast, delete, func, insert, select, update

from service import audit, outbox
from service.audit import AuditRow, Head
from service.database import (
    Database,
    RecordsError,
    ignoring_duplicates,
    insert_absent,
)
from service.outbox import DeadLetter, Due, Webhook
from service.tables import (
    canaries,
    canary_hits,
    case_notes,
    cases,
    decisions,
    deliveries,
    keys,
    labels,
)

Verdict = Literal["abusive", "honest", "unsure"]
Source = Literal["analyst", "dispute", "appeal", "canary", "import"]
Status = Literal["open", "claimed", "closed"]
Action = Literal["allow", "challenge", "throttle", "review", "suspend"]
Scope = Literal["ingest", "read", "act", "admin"]

VARIABLES_MAX = 500  # in one IN (…); SQLite allows 32,766, older builds 999
PAGE_ROWS_MAX = 500
KEY_PREFIX = "shoal"
ERASED = "[erased]"  # stands in notes where a name was
TOLD_OF_CASES = ("size", "score", "kinds", "cost_usd", "paid_usd")  # of a case's body
LOCAL = "local"  # who acts where nobody is asked for a key
IDENTITY_KEY, SWITCH = "identity key", "switch"  # subject and action of the audit's row
# Where evidence is shown, or quoted by people.
_WITH_TOKENS: tuple[Column[Any], ...] = (
    cases.c.body,
    case_notes.c.text,
    decisions.c.reasons,
    deliveries.c.body,
    labels.c.note,
    canaries.c.note,
)
Say = Callable[[str, str, Mapping[str, Any]], AuditRow]
_CURSOR = re.compile(r"c[0-9]{1,18}")


class NotFound(RecordsError):
    """There is no such record."""


class MarkInUse(RecordsError):
    """There is a canary with this mark already."""


class CaseConflict(RecordsError):
    """The case is somebody else's, or closed."""


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody says of an account or of a cluster; exactly one of the two is given."""

    label: Verdict
    source: Source
    at: int
    account_id: str | None = None
    cluster_id: str | None = None
    typology: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision that was acted on. `reasons` as answered: `{code, impact, text, evidence}`."""

    event_id: str
    account_id: str
    at: int
    action: Action
    score: float
    reasons: list[dict[str, Any]]
    model_version: str
    policy_version: str
    cluster_id: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """What a person wrote on a case."""

    author: str
    at: int
    text: str


@dataclass(frozen=True, slots=True)
class Case:
    """A cluster for a person to judge. `notes` is filled by `get_case` only."""

    id: int
    cluster_id: str
    status: Status
    proposed_action: Action
    opened_at: int
    updated_at: int
    claimed_by: str | None
    decided_action: Action | None
    decided_by: str | None
    decided_at: int | None
    body: dict[str, Any]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class CasePage:
    """Some cases, and the cursor of the next page: None after the last."""

    cases: list[Case]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, without its secret."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: int
    revoked_at: int | None
    rate: float | None  # events a second; None is what the service gives to all


@dataclass(frozen=True, slots=True)
class Canary:
    """A marked prompt sent through a station; `mark` is what its request will carry."""

    id: int
    mark: str
    station: str
    note: str | None
    created_at: int


class Records:
    """The records at a SQLAlchemy URL (service/database.py, which also says what opening raises).

    `clock` returns epoch milliseconds; `anchors` is the file that the audit is anchored in. Every
    method may raise RecordsError when the database fails.
    """

    def __init__(self, url: str, *, clock: Callable[[], int], anchors: Path | None = None) -> None:
        self._clock, self._anchors = clock, anchors
        self._database = Database(url)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- keys

    def create_key(
        self, name: str, scopes: Sequence[Scope], *, rate: float | None = None, by: str = LOCAL
    ) -> str:
        """A new API key, `shoal_<id>_<secret>`. It is returned here and never again.

        Only its SHA-256 is kept; the secret is 256 random bits, so that no slower hash is needed.
        Raises ValueError for no scope or an unknown one, or a rate that lets nothing through.
        """
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"a key's rate is a number of events a second above 0, not {rate:g}")
        if not scopes:
            raise ValueError("a key needs at least one scope")
        for scope in scopes:
            _check("scope", scope, get_args(Scope))
        id = secrets.token_hex(8)
        secret = f"{KEY_PREFIX}_{id}_{secrets.token_urlsafe(32)}"
        with self._act(by) as (connection, note):
            connection.execute(
                insert(keys).values(
                    id=id,
                    name=name,
                    hash=_sha256(secret),
                    scopes=sorted(set(scopes)),
                    created_at=self._clock(),
                    rate=rate,
                )
            )
            told = {"name": name, "scopes": sorted(set(scopes))}
            note("create key", f"key {id}", told if rate is None else told | {"rate": rate})
        return secret

    def find_key(self, secret: str) -> Key | None:
        """The key with this secret; None when there is none or it is revoked."""
        parts = secret.split("_", 2)
        if len(parts) != 3 or parts[0] != KEY_PREFIX or not secret.isascii():
            return None
        with self._read() as connection:
            row = connection.execute(select(keys).where(keys.c.id == parts[1])).one_or_none()
        if row is None or not hmac.compare_digest(row.hash, _sha256(secret)):
            return None
        return _key(row) if row.revoked_at is None else None

    def revoke_key(self, id: str, *, by: str = LOCAL) -> Key:
        """Revoke a key; a second time changes nothing. Raises NotFound."""
        with self._act(by) as (connection, note):
            revoked = connection.execute(
                update(keys)
                .where(keys.c.id == id, keys.c.revoked_at.is_(None))
                .values(revoked_at=self._clock())
            )
            if revoked.rowcount:
                note("revoke key", f"key {id}", {})
            row = connection.execute(select(keys).where(keys.c.id == id)).one_or_none()
        if row is None:
            raise NotFound(f"there is no key {id!r}")
        return _key(row)

    def list_keys(self) -> list[Key]:
        """All keys, revoked ones too, oldest first."""
        with self._read() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created_at, keys.c.id))
            return [_key(row) for row in rows]

    # --- labels

    def add_labels(self, new: Sequence[Label], *, by: str = LOCAL) -> int:
        """Keep labels, all or none; returns how many. Nothing older is changed.

        Raises ValueError, naming the position, for a bad word or not exactly one subject.
        """
        for number, label in enumerate(new):
            _check_label(label, f"label {number}: ")
        if new:
            with self._act(by) as (connection, note):
                ids = self._insert_labels(connection, new)
                note("label", "labels", {"ids": ids, "said": Counter(x.label for x in new)})
        return len(new)

    def labels(self, as_of: int | None = None) -> list[Label]:
        """The newest label of each account and of each cluster, oldest first.

        Newest by `at`, then by arrival; with `as_of`, only labels whose `at` is at or before it. A
        newer `unsure` hides an older `abusive`. What a cluster's label means for its members is the
        caller's to say: members come and go.
        """
        newest_first = func.row_number().over(
            partition_by=(labels.c.account_id, labels.c.cluster_id),
            order_by=(labels.c.at.desc(), labels.c.id.desc()),
        )
        ranked = select(labels, newest_first.label("rank"))
        if as_of is not None:
            ranked = ranked.where(labels.c.at <= as_of)
        of = ranked.subquery()
        with self._read() as connection:
            rows = connection.execute(
                select(of).where(of.c.rank == 1).order_by(of.c.at, of.c.id)
            ).all()
        return [_label(row) for row in rows]

    def label_history(
        self, *, account_id: str | None = None, cluster_id: str | None = None
    ) -> list[Label]:
        """Every label of one account or of one cluster, in the order of their `at`."""
        column, subject = _subject(account_id, cluster_id)
        with self._read() as connection:
            rows = connection.execute(
                select(labels).where(column == subject).order_by(labels.c.at, labels.c.id)
            ).all()
        return [_label(row) for row in rows]

    def _insert_labels(self, connection: Connection, new: Sequence[Label]) -> list[int]:
        """Their numbers, in order."""
        recorded_at = self._clock()
        rows = [{**asdict(label), "recorded_at": recorded_at} for label in new]
        return sorted(connection.scalars(insert(labels).returning(labels.c.id), rows))

    # --- cases

    def open_or_update_case(
        self,
        cluster_id: str,
        proposed_action: Action,
        body: Mapping[str, Any],
        *,
        reopen: bool = False,
    ) -> Case:
        """The live case of a cluster, brought up to date, or a new one.

        Where the cluster's last case was closed by a person it stays so, and is returned unchanged:
        a sweep must not bring back what was just judged. `reopen` opens a new case all the same,
        for a cluster that has grown since. A claim survives an update.
        """
        _check("action", proposed_action, get_args(Action))
        now = self._clock()
        live_or_last = (
            select(cases).where(cases.c.cluster_id == cluster_id).order_by(cases.c.id.desc())
        ).limit(1)
        with self._write() as connection:
            last = connection.execute(live_or_last.with_for_update()).one_or_none()
            if last is not None and last.status != "closed":
                connection.execute(
                    update(cases)
                    .where(cases.c.id == last.id)
                    .values(proposed_action=proposed_action, body=dict(body), updated_at=now)
                )
                # a sweep brings every case up to date: only what people would act on is news
                if last.proposed_action != proposed_action or _who(last.body) != _who(body):
                    self._tell(connection, "case.updated", last.id)
            elif last is None or reopen:
                # Another worker may open it first: the index lets one through, we take that one.
                with ignoring_duplicates(connection):
                    opened = connection.scalars(
                        insert(cases)
                        .values(
                            cluster_id=cluster_id,
                            status="open",
                            proposed_action=proposed_action,
                            opened_at=now,
                            updated_at=now,
                            body=dict(body),
                        )
                        .returning(cases.c.id)
                    ).one()
                    self._tell(connection, "case.opened", opened)
            return _case(connection.execute(live_or_last).one())

    def list_cases(
        self, status: Status | None = None, cursor: str | None = None, limit: int = 50
    ) -> CasePage:
        """Cases, newest first, a page at a time.

        A walk to the end returns every case that had the status throughout exactly once, whatever
        is opened, claimed or closed meanwhile. Raises ValueError for a bad status, cursor or limit.
        """
        if not 1 <= limit <= PAGE_ROWS_MAX:
            raise ValueError(f"limit is {limit}; it must be from 1 to {PAGE_ROWS_MAX}")
        query = select(cases).order_by(cases.c.id.desc()).limit(limit + 1)
        if status is not None:
            _check("status", status, get_args(Status))
            query = query.where(cases.c.status == status)
        if cursor is not None:
            query = query.where(cases.c.id < _parse_cursor(cursor))
        with self._read() as connection:
            found = [_case(row) for row in connection.execute(query)]
        more = len(found) > limit
        return CasePage(found[:limit], f"c{found[limit - 1].id}" if more else None)

    def get_case(self, id: int) -> Case:
        """A case with its notes, oldest first. Raises NotFound."""
        with self._read() as connection:
            return _case_with_notes(connection, id)

    def claim_case(self, id: int, by: str) -> Case:
        """Take an open case; taking one's own again changes nothing.

        Raises NotFound; CaseConflict when it is closed or somebody else's.
        """
        with self._act(by) as (connection, note):
            case = _case_with_notes(connection, id, lock=True)
            _refuse_conflict(case, by, "claim")
            if case.status == "open":
                self._change_case(connection, id, status="claimed", claimed_by=by)
                note("claim", f"case {id}", {})
                self._tell(connection, "case.updated", id)
            return _case_with_notes(connection, id)

    def note_case(self, id: int, author: str, text: str) -> Case:
        """Write a note on a case, closed ones too. Raises NotFound, ValueError for an empty one."""
        if not text.strip():
            raise ValueError("a note has some text")
        now = self._clock()
        with self._act(author) as (connection, note):
            _case_with_notes(connection, id, lock=True)
            connection.execute(
                insert(case_notes).values(case_id=id, author=author, at=now, text=text)
            )
            self._change_case(connection, id)
            note("write note", f"case {id}", {})
            return _case_with_notes(connection, id)

    def decide_case(
        self,
        id: int,
        by: str,
        action: Action,
        *,
        label: Verdict | None = None,
        typology: str | None = None,
        accounts: Sequence[str] = (),
        note: str | None = None,
    ) -> Case:
        """Close a case with what is to be done.

        With `label`, the cluster gets that label from the analyst, and so does each of `accounts`:
        one transaction, so that a closed case and its labels never disagree. Raises NotFound;
        CaseConflict when it is closed or somebody else's; ValueError for a bad word.
        """
        _check("action", action, get_args(Action))
        now = self._clock()
        with self._act(by) as (connection, say):
            case = _case_with_notes(connection, id, lock=True)
            _refuse_conflict(case, by, "decide")
            self._change_case(
                connection,
                id,
                status="closed",
                decided_action=action,
                decided_by=by,
                decided_at=now,
            )
            ids: list[int] = []
            if label is not None:
                said = [
                    Label(label, "analyst", now, typology=typology, note=note, **subject)
                    for subject in [
                        {"cluster_id": case.cluster_id},
                        *({"account_id": account} for account in dict.fromkeys(accounts)),
                    ]
                ]
                _check_label(said[0], "")
                ids = self._insert_labels(connection, said)
            if note:
                connection.execute(
                    insert(case_notes).values(case_id=id, author=by, at=now, text=note)
                )
            body = {"action": action, "label": label, "typology": typology, "labels": ids}
            say("decide", f"case {id}", body)
            self._tell(connection, "case.closed", id)
            return _case_with_notes(connection, id)

    def _tell(self, connection: Connection, event: outbox.Event, id: int) -> None:
        """Queue for webhooks what a case is like now: its state, and its size but no names."""
        case = _case_with_notes(connection, id)
        data = asdict(case)
        del data["body"], data["notes"]
        known = {name: case.body[name] for name in TOLD_OF_CASES if name in case.body}
        outbox.put(connection, self._clock(), event, data | known)

    def _change_case(self, connection: Connection, id: int, **values: object) -> None:
        connection.execute(
            update(cases).where(cases.c.id == id).values(updated_at=self._clock(), **values)
        )

    # --- decisions

    def add_decisions(self, new: Sequence[Decision]) -> int:
        """Keep decisions, all or none; returns how many were new.

        The first decision of an event is the one that was answered: a second is not kept. Raises
        ValueError, naming the event, for a bad action or a score that is no number.
        """
        for decision in new:
            _check("action", decision.action, get_args(Action), f"event {decision.event_id}: ")
            if not math.isfinite(decision.score):
                raise ValueError(f"event {decision.event_id}: score is {decision.score}")
        first = {decision.event_id: decision for decision in reversed(new)}
        event_ids = list(first)
        added = 0
        with self._write() as connection:
            for start in range(0, len(first), VARIABLES_MAX):
                ids = event_ids[start : start + VARIABLES_MAX]
                kept = set(
                    connection.scalars(
                        select(decisions.c.event_id).where(decisions.c.event_id.in_(ids))
                    )
                )
                rows = [asdict(first[id]) for id in ids if id not in kept]
                if not rows:
                    continue
                # Another worker may keep one between our look and our insert, and tells of it himself.
                insert = insert_absent(connection, decisions).returning(decisions.c.event_id)
                ours = set(connection.scalars(insert, rows))
                for data in rows:
                    if data["event_id"] in ours:
                        outbox.put(connection, self._clock(), "decision", data, data["account_id"])
                added += len(ours)
        return added

    def decisions_of(self, account_id: str, limit: int = 100) -> list[Decision]:
        """The last decisions on an account, newest first."""
        if not 1 <= limit <= PAGE_ROWS_MAX:
            raise ValueError(f"limit is {limit}; it must be from 1 to {PAGE_ROWS_MAX}")
        with self._read() as connection:
            rows = connection.execute(
                select(decisions)
                .where(decisions.c.account_id == account_id)
                .order_by(decisions.c.at.desc(), decisions.c.event_id.desc())
                .limit(limit)
            ).all()
        return [Decision(**row._mapping) for row in rows]

    def erase_account(
        self,
        account_id: str,
        *,
        began: tuple[str, str, str] | None = None,
        more: bool = False,
    ) -> dict[str, int]:
        """Remove what is kept of an account; returns how many rows that touched, by table.

        Its labels, decisions, canary hits and what webhooks were still to be told of it go; its
        name goes from every case, from other accounts' reasons, and as a word from notes. When this
        returns, what was removed is no longer in the database's files (but see `Database.scrub`).

        Where there was something, or there is `more` elsewhere, the audit is told in the same
        transaction what has `began`: by whom, what, and of what, which must not be the name.
        """
        touched: Counter[str] = Counter()
        with self._act(began[0] if began else LOCAL) as (connection, say):
            for table in (labels, decisions, canary_hits):
                gone = connection.execute(delete(table).where(table.c.account_id == account_id))
                touched[table.name] += gone.rowcount
            touched["deliveries"] += outbox.erase_account(connection, account_id)
            for column in (cases.c.body, decisions.c.reasons):
                touched[column.table.name] += _rewrite(
                    connection, column, json.dumps(account_id), lambda v: _without(v, account_id)
                )
            word = re.compile(rf"(?<![\w.-]){re.escape(account_id)}(?![\w-])")
            for column in (case_notes.c.text, labels.c.note):
                touched[column.table.name] += _rewrite(
                    connection, column, account_id, lambda v: word.sub(ERASED, v)
                )
            more = more or any(touched.values())
            if began is not None and more:
                say(*began[1:], {})
        if more:
            self._database.scrub()
        return dict(touched)

    def rename_tokens(
        self,
        rotated: Mapping[str, Any],
        text: Callable[[str], str],
        mark: Callable[[str], tuple[str, bool]],
        *,
        by: str = LOCAL,
    ) -> tuple[dict[str, int], list[int]]:
        """Put the next identity key's tokens in the place of the old one's (service/rotation.py).

        `text` renames within words; `mark` renames a canary's mark, and says whether prompts will bear
        it again. Returns how many rows that touched, by table, and the canaries that are dead. The audit
        tells of it, and what is `rotated`, in the same transaction; if that is its last word on the key
        already, the records stay as they are.
        """
        touched: Counter[str] = Counter()
        dead: list[int] = []
        with self._act(by) as (connection, say):
            last = audit.last_about(connection, IDENTITY_KEY)
            done = (
                last is not None and last.action == SWITCH and last.body.items() >= rotated.items()
            )
            if not done:
                for column in _WITH_TOKENS:
                    touched[column.table.name] += _rewrite(
                        connection, column, "h:", lambda v: _each_text(v, text)
                    )
                for row in connection.execute(select(canaries.c.id, canaries.c.mark)).all():
                    new, alive = mark(row.mark)
                    connection.execute(
                        update(canaries).where(canaries.c.id == row.id).values(mark=new)
                    )
                    touched[canaries.name] += 1
                    if not alive:
                        dead.append(row.id)
                say(SWITCH, IDENTITY_KEY, {**rotated, "records": dict(touched)})
        self._database.scrub()
        return dict(touched), dead

    def decision_of_event(self, event_id: str) -> Decision | None:
        """The decision that was acted on at an event, if one was."""
        with self._read() as connection:
            row = connection.execute(
                select(decisions).where(decisions.c.event_id == event_id)
            ).one_or_none()
        return None if row is None else Decision(**row._mapping)

    # --- canaries

    def add_canary(
        self, mark: str, station: str, note: str | None = None, *, by: str = LOCAL
    ) -> Canary:
        """Remember a marked prompt before it is sent. Raises MarkInUse."""
        row = None
        with self._act(by) as (connection, say):
            values = {"mark": mark, "station": station, "note": note, "created_at": self._clock()}
            with ignoring_duplicates(connection):
                connection.execute(insert(canaries).values(**values))
                row = connection.execute(select(canaries).where(canaries.c.mark == mark)).one()
                say("add canary", f"canary {row.id}", {})
        if row is None:
            raise MarkInUse(f"there is a canary with mark {mark!r} already")
        return Canary(**row._mapping)

    def list_canaries(self) -> list[Canary]:
        """All canaries, oldest first."""
        with self._read() as connection:
            rows = connection.execute(select(canaries).order_by(canaries.c.id)).all()
        return [Canary(**row._mapping) for row in rows]

    def hit_canary(self, mark: str, account_id: str, event_id: str, at: int) -> bool:
        """A marked prompt surfaced on an account, at epoch ms `at`: label the account abusive.

        Returns whether it was the first time for this mark and account; later ones change nothing.
        Raises NotFound for an unknown mark.
        """
        first = False
        with self._write() as connection:
            canary = connection.execute(
                select(canaries).where(canaries.c.mark == mark)
            ).one_or_none()
            if canary is None:
                raise NotFound(f"there is no canary with mark {mark!r}")
            with ignoring_duplicates(connection):
                connection.execute(
                    insert(canary_hits).values(
                        canary_id=canary.id, account_id=account_id, event_id=event_id, at=at
                    )
                )
                note = f"canary {canary.id} through {canary.station}, event {event_id}"
                label = Label("abusive", "canary", at, account_id=account_id, note=note)
                self._insert_labels(connection, [label])
                first = True
        return first

    def canary_accounts(self, id: int) -> list[str]:
        """The accounts a canary has surfaced on, in the order they did."""
        with self._read() as connection:
            return list(
                connection.scalars(
                    select(canary_hits.c.account_id)
                    .where(canary_hits.c.canary_id == id)
                    .order_by(canary_hits.c.id)
                )
            )

    # --- webhooks

    def add_webhook(
        self, url: str, events: Sequence[outbox.Event], host: str, *, by: str = LOCAL
    ) -> Webhook:
        """Tell `url` of these events from now on. `host` is what the audit may say of the URL.

        Raises ValueError for no event or an unknown one.
        """
        if not events:
            raise ValueError("a webhook is told of at least one event")
        for event in events:
            _check("event", event, get_args(outbox.Event))
        id = f"wh_{secrets.token_hex(12)}"
        webhook = Webhook(id, url, sorted(set(events)), by, self._clock())
        with self._act(by) as (connection, note):
            outbox.add(connection, webhook)
            note("add webhook", f"webhook {id}", {"host": host, "events": webhook.events})
        return webhook

    def remove_webhook(self, id: str, *, by: str = LOCAL) -> None:
        """Tell it nothing more, also not what it was to be told. Raises NotFound."""
        with self._act(by) as (connection, note):
            if not outbox.remove(connection, id):
                raise NotFound(f"there is no webhook {id!r}")
            note("remove webhook", f"webhook {id}", {})

    def list_webhooks(self) -> list[Webhook]:
        """All webhooks, oldest first."""
        with self._read() as connection:
            return outbox.kept(connection)

    def get_webhook(self, id: str) -> tuple[Webhook, list[DeadLetter]]:
        """A webhook and the last messages it was never told. Raises NotFound."""
        with self._read() as connection:
            found = outbox.kept(connection, id)
            if not found:
                raise NotFound(f"there is no webhook {id!r}")
            return found[0], outbox.dead_letters(connection, id)

    def redeliver(self, id: str, *, by: str = LOCAL) -> int:
        """Make a webhook's dead letters due again; returns how many. Raises NotFound."""
        with self._act(by) as (connection, note):
            if not outbox.kept(connection, id):
                raise NotFound(f"there is no webhook {id!r}")
            revived = outbox.revive(connection, id, self._clock())
            note("redeliver", f"webhook {id}", {"messages": revived})
        return revived

    def webhooks_due(self) -> list[str]:
        """The webhooks for which a message is due, the longest due first. Takes no lock."""
        with self._read() as connection:
            return outbox.webhooks_due(connection, self._clock())

    def take_deliveries(self, until: int, limits: Mapping[str, int]) -> list[Due]:
        """Messages that are due, as many of each webhook; nobody else is given them before `until`."""
        if not limits:
            return []
        with self._write() as connection:
            return outbox.take(connection, self._clock(), until, limits)

    def settle_deliveries(
        self, told: Sequence[int], failed: Mapping[int, tuple[str, int | None]]
    ) -> None:
        """Forget the messages that were told; the others failed: why, and when they are due again."""
        if told or failed:
            with self._write() as connection:
                outbox.delivered(connection, told)
                for id, (error, due_at) in failed.items():
                    outbox.failed(connection, id, error, due_at)

    def prune_deliveries(self, failing: Iterable[str]) -> tuple[int, int]:
        """Give up what these webhooks were not told for too long, and drop dead letters that are too
        old or too many. Returns how many of each: with any, there may be more.
        """
        now = self._clock()
        with self._write() as connection:
            return outbox.give_up(connection, now, failing), outbox.prune(connection, now)

    # --- audit

    def audit(
        self,
        actor: str,
        action: str,
        subject: str,
        body: Mapping[str, Any],
        at: int | None = None,
    ) -> AuditRow:
        """Append to the audit; `at` is the clock's unless it is given. `body` must be JSON."""
        with self._act(actor, at) as (_, note):
            return note(action, subject, body)

    def list_audit(self, after_seq: int = 0, limit: int = 100) -> list[AuditRow]:
        """Audit rows after a sequence number, in order."""
        if not 1 <= limit <= PAGE_ROWS_MAX:
            raise ValueError(f"limit is {limit}; it must be from 1 to {PAGE_ROWS_MAX}")
        with self._read() as connection:
            return audit.rows_after(connection, after_seq, limit)

    def last_audit(self, subject: str) -> AuditRow | None:
        """The newest audit row about a subject."""
        with self._read() as connection:
            return audit.last_about(connection, subject)

    def audit_head(self) -> Head:
        """Where the audit ends now."""
        with self._read() as connection:
            return audit.head(connection)

    def verify_audit(self, known: Head | None = None) -> int:
        """Check the whole audit, against its anchors and a head that was `known` once, too.

        Returns the number of rows. Raises AuditBroken at the first that is wrong.
        """
        # read before the rows: what is anchored is committed
        anchors = audit.read_anchors(self._anchors) if self._anchors else {}
        with self._read() as connection:
            return audit.verify(connection, [anchors, {known.seq: known.hash} if known else {}])

    # --- transactions

    def _read(self) -> AbstractContextManager[Connection]:
        return self._database.read()

    def _write(self) -> AbstractContextManager[Connection]:
        return self._database.write()

    @contextmanager
    def _act(self, by: str, at: int | None = None) -> Iterator[tuple[Connection, Say]]:
        """A transaction in which somebody acts, and what appends to the audit what he does."""
        said: list[AuditRow] = []
        with self._write() as connection:

            def say(action: str, subject: str, body: Mapping[str, Any]) -> AuditRow:
                now = self._clock() if at is None else at
                said.append(audit.append(connection, now, by, action, subject, body))
                return said[-1]

            yield connection, say
        if self._anchors is not None:
            audit.anchor(self._anchors, said)


def _case_with_notes(connection: Connection, id: int, *, lock: bool = False) -> Case:
    query = select(cases).where(cases.c.id == id)
    # No table holds an id beyond 64 bits, and the driver would choke on one.
    row = (
        connection.execute(query.with_for_update() if lock else query).one_or_none()
        if 0 < id < 2**63
        else None
    )
    if row is None:
        raise NotFound(f"there is no case {id}")
    notes = connection.execute(
        select(case_notes).where(case_notes.c.case_id == id).order_by(case_notes.c.id)
    )
    return _case(row, tuple(Note(note.author, note.at, note.text) for note in notes))


def _refuse_conflict(case: Case, by: str, verb: str) -> None:
    if case.status == "closed":
        raise CaseConflict(
            f"cannot {verb} case {case.id}: {case.decided_by} closed it with "
            f"{case.decided_action!r}"
        )
    if case.status == "claimed" and case.claimed_by != by:
        raise CaseConflict(f"cannot {verb} case {case.id}: {case.claimed_by} has claimed it")


def _case(row: Row[Any], notes: tuple[Note, ...] = ()) -> Case:
    return Case(**row._mapping, notes=notes)


def _key(row: Row[Any]) -> Key:
    scopes = frozenset(row.scopes)
    return Key(row.id, row.name, scopes, row.created_at, row.revoked_at, row.rate)


def _label(row: Row[Any]) -> Label:
    return Label(
        row.label, row.source, row.at, row.account_id, row.cluster_id, row.typology, row.note
    )


def _who(body: Mapping[str, Any]) -> set[str]:
    """The members of a case."""
    return set(body.get("members", ()))


def _was_shared(left: Any) -> bool:
    """Whether a piece of evidence, one of whose accounts has gone, is left with one at the most."""
    return isinstance(left, dict) and len(left.get("accounts", "ab")) < 2


def _rewrite(
    connection: Connection, column: Column[Any], needle: str, change: Callable[[Any], Any]
) -> int:
    """Change what a column holds in the rows whose text has the needle; returns how many differ."""
    (key,) = column.table.primary_key
    changed = 0
    holds = cast(column, Text).contains(needle, autoescape=True)
    for id, value in connection.execute(select(key, column).where(holds)).all():
        left = change(value)
        if left != value:
            connection.execute(update(column.table).where(key == id).values({column: left}))
            changed += 1
    return changed


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A text, or a JSON value, with each of its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _each_text(item, change) for name, item in value.items()}
    return value


def _without(value: Any, word: str) -> Any:
    """A JSON value without the items of its lists that are this word.

    Evidence that then shows one account alone is no longer shared, and goes with it.
    """
    if isinstance(value, list):
        kept = [(item, _without(item, word)) for item in value if item != word]
        return [left for item, left in kept if left == item or not _was_shared(left)]
    if isinstance(value, dict):
        return {name: _without(item, word) for name, item in value.items()}
    return value


def _subject(account_id: str | None, cluster_id: str | None) -> tuple[Column[str], str]:
    if account_id is not None and cluster_id is None:
        return labels.c.account_id, account_id
    if cluster_id is not None and account_id is None:
        return labels.c.cluster_id, cluster_id
    raise ValueError("give account_id or cluster_id, one of them")


def _check_label(label: Label, where: str) -> None:
    _check("label", label.label, get_args(Verdict), where)
    _check("source", label.source, get_args(Source), where)
    if (label.account_id is None) == (label.cluster_id is None):
        raise ValueError(f"{where}give account_id or cluster_id, one of them")


def _check(field: str, word: str, known: tuple[str, ...], where: str = "") -> None:
    """Raises ValueError, with the nearest known word, when it is not one of them."""
    if word not in known:
        near = difflib.get_close_matches(str(word), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{where}{field} is {word!r}; it must be one of {', '.join(known)}{hint}")


def _parse_cursor(cursor: str) -> int:
    if _CURSOR.fullmatch(cursor) is None:
        raise ValueError(f"cursor is {cursor!r}; give the next_cursor of the page before, as it is")
    return int(cursor[1:])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
