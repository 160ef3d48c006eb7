"""The compiled walk makes the bytes and the rows that sealing field by field makes."""

import copy
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy

from features.event import (
    AnyEvent,
    Credential,
    InvalidEvent,
    KycChecked,
    Login,
    Owner,
    OwnershipDeclared,
    Request,
    decode,
    encode,
)
from features.identity import Secret
from features.rows import Kinds, Names, Rows
from features.seal import MEMO, Sealer
from tests.features import plain

KEY = bytes(range(32))
T = 1_700_000_000_000

# What JSON escapes, what looks like a token, what a register of eight bytes ends in, what is too long
# to be remembered.
TEXTS = st.one_of(
    st.text('"\\/\b\f\n\r\t\x00\x1f\x7f\xe9\u2028\U0001f600h:0aF ', min_size=1, max_size=20),
    st.text("ab", min_size=1, max_size=26),
    st.text(min_size=50, max_size=300),
    st.text("0123456789abcdefABCDEF", min_size=32, max_size=32).map("h:{}".format),
    st.text("0123456789abcdefgh: _x-\u0663", min_size=30, max_size=36).map("h:{}".format),
    st.sampled_from(["self", "h:", "h", "H:", " ", "request", "token_refreshed"]),
)
IDS = TEXTS.map(lambda text: text[:128])
KINDS = st.from_regex("[A-Za-z][A-Za-z0-9_.-]{0,9}", fullmatch=True)
ODD = st.one_of(
    st.builds(
        Request,
        event_id=IDS,
        occurred_at=st.integers(0, 2**53),
        account_id=IDS,
        org_id=st.none() | IDS,
        status=st.sampled_from([200, 429, 999]),
        error=st.none() | TEXTS,
        device_id=st.none() | TEXTS,
        model=st.none() | TEXTS,
        window_used=st.none() | st.floats(0, 1),
        input_tokens=st.none() | st.integers(0, 2**53),
        cache_read_tokens=st.none() | st.integers(0, 2**53),
        cache_write_tokens=st.none() | st.integers(0, 2**53),
        template_sketch=st.none() | st.just([0] * 8),
        chain=st.none() | st.lists(TEXTS, max_size=4),
        chain_after=st.none() | TEXTS,
        minted_refs=st.none() | st.lists(TEXTS, max_size=4),
        emitted_refs=st.none() | st.lists(TEXTS, max_size=4),
        entities=st.none() | st.dictionaries(KINDS, TEXTS, max_size=4),
    ),
    st.builds(
        KycChecked,
        event_id=IDS,
        occurred_at=st.just(T),
        account_id=IDS,
        result=st.just("passed"),
        mrz=TEXTS,
        face_sketch=st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8),
    ),
    st.builds(
        OwnershipDeclared,
        event_id=IDS,
        occurred_at=st.just(T),
        account_id=IDS,
        owners=st.none() | st.lists(st.builds(Owner, owner=TEXTS, share=st.floats(0, 1), of=TEXTS)),
    ),
    st.builds(
        Credential,
        event_id=IDS,
        occurred_at=st.just(T),
        account_id=IDS,
        kind=st.sampled_from(["token_refreshed", "key_created"]),
        lead_s=st.floats(-1e12, 1e12),
    ),
)


def new_sealer(key: bytes = KEY) -> Sealer:
    return Sealer(Secret(key), Kinds(["declared"]), Names())


def same(a: Rows, b: Rows) -> None:
    for column in fields(Rows):
        left, right = getattr(a, column.name), getattr(b, column.name)
        assert left.dtype == right.dtype, column.name
        np.testing.assert_array_equal(left, right, column.name)


