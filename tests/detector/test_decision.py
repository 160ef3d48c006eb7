"""Reasons: which features raised a score, in their own sentences."""

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.decision import REASONS, RISK, Reason, explain
from detector.model import Head
from detector.policy import Action
from features.catalog import Catalog
from features.feature import Seen, sentence
from tests.detector.handmade import counting_head

CATALOG = Catalog()
COLUMNS = (*CATALOG.names, "links_sum")


@pytest.fixture(scope="module")
def head() -> Head:
    """Learned from noise in which a dozen columns matter, some of them unknown at times."""
    rng = np.random.default_rng(5)
    x = rng.poisson(2, (600, len(COLUMNS))).astype(float)
    x[rng.random(x.shape) < 0.2] = np.nan
    y = (
        np.nan_to_num(x[:, ::7], nan=4).sum(axis=1) + rng.normal(size=600)
        > x[:, ::7].shape[1] * 2.4
    )
    shape = {"objective": "binary", "num_threads": 1, "verbosity": -1, "min_data_in_leaf": 5}
    quiet = {"verbosity": -1}
    text = lightgbm.train(shape, lightgbm.Dataset(x, y, params=quiet), 30).model_to_string()
    return Head("event", COLUMNS, text, (-5.0, 5.0), (0.01, 0.99), {})


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_reasons_are_the_largest_contributions_that_raise_the_score(head: Head, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vector = rng.poisson(2, len(COLUMNS)).astype(float)
    vector[rng.random(len(vector)) < 0.3] = np.nan
    reasons = explain(head, vector, CATALOG)
    told = dict(zip(COLUMNS, head.contributions(vector), strict=True))
    impacts = [r.impact for r in reasons]
    assert impacts == sorted(impacts, reverse=True)
    assert all(i > 0 for i in impacts)
    assert [r.impact for r in reasons] == [round(told[r.code], 4) for r in reasons]
    assert len({r.code for r in reasons}) == len(reasons)
    others = [v for name, v in told.items() if name not in {r.code for r in reasons}]
    if len(reasons) < REASONS:
        assert max(others) < 1e-4, "none that counts is left out"
    else:
        assert max(others) <= min(impacts) + 1e-4
    by_name = {f.name: f for f in CATALOG.features}
    for reason in reasons:
        value = vector[COLUMNS.index(reason.code)]
        if np.isnan(value):
            assert reason.text == f"{reason.code.replace('_', ' ')} is unknown"
        elif reason.code in by_name:
            assert reason.text == sentence(by_name[reason.code], value)
        else:
            assert reason.text == f"links sum: {value:,.4g}"


def test_contributions_add_up_to_the_margin(head: Head) -> None:
    vector = np.ones(len(COLUMNS))
    base = np.asarray(head.booster.predict(vector[None], pred_contrib=True))[0, -1]
    margin = head.trees.margin(vector[None])[0]
    assert head.contributions(vector).sum() + base == pytest.approx(margin, abs=1e-9)
    assert head.contributions(vector).shape == (len(COLUMNS),)


@pytest.mark.parametrize("feature", CATALOG.features, ids=lambda f: f.name)
def test_every_feature_can_be_a_reason(feature: Seen) -> None:
    head = counting_head("event", CATALOG.names, feature.name)
    vector = np.zeros(len(CATALOG.names))
    vector[CATALOG.names.index(feature.name)] = 5
    (reason,) = explain(head, vector, CATALOG)
    assert reason.code == feature.name
    assert "{" not in reason.text
    n = "500%" if "per" in feature.name.split("_") else "5"
    assert n in reason.text or "{n}" not in feature.says


def test_a_low_score_has_no_reasons() -> None:
    head = counting_head("event", CATALOG.names, "accounts_by_card_90d")
    assert explain(head, np.zeros(len(CATALOG.names)), CATALOG) == []


def test_every_action_has_a_risk_and_more_severe_is_not_less_risky() -> None:
    scale = ["low", "medium", "high", "critical"]
    risks = [scale.index(RISK[a]) for a in sorted(Action)]
    assert risks == sorted(risks)
    assert (risks[0], risks[-1]) == (0, 3)


def test_reasons_are_told_without_what_they_lack() -> None:
    import msgspec

    assert msgspec.to_builtins(Reason("a", 1.0, "b")) == {"code": "a", "impact": 1.0, "text": "b"}
