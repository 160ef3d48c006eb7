import io
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import databases
import httpx
import polars as pl
import pytest
import typer.main
import zstandard
from served import START, Run, Start, a_ring, live, one

from service import cli
from service.demo import Served, same
from service.valkey import EmbeddedValkey

KEYS = {
    "account": {"n", "n_abusive", "auc", "pr_auc", "recall_at_fpr", "realised", "ece", "brier"},
    "cluster": {"n", "pairwise", "b3", "ring_recall", "bystanders"},
    "time": {"median_accounts", "median_events", "median_hours", "p90_hours", "rings_undetected"},
    "money": {"leaked_usd", "leaked_share", "break_even_share"},
}


def lines(path: Path, *events: dict[str, Any] | str) -> Path:
    path.write_text(
        "".join(e + "\n" if isinstance(e, str) else json.dumps(e) + "\n" for e in events)
    )
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a log of three events, its truth and its labels."""
    folder = tmp_path / "in"
    folder.mkdir()
    lines(folder / "log.ndjson", *(one(n, f"a{n}", "account_signup") for n in range(3)))
    rows = "".join(f"a{n},,,plain\n" for n in range(3))
    (folder / "truth.csv").write_text("account_id,ring_id,typology,cohort\n" + rows)
    (folder / "labels.csv").write_text("account_id,label,source,at\n" + "a0,honest,analyst,1\n")
    return folder


# --- bad input


def bad_inputs(folder: Path, trained: Path, taken: int, external: str) -> dict[str, list[object]]:
    """What to run, by what is wrong with it."""
    log, truth = folder / "log.ndjson", folder / "truth.csv"
    on = ["--truth", truth, "--model", "none"]
    evaluate = ["evaluate", "--events"]
    good = one(7, "a0")
    data = folder / "data"
    frame = pl.DataFrame({"event_id": ["e"], "type": ["login"], "account_id": ["a"]})
    frame.write_parquet(folder / "timeless.parquet")
    packed = zstandard.compress(b"\n".join(a_ring()))
    (folder / "cut.ndjson.zst").write_bytes(packed[: len(packed) // 2])
    (folder / "latin.ndjson").write_bytes(json.dumps(good).encode() + b'\n{"x": "\xe9"}\n')
    (folder / "more.csv").write_text(truth.read_text() + "ghost,,,plain\nspectre,,,plain\n")
    (folder / "columns.csv").write_text("acount_id,label\na,honest\n")
    (folder / "words.csv").write_text("account_id,label,source,at\na0,abusiv,analyst,1\n")
    (folder / "table.toml").write_text('version = "1"\n[clusters]\nrevew = 0.5\n')
    (folder / "share.toml").write_text('version = "1"\n[accounts]\nreview = 7.0\n')
    (folder / "no.toml").write_text("version = \n")
    for name, change in (
        ("other", lambda m: m | {"feature_hash": "0123456789abcdef"}),
        ("format", lambda m: m | {"format": 99}),
    ):
        version = shutil.copytree(trained / "models" / "first", data / "models" / name)
        manifest = json.loads((version / "manifest.json").read_text())
        (version / "manifest.json").write_text(json.dumps(change(manifest | {"version": name})))
    damaged = shutil.copytree(trained / "models" / "first", data / "models" / "damaged")
    with (damaged / "event.txt").open("a") as file:
        file.write("\n")
    garbled = shutil.copytree(trained / "models" / "first", data / "models" / "garbled")
    (garbled / "manifest.json").write_text("{")
    kept = ["--data", data]
    serve = ["serve", "--port", 0, "--data", folder / "served", "--model", "none"]
    return {
        "an unknown field": [
            *evaluate,
            lines(folder / "field.ndjson", good, good | {"devise_id": "d"}),
            *on,
        ],
        "a misplaced field": [
            *evaluate,
            lines(folder / "place.ndjson", good | {"face_id": "f"}),
            *on,
        ],
        "a wrong type": [*evaluate, lines(folder / "type.ndjson", good | {"asn": "AS1"}), *on],
        "no time": [
            *evaluate,
            lines(
                folder / "time.ndjson", good, {k: v for k, v in good.items() if k != "occurred_at"}
            ),
            *on,
        ],
        "many bad lines": [*evaluate, lines(folder / "many.ndjson", good, *["{"] * 12), *on],
        "a bad phone": [
            *evaluate,
            lines(folder / "phone.ndjson", good | {"type": "phone_verified", "phone": "x"}),
            *on,
        ],
        "a truncated file": [*evaluate, folder / "cut.ndjson.zst", *on],
        "a file that is not UTF-8": [*evaluate, folder / "latin.ndjson", *on],
        "Parquet without a column": [*evaluate, folder / "timeless.parquet", *on],
        "a missing file": [*evaluate, folder / "log.ndjso", *on],
        "an empty folder": [*evaluate, trained / "models", *on],
        "a truth of unknown accounts": [
            *evaluate,
            log,
            "--truth",
            folder / "more.csv",
            "--model",
            "none",
        ],
        "a truth without its column": [
            *evaluate,
            log,
            "--truth",
            folder / "columns.csv",
            "--model",
            "none",
        ],
        "labels with a wrong word": [
            "train",
            "--events",
            log,
            "--labels",
            folder / "words.csv",
            *kept,
        ],
        "too few labels": ["train", "--events", log, "--labels", folder / "labels.csv", *kept],
        "a name that is taken": [
            "train",
            "--events",
            log,
            "--labels",
            folder / "labels.csv",
            "--as",
            "other",
            *kept,
        ],
        "an unknown model": [*evaluate, log, "--truth", truth, "--model", "secnd", *kept],
        "no model yet": ["models", "show", "--data", folder / "nothing"],
        "a model of other features": [*evaluate, log, "--truth", truth, "--model", "other", *kept],
        "a model of another format": ["models", "show", "format", *kept],
        "a damaged model": ["serve", "--model", "damaged", *kept],
        "a garbled manifest": ["models", "promote", "garbled", *kept],
        "nothing to roll back to": ["models", "rollback", *kept],
        "an unknown entry of a policy": [*evaluate, log, *on, "--policy", folder / "table.toml"],
        "a policy out of range": [*evaluate, log, *on, "--policy", folder / "share.toml"],
        "a policy that is not TOML": [*evaluate, log, *on, "--policy", folder / "no.toml"],
        "no such policy": [*evaluate, log, *on, "--policy", folder / "none.toml"],
        "an unknown scenario": ["simulate", "markt", "--out", folder / "w"],
        "an unknown tier": ["simulate", "market", "--out", folder / "w", "--tier", "T9"],
        "a tier in small letters": ["simulate", "market", "--out", folder / "w", "--tier", "t1"],
        "a knob that is no number": ["simulate", "market", "--out", folder / "w", "--knob", "aged"],
        "a knob below zero": [
            "simulate",
            "market",
            "--out",
            folder / "w",
            "--knob",
            "sticky_ms=-5",
        ],
        "a knob like another": [
            "simulate",
            "market",
            "--out",
            folder / "w",
            "--knob",
            "stickyms=5",
        ],
        "a matrix with a policy that is none": [
            "evaluate",
            "--matrix",
            folder / "m",
            "--policy",
            folder / "none.toml",
        ],
        "a folder that is a file": ["simulate", "market", "--out", log, "--accounts", 20],
        "a report that cannot be written": [
            *evaluate,
            log,
            *on,
            "--report",
            folder / "no" / "r.html",
        ],
        "a taken port": [*serve, "--port", taken],
        "an address of another machine": [*serve, "--host", "192.0.2.1"],
        "the world without a key": [*serve, "--host", "0.0.0.0"],
        "a state that is none": [*serve, "--state", "disk"],
        "fsync that is none": [*serve, "--fsync", "sometimes"],
        "an unreachable Redis": [*serve, "--state", "redis://me:secret@127.0.0.1:1/0"],
        "records that are none": [*serve, "--records", "mysql://me:secret@host/db"],
        "a data folder in use": ["serve", "--port", 0, "--model", "none", "--data", external],
        "a service that is not there": ["replay", log, "--url", "http://127.0.0.1:1"],
        "a URL that is none": ["replay", log, "--url", "127.0.0.1:1"],
        "no such key": ["keys", "revoke", "0123", *kept],
    }


def test_bad_input_is_told_in_a_sentence(
    run: Run, small: Path, trained: Path, golden: Callable[[str, str], None], tmp_path: Path
) -> None:
    told = []
    used = tmp_path / "used"
    with socket.create_server(("127.0.0.1", 0)) as busy, EmbeddedValkey(used / "valkey"):
        port = busy.getsockname()[1]
        busy.settimeout(0)
        for what, words in bad_inputs(small, trained, port, str(used)).items():
            ran = run(*words)
            assert ran.code == 2, (what, ran)
            assert ran.out == "", what
            assert "secret" not in ran.err
            text = ran.err.replace(str(small), "IN").replace(str(tmp_path), "TMP")
            text = text.replace(str(trained), "TRAINED").replace(f":{port}", ":PORT")
            text = re.sub(r"process \d+", "process PID", text)
            text = re.sub(r"catalogue is [0-9a-f]{16}", "catalogue is HASH", text)
            told.append(f"--- {what}\n{text}")
    golden("cli_errors.txt", "".join(told))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate", "--events", "a.ndjson"], "--events needs --truth"),
        (["evaluate"], "give one of --events with --truth"),
        (
            ["evaluate", "--scenario", "market", "--events", "a"],
            "give one of --events with --truth",
        ),
        (["evaluate", "--matrix", "o", "--scenario", "market"], "leave out --scenario"),
        (
            ["evaluate", "--matrix", "o", "--events", "a", "--truth", "t"],
            "leave out --events, --truth",
        ),
        (
            ["evaluate", "--matrix", "o", "--model", "m", "--tier", "T2"],
            "leave out --model, --tier",
        ),
        (
            ["evaluate", "--scenario", "market", "--quick"],
            "--quick, --only and --jobs belong to --matrix",
        ),
        (["evaluate", "--matrix", "m", "--only", "nothing"], "there are train, response, headline"),
        (["evaluate", "--scenario", "market", "--jobs", "2"], "belong to --matrix"),
        (["evaluate", "--events", "a", "--truth", "t", "--knob", "aged=1"], "it needs --scenario"),
        (["keys", "create", "ann", "--scope", "reed"], "did you mean 'read'?"),
        (["keys", "create", "ann"], "--scope"),
        (["serve", "--port", "70000"], "65535"),
        (["simulate", "market", "--out", "x", "--accounts", "3"], "10"),
        (["train", "--events", "a"], "--labels"),
        (["traim"], "train"),
        (["models", "drop"], "drop"),
    ],
)
def test_bad_options(run: Run, tmp_path: Path, words: list[str], says: str) -> None:
    more = ["--data", str(tmp_path)] if words[0] == "keys" else []
    ran = run(*words, *more)
    assert ran.code == 2
    assert says in re.sub(r"[\s│]+", " ", ran.err)  # a box wraps it


def every_verb() -> list[list[str]]:
    def below(command: Any, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, [*path, name])

    return list(below(typer.main.get_command(cli.app), []))


def test_help_of_every_verb(run: Run) -> None:
    verbs = every_verb()
    assert {v[0] for v in verbs if v} == {
        "simulate", "train", "evaluate", "replay", "serve", "archive", "demo", "bench", "models",
        "keys", "audit",
    }  # fmt: skip
    assert len(verbs) == 24
    for verb in verbs:
        ran = run(*verb, "--help")
        assert (ran.code, ran.err) == (0, "")
        assert "Usage: shoal" in ran.out
        assert len(ran.out.splitlines()) > 5


# --- what the verbs do


def test_spread() -> None:
    assert cli.spread(["train", "--events", "a", "b", "--labels", "c"]) == [
        "train", "--events", "a", "--events", "b", "--labels", "c"
    ]  # fmt: skip
    assert cli.spread(["replay", "a", "b"]) == ["replay", "a", "b"]
    assert cli.spread(["x", "--events", "a", "--events", "b", "c"]) == [
        "x", "--events", "a", "--events", "b", "--events", "c"
    ]  # fmt: skip


def test_simulate(run: Run, tmp_path: Path) -> None:
    ran = run("simulate", "market", "--out", tmp_path / "w", "--accounts", 30, "--days", 0.5)
    assert ran.code == 0
    assert {p.name for p in (tmp_path / "w").iterdir()} >= {"events.ndjson.zst", "truth.csv"}
    assert re.search(r"[\d,]+ events of \d+ accounts", ran.err)


def test_evaluate_prints_one_object(
    run: Run, past: Path, trained: Path, world: list[bytes], tmp_path: Path
) -> None:
    whole, truth = past / "events.ndjson.zst", past / "truth.csv"
    on = ["--truth", truth, "--data", trained, "--json"]
    ran = run("evaluate", "--events", whole, *on, "--report", tmp_path / "report.html")
    assert ran.code == 0
    assert ran.out.count("\n") == 1
    found = json.loads(ran.out)
    for part, keys in KEYS.items():
        assert keys <= found[part].keys()
    assert {"cohorts", "typologies", "model", "events", "seconds"} <= found.keys()
    assert found["account"]["recall_at_fpr"].keys() >= {"0.001", "0.01"}
    assert found["account"]["realised"].keys() >= {"fpr", "recall", "precision"}
    assert found["cluster"]["pairwise"].keys() >= {"precision", "recall", "f1"}
    assert all({"n", "fpr"} <= row.keys() for row in found["cohorts"].values())
    assert all({"n", "recall", "by_tier"} <= row.keys() for row in found["typologies"].values())
    assert (found["model"], found["account"]["n_abusive"] > 20) == ("first", True)
    page = (tmp_path / "report.html").read_text()
    assert "PR-AUC" in page
    assert "http" not in re.sub(r"http://www.w3.org\S+", "", page)  # it needs no network

    # the same log in parts, of two kinds, by `--events a b`
    text = zstandard.ZstdDecompressor().stream_reader(whole.read_bytes()).read().splitlines(True)
    (tmp_path / "1.ndjson").write_bytes(b"".join(text[:2000]))
    (tmp_path / "2.ndjson.zst").write_bytes(zstandard.compress(b"".join(text[2000:])))
    parts = run("evaluate", "--events", tmp_path / "1.ndjson", tmp_path / "2.ndjson.zst", *on)
    again = json.loads(parts.out)
    assert again | {"seconds": 0} == found | {"seconds": 0}


def test_evaluate_for_people_and_without_a_model(run: Run, small: Path) -> None:
    events, truth = small / "log.ndjson", small / "truth.csv"
    ran = run("evaluate", "--events", events, "--truth", truth, "--model", "none")
    assert ran.code == 0
    assert "accounts: 3, of them 0 abusive" in ran.out


def test_a_gate_that_fails_is_an_exit_code_for_who_asks(run: Run, small: Path) -> None:
    events, truth = small / "log.ndjson", small / "truth.csv"
    on = ["evaluate", "--events", events, "--truth", truth, "--model", "none"]
    assert run(*on, "--gate").code == 0
    ran = run(
        *on, "--full"
    )  # three accounts are too few to learn from; the rest is told all the same
    assert ran.code == 0
    assert "Nothing was learned within the log" in ran.out
    assert "accounts: 3, of them 0 abusive" in ran.out
    assert run(*on, "--full", "--gate").code == 1


def test_replay_keeps_the_good_and_lists_the_bad(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    lines(
        path, one(1), "{", one(2) | {"colour": "red"}, "", one(1), one(3, type="phone_verified", phone="x"),
        one(4),
    )  # fmt: skip
    ran = run("replay", path, "--data", tmp_path / "data", "--model", "none")
    assert ran.code == 2
    assert "3 of 6 events were refused" in ran.err
    assert f"{path}: line 3, field `colour`" in ran.err
    told = [json.loads(line) for line in ran.out.splitlines()]
    status = [(a["event_id"], a["status"]) for a in told if a["status"] != "rejected"]
    assert status == [("e1", "new"), ("e1", "duplicate"), ("e4", "new")]
    assert sorted((a["line"], a.get("field")) for a in told if a["status"] == "rejected") == [
        (2, None), (3, "colour"), (6, "phone")
    ]  # fmt: skip


def test_replay_into_a_service_gives_its_answers(run: Run, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_bytes(b"\n".join(a_ring()) + b"\n")
    here = run("replay", path, "--model", "none", "--data", tmp_path / "none")
    shoal = start()
    with live(shoal) as api:
        ran = run("replay", path, "--url", api.base_url)
        assert (ran.code, ran.err) == (0, "82 events answered\n")
        assert shoal.accepted == len(a_ring())
        again = run("replay", path, "--url", api.base_url)
        assert {json.loads(line)["status"] for line in again.out.splitlines()} == {"duplicate"}
        shoal.records.create_key("k", ["ingest"])
        bad = run("replay", path, "--url", api.base_url, "--key", "shoal_1_2")
        assert bad.code == 2
        assert "the service answered 401" in bad.err
    assert [json.loads(x)["event_id"] for x in here.out.splitlines()] == [
        json.loads(x)["event_id"] for x in ran.out.splitlines()
    ]


def test_replay_at_a_speed(run: Run, tmp_path: Path) -> None:
    import time

    path = lines(
        tmp_path / "log.ndjson", *(one(n) | {"occurred_at": START + 1000 * n} for n in range(4))
    )
    began = time.monotonic()
    ran = run("replay", path, "--speed", 10, "--model", "none", "--data", tmp_path)
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 4
    assert time.monotonic() - began >= 0.3


def test_model_versions(run: Run, trained: Path, tmp_path: Path) -> None:
    data = shutil.copytree(trained, tmp_path / "data", symlinks=True)
    second = shutil.copytree(data / "models" / "first", data / "models" / "second")
    manifest = json.loads((second / "manifest.json").read_text())
    (second / "manifest.json").write_text(json.dumps(manifest | {"version": "second"}))
    on = ["--data", data]

    def current() -> str:
        listed = run("models", "list", *on).out.splitlines()
        assert len(listed) == 2
        (marked,) = (line for line in listed if line.startswith("* "))
        return marked.split()[1]

    assert current() == "first"
    assert run("models", "promote", "second", *on).code == 0
    assert current() == "second"
    shown = json.loads(run("models", "show", *on).out)
    assert (shown["model"], set(shown["heads"])) == ("second", {"event", "standing", "cluster"})
    assert run("models", "rollback", *on).code == 0
    assert current() == "first"
    assert json.loads(run("models", "show", "second", *on).out)["model"] == "second"
    nearly = run("models", "promote", "secnd", *on)
    assert nearly.code == 2
    assert "first, second" in nearly.err
    assert current() == "first"
    assert run("models", "list", "--data", tmp_path / "nothing").out == ""


def test_keys(run: Run, tmp_path: Path) -> None:
    on = ["--data", tmp_path]
    made = run("keys", "create", "ann", "--scope", "read", "--scope", "act", *on)
    secret = made.out.strip()
    assert re.fullmatch(r"shoal_[0-9a-f]{16}_\S{43}", secret)
    listed = run("keys", "list", *on).out.split()
    id = listed[0]
    assert listed == [id, "ann", "act,read", "active"]
    assert secret.split("_")[1] == id
    assert secret not in run("keys", "list", *on).out
    assert run("keys", "revoke", id, *on).code == 0
    assert run("keys", "list", *on).out.split()[-1] == "revoked"
    assert (tmp_path / "identity.key").stat().st_mode & 0o777 == 0o600


def test_serve_as_a_program(tmp_path: Path) -> None:
    """The real thing in a shell's terms: ready, stopped by a signal, exit code 0, nothing left."""
    served = Served(tmp_path, 0, "--model", "none")
    with served as url, httpx.Client(base_url=url, timeout=30) as client:
        body = b"\n".join(a_ring())
        client.post("/v1/events", content=body).raise_for_status()
        (pid,) = (
            json.loads((tmp_path / "valkey" / "lock").read_text())[k] for k in ("valkey_pid",)
        )
        assert os.path.exists(f"/proc/{pid}") or sys.platform != "linux"
        assert re.match(r"parity: largest difference 0 in [1-9]\d+ served vectors", same(url))
    assert served.process.returncode == 0
    assert not os.path.exists(f"/proc/{pid}")
    assert len(list((tmp_path / "snapshots").iterdir())) == 1


