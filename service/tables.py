"""The tables of the records, as they are today; `migrations/` says how they came to be so.

Two rules hold them together: nothing a person said is overwritten (a label is a row for ever, a
closed case stays closed), and an answer once given is the answer (a decision is kept under its
event's id). Times are epoch milliseconds. Nothing here is one database's own.
"""

import re
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

_ESCAPE = "\ue000"  # the first character that Unicode leaves to private use
_ESCAPED = re.compile(_ESCAPE + "([e0])")


class Words(TypeDecorator[str]):
    """Text of any content: PostgreSQL cannot hold NUL, so on every database it is escaped."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if isinstance(value, str) and ("\0" in value or _ESCAPE in value):
            return value.replace(_ESCAPE, _ESCAPE + "e").replace("\0", _ESCAPE + "0")
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if isinstance(value, str) and _ESCAPE in value:
            return _ESCAPED.sub(lambda m: "\0" if m[1] == "0" else _ESCAPE, value)
        return value


class LongWords(Words):
    """The same, where it is prose."""

    impl = Text
    cache_ok = True


# SQLite counts up by itself only in a column declared INTEGER; elsewhere 64 bits are wanted.
Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

labels = Table(
    "labels",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Words),
    Column("cluster_id", Words),
    Column("label", Words, nullable=False),
    Column("typology", Words),
    Column("source", Words, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("note", LongWords),
    Column("recorded_at", BigInteger, nullable=False),
    CheckConstraint("(account_id IS NULL) <> (cluster_id IS NULL)", name="labels_one_subject"),
    Index("labels_by_account", "account_id", "at"),
    Index("labels_by_cluster", "cluster_id", "at"),
)

cases = Table(
    "cases",
    metadata,
    Column("id", Id, primary_key=True),
    Column("cluster_id", Words, nullable=False),
    Column("status", Words, nullable=False),
    Column("proposed_action", Words, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("claimed_by", Words),
    Column("decided_action", Words),
    Column("decided_by", Words),
    Column("decided_at", BigInteger),
    Column("body", JSON, nullable=False),
    CheckConstraint("status IN ('open', 'claimed', 'closed')", name="cases_status"),
    Index("cases_by_status", "status", "id"),
    sqlite_autoincrement=True,  # a page's cursor is an id, which must not come back
)
# Two sweeps may not open the same case twice.
Index(
    "cases_one_live",
    cases.c.cluster_id,
    unique=True,
    sqlite_where=cases.c.status != "closed",
    postgresql_where=cases.c.status != "closed",
)

case_notes = Table(
    "case_notes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("case_id", Id, ForeignKey("cases.id"), nullable=False, index=True),
    Column("author", Words, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("text", LongWords, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("event_id", Words, primary_key=True),
    Column("account_id", Words, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("action", Words, nullable=False),
    Column("score", Float, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("cluster_id", Words),
    Column("model_version", Words, nullable=False),
    Column("policy_version", Words, nullable=False),
    Index("decisions_by_account", "account_id", "at"),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Words, primary_key=True),
    Column("name", Words, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("rate", Float),
)

canaries = Table(
    "canaries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("mark", Words, nullable=False, unique=True),
    Column("station", Words, nullable=False),
    Column("note", LongWords),
    Column("created_at", BigInteger, nullable=False),
)

canary_hits = Table(
    "canary_hits",
    metadata,
    Column("id", Id, primary_key=True),
    Column("canary_id", Id, ForeignKey("canaries.id"), nullable=False),
    Column("account_id", Words, nullable=False),
    Column("event_id", Words, nullable=False),
    Column("at", BigInteger, nullable=False),
    UniqueConstraint("canary_id", "account_id"),
)

audit_rows = Table(
    "audit",
    metadata,
    Column("seq", Id, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Words, nullable=False),
    Column("action", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON: what is hashed is what is kept
    Column("prev_hash", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", Id, nullable=False),
    Column("hash", String(64), nullable=False),
    CheckConstraint("id = 1", name="audit_head_is_one_row"),
)

# Who is told what (service/outbox.py).
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String, primary_key=True),
    Column("url", Words, nullable=False),
    Column("events", JSON, nullable=False),
    Column("created_by", Words, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column(
        "webhook_id",
        String,
        ForeignKey("webhooks.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("message_id", String, nullable=False),  # one for all who are told, and for every attempt
    Column("event", String, nullable=False),
    Column("account_id", Words, index=True),  # whom it speaks of, so that erasure finds it
    Column("body", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),  # None: given up
    Column("attempts", Integer, nullable=False),
    Column("error", LongWords),
    Index("deliveries_by_webhook", "webhook_id", "due_at", "id"),
    Index("deliveries_by_due", "due_at", "created_at"),
)
