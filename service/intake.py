"""Bodies to events: one JSON object, an array of them, or NDJSON; good ones kept, bad ones listed."""

import re
from dataclasses import dataclass

import msgspec

from features.event import (
    AnyEvent,
    InvalidEvent,
    Rejection,
    decode,
    decode_lines,
    event_id_of,
    too_long,
)
from service.problem import Problem
from service.unpack import too_large

BODY_MAX = 64 * 2**20  # bytes, unpacked
BATCH_MAX = 100_000  # events
EVENT_MAX = 2 * 2**20  # bytes; whatever the contract allows fits, written in UTF-8
COMMAS_MAX = (
    32 * BATCH_MAX
)  # in an array, so that a body of commas does not become millions of items

_NOT_SPACE = re.compile(rb"\S")


@dataclass(frozen=True, slots=True)
class Intake:
    """`place[i]` is where in the body `events[i]` stood (line or array index, from 1)."""

    events: list[AnyEvent]
    place: list[int]
    rejected: list[Rejection]
    single: bool


def read_body(body: bytes, content_type: str) -> Intake:
    """Decode what was posted.

    Raises:
        Problem: the body as a whole cannot be read: empty, too large, or not JSON.
    """
    if len(body) > BODY_MAX:
        raise too_large(BODY_MAX, len(body))
    if not body or body.isspace():
        raise Problem(
            400, "No events", "the body is empty: send one event, an array of events, or NDJSON"
        )
    if "ndjson" in content_type or "jsonl" in content_type:
        return _lines(body)
    start = _first(body)
    if start == b"[":
        return _array(body)
    if len(body) > EVENT_MAX:  # too long for one event: NDJSON under another name, or nothing
        return _lines(body)
    lines = body.strip().split(b"\n") if start == b"{" else []
    if len(lines) > 1 and not _is_one(body) and any(map(_is_one, lines)):
        return _lines(body)
    try:
        return Intake([decode(body)], [1], [], True)
    except InvalidEvent as problem:
        return Intake([], [], [problem.at(1, event_id_of(body))], True)


def _first(body: bytes) -> bytes:
    """The first byte that is no space, without a copy of the body."""
    found = _NOT_SPACE.search(body)
    return found[0] if found else b""


def _lines(body: bytes) -> Intake:
    if body.count(b"\n") > BATCH_MAX:
        raise Problem(413, "Too large", f"a batch holds at most {BATCH_MAX} events")
    events, lines, rejected = decode_lines(body, line_max=EVENT_MAX)
    return Intake(events, lines, rejected, False)


def _array(body: bytes) -> Intake:
    if body.count(b",") > COMMAS_MAX:
        raise Problem(
            413, "Too large", f"an array holds at most {BATCH_MAX} events and {COMMAS_MAX} commas"
        )
    try:
        items = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as problem:
        raise Problem(400, "Not JSON", f"the array cannot be read: {problem}") from None
    if len(items) > BATCH_MAX:
        raise Problem(
            413, "Too large", f"a batch holds at most {BATCH_MAX} events, this one {len(items)}"
        )
    intake = Intake([], [], [], False)
    for place, item in enumerate(items, 1):
        raw = bytes(item)
        if len(raw) > EVENT_MAX:
            intake.rejected.append(too_long(EVENT_MAX).at(place))
            continue
        try:
            intake.events.append(decode(raw))
            intake.place.append(place)
        except InvalidEvent as problem:
            intake.rejected.append(problem.at(place, event_id_of(raw)))
    return intake


def _is_one(body: bytes) -> bool:
    """Whether this is one object, be it pretty-printed."""
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True