def test_output_that_nobody_reads_is_no_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.close(read)
    path = tmp_path / "log.ndjson"
    path.write_bytes(b"\n".join(a_ring() * 200))
    with os.fdopen(write, "wb") as pipe:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))
        monkeypatch.setattr(sys, "argv", ["shoal", "replay", str(path), "--model", "none"])
        with pytest.raises(SystemExit):
            cli.main()


def test_the_audit_is_verified_and_the_first_bad_row_named(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "audited"
    for name in ("a", "b"):
        assert run("keys", "create", name, "--scope", "read", "--data", data).code == 0
    head = run("audit", "head", "--data", data).out.strip()
    ok = run("audit", "verify", "--data", data, "--head", head)
    assert (ok.code, ok.err) == (0, "2 rows are what was written\n")
    rows = [json.loads(x) for x in run("audit", "list", "--data", data).out.splitlines()]
    assert [(r["actor"][:4], r["action"], r["body"]["name"]) for r in rows] == [
        ("cli:", "create key", "a"),
        ("cli:", "create key", "b"),
    ]
    url = f"sqlite:///{data}/records.db"
    databases.run(url, "DROP TRIGGER audit_no_update", "UPDATE audit SET actor = 'x' WHERE seq = 1")
    bad = run("audit", "verify", "--data", data)
    assert (bad.code, bad.err) == (1, "shoal: audit row 1 is not what was written\n")
    assert run("audit", "verify", "--data", data, "--head", "nonsense").code == 2
