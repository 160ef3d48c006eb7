"""Tables that people write: the truth of a scenario, and labels. CSV, NDJSON or Parquet.

Truth says who was abusive, for evaluation; labels are what analysts and processors say, for
training. A truth file is accepted as labels. Both are small and must be right: the first thing that
is wrong stops the reading, named by file, line and column, with the nearest right name. Columns
that the contract does not know are passed over, unless one looks like a misspelt one.
"""

import csv
import difflib
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.archive import (
    check_columns,
    column_values,
    missing_column,
    open_parquet,
    parquet_batches,
)
from features.event import Time, milliseconds, nearest
from features.reader import InputProblem, is_parquet, missing_file, not_utf8, read_lines

Typology = Literal[
    "credit_farm",
    "sms_farm",
    "carded",
    "kyc_mule",
    "plan_sharing",
    "transfer_station",
    "distillation",
]
Tier = Literal["T0", "T1", "T2", "T3"]
Word = Literal["abusive", "honest", "unsure"]
Source = Literal["analyst", "dispute", "appeal", "canary", "import"]
TYPOLOGIES: tuple[str, ...] = get_args(Typology)
TIERS: tuple[str, ...] = get_args(Tier)
WORDS: tuple[str, ...] = get_args(Word)
SOURCES: tuple[str, ...] = get_args(Source)

