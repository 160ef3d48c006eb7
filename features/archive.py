"""Archives: all event types in one Parquet table.

A column is named like its field, except where several types carry a field of one name and the name
says something else in each: the `kind` of a payment is not the `kind` of a request. Such a column
is prefixed with its type's short name (SHORT): `payment_kind`, `request_status`, `signup_result`,
`kyc_attempts`. The rule in full: a field that one type has keeps its name; a field that several
types have is prefixed, unless SHARED lists it as meaning the same in all of them; the fields common
to all types are never prefixed.

Writing follows the rule. Reading is generous with names, because archives also come from elsewhere:
a field is found under its own name and under its type's short or full name as prefix
(`management_status`, `management_call_status`, `status`). It is strict with values: null and NaN
are unknown, everything else passes the same check as a line of JSON.

A column that begins with LOG is not of the event but of the log it was kept in, and is passed over.

Times are int64 epoch milliseconds or timestamps with a time zone, `entities` a map or a struct of
strings, `owners` a list of structs.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from features.disk import whole
from features.event import CLASS_OF, EVENT_TYPES, AnyEvent, Event, InvalidEvent, Rejection, convert

SHORT: dict[str, str] = {
    "account_signup": "signup",
    "phone_verified": "phone",
    "kyc_checked": "kyc",
    "ownership_declared": "ownership",
    "payment": "payment",
    "login": "login",
    "credential": "credential",
    "request": "request",
    "management_call": "management",
    "enforcement": "enforcement",
    "appeal": "appeal",
}
# Fields of several types that mean the same in each, and so share a column.
SHARED = frozenset({"phone", "phone_country", "phone_block_id", "plan", "credential_id"})
REQUIRED = ("event_id", "type", "occurred_at", "account_id")
GROUP_ROWS = 1 << 14  # rows written at a time, in memory as objects of a few kB each
COMMON = Event.__struct_fields__
LOG = "log."


class InputProblem(ValueError):
    """What stops the reading of a file. `line` counts from 1; in Parquet it is the row."""

    def __init__(
        self, path: Path, line: int | None, field: str | None, error: str, hint: str | None = None
    ) -> None:
        self.path, self.line, self.field, self.error, self.hint = path, line, field, error, hint
        super().__init__(path, line, field, error, hint)

    def __str__(self) -> str:
        unit = "row" if self.path.suffix == ".parquet" else "line"
        place = str(self.path)
        place += f", {unit} {self.line}" if self.line is not None else ""
        place += f", field `{self.field}`" if self.field is not None else ""
        return f"{place}: {self.error}" + (f" ({self.hint})" if self.hint else "")


# --- names


@cache
def columns_of(type_name: str) -> dict[str, str]:
    """Field -> column of one event type, in the order of the contract."""
    fields = CLASS_OF[type_name].__struct_fields__
    own = [f for f in fields if f not in COMMON]
    return {f: f for f in COMMON} | {
        f: f"{SHORT[type_name]}_{f}" if f not in SHARED and _homes(f) > 1 else f for f in own
    }


def _homes(field: str) -> int:
    return sum(field in cls.__struct_fields__ for cls in CLASS_OF.values())


@lru_cache(1 << 12)
def _field_under(type_name: str, column: str) -> str | None:
    """The field of this type that a column of this name holds, if it is one of this type's."""
    written = columns_of(type_name)
    for field, name in written.items():
        if name == column:
            return field
    if column in written:
        return column
    for prefix in (type_name, SHORT[type_name]):
        field = column.removeprefix(f"{prefix}_")
        if field != column and field in written:
            return field
    return None


@cache
def _integers(type_name: str) -> frozenset[str]:
    """The fields of a type that hold whole numbers."""
    fields = msgspec.structs.fields(CLASS_OF[type_name])
    return frozenset(f.name for f in fields if _arrow_type(f.type) == pa.int64())


# --- writing


@cache
def schema() -> Any:
    """The Arrow schema of a written archive: every column of every type."""
    columns = {"type": pa.string()}
    for type_name in EVENT_TYPES:
        names = columns_of(type_name)
        for field in msgspec.structs.fields(CLASS_OF[type_name]):
            columns.setdefault(names[field.name], _arrow_type(field.type))
    columns["occurred_at"] = columns["observed_at"] = pa.timestamp("ms", "UTC")
    first = [*REQUIRED, *(c for c in COMMON if c not in REQUIRED)]
    return pa.schema([(c, columns[c]) for c in [*first, *(c for c in columns if c not in first)]])


def _arrow_type(annotation: Any) -> Any:
    return _arrow(msgspec.inspect.type_info(annotation))


