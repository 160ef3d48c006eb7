"""The outbox: what webhooks are to be told, kept until they were.

A message is written in the transaction of what it tells, a row for each webhook that asked for its
kind: what happened is told at least once, and what did not happen never. A courier
(service/courier.py) takes what is due, and says how it went: a delivered row goes, a failed one is
due again later, one that failed too often stays as a dead letter until somebody looks, or nobody did
for long.

A message holds what a receiver needs to look the rest up with his own key. Those that speak of one
account carry its id, so that erasure finds what was not sent yet.
"""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from service.tables import deliveries, webhooks

Event = Literal["decision", "case.opened", "case.updated", "case.closed"]

DEAD_LETTERS_SHOWN = 100
WAITS_MS = 3 * 86_400_000  # a weekend: how long a message may be due to a receiver that fails
DEAD_MS = 30 * 86_400_000  # dead letters are kept as long, for whoever was on holiday,
DEAD_MAX = 10_000  # and as many a webhook: with 1 kB each, its share of a small disk is 10 MB
PRUNED = 1_000  # rows changed by one statement: others wait for it


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told what. `waiting` messages are due now or later, `dead` ones were given up."""

    id: str
    url: str
    events: list[Event]
    created_by: str
    created_at: int
    waiting: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, and why."""

    message_id: str
    event: Event
    created_at: int
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Due:
    """A message to be delivered now."""

    id: int
    webhook_id: str
    url: str
    message_id: str
    body: str
    attempts: int


def put(
    connection: Connection,
    at: int,
    event: Event,
    data: Mapping[str, Any],
    account_id: str | None = None,
) -> None:
    """Queue a message for every webhook that asked for its kind."""
    asked = connection.execute(select(webhooks.c.id, webhooks.c.events)).all()
    message_id = f"msg_{secrets.token_hex(16)}"
    text = json.dumps({"type": event, "timestamp": at, "data": dict(data)}, separators=(",", ":"))
    rows = [
        {
            "webhook_id": webhook.id,
            "message_id": message_id,
            "event": event,
            "account_id": account_id,
            "body": text,
            "created_at": at,
            "due_at": at,
            "attempts": 0,
        }
        for webhook in asked
        if event in webhook.events
    ]
    if rows:
        connection.execute(insert(deliveries), rows)


def add(connection: Connection, webhook: Webhook) -> None:
    """Keep a webhook."""
    connection.execute(
        insert(webhooks).values(
            id=webhook.id,
            url=webhook.url,
            events=webhook.events,
            created_by=webhook.created_by,
            created_at=webhook.created_at,
        )
    )


def remove(connection: Connection, id: str) -> bool:
    """Forget a webhook and what it was to be told; returns whether there was one."""
    connection.execute(delete(deliveries).where(deliveries.c.webhook_id == id))
    return connection.execute(delete(webhooks).where(webhooks.c.id == id)).rowcount > 0


def kept(connection: Connection, id: str | None = None) -> list[Webhook]:
    """All webhooks, oldest first; or the one with this id."""
    counts = (
        select(
            deliveries.c.webhook_id,
            func.count(deliveries.c.due_at).label("waiting"),
            (func.count() - func.count(deliveries.c.due_at)).label("dead"),
        )
        .group_by(deliveries.c.webhook_id)
        .subquery()
    )
    query = (
        select(webhooks, counts.c.waiting, counts.c.dead)
        .outerjoin(counts, counts.c.webhook_id == webhooks.c.id)
        .order_by(webhooks.c.created_at, webhooks.c.id)
    )
    if id is not None:
        query = query.where(webhooks.c.id == id)
    return [_webhook(row) for row in connection.execute(query)]


def dead_letters(connection: Connection, id: str) -> list[DeadLetter]:
    """The last messages that a webhook was never told, newest first."""
    dead = (
        select(deliveries)
        .where(deliveries.c.webhook_id == id, deliveries.c.due_at.is_(None))
        .order_by(deliveries.c.id.desc())
        .limit(DEAD_LETTERS_SHOWN)
    )
    return [
        DeadLetter(r.message_id, r.event, r.created_at, r.attempts, r.error)
        for r in connection.execute(dead)
    ]


