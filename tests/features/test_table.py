"""Truth and label files: three formats say the same, and what is wrong is named."""

import gzip
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from features.reader import InputProblem
from features.table import (
    SOURCES,
    TIERS,
    TYPOLOGIES,
    WORDS,
    Label,
    read_labels,
    read_truth,
    unknown_accounts,
)

T = 1_700_000_000_000
TRUTH: list[dict[str, Any]] = [
    {"account_id": "a1", "ring_id": "r1", "typology": "sms_farm", "tier": "T1"},
    {"account_id": "a2", "ring_id": "r1", "typology": "sms_farm", "tier": "T1"},
    {"account_id": "a3", "typology": "carded"},
    {"account_id": "a4", "ring_id": "r2"},
    {"account_id": "a5", "cohort": "family", "group_id": "home 5"},
    {"account_id": "a,6", "cohort": "lab"},
]
LABELS: list[dict[str, Any]] = [
    {"account_id": "a1", "label": "abusive", "typology": "carded", "source": "analyst", "at": T},
    {"account_id": "a1", "label": "honest", "source": "appeal", "at": T + 1},
    {"cluster_id": "c1", "label": "unsure", "source": "analyst", "note": 'said "perhaps", twice'},
    {"account_id": "a2", "label": "honest", "group_id": "home 2"},
]


def csv_text(rows: Sequence[dict[str, Any]]) -> bytes:
    columns = list(dict.fromkeys(c for row in rows for c in row))
    lines = [columns] + [[str(row.get(c, "")) for c in columns] for row in rows]
    quoted = [
        ",".join('"' + v.replace('"', '""') + '"' if set(v) & set(',"\n') else v for v in line)
        for line in lines
    ]
    return ("\n".join(quoted) + "\n").encode()


def ndjson_text(rows: Sequence[dict[str, Any]]) -> bytes:
    return b"\n".join(msgspec.json.encode(row) for row in rows)


def as_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    path.write_bytes(csv_text(rows))


def as_windows_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + csv_text(rows).replace(b"\n", b"\r\n"))


def as_packed_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    path.write_bytes(gzip.compress(csv_text(rows)))


def as_ndjson(rows: Sequence[dict[str, Any]], path: Path) -> None:
    path.write_bytes(b"\n\n" + ndjson_text(rows))


def as_packed_ndjson(rows: Sequence[dict[str, Any]], path: Path) -> None:
    path.write_bytes(zstandard.compress(ndjson_text(rows)))


def as_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    columns = list(dict.fromkeys(c for row in rows for c in row))
    pq.write_table(pa.table({c: [row.get(c) for row in rows] for c in columns}), path)


Write = Callable[[Sequence[dict[str, Any]], Path], None]
FORMATS: list[Write] = [
    as_csv,
    as_windows_csv,
    as_packed_csv,
    as_ndjson,
    as_packed_ndjson,
    as_parquet,
]