def _arrow(kind: msgspec.inspect.Type) -> Any:
    match kind:
        case msgspec.inspect.UnionType(types=types):
            return _arrow(types[0])  # the others are None and, for times, the textual form
        case msgspec.inspect.IntType():
            return pa.int64()
        case msgspec.inspect.FloatType():
            return pa.float64()
        case msgspec.inspect.BoolType():
            return pa.bool_()
        case msgspec.inspect.ListType(item_type=item):
            return pa.list_(_arrow(item))
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return pa.map_(_arrow(key), _arrow(value))
        case msgspec.inspect.StructType(fields=fields):
            return pa.struct([(f.name, _arrow(f.type)) for f in fields])
    return pa.string()  # text, and the words of a closed vocabulary


def write_archive(events: Iterable[AnyEvent], path: Path) -> int:
    """Write decoded events as Parquet (zstd), in order; returns how many there were.

    The file appears under its name when it is complete, so that nobody reads half of it.
    """
    source = iter(events)
    n = 0
    with whole(path) as file, pq.ParquetWriter(file, schema(), compression="zstd") as writer:
        while part := list(islice(source, GROUP_ROWS)):
            writer.write_table(table_of(part))
            n += len(part)
    return n


def table_of(events: Sequence[AnyEvent]) -> Any:
    """Decoded events as an Arrow table of `schema()`."""
    columns: dict[str, list[Any]] = {c: [None] * len(events) for c in schema().names}
    for i, event in enumerate(events):
        row = msgspec.to_builtins(event)
        name = _columns_with_type(row["type"])
        for field, value in row.items():
            columns[name[field]][i] = value
    return pa.table(columns, schema=schema())


@cache
def _columns_with_type(type_name: str) -> dict[str, str]:
    return columns_of(type_name) | {"type": "type"}


# --- reading


def open_parquet(path: Path) -> Any:
    """The `pyarrow.parquet.ParquetFile` of a path.

    Raises:
        InputProblem: it is not Parquet, or damaged.
    """
    try:
        return pq.ParquetFile(path)
    except (
        pa.ArrowException,
        OSError,
        UnicodeDecodeError,
    ) as problem:  # the last of a column's name
        raise _unreadable(path, None, problem) from None


def _unreadable(
    path: Path, row: int | None, problem: Exception, column: str | None = None
) -> InputProblem:
    reason = str(problem).split("\n")[0].rstrip(". ")
    error = f"not readable as Parquet: {reason}"
    return InputProblem(path, row, column, error, "was it copied whole?")


def parquet_batches(path: Path, file: Any, batch: int) -> Iterator[tuple[int, Any]]:
    """Record batches of at most `batch` rows, each with the number of its first row (from 1).

    Raises:
        InputProblem: the file is damaged; what lies before the damage has been yielded.
    """
    first = 1
    batches = file.iter_batches(batch_size=batch)
    while True:
        try:
            part = next(batches, None)
        except (pa.ArrowException, OSError) as problem:
            raise _unreadable(path, first, problem) from None
        if part is None:
            return
        bad = _unsound(part)
        sound = part.num_rows if bad is None else bad[0]
        if sound:
            yield first, part.slice(0, sound)
        first += sound
        if bad is not None:
            raise _unreadable(path, first, *bad[1:])


def _unsound(part: Any) -> tuple[int, Exception, str | None] | None:
    """The first row of a batch that cannot be read, why, and the column: whoever wrote the file may
    have called text what is not UTF-8. None where all is well."""
    try:
        part.validate(full=True)
    except pa.ArrowException as whole:
        for row in range(part.num_rows):
            for name, column in zip(part.schema.names, part.columns, strict=True):
                try:
                    column.slice(row, 1).validate(full=True)
                except pa.ArrowException as problem:
                    return row, problem, name
        return 0, whole, None
    return None


def missing_column(path: Path, name: str, columns: Sequence[str]) -> InputProblem:
    """A required column is not there: the problem, with the nearest of those that are."""
    close = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
    hint = f"the nearest column is `{close[0]}`" if close else f"columns: {', '.join(columns[:12])}"
    return InputProblem(path, None, name, "the required column is missing", hint)


class Part(NamedTuple):
    """A batch of an archive: the good events, the row each stood in, the rows refused (`line` is
    the row, `field` the column as this file names it), and what share of the file it is."""

    events: list[AnyEvent]
    rows: list[int]
    rejected: list[Rejection]
    share: float


def read_archive(path: Path, batch: int) -> Iterator[Part]:
    """Read an archive, at most `batch` rows at a time.

    Raises:
        InputProblem: a required column is missing, a time has no zone, the file is damaged.
    """
    with open_parquet(path) as file:
        columns = file.schema_arrow
        for name in REQUIRED:
            if name not in columns.names:
                raise missing_column(path, name, columns.names)
        check_columns(path, columns)
        for first, part in parquet_batches(path, file, batch):
            yield part_of(part, first, file.metadata.num_rows)


