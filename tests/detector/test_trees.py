"""The walk against LightGBM's own prediction, on whatever numbers there are."""

from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detector.trees import flatten

F64 = NDArray[np.float64]
WIDTH = 6


def grow(
    x: F64, y: F64, rounds: int = 8, categorical: Any = "auto", **shape: Any
) -> lightgbm.Booster:
    shape = {
        "objective": "binary",
        "num_leaves": 15,
        "min_data_in_leaf": 1,
        "num_threads": 1,
        "verbosity": -1,
        "min_data_in_bin": 1,
        "seed": 1,
        **shape,
    }
    quiet = {"verbosity": -1, "min_data_in_bin": 1}
    data = lightgbm.Dataset(x, y, params=quiet, categorical_feature=categorical)
    return lightgbm.train(shape, data, rounds)


def numbers(rng: np.random.Generator, n: int) -> F64:
    """Unknown, infinite, tiny, tied and constant values; the last column is constant."""
    x = np.round(rng.normal(size=(n, WIDTH)), 1)
    for value, share in (
        (np.nan, 0.15),
        (np.inf, 0.05),
        (-np.inf, 0.05),
        (1e-300, 0.03),
        (0.0, 0.1),
    ):
        x[rng.random(x.shape) < share] = value
    x[:, -1] = 3.0
    return x


def predicted(booster: lightgbm.Booster, x: F64) -> F64:
    return np.asarray(booster.predict(x, raw_score=True, num_threads=1))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(20, 300),
    unknown_in_training=st.booleans(),
    use_missing=st.booleans(),
)
def test_margin_is_the_boosters_raw_score(
    seed: int, n: int, unknown_in_training: bool, use_missing: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = numbers(rng, n)
    if not unknown_in_training:
        x[np.isnan(x)] = -7.0
    y = (np.nan_to_num(x[:, 0]) + np.isnan(x[:, 1]) + rng.normal(size=n) > 0).astype(float)
    booster = grow(x, y, use_missing=use_missing)
    asked = np.vstack([x, numbers(rng, 50)])  # unknown where training never saw it, too
    trees = flatten(booster)
    at = np.repeat(trees.threshold[:50, None], WIDTH, axis=1)
    at[(np.abs(at) < 1e-30) | (np.abs(at) > 1e290)] = 0  # see the module's docstring
    asked = np.vstack([asked, at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf)])
    np.testing.assert_allclose(trees.margin(asked), predicted(booster, asked), rtol=0, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_row_scores_alike_alone_and_in_any_batch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = numbers(rng, 60)
    trees = flatten(grow(x, (rng.random(60) > 0.5).astype(float)))
    whole = trees.margin(x)
    alone = np.concatenate([trees.margin(row[None]) for row in x])
    order = rng.permutation(60)
    assert (alone == whole).all()
    assert (trees.margin(np.asfortranarray(x[order])) == whole[order]).all()
    assert len(np.unique(whole)) > 1


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(20, 300), leaves=st.sampled_from([2, 3, 7, 31])
)
def test_contributions_are_the_boosters(seed: int, n: int, leaves: int) -> None:
    rng = np.random.default_rng(seed)
    x = numbers(rng, n)
    y = (np.nan_to_num(x[:, 0]) + np.isnan(x[:, 1]) + rng.normal(size=n) > 0).astype(float)
    booster = grow(x, y, num_leaves=leaves)
    asked = np.vstack([x[:10], numbers(rng, 10)])
    expected = np.asarray(booster.predict(asked, pred_contrib=True, num_threads=1))[:, :-1]
    trees = flatten(booster)
    told = np.array([trees.contributions(row) for row in asked])
    np.testing.assert_allclose(told, expected, rtol=0, atol=1e-9)


def test_trees_that_never_split_are_their_one_leaf() -> None:
    x = np.random.default_rng(0).normal(size=(50, WIDTH))
    y = (np.arange(50) % 5 == 0).astype(float)
    booster = grow(x, y, num_leaves=2, min_data_in_leaf=40)
    trees = flatten(booster)
    assert len(trees.feature) == 0
    assert (trees.contributions(x[0]) == 0).all()
    assert trees.margin(x)[0] == pytest.approx(np.log(0.2 / 0.8), abs=1e-9)
    np.testing.assert_allclose(trees.margin(x), predicted(booster, x), rtol=0, atol=1e-12)


def test_nothing_to_score_is_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(50, WIDTH))
    assert flatten(grow(x, (x[:, 0] > 0).astype(float))).margin(np.empty((0, WIDTH))).shape == (0,)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"categorical": [0]}, "=="),
        ({"zero_as_missing": True}, "Zero"),
        ({"objective": "multiclass", "num_class": 2}, "several classes"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "forest"),
        ({"linear_tree": True}, "linear"),
    ],
)
def test_refuses_what_it_cannot_walk(shape: dict[str, Any], said: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, size=(400, WIDTH)).astype(float)
    x[:, 1] = rng.normal(size=400)
    y = ((x[:, 0] % 2 == 0) & (x[:, 1] > 0)).astype(float)
    with pytest.raises(ValueError, match=said):
        flatten(grow(x, y, **shape))
