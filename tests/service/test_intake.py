from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from served import one

from features.event import AnyEvent, encode
from service import intake
from service.intake import read_body
from service.problem import Problem

BAD: list[Any] = [{}, 7, "text", None, [], one(1, "a", "nothing"), one(2) | {"colour": "red"}]
JSON, NDJSON = "application/json", "application/x-ndjson"


def mixed(
    any_event: SearchStrategy[AnyEvent], data: st.DataObject
) -> tuple[list[bytes], list[int]]:
    """Items of a body, and the places (from 1) of those that are events."""
    items, good = [], []
    for place in range(1, data.draw(st.integers(1, 6)) + 1):
        if data.draw(st.booleans()):
            items.append(encode(data.draw(any_event)))
            good.append(place)
        else:
            items.append(msgspec.json.encode(data.draw(st.sampled_from(BAD))))
    return items, good


@given(data=st.data())
def test_good_ones_are_kept_and_bad_ones_listed(
    any_event: SearchStrategy[AnyEvent], data: st.DataObject
) -> None:
    items, good = mixed(any_event, data)
    bad = [place for place in range(1, len(items) + 1) if place not in good]
    for body, kind in (
        (b"[" + b",".join(items) + b"]", JSON),
        (b"\n".join(items), NDJSON),
        (b"\r\n".join(items) + b"\r\n", "application/jsonl"),
    ):
        read = read_body(body, kind)
        assert read.place == good
        assert [encode(e) for e in read.events] == [items[place - 1] for place in good]
        assert [r.line for r in read.rejected] == bad
        assert not read.single


@given(data=st.data())
def test_one_event_is_one_however_it_is_printed(
    any_event: SearchStrategy[AnyEvent], data: st.DataObject
) -> None:
    body = encode(data.draw(any_event))
    for printed in (body, msgspec.json.format(body, indent=2), b"\n" + body + b"\n"):
        read = read_body(printed, JSON)
        assert read.single
        assert [encode(e) for e in read.events] == [body]


@given(body=st.binary(max_size=200), kind=st.sampled_from([JSON, NDJSON, "", "text/plain"]))
def test_no_bytes_are_a_surprise(body: bytes, kind: str) -> None:
    try:
        read = read_body(body, kind)
    except Problem as problem:
        if problem.status == 400:
            return
        raise
    assert len(read.events) == len(read.place)
    assert read.single <= (len(read.events) + len(read.rejected) == 1)


def test_ndjson_is_known_under_another_name() -> None:
    lines = [msgspec.json.encode(one(n)) for n in range(3)]
    lines[0] = b'{"event_id": "e0", '
    read = read_body(b"\n".join(lines), JSON)
    assert (read.place, [r.line for r in read.rejected]) == ([2, 3], [1])


def test_a_broken_object_over_several_lines_is_one_event() -> None:
    body = msgspec.json.format(msgspec.json.encode(one(1)), indent=2).replace(b"login", b"login,")
    read = read_body(body + b"]", JSON)
    assert read.single
    assert len(read.rejected) == 1


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "empty"),
        (b" \n\t", 400, "empty"),
        (b"[1, 2", 400, "the array cannot be read"),
        (b"[" * 2000, 400, "the array cannot be read"),
    ],
)
def test_bodies_that_cannot_be_read(body: bytes, status: int, words: str) -> None:
    with pytest.raises(Problem, match=words) as told:
        read_body(body, JSON)
    assert told.value.status == status


@pytest.mark.parametrize("kind", [JSON, NDJSON])
def test_a_batch_has_a_limit(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(intake, "BATCH_MAX", 3)
    lines = [msgspec.json.encode(one(n)) for n in range(4)]
    for count, fits in ((3, True), (4, False)):
        part = lines[:count]
        body = b"[" + b",".join(part) + b"]" if kind == JSON else b"\n".join(part) + b"\n"
        if fits:
            assert len(read_body(body, kind).events) == 3
        else:
            with pytest.raises(Problem, match="at most 3 events"):
                read_body(body, kind)


def test_an_event_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too long costs only itself, and is not read."""
    monkeypatch.setattr(intake, "EVENT_MAX", 200)
    lines = [msgspec.json.encode(one(n)) for n in range(3)]
    lines[1] = msgspec.json.encode(one(1, "a" * 128))
    assert len(lines[1]) > 200
    for body, kind in (
        (b"\n".join(lines), NDJSON),
        (b"\n".join(lines), JSON),
        (b"[" + b",".join(lines) + b"]", JSON),
    ):
        read = read_body(body, kind)
        assert (read.place, [r.line for r in read.rejected]) == ([1, 3], [2])
        assert "at most 200 bytes" in read.rejected[0].error


def test_the_largest_event_of_the_contract_fits() -> None:
    widest = "\U0001f41f" * 512
    owners = [{"owner": widest, "share": 1 / 3, "of": widest, "country": "DE"}] * 256
    entities = {f"k{n:063}": widest for n in range(32)}
    large = one(1, type="ownership_declared", owners=owners, entities=entities)
    body = msgspec.json.encode(large)
    assert len(body) < intake.EVENT_MAX - 50_000  # and the shorter fields
    assert len(read_body(body, JSON).events) == 1


def test_commas_do_not_become_items() -> None:
    body = b"[" + b"1," * intake.COMMAS_MAX + b"1]"
    assert read_body(b"[1,1]", JSON).rejected
    assert len(body) < intake.BODY_MAX
    with pytest.raises(Problem, match="commas") as told:
        read_body(body + b",", JSON)
    assert told.value.status == 413
