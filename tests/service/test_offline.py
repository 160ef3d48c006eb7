"""`shoal evaluate --full`: one command, every figure that the report draws."""

import json
from pathlib import Path

import pytest

import detector.train
from service import cli


def test_a_full_evaluation_is_an_evaluation_and_more(
    past: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detector.train, "ROUNDS", 5)
    monkeypatch.setattr(detector.train, "SWEEPS", 3)
    log, truth = past / "events.ndjson.zst", past / "truth.csv"
    words = [
        "evaluate",
        "--events",
        str(log),
        "--truth",
        str(truth),
        "--data",
        str(trained),
        "--json",
    ]
    found = []
    for more in ([], ["--full"]):
        assert cli.app([*words, *more], standalone_mode=False) is None
        found.append(json.loads(capsys.readouterr().out))
    plain, full = found
    assert set(full) - set(plain) == {"splits", "peers", "knockouts", "null"}
    for key in set(plain) - {"seconds"}:
        assert full[key] == plain[key], key
    assert set(full["splits"]) == {"S0", "S1", "S2", "S3"}
    assert set(full["null"]) == {"observed", "shuffled", "rewired"}
    assert full["splits"]["S2"]["n"] == plain["account"]["n"]
    for row in (*full["peers"].values(), *full["knockouts"]["without"].values()):
        assert row["n"] == plain["account"]["n"]
