"""The audit: a chain of everything that a person, a key or the operator's settings have done.

Each row holds SHA-256(previous hash ‖ its own canonical JSON), and one row elsewhere in the database
holds the head, so that an edit, a removal or a cut tail is found by `verify`. Whoever may write the
whole database can rewrite the whole chain. Therefore each row's hash is also appended to a file in
the data folder once its transaction is committed (an *anchor*), and `verify` holds the chain to
that: the database's own administrator cannot change a row without the folder's. Against who may
write both, keep the head elsewhere (`shoal audit head`, and `shoal audit verify --head`).

What a row says never names an account: it points to labels and cases by their numbers, which
erasure can empty while the chain stays whole.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from service.database import RecordsError
from service.tables import audit_head, audit_rows

CHAIN_START = "0" * 64
AUDITED = ("seq", "at", "actor", "action", "subject", "body")
_ANCHOR = re.compile(r"([0-9]{1,18}) ([0-9a-f]{64})")


class AuditBroken(RecordsError):
    """The audit is not what was written; the message names the first bad row."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One link of the audit chain."""

    seq: int
    at: int
    actor: str
    action: str
    subject: str
    body: dict[str, Any]
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends: as text `seq:hash`, to be kept where nobody can write both."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


def append(
    connection: Connection, at: int, actor: str, action: str, subject: str, body: Mapping[str, Any]
) -> AuditRow:
    """Append a row in the transaction of what it tells. `body` must be JSON."""
    text = canonical(dict(body))
    last = connection.execute(select(audit_head).with_for_update()).one()
    row = {
        "seq": last.seq + 1,
        "at": at,
        "actor": actor,
        "action": action,
        "subject": subject,
        "body": text,
    }
    hash = _link(last.hash, row)
    connection.execute(insert(audit_rows).values(**row, prev_hash=last.hash, hash=hash))
    connection.execute(update(audit_head).values(seq=row["seq"], hash=hash))
    return AuditRow(last.seq + 1, at, actor, action, subject, json.loads(text), hash)


def rows_after(connection: Connection, seq: int, limit: int) -> list[AuditRow]:
    """Rows after a sequence number, in order."""
    rows = connection.execute(
        select(audit_rows).where(audit_rows.c.seq > seq).order_by(audit_rows.c.seq).limit(limit)
    )
    return [_row(row) for row in rows]


def last_about(connection: Connection, subject: str) -> AuditRow | None:
    """The newest row about a subject."""
    about = select(audit_rows).where(audit_rows.c.subject == subject)
    row = connection.execute(about.order_by(audit_rows.c.seq.desc()).limit(1)).one_or_none()
    return None if row is None else _row(row)


def head(connection: Connection) -> Head:
    """Where the chain ends now."""
    row = connection.execute(select(audit_head)).one()
    return Head(row.seq, row.hash)


def verify(connection: Connection, known: Sequence[Mapping[int, str]]) -> int:
    """Check the whole chain against itself, its head and what is `known` of it elsewhere.

    Each of `known` is hashes by sequence number.

    Returns the number of rows. Raises AuditBroken at the first that is wrong.
    """
    expected_seq, expected_hash = 1, CHAIN_START
    query = select(audit_rows).order_by(audit_rows.c.seq)
    with connection.execution_options(yield_per=1000).execute(query) as rows:
        for row in rows:
            values = {name: row._mapping[name] for name in AUDITED}
            if row.seq != expected_seq:
                raise AuditBroken(f"audit row {expected_seq} is missing")
            if row.prev_hash != expected_hash or row.hash != _link(expected_hash, values):
                raise AuditBroken(f"audit row {row.seq} is not what was written")
            if any(anchors.get(row.seq, row.hash) != row.hash for anchors in known):
                raise AuditBroken(
                    f"audit row {row.seq} is not what was anchored when it was written"
                )
            expected_seq, expected_hash = row.seq + 1, row.hash
    last = connection.execute(select(audit_head)).one_or_none()
    if last is None or (last.seq, last.hash) != (expected_seq - 1, expected_hash):
        raise AuditBroken(
            f"the audit ends at row {expected_seq - 1}, but its head says "
            f"{'nothing' if last is None else f'row {last.seq}'}"
        )
    furthest = max((seq for anchors in known for seq in anchors), default=0)
    if furthest >= expected_seq:
        raise AuditBroken(
            f"the audit ends at row {expected_seq - 1}, but row {furthest} was anchored"
        )
    return expected_seq - 1


def anchor(path: Path, rows: Iterable[AuditRow]) -> None:
    """Append the hashes of committed rows to the file of anchors, and have them reach the disk."""
    text = "".join(f"{row.seq} {row.hash}\n" for row in rows)
    if not text:
        return
    # one write in append mode: two processes do not cut each other's lines
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_anchors(path: Path) -> dict[int, str]:
    """The anchors in a file; none where there is no file. A torn last line is passed over.

    Raises AuditBroken, naming the line, for what is no anchor, or two that contradict each other.
    """
    if not path.exists():
        return {}
    found: dict[int, str] = {}
    lines = path.read_text(errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if number == len(lines):
            break  # what follows the last line feed: nothing, or a write that a crash cut short
        match = _ANCHOR.fullmatch(line)
        if match is None:
            raise AuditBroken(f"{path}, line {number}: not an anchor")
        if found.setdefault(int(match[1]), match[2]) != match[2]:
            raise AuditBroken(
                f"{path}, line {number}: row {match[1]} was anchored otherwise before"
            )
    return found


def parse_head(text: str) -> Head:
    """The head that `shoal audit head` printed. Raises ValueError."""
    match = _ANCHOR.fullmatch(text.replace(":", " ", 1))
    if match is None:
        raise ValueError(f"{text!r} is no head of an audit: it looks like 12:{'0' * 8}…")
    return Head(int(match[1]), match[2])


def canonical(value: object) -> str:
    """One text for one JSON value; ASCII, so that no encoding has a say."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _row(row: Row[Any]) -> AuditRow:
    return AuditRow(
        row.seq, row.at, row.actor, row.action, row.subject, json.loads(row.body), row.hash
    )


def _link(prev_hash: str, row: Mapping[str, Any]) -> str:
    text = prev_hash + canonical([row[name] for name in AUDITED])
    return hashlib.sha256(text.encode()).hexdigest()