def check_columns(path: Path, columns: Any) -> None:
    """Refuse what cannot be read in any row: times without a zone, types that are not text."""
    for column in columns:
        try:
            zoned = not pa.types.is_timestamp(column.type) or column.type.tz is not None
        except UnicodeDecodeError as problem:
            raise _unreadable(path, None, problem, column.name) from None
        if not zoned:
            error = f"{column.type} has no time zone"
            hint = "write it as timestamp[ms, tz=UTC] or as int64 epoch milliseconds"
            raise InputProblem(path, None, column.name, error, hint)
        if column.name == "type" and pa.types.is_nested(column.type):
            raise InputProblem(path, None, "type", f"an event type is text, this is {column.type}")


def part_of(part: Any, first: int, total: int) -> Part:
    """The events of a record batch whose first row is `first` of `total`.

    Type by type, because most columns of a mixed table say nothing about most rows.
    """
    found: dict[int, AnyEvent] = {}
    rejected: dict[int, Rejection] = {}
    rows_of: dict[Any, list[int]] = {}
    for row, type_name in enumerate(part.column("type").to_pylist()):
        rows_of.setdefault(type_name, []).append(row)
    for type_name, rows in rows_of.items():
        own = part if len(rows) == part.num_rows else part.take(pa.array(rows))
        known = type_name if type_name in CLASS_OF else None
        fields, columns, values = [], [], []
        for name, column in zip(own.schema.names, own.columns, strict=True):
            if name == "type" or name.startswith(LOG):
                continue
            if column.null_count < len(rows):
                field = _field_under(known, name) if known else None
                fields.append(field or name)
                columns.append(name)
                whole = known is not None and field in _integers(known)
                values.append(column_values(column, whole))
        for i, row in enumerate(rows):
            cells = [v[i] for v in values]
            try:
                found[row] = _event(type_name, fields, columns, cells)
            except InvalidEvent as problem:
                event_id = dict(zip(columns, cells, strict=True)).get("event_id")
                name = event_id[:128] if isinstance(event_id, str) else None
                rejected[row] = problem.at(first + row, name)
    good = sorted(found)
    return Part(
        [found[r] for r in good],
        [first + r for r in good],
        [rejected[r] for r in sorted(rejected)],
        part.num_rows / total,
    )


def _event(
    type_name: str | None, fields: Sequence[str], columns: Sequence[str], cells: Sequence[Any]
) -> AnyEvent:
    """The event of one row; errors name the column."""
    cell_of = {f: v for f, v in zip(fields, cells, strict=True) if v is not None}
    if len(set(fields)) < len(fields):
        _agree(fields, columns, cells)
    try:
        return convert({"type": type_name, **cell_of})
    except InvalidEvent as problem:
        if problem.field is None or type_name not in CLASS_OF:
            raise
        head = re.match(r"\w*", problem.field)
        field = head[0] if head else ""
        given = (
            c
            for f, c, v in zip(fields, columns, cells, strict=True)
            if f == field and v is not None
        )
        column = next(given, None) or columns_of(type_name).get(field, field)
        homes = [t for t in EVENT_TYPES if _field_under(t, column)]
        if homes and type_name not in homes:
            error = f"misplaced: `{type_name}` has no such field"
            raise InvalidEvent(column, error, f"it belongs to {', '.join(homes)}") from None
        place = column + problem.field[len(field) :]
        raise InvalidEvent(place, problem.error, problem.hint) from None


def _agree(fields: Sequence[str], columns: Sequence[str], cells: Sequence[Any]) -> None:
    """Refuse a row in which two columns of one field hold different values."""
    seen: dict[str, tuple[str, Any]] = {}
    for field, column, value in zip(fields, columns, cells, strict=True):
        if value is not None:
            first, known = seen.setdefault(field, (column, value))
            if value != known:
                error = f"differs from `{first}`, which holds the same field"
                raise InvalidEvent(column, error)


def column_values(column: Any, integer: bool = False) -> list[Any]:
    """A column as the values JSON would give: times as epoch ms, NaN as None, maps as dicts.

    `integer`: a whole number may stand as a float, as pandas writes it beside missing values.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    elif pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ms", kind.tz), safe=False).cast(pa.int64())
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(kind):
        values = [None if v is None or v != v else v for v in values]
        return [int(v) if integer and v is not None and v.is_integer() else v for v in values]
    if pa.types.is_map(kind):
        return [None if v is None else _known(dict(v)) for v in values]
    if pa.types.is_struct(kind):
        return [(_known(v) or None) if v is not None else None for v in values]
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return [None if v is None else [s and _known(s) for s in v] for v in values]
    return values


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