TRUTH_COLUMNS = ("account_id", "ring_id", "typology", "cohort", "tier", "group_id")
LABEL_COLUMNS = (
    "account_id",
    "cluster_id",
    "label",
    "typology",
    "source",
    "at",
    "note",
    "group_id",
)
_ROWS = 1 << 14
Text = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Truth:
    """One row an account, in the order of the file; `row` finds an account's place in the arrays.

    Empty text means none. `group_id` is the resampling unit: where the file names none it is the
    ring, else `account:` and the account itself. `line` is where the row stood.
    """

    path: Path
    account_id: Text
    ring_id: Text
    typology: Text
    cohort: Text
    tier: Text
    group_id: Text
    line: NDArray[np.int64]
    row: dict[str, int]

    @property
    def abusive(self) -> NDArray[np.bool_]:
        """Whether each account belongs to a ring or has a typology."""
        found: NDArray[np.bool_] = (self.ring_id != "") | (self.typology != "")
        return found

    def __len__(self) -> int:
        return len(self.account_id)


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody says of an account or of a cluster (exactly one of the two is named).

    `at` is in epoch milliseconds, None where an import does not say. `group_id` is whom training
    must keep on one side of a split with the account: its operator, household or company.
    """

    account_id: str | None
    cluster_id: str | None
    label: Word
    typology: Typology | None = None
    source: Source = "import"
    at: int | None = None
    note: str | None = None
    group_id: str | None = None


def read_truth(path: Path) -> Truth:
    """Read a truth file.

    Raises:
        InputProblem: the file, a column or a value is wrong.
    """
    return _truth(_open(path))


def read_labels(path: Path) -> list[Label]:
    """Read a labels file, in its order. `source` is `import` where the file does not say.

    In a truth file an account with a ring or a typology is abusive, every other one honest.

    Raises:
        InputProblem: the file, a column or a value is wrong; two rows without `at` contradict
            each other, so that nothing says which is the later word.
    """
    table = _open(path)
    if "label" not in table.columns and set(TRUTH_COLUMNS[1:]) & set(table.columns):
        table.check(None, table.columns, (*TRUTH_COLUMNS, "label"))  # perhaps it is misspelt
        truth = _truth(table)
        rows = zip(truth.account_id, truth.abusive, truth.typology, truth.group_id, strict=True)
        return [
            Label(
                str(a),
                None,
                "abusive" if bad else "honest",
                _word(str(t), TYPOLOGIES),
                group_id=str(g) or None,
            )
            for a, bad, t, g in rows
        ]
    return _labels(table)


def unknown_accounts(truth: Truth, known: Collection[str]) -> InputProblem | None:
    """The problem of a truth that names accounts which are not among the `known`, if it does."""
    known = set(known)
    strangers = [a for a in truth.row if a not in known]
    if not strangers:
        return None
    ordered = sorted(known)
    first = strangers[0]
    place = bisect_left(ordered, first)  # names that begin alike lie around it
    close = difflib.get_close_matches(first, ordered[max(place - 200, 0) : place + 200], n=1)
    few = ", ".join(f"`{a}`" for a in strangers[:3]) + (", …" if len(strangers) > 3 else "")
    return InputProblem(
        truth.path,
        int(truth.line[truth.row[first]]),
        "account_id",
        f"{len(strangers):,} of {len(truth):,} accounts are not in the events: {few}",
        f"the account nearest to `{first}` is `{close[0]}`" if close else None,
    )


# --- rows of any of the three formats


@dataclass(frozen=True, slots=True)
class _Table:
    """`columns` as the file names them, `rows` with the line of each. The rows of NDJSON are
    `ragged`: each names its own columns, and `columns` are those of the first."""

    path: Path
    columns: Sequence[str]
    rows: Iterator[tuple[int, Mapping[str, Any]]]
    ragged: bool = False

    def problem(
        self, line: int | None, column: str | None, error: str, hint: str | None = None
    ) -> InputProblem:
        return InputProblem(self.path, line, column, error, hint)

    def check(self, line: int | None, given: Collection[str], known: Sequence[str]) -> None:
        """Refuse a column that looks like a misspelling of a known one that is not there."""
        absent = [c for c in known if c not in given]
        for column in given:
            if column not in known:
                close = difflib.get_close_matches(column.lower(), absent, n=1, cutoff=0.75)
                if close:
                    raise self.problem(
                        line, column, "unknown column", f"did you mean `{close[0]}`?"
                    )

    def text(self, line: int, row: Mapping[str, Any], column: str) -> str:
        """The text in a cell, empty where there is none."""
        value = row.get(column)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.problem(line, column, f"expected text, found {value!r}")
        return value

    def word(self, line: int, row: Mapping[str, Any], column: str, words: Sequence[str]) -> str:
        """The same, of a closed vocabulary."""
        value = self.text(line, row, column)
        if value and value not in words:
            raise self.problem(line, column, f"unknown {column} {value!r}", nearest(value, words))
        return value


def _open(path: Path) -> _Table:
    if not path.is_file():
        raise missing_file(path)
    if is_parquet(path):
        return _parquet(path)
    lines = ((n, line) for n, line in _text(path))
    first = next(((n, line) for n, line in lines if line.strip()), None)
    if first is None:
        raise InputProblem(path, None, None, "the file is empty", "it needs at least an account_id")
    rest = _with(first, lines)
    return _ndjson(path, rest) if first[1].lstrip().startswith("{") else _csv(path, rest)


def _with(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _text(path: Path) -> Iterator[tuple[int, str]]:
    for number, lines, _, stop in read_lines(path, _ROWS):
        for n, line in enumerate(lines, number):
            if problem := not_utf8(line):
                raise InputProblem(path, n, None, *problem)
            yield n, line.decode()
        if stop is not None:
            broken, error, hint = stop
            raise InputProblem(path, broken, None, error, hint)


def _csv(path: Path, lines: Iterator[tuple[int, str]]) -> _Table:
    at = 0

    def physical() -> Iterator[str]:
        nonlocal at
        for n, line in lines:
            at = n
            yield line + "\n"

    reader = csv.reader(physical(), strict=True)

    def records() -> Iterator[list[str]]:
        while True:
            try:
                record = next(reader, None)
            except csv.Error as problem:
                raise InputProblem(path, at, None, f"not CSV: {problem}") from None
            if record is None:
                return
            if record:
                yield record

    source = records()
    columns = [c.strip() for c in next(source)]
    for column in columns:
        if columns.count(column) > 1:
            raise InputProblem(path, at, column, "the column is there twice")

    def rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
        for record in source:
            if len(record) != len(columns):
                error = f"{len(record)} values for {len(columns)} columns"
                raise InputProblem(path, at, None, error, "quote a value that holds a comma")
            yield at, dict(zip(columns, record, strict=True))

    return _Table(path, columns, rows())


def _ndjson(path: Path, lines: Iterator[tuple[int, str]]) -> _Table:
    def rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
        for n, line in lines:
            if not line.strip():
                continue
            try:
                yield n, msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError) as problem:
                raise InputProblem(path, n, None, f"not a JSON object: {problem}") from None

    source = rows()
    first = next(source)

    def all_rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
        yield first
        yield from source

    return _Table(path, list(first[1]), all_rows(), ragged=True)


def _parquet(path: Path) -> _Table:
    file = open_parquet(path)
    check_columns(path, file.schema_arrow)

    def rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
        with file:
            for first, part in parquet_batches(path, file, _ROWS):
                columns = [column_values(c) for c in part.columns]
                for n, cells in enumerate(zip(*columns, strict=True), first):
                    yield n, dict(zip(part.schema.names, cells, strict=True))

    return _Table(path, file.schema_arrow.names, rows())


# --- what the rows say


def _truth(table: _Table) -> Truth:
    if not table.ragged:
        if "account_id" not in table.columns:
            raise missing_column(table.path, "account_id", table.columns)
        table.check(None, table.columns, TRUTH_COLUMNS)
        if not {"typology", "ring_id"} & set(table.columns):
            error = "neither this column nor `ring_id` is there: nothing says who is abusive"
            raise table.problem(None, "typology", error)
    row_of: dict[str, int] = {}
    lines: list[int] = []
    rows: list[tuple[str, ...]] = []
    for line, row in table.rows:
        if table.ragged:
            table.check(line, row, TRUTH_COLUMNS)
        account = table.text(line, row, "account_id")
        if not account:
            raise table.problem(line, "account_id", "the required value is missing")
        values = (
            table.text(line, row, "ring_id"),
            table.word(line, row, "typology", TYPOLOGIES),
            table.text(line, row, "cohort"),
            table.word(line, row, "tier", TIERS),
            table.text(line, row, "group_id"),
        )
        place = row_of.setdefault(account, len(rows))
        if place == len(rows):
            rows.append((account, *values))
            lines.append(line)
        elif rows[place][1:] != values:
            pairs = zip(TRUTH_COLUMNS[1:], rows[place][1:], values, strict=True)
            column, there, here = next(p for p in pairs if p[1] != p[2])
            error = f"account {account!r} has {here!r} here and {there!r} in line {lines[place]}"
            raise table.problem(line, column, error, "one row an account")
    account_id, ring_id, typology, cohort, tier, group_id = (
        np.array([row[i] for row in rows], np.str_) for i in range(len(TRUTH_COLUMNS))
    )
    own = np.char.add("account:", account_id)
    group_id = np.where(group_id != "", group_id, np.where(ring_id != "", ring_id, own))
    at = np.array(lines, np.int64)
    return Truth(table.path, account_id, ring_id, typology, cohort, tier, group_id, at, row_of)


def _labels(table: _Table) -> list[Label]:
    if not table.ragged:
        if not {"account_id", "cluster_id"} & set(table.columns):
            raise missing_column(table.path, "account_id", table.columns)
        if "label" not in table.columns:
            raise missing_column(table.path, "label", table.columns)
        table.check(None, table.columns, LABEL_COLUMNS)
    labels: list[Label] = []
    undated: dict[tuple[str, str, str], tuple[int, str, str]] = {}
    for line, row in table.rows:
        if table.ragged:
            table.check(line, row, LABEL_COLUMNS)
        account, cluster = (table.text(line, row, c) for c in ("account_id", "cluster_id"))
        if bool(account) == bool(cluster):
            error = "a label names an account or a cluster" + (", not both" if account else "")
            raise table.problem(line, "cluster_id" if account else "account_id", error)
        word = table.word(line, row, "label", WORDS)
        if not word:
            raise table.problem(
                line, "label", "the required value is missing", f"one of {', '.join(WORDS)}"
            )
        typology = table.word(line, row, "typology", TYPOLOGIES)
        if typology and word == "honest":
            raise table.problem(line, "typology", f"{typology!r}, but the label is `honest`")
        source = table.word(line, row, "source", SOURCES) or "import"
        at = _time(table, line, row)
        if at is None:
            said = (line, word, typology)
            there, *before = undated.setdefault((account, cluster, source), said)
            if before != [word, typology]:
                error = f"{word!r} contradicts {before[0]!r} in line {there}"
                raise table.problem(line, "label", error, "`at` would say which is the later word")
        labels.append(
            Label(
                account or None,
                cluster or None,
                _word(word, WORDS),
                _word(typology, TYPOLOGIES),
                _word(source, SOURCES),
                at,
                table.text(line, row, "note") or None,
                table.text(line, row, "group_id") or None,
            )
        )
    return labels


def _word(value: str, words: Sequence[str]) -> Any:
    """A checked word as the literal type it now is, None where there is none."""
    return words[words.index(value)] if value else None


def _time(table: _Table, line: int, row: Mapping[str, Any]) -> int | None:
    value = row.get("at")
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    try:
        at = milliseconds(msgspec.convert(value, Time))
    except msgspec.ValidationError:
        at = -1
    if at < 0:
        hint = "RFC 3339 with an offset, or integer epoch milliseconds"
        raise table.problem(line, "at", f"{value!r} is not a time", hint)
    return at
