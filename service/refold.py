"""The log as it is folded again: many entries at once, read while those before them are folded.

A fold does not depend on how events are batched, and a window and a ledger need less of an event than an
answer to it does; a restart may use both, for nobody waits for the answers.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from features.event import AnyEvent, Request, decode
from service.log import Entry

EVENTS = 4096  # folded at once; far fewer, and two threads wait for each other more than they work
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """Entries that follow each other, and their events: one control entry, or entries of events."""

    entries: list[Entry]
    bodies: list[bytes]
    events: list[AnyEvent]  # as far as `booked` reads them


def runs(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries of events that follow each other, until EVENTS are together; others alone."""
    run: list[Entry] = []
    held = 0
    for entry in entries:
        if run and (entry.kind != "events" or held >= EVENTS):
            yield run
            run, held = [], 0
        run.append(entry)
        held += len(entry.events)
        if entry.kind != "events":
            yield run
            run, held = [], 0
    if run:
        yield run


def read(entries: list[Entry]) -> Run:
    """With the events in them."""
    bodies = [body for entry in entries for body in entry.events]
    return Run(entries, bodies, [*map(booked, bodies)])


class _Booked(msgspec.Struct, gc=False):
    type: str
    account_id: str
    cost_usd: float | None = None
    paid_usd: float | None = None


_decode = msgspec.json.Decoder(_Booked).decode


def booked(body: bytes) -> AnyEvent:
    """An event as far as the ledger reads it: most are requests, of which it wants three of forty fields."""
    brief = _decode(body)
    if brief.type != "request":
        return decode(body)
    return Request(
        event_id="", occurred_at=0, account_id=brief.account_id, status=0,
        cost_usd=brief.cost_usd, paid_usd=brief.paid_usd,
    )  # fmt: skip


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same, each made on a thread aside while the one before it is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as aside:
        made = aside.submit(next, items, None)
        while (item := made.result()) is not None:
            made = aside.submit(next, items, None)
            yield item