def revive(connection: Connection, id: str, now: int) -> int:
    """Make a webhook's dead letters due again, as if new; returns how many."""
    return connection.execute(
        update(deliveries)
        .where(deliveries.c.webhook_id == id, deliveries.c.due_at.is_(None))
        .values(due_at=now, attempts=0, error=None)
    ).rowcount


def webhooks_due(connection: Connection, now: int) -> list[str]:
    """The webhooks for which a message is due, the longest due first."""
    oldest = (
        select(deliveries.c.due_at)
        .where(deliveries.c.webhook_id == webhooks.c.id, deliveries.c.due_at <= now)
        .order_by(deliveries.c.due_at)
        .limit(1)
        .scalar_subquery()
    )
    each = select(webhooks.c.id, oldest.label("since")).subquery()
    due = select(each.c.id).where(each.c.since.is_not(None)).order_by(each.c.since, each.c.id)
    return list(connection.scalars(due))


def take(connection: Connection, now: int, until: int, limits: Mapping[str, int]) -> list[Due]:
    """Messages that are due, as many of each webhook, its oldest first; nobody else is given them
    before `until`.

    An attempt is counted when it begins: a courier that dies in the middle has made one.
    """
    due = [
        row
        for id, limit in limits.items()
        for row in connection.execute(
            select(deliveries, webhooks.c.url)
            .join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
            .where(deliveries.c.webhook_id == id, deliveries.c.due_at <= now)
            .order_by(deliveries.c.due_at, deliveries.c.id)
            .limit(limit)
            .with_for_update(of=deliveries, skip_locked=True)
        )
    ]
    if due:
        connection.execute(
            update(deliveries)
            .where(deliveries.c.id.in_([row.id for row in due]))
            .values(due_at=until, attempts=deliveries.c.attempts + 1)
        )
    return [Due(r.id, r.webhook_id, r.url, r.message_id, r.body, r.attempts + 1) for r in due]


def delivered(connection: Connection, ids: Sequence[int]) -> None:
    """These messages were told: forget them."""
    connection.execute(delete(deliveries).where(deliveries.c.id.in_(ids)))


def failed(connection: Connection, id: int, error: str, due_at: int | None) -> None:
    """An attempt failed; the next one is at `due_at`, or never."""
    connection.execute(
        update(deliveries).where(deliveries.c.id == id).values(due_at=due_at, error=error)
    )


def give_up(connection: Connection, now: int, failing: Iterable[str]) -> int:
    """Make dead letters of what was due to these webhooks for too long; returns how many, at most
    PRUNED a webhook.
    """
    return sum(
        connection.execute(
            update(deliveries)
            .where(_some(deliveries.c.webhook_id == id, deliveries.c.due_at <= now - WAITS_MS))
            .values(due_at=None, error="due for 3 days, while the receiver failed")
        ).rowcount
        for id in failing
    )


def prune(connection: Connection, now: int) -> int:
    """Drop dead letters that are too old or too many; returns how many, at most PRUNED a statement."""
    dead = deliveries.c.due_at.is_(None)
    old = delete(deliveries).where(_some(dead, deliveries.c.created_at <= now - DEAD_MS))
    pruned = connection.execute(old).rowcount
    for id in connection.scalars(select(webhooks.c.id)).all():
        its = dead & (deliveries.c.webhook_id == id)
        newest = select(deliveries.c.id).where(its).order_by(deliveries.c.id.desc())
        last = connection.scalar(newest.offset(DEAD_MAX).limit(1))
        if last is not None:
            many = delete(deliveries).where(_some(its, deliveries.c.id <= last))
            pruned += connection.execute(many).rowcount
    return pruned


def erase_account(connection: Connection, account_id: str) -> int:
    """Drop what was not sent yet and names an account; returns how many rows."""
    named = deliveries.c.body.contains(json.dumps(account_id), autoescape=True)
    return connection.execute(
        delete(deliveries).where((deliveries.c.account_id == account_id) | named)
    ).rowcount


def _some(*which: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a row is of PRUNED such rows, none of which another service is changing now."""
    some = select(deliveries.c.id).where(*which).limit(PRUNED).with_for_update(skip_locked=True)
    return deliveries.c.id.in_(some.correlate(None))


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        row.id, row.url, row.events, row.created_by, row.created_at, row.waiting or 0, row.dead or 0
    )