@pytest.mark.parametrize("write", FORMATS)
def test_truth_is_one_row_an_account(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "truth"
    write(TRUTH, path)
    truth = read_truth(path)
    assert len(truth) == len(TRUTH)
    for column in ("account_id", "ring_id", "typology", "cohort", "tier"):
        assert getattr(truth, column).tolist() == [row.get(column, "") for row in TRUTH]
    assert truth.abusive.tolist() == [True, True, True, True, False, False]
    assert truth.group_id.tolist() == ["r1", "r1", "account:a3", "r2", "home 5", "account:a,6"]
    assert [truth.row[row["account_id"]] for row in TRUTH] == list(range(len(TRUTH)))
    first = {"as_parquet": 1, "as_ndjson": 3, "as_packed_ndjson": 1}.get(write.__name__, 2)
    assert truth.line.tolist() == list(range(first, first + len(TRUTH)))


@pytest.mark.parametrize("write", FORMATS)
def test_labels_keep_their_order(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "labels"
    write(LABELS, path)
    assert read_labels(path) == [
        Label("a1", None, "abusive", "carded", "analyst", T),
        Label("a1", None, "honest", None, "appeal", T + 1),
        Label(None, "c1", "unsure", None, "analyst", None, 'said "perhaps", twice'),
        Label("a2", None, "honest", group_id="home 2"),
    ]


@pytest.mark.parametrize("write", FORMATS)
def test_a_truth_file_is_accepted_as_labels(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "truth"
    write(TRUTH, path)
    found = [(label.account_id, label.label, label.typology) for label in read_labels(path)]
    assert found == [
        ("a1", "abusive", "sms_farm"),
        ("a2", "abusive", "sms_farm"),
        ("a3", "abusive", "carded"),
        ("a4", "abusive", None),
        ("a5", "honest", None),
        ("a,6", "honest", None),
    ]


@pytest.mark.parametrize("write", FORMATS)
def test_every_word_of_the_contract_is_known(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "table"
    write(
        [{"account_id": f"{t}{i}", "typology": t, "tier": i} for t in TYPOLOGIES for i in TIERS],
        path,
    )
    named = " ".join(dict.fromkeys(read_truth(path).typology.tolist()))
    assert named == (
        "credit_farm sms_farm carded kyc_mule plan_sharing transfer_station distillation"
    )
    write(
        [{"account_id": f"{w}{s}", "label": w, "source": s} for w in WORDS for s in SOURCES], path
    )
    told = {(label.label, label.source) for label in read_labels(path)}
    assert told == {
        (w, s)
        for w in ("abusive", "honest", "unsure")
        for s in ("analyst", "dispute", "appeal", "canary", "import")
    }


def test_the_same_row_twice_is_one_account(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    as_csv([*TRUTH, TRUTH[0], TRUTH[4]], path)
    assert len(read_truth(path)) == len(TRUTH)


def test_a_truth_without_rows_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("account_id,typology\n")
    truth = read_truth(path)
    assert len(truth) == 0
    assert truth.abusive.tolist() == []
    assert read_labels(path) == []


def test_columns_nobody_knows_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    as_csv([row | {"seed": 7, "comment": "x"} for row in TRUTH], path)
    assert len(read_truth(path)) == len(TRUTH)


@pytest.mark.parametrize(
    "at", [str(T), "2023-11-14T22:13:20Z", "2023-11-15T03:43:20+05:30", "2023-11-14T22:13:20.000Z"]
)
def test_times_of_labels(tmp_path: Path, at: str) -> None:
    path = tmp_path / "labels"
    for write in (as_csv, as_ndjson, as_parquet):
        write([{"account_id": "a", "label": "honest", "at": at}], path)
        assert read_labels(path)[0].at == T
    stamp = pa.array([datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"account_id": ["a"], "label": ["honest"], "at": stamp}), path)
    assert read_labels(path)[0].at == T


def test_a_row_over_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('account_id,label,note\na,honest,"first\nsecond"\nb,abusive,\nb,honest,\n')
    with pytest.raises(InputProblem) as found:
        read_labels(path)
    assert found.value.line == 5
    path.write_text('account_id,label,note\na,honest,"first\nsecond"\n')
    assert read_labels(path)[0].note == "first\nsecond"


# --- accounts that are not in the log


def test_truth_about_known_accounts_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    as_csv(TRUTH, path)
    assert unknown_accounts(read_truth(path), {row["account_id"] for row in TRUTH}) is None


def test_truth_about_strangers_names_the_nearest_account(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    rng = random.Random(3)
    known = [f"acct_{rng.getrandbits(64):016x}" for _ in range(20_000)]
    strangers = [k[:-1] + "x" for k in known[:5]]
    as_csv([{"account_id": a, "typology": "carded"} for a in known + strangers], path)
    problem = unknown_accounts(read_truth(path), known)
    assert problem is not None
    assert problem.line == len(known) + 2
    assert "5 of 20,005 accounts" in problem.error
    assert strangers[2] in problem.error
    assert strangers[3] not in problem.error
    assert known[0] in (problem.hint or "")


# --- refusals


def test_the_words_of_every_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    naive = pa.array([datetime(2023, 11, 14)], pa.timestamp("us"))
    truths: dict[str, str | bytes | pa.Table] = {
        "empty": "",
        "blank lines": "\n\n",
        "no account_id": "account,typology\na,carded\n",
        "no account_id, nothing near": "x;typology\na;carded\n",
        "nothing says who is abusive": "account_id,cohort\na,family\n",
        "a misspelt column": "account_id,ring_id,typolgy\na,r,carded\n",
        "an unknown typology": "account_id,typology\na,\nb,sms_frm\n",
        "an unknown tier": "account_id,typology,tier\na,carded,T5\n",
        "an empty account": "account_id,typology\n,carded\n",
        "two rows that differ": "account_id,ring_id,typology\na,r1,carded\nb,,\na,r2,carded\n",
        "a short row": "account_id,ring_id,typology\na,r1\n",
        "an open quote": 'account_id,typology\n"a,carded\nb,carded\n',
        "a column twice": "account_id,typology,typology\na,carded,carded\n",
        "not UTF-8": "account_id,cohort,typology\na,caf\u00e9,\n".encode("latin-1"),
        "a broken object": '{"account_id": "a", "typology": "carded"}\n{"account_id": \n',
        "an array": '{"account_id": "a", "typology": "carded"}\n["b"]\n',
        "a misspelt name": '{"account_id": "a"}\n{"acount_id": "b", "ring_id": "r"}\n',
        "a number for a name": '{"account_id": 7, "ring_id": "r"}\n',
        "numbers for names": pa.table({"account_id": [7], "ring_id": ["r"]}),
        "cut off": zstandard.compress(csv_text(TRUTH))[:-2],
    }
    labels: dict[str, str | bytes | pa.Table] = {
        "no account_id": "account,label\na,honest\n",
        "no label": "account_id,word\na,honest\n",
        "a misspelt label column": "account_id,lable,typology\na,honest,\n",
        "a bad label": "account_id,label\na,abusve\n",
        "an empty label": "account_id,label\na,\n",
        "an account and a cluster": "account_id,cluster_id,label\na,c,honest\n",
        "neither account nor cluster": "account_id,cluster_id,label\n,,honest\n",
        "an unknown source": "account_id,label,source\na,honest,analist\n",
        "an unknown typology": "account_id,label,typology\na,abusive,cardd\n",
        "an honest account with a typology": "account_id,label,typology\na,honest,carded\n",
        "a bad time": "account_id,label,at\na,honest,yesterday\n",
        "a time without zone": "account_id,label,at\na,honest,2023-11-14T22:13:20\n",
        "a time before all times": "account_id,label,at\na,honest,-5\n",
        "a fraction for a time": '{"account_id": "a", "label": "honest", "at": 1.5}\n',
        "times without zone": pa.table({"account_id": ["a"], "label": ["honest"], "at": naive}),
        "contradiction": "account_id,label\na,honest\nb,honest\na,abusive\n",
    }
    told = []
    for name, cases, read in (("truth", truths, read_truth), ("labels", labels, read_labels)):
        for case, content in cases.items():
            path = Path(f"{name}.parquet" if isinstance(content, pa.Table) else name)
            if isinstance(content, pa.Table):
                pq.write_table(content, path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            with pytest.raises(InputProblem) as found:
                read(path)
            told.append(f"{case}\n    {found.value}\n")
    with pytest.raises(InputProblem) as found:
        read_truth(Path("truht"))
    told.append(f"a missing file\n    {found.value}\n")
    golden("table_errors.txt", "".join(told))


def test_large_tables_are_read_in_batches(tmp_path: Path) -> None:
    rows = [{"account_id": f"a{i}", "ring_id": f"r{i % 9}" if i % 3 else ""} for i in range(40_000)]
    for write in (as_csv, as_ndjson, as_parquet):
        path = tmp_path / "truth"
        write(rows, path)
        truth = read_truth(path)
        assert len(truth) == len(rows)
        assert np.count_nonzero(truth.abusive) == sum(i % 3 > 0 for i in range(40_000))