def held_together(events: Sequence[AnyEvent], sealer: Sealer) -> None:
    plainly = copy.deepcopy(events)
    for event in plainly:
        plain.seal(event, Secret(KEY))
    kinds, names = Kinds(["declared"]), Names()
    rows = plain.rows_of(plainly, kinds, names)
    told, refused = sealer.seal(copy.deepcopy(events))
    assert refused == []
    assert told.bodies == [encode(e) for e in plainly]
    assert (sealer.kinds.names, sealer.names) == (kinds.names, names)
    same(told.rows, rows)
    again = new_sealer(KEY[::-1])  # what is sealed is sealed, whoever reads it
    kept = again.read(told.bodies)
    same(kept.rows, rows)
    assert (again.kinds.names, again.names) == (kinds.names, names)
    assert again.seal(list(map(decode, told.bodies)))[0].bodies == told.bodies


@given(data=st.data())
def test_events_of_every_type_are_sealed_as_they_are_plainly(
    any_event: SearchStrategy[AnyEvent], data: DataObject
) -> None:
    held_together(data.draw(st.lists(any_event, max_size=4)), new_sealer())


@given(st.lists(ODD, max_size=4))
def test_odd_texts_and_numbers_are_sealed_as_they_are_plainly(events: list[AnyEvent]) -> None:
    held_together(events, new_sealer())


@given(one=st.lists(ODD, max_size=3), other=st.lists(ODD, max_size=3))
def test_what_a_sealer_has_seen_before_changes_nothing(
    one: list[AnyEvent], other: list[AnyEvent]
) -> None:
    sealer = new_sealer()
    for event in one:
        sealer.seal([copy.deepcopy(event)])
    sealer.kinds, sealer.names = Kinds(["declared"]), Names()
    held_together(other + one, sealer)


def test_a_token_outlives_the_memory_of_its_value() -> None:
    def minted(first: int) -> Any:
        return [
            Request(
                event_id=str(i),
                occurred_at=T,
                account_id="a",
                status=200,
                minted_refs=[f"m{i}-{k}" for k in range(16)],
            )
            for i in range(first, first + MEMO // 8)
        ]

    sealer = new_sealer()
    first, _ = sealer.seal(minted(0))
    sealer.seal(minted(MEMO))
    again, _ = sealer.seal(minted(0))
    assert again.bodies == first.bodies
    same(again.rows, first.rows)
    assert len(np.unique(first.rows.id)) == 16 * len(first.bodies)


def test_what_cannot_be_sealed_is_told_by_its_place_and_costs_no_neighbour() -> None:
    events: list[AnyEvent] = [
        Login(event_id=str(i), occurred_at=T, account_id=str(i), ip=ip)
        for i, ip in enumerate(["192.0.2.1", "nowhere", "192.0.2.2"])
    ]
    told, refused = new_sealer().seal(events)
    assert [(i, problem.field) for i, problem in refused] == [(1, "ip")]
    assert isinstance(refused[0][1], InvalidEvent)
    assert [e.event_id for e in told.events] == ["0", "2"]
    assert len(told.bodies) == len(told.rows) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b'{"type":"nothing"}', b'{"type":"login","x":1}', b'{"type": "login"}',
        b'{"type":"login"', b'{"type":"login","event_id":"e',
    ],
)  # fmt: skip
def test_what_is_no_encoding_of_ours_is_refused_unread(body: bytes) -> None:
    with pytest.raises(ValueError, match="not events as they are encoded"):
        new_sealer().read([body])


@given(st.lists(ODD, min_size=1, max_size=3), st.data())
def test_a_damaged_body_reads_nothing_beyond_it(events: list[AnyEvent], data: DataObject) -> None:
    body = bytearray(b"\n".join(map(encode, events)))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        told = new_sealer().read(bytes(body[: data.draw(st.integers(0, len(body)))]).split(b"\n"))
    except (ValueError, msgspec.DecodeError):
        return
    assert told.rows.start[-1] == len(told.rows.id)


@pytest.mark.parametrize("number", [0.0, -0.0, 5e-324, 1e22, 123456789012345.68, 0.1, -2.5e-7])
def test_a_number_is_read_as_python_reads_it(number: float) -> None:
    event = Credential(
        event_id="e", occurred_at=T, account_id="a", kind="token_refreshed", lead_s=number
    )
    told, _ = new_sealer().seal([event])
    column = told.rows.number[0]
    known = column[~np.isnan(column)]
    assert known.tobytes() == np.array([number]).tobytes()
