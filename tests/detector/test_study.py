"""The study of a log agrees with the model that would be trained on it."""

import json
from pathlib import Path

import numpy as np
import pytest

import detector.train
from detector.study import study
from detector.train import fit, replay
from features.table import Truth, read_truth
from tests.detector.handmade import Log, engine_of


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector.train, "SWEEPS", 4)
    monkeypatch.setattr(detector.train, "ROUNDS", 10)


def world(folder: Path) -> tuple[Log, Truth]:
    """Forty operators of four accounts on a device each; the abusive half fills in forms quickly."""
    rng = np.random.default_rng(3)
    log, rows = Log(), ["account_id,ring_id,typology"]
    for o in range(40):
        bad = o % 2
        for i in range(4):
            minute = float(rng.integers(0, 1400))
            form = int(rng.integers(2000, 12_000) if bad else rng.integers(9000, 30_000))
            log.add("account_signup", f"o{o}.{i}", minute, form_ms=form, device_id=f"d{o}")
            log.request(f"o{o}.{i}", minute + 5, cost_usd=1.0)
            kind = ("carded", "sms_farm")[o // 2 % 2]
            rows.append(f"o{o}.{i}," + (f"r{o},{kind}" if bad else ","))
    path = folder / "truth.csv"
    path.write_text("\n".join(rows) + "\n")
    return log, read_truth(path)


def test_the_headline_split_is_what_a_trained_model_reports(tmp_path: Path) -> None:
    log, truth = world(tmp_path)
    steps: list[int] = []
    told = study(engine_of(), [log.events], len(log.events), truth, steps.append)
    assert sum(steps) == len(log.events)
    json.dumps(told, allow_nan=False)
    engine = engine_of()
    history = replay(engine, [log.events], len(log.events))
    labels = {a: bool(b) for a, b in zip(truth.row, truth.abusive, strict=True)}
    operators = {a: str(g) for a, g in zip(truth.row, truth.group_id, strict=True)}
    model = fit(history, engine, labels, operators, "v1", [log.events])
    report = model.about["held_out_operators"]
    assert told["splits"]["S2"] == report
    assert report["auc"] > 0.7
    assert set(told["splits"]["S3"]) == {"carded", "sms_farm"}
    assert told["peers"]["components"]["pairwise"]["recall"] == 1.0
    assert told["peers"]["rule: accounts per device"]["auc"] == 0.5, "honest ones share, too"
    assert {"sign_up", "kyc", "neighbourhood"} < set(told["knockouts"]["without"])
    missed = told["knockouts"]["without"]["sign_up"]["auc"]
    assert missed < told["knockouts"]["whole"]["auc"]


def test_accounts_that_the_truth_does_not_name_are_not_learned_from(tmp_path: Path) -> None:
    log, truth = world(tmp_path)
    for i in range(50):
        log.request(f"ghost{i}", i, device_id="ghosts")
    told = study(engine_of(), [log.events], len(log.events), truth)
    assert told["splits"]["S2"]["n"] == told["peers"]["components"]["n"] == 160
