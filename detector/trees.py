"""A LightGBM model as flat arrays, and the walk through them.

`Booster.predict` prepares more per call than it computes (35-41 microseconds a row in a batch, ~97
for one row); walking the same trees over arrays gives the same raw score, summed in the same order,
for a fraction. The node tables are read from LightGBM's own dump, so nothing is re-implemented but
the walk: a numerical split sends NaN the default way and everything else left when <= threshold.
(LightGBM also reads values within 1e-35 of 0 as 0, and its dump clips thresholds to +-1e300; no
number of ours lies beyond, save infinity.)
"""

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numba import njit
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@njit(cache=True, nogil=True)
def _walk(
    x: F64, root: NDArray[np.int64], feature: NDArray[np.int64], threshold: F64, nan_left: NDArray[np.bool_],
    left: NDArray[np.int64], right: NDArray[np.int64], value: F64,
) -> F64:  # fmt: skip
    out = np.zeros(len(x))
    for tree in range(len(root)):
        for i in range(len(x)):
            node = root[tree]
            while node >= 0:
                v = x[i, feature[node]]
                go_left = nan_left[node] if np.isnan(v) else v <= threshold[node]
                node = left[node] if go_left else right[node]
            out[i] += value[~node]
    return out


@dataclass(frozen=True, slots=True)
class Trees:
    """Nodes of all trees end to end; a child below 0 is the leaf `~child`."""

    root: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: F64
    nan_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: F64

    def margin(self, x: F64) -> F64:
        """Raw scores [n] of vectors [n, features]; equal to `Booster.predict(raw_score=True)`."""
        return _walk(
            np.ascontiguousarray(x, np.float64), self.root, self.feature, self.threshold, self.nan_left,
            self.left, self.right, self.value,
        )  # fmt: skip


def flatten(booster: lightgbm.Booster) -> Trees:
    """Node tables of a booster.

    Raises:
        ValueError: it holds a split other than a numerical one with NaN as the missing value, or its
            raw score is not the sum of constant leaves (several classes, a forest, linear leaves).
    """
    dump = booster.dump_model()
    if dump["num_tree_per_iteration"] != 1 or dump["average_output"]:
        raise ValueError("cannot walk a model of several classes or an averaged forest")
    root: list[int] = []
    feature: list[int] = []
    threshold: list[float] = []
    nan_left: list[bool] = []
    left: list[int] = []
    right: list[int] = []
    value: list[float] = []

    def add(node: dict[str, Any]) -> int:
        if "leaf_value" in node:
            if "leaf_coeff" in node:
                raise ValueError("cannot walk linear leaves")
            value.append(float(node["leaf_value"]))
            return ~(len(value) - 1)
        if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
            raise ValueError(
                f"cannot walk a split of type {node['decision_type']!r}/{node['missing_type']!r}"
            )
        at = len(feature)
        feature.append(int(node["split_feature"]))
        # 1e300 is the dump's word for "no bound": all but NaN go left, infinity too
        threshold.append(float(node["threshold"]) if node["threshold"] < 1e300 else np.inf)
        # missing type "None": LightGBM reads NaN as 0.0
        nan_left.append(
            bool(node["default_left"])
            if node["missing_type"] == "NaN"
            else float(node["threshold"]) >= 0.0
        )
        left.append(0)
        right.append(0)
        left[at] = add(node["left_child"])
        right[at] = add(node["right_child"])
        return at

    for tree in dump["tree_info"]:
        root.append(add(tree["tree_structure"]))
    i64, f64 = np.int64, np.float64
    return Trees(
        np.array(root, i64), np.array(feature, i64), np.array(threshold, f64), np.array(nan_left, np.bool_),
        np.array(left, i64), np.array(right, i64), np.array(value, f64),
    )  # fmt: skip
