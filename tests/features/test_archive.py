"""Archives: what goes through Parquet comes back the same, under every name it may have."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy

from features.archive import (
    COMMON,
    GROUP_ROWS,
    SHARED,
    SHORT,
    columns_of,
    schema,
    write_archive,
)
from features.event import CLASS_OF, EVENT_TYPES, AnyEvent, Login, decode, encode
from features.reader import Batch, InputProblem, read_events

T = 1_700_000_000_000
COMMON_COLUMNS: dict[str, list[Any]] = {
    "event_id": ["e1", "e2"],
    "type": ["login", "payment"],
    "occurred_at": [T, T + 1],
    "account_id": ["a1", "a2"],
    "payment_kind": [None, "charge"],
}


def written(path: Path, **columns: Any) -> Path:
    """A table of a login and a payment, with these columns; one given as `...` is left out."""
    given = {c: v for c, v in (COMMON_COLUMNS | columns).items() if v is not ...}
    pq.write_table(pa.table(given), path)
    return path


def read(path: Path) -> Batch:
    parts = list(read_events([path]))
    assert len(parts) == 1
    return parts[0]


def only(path: Path) -> list[AnyEvent]:
    part = read(path)
    assert part.rejected == []
    return part.events


# --- there and back


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_archive_gives_back_what_was_written(
    tmp_path: Path, one_type: SearchStrategy[AnyEvent], data: DataObject
) -> None:
    events = [decode(encode(e)) for e in data.draw(st.lists(one_type, max_size=5))]
    path = tmp_path / "events.parquet"
    assert write_archive(events, path) == len(events)
    assert [e for part in read_events([path]) for e in part.events] == events


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_types_may_be_mixed_and_keep_their_order(
    tmp_path: Path, any_event: SearchStrategy[AnyEvent], data: DataObject
) -> None:
    events = [decode(encode(e)) for e in data.draw(st.lists(any_event, max_size=12))]
    path = tmp_path / "events.parquet"
    write_archive(events, path)
    batch = data.draw(st.integers(1, 13))
    parts = list(read_events([path], batch=batch))
    assert [e for part in parts for e in part.events] == events
    assert [n for part in parts for n in part.lines] == list(range(1, len(events) + 1))
    assert all(len(part.lines) <= batch for part in parts)
    assert sum(part.bytes_read for part in parts) == (path.stat().st_size if events else 0)


def test_many_rows_make_several_groups(tmp_path: Path) -> None:
    n = 2 * GROUP_ROWS + 3
    path = tmp_path / "events.parquet"
    events = (Login(event_id=f"e{i}", occurred_at=i, account_id="a") for i in range(n))
    assert write_archive(events, path) == n
    assert pq.ParquetFile(path).num_row_groups == 3
    at = [e.occurred_at for part in read_events([path]) for e in part.events]
    assert at == list(range(n))


def test_nobody_sees_half_an_archive(tmp_path: Path) -> None:
    def broken() -> Any:
        yield Login(event_id="e", occurred_at=1, account_id="a")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_archive(broken(), tmp_path / "events.parquet")
    assert list(tmp_path.iterdir()) == []


# --- the names of columns


def test_a_field_of_several_types_is_prefixed_unless_it_means_the_same(
    golden: Callable[[str, str], None],
) -> None:
    homes: dict[str, set[str]] = {}
    for type_name in EVENT_TYPES:
        for field, column in columns_of(type_name).items():
            homes.setdefault(column, set()).add(type_name)
            prefixed = column == f"{SHORT[type_name]}_{field}"
            several = sum(field in cls.__struct_fields__ for cls in CLASS_OF.values()) > 1
            assert prefixed == (several and field not in SHARED and field not in COMMON)
    for column, types in homes.items():
        assert len(types) == 1 or column in (*SHARED, *COMMON)
    assert {"type", *homes} == set(schema().names)
    golden("archive_columns.txt", "".join(f"{f.name}: {f.type}\n" for f in schema()))


@pytest.mark.parametrize("type_name", EVENT_TYPES)
def test_every_field_is_found_under_short_and_full_prefix(type_name: str, tmp_path: Path) -> None:
    least: dict[str, Any] = {
        "kyc_checked": {"result": "passed"},
        "payment": {"kind": "charge"},
        "credential": {"kind": "key_created"},
        "request": {"status": 200},
        "enforcement": {"action": "suspend"},
        "appeal": {"outcome": "filed"},
    }
    plain = {"event_id": "e", "occurred_at": T, "account_id": "a"} | least.get(type_name, {})
    field = {"login": "method", "management_call": "status", "ownership_declared": "owners"}
    value: dict[str, Any] = {"method": "sso", "status": 200}
    if type_name in field:
        plain[field[type_name]] = value.get(
            field[type_name], [{"owner": "o", "share": 1.0, "of": "self"}]
        )
    own = [f for f in plain if f not in COMMON]
    found = []
    for prefix in ("", f"{SHORT[type_name]}_", f"{type_name}_"):
        columns = {(prefix + f if f in own else f): [v] for f, v in plain.items()}
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table(columns | {"type": [type_name]}), path)
        found += only(path)
    assert found[0] == found[1] == found[2]


def test_a_name_that_is_a_field_is_that_field(tmp_path: Path) -> None:
    # `phone_country` is a field of phone_verified, not `country` under the prefix `phone`
    path = written(
        tmp_path / "t.parquet",
        type=["phone_verified", "payment"],
        phone_country=["DE", None],
        country=["FR", "FR"],
    )
    verified: Any = only(path)[0]
    assert (verified.phone_country, verified.country) == ("DE", "FR")


# --- values in the forms that other writers give them


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "+02:00", "Europe/Berlin"])
def test_timestamps_with_a_zone_are_epoch_milliseconds(
    tmp_path: Path, unit: str, zone: str
) -> None:
    times = pa.array([datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)] * 2, pa.timestamp(unit, zone))
    for event in only(written(tmp_path / "t.parquet", occurred_at=times, observed_at=times)):
        assert (event.occurred_at, event.observed_at) == (T, T)


def test_text_times_are_read_like_json(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.parquet", occurred_at=["2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00"]
    )
    assert [e.occurred_at for e in only(path)] == [T, T]


def test_missing_values_as_pandas_writes_them(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.parquet",
        asn=pa.array([7018.0, float("nan")]),
        amount_usd=pa.array([float("nan"), 5.0]),
        network_type=pa.array(["mobile", None]).dictionary_encode(),
        ip=pa.array([None, None], pa.string()),
        user_agent=pa.array([None, None], pa.null()),
        unknown_but_empty=pa.array([None, None], pa.int32()),
    )
    first, second = only(path)
    assert (first.asn, second.asn) == (7018, None)
    assert (first.network_type, second.network_type) == ("mobile", None)
    assert second.amount_usd == 5.0  # type: ignore[union-attr]


def test_decimals_and_large_text(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.parquet",
        amount_usd=pa.array([None, Decimal("19.99")]),
        device_id=pa.array(["d", None], pa.large_string()),
    )
    first, second = only(path)
    assert (first.device_id, second.amount_usd) == ("d", 19.99)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "entities",
    [
        pa.array([[("wallet", "w")], None], pa.map_(pa.string(), pa.string())),
        pa.array([{"wallet": "w", "other": None}, {"wallet": None, "other": None}]),
    ],
    ids=["map", "struct"],
)
def test_entities_are_a_map_or_a_struct(tmp_path: Path, entities: Any) -> None:
    first, second = only(written(tmp_path / "t.parquet", entities=entities))
    assert first.entities == {"wallet": "w"}
    assert second.entities is None


def test_owners_are_a_list_of_structs(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.parquet",
        type=["ownership_declared", "payment"],
        owners=[
            [
                {"owner": "o", "share": 0.5, "of": "self", "country": None},
                {"owner": "p", "share": 1.0, "of": "o", "country": "CY"},
            ],
            None,
        ],
    )
    declared: Any = only(path)[0]
    assert [(o.owner, o.country) for o in declared.owners] == [("o", None), ("p", "CY")]


# --- refusals


def test_the_words_of_every_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    share = [{"owner": "o", "share": 2.0, "of": "self"}]
    naive = pa.array([datetime(2023, 11, 14)] * 2, pa.timestamp("us"))
    of_login: list[tuple[str, dict[str, Any]]] = [
        ("a word of another column", {"payment_kind": [None, "chrage"]}),
        ("a required field of a type", {"payment_kind": [None, None]}),
        ("a required value", {"account_id": [None, "a2"]}),
        ("no type", {"type": [None, "payment"]}),
        ("an unknown type", {"type": ["logon", "payment"]}),
        ("a prefixed field of another type", {"payment_kind": ["charge", "charge"]}),
        ("a plain field of another type", {"status": [None, 200]}),
        ("an unknown column", {"devise_id": ["d", None]}),
        ("two columns that differ", {"kind": [None, "refund"]}),
        ("text for a number", {"asn": ["7018", None]}),
        ("a fraction for a whole number", {"asn": [0.5, None]}),
        ("too many owners", {"type": ["ownership_declared", "payment"], "owners": [share, None]}),
        ("a bad time", {"occurred_at": ["yesterday", "2023-11-14T22:13:20Z"]}),
        ("a missing column", {"account_id": ..., "accountid": ["a1", "a2"]}),
        ("a missing column, nothing near", {"occurred_at": ..., "ts": [1, 2]}),
        ("times without a zone", {"occurred_at": naive}),
        ("a type that is no text", {"type": [["login"], ["payment"]]}),
    ]
    told = []
    for name, columns in of_login:
        told.append(f"{name}\n")
        path = written(Path("events.parquet"), **columns)
        try:
            part = read(path)
        except InputProblem as problem:
            told.append(f"    {problem}\n")
        else:
            assert part.rejected
            assert len(part.events) + len(part.rejected) == 2
            told += [f"    {r} [{r.event_id}]\n" for r in part.rejected]
    golden("archive_errors.txt", "".join(told))


def test_text_that_is_not_utf8_stops_the_file_at_its_row(tmp_path: Path) -> None:
    agents = pa.array([b"curl/8", b"\xff\xfe"], pa.binary()).view(pa.string())
    path, parts = written(tmp_path / "t.parquet", user_agent=agents), []
    with pytest.raises(InputProblem, match="UTF8") as found:
        parts.extend(read_events([path]))
    assert [e.event_id for p in parts for e in p.events] == ["e1"]
    assert found.value.line == 2


def test_a_time_zone_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    zoned = pa.array([T, T], pa.timestamp("ms", "Etc/UTC"))
    path = written(tmp_path / "t.parquet", observed_at=zoned)
    said = pq.ParquetFile(path).metadata.metadata[b"ARROW:schema"]
    other = b64encode(b64decode(said).replace(b"Etc/UTC", b"\xff" * 7))
    assert len(other) == len(said)
    path.write_bytes(path.read_bytes().replace(said, other))
    with pytest.raises(InputProblem, match="not readable as Parquet") as found:
        read(path)
    assert found.value.field == "observed_at"


def test_good_rows_before_the_damage_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    n = 2 * GROUP_ROWS
    write_archive((Login(event_id=f"e{i}", occurred_at=i, account_id="a") for i in range(n)), path)
    second = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    at = second.dictionary_page_offset or second.data_page_offset
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    parts: list[Batch] = []
    with pytest.raises(InputProblem, match="not readable as Parquet") as found:
        parts.extend(read_events([path], batch=GROUP_ROWS))
    assert [e.event_id for p in parts for e in p.events] == [f"e{i}" for i in range(GROUP_ROWS)]
    assert found.value.line == GROUP_ROWS + 1
    assert f"row {GROUP_ROWS + 1}" in str(found.value)
