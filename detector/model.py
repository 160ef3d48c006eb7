"""The model artifact: what was learned, from what, and for which vectors.

A version is a folder: `manifest.json` and one LightGBM text file a *head*.

    event      scores the vector of one event, the instant it arrives
    standing   scores an account at a sweep: its vector as of then, and its neighbourhood
    cluster    scores a cluster: its structure, and its members' standing

Each head carries the isotonic calibration fitted on operators it had not seen, and the thresholds
that let a given share of honest accounts pass it wrongly. The manifest pins the hash of the feature
list: vectors of another catalogue are refused. `current` is a symbolic link, replaced atomically.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from detector.trees import Trees, flatten
from features.catalog import Catalog

F64 = NDArray[np.float64]
FORMAT = 1
HEADS = ("event", "standing", "cluster")
LINKS = ("current", "previous")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
TARGET_FPRS = (0.0005, 0.001, 0.0015, 0.003, 0.005, 0.01, 0.03)


class ModelProblem(ValueError):
    """A model that cannot be used, and why."""


def names_hash(names: Sequence[str]) -> str:
    """Identifies a list of columns and their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Head:
    """One booster with its calibration.

    `knots`/`levels`: calibrated probability is the linear interpolation of the raw score through
    these points (isotonic blocks at their centres, so that ranking within a block survives).
    `thresholds`: calibrated score by share of honest held-out accounts. Those of `event` and `standing` are
    set together: at most the share passes any of the two, or that of a cluster's members (`Model.members`).
    """

    name: str
    columns: tuple[str, ...]
    text: str
    knots: tuple[float, ...]
    levels: tuple[float, ...]
    thresholds: dict[str, float]

    @cached_property
    def booster(self) -> lightgbm.Booster:
        return lightgbm.Booster(model_str=self.text)

    @cached_property
    def trees(self) -> Trees:
        return flatten(self.booster)

    def score(self, vectors: F64) -> F64:
        """Calibrated probabilities [n] of vectors [n, columns].

        Raises:
            ModelProblem: the vectors have another width than the head was trained on.
        """
        if vectors.shape[1] != len(self.columns):
            raise ModelProblem(
                f"the `{self.name}` head was trained on {len(self.columns)} features and was given {vectors.shape[1]}"
            )
        return self.calibrate(self.trees.margin(vectors))

    def calibrate(self, margin: F64) -> F64:
        return np.interp(margin, self.knots, self.levels)

    def threshold(self, fpr: float) -> float:
        """Score above which `fpr` of honest accounts lay on held-out operators; the nearest stricter target.

        Raises:
            ModelProblem: no target is as strict.
        """
        return _strictest(self.thresholds, fpr, f"`{self.name}` head")

    def contributions(self, vector: F64) -> F64:
        """Exact TreeSHAP of one vector, in margin units (dear: only for what is acted on)."""
        return self.trees.contributions(vector)


def target_of(fpr: float, targets: Iterable[str]) -> str | None:
    """The target that a share of honest accounts is kept by: the nearest that is as strict; None if none is."""
    return max((f for f in targets if float(f) <= fpr * (1 + 1e-9)), key=float, default=None)


def _strictest(thresholds: Mapping[str, float], fpr: float, whose: str) -> float:
    target = target_of(fpr, thresholds)
    if target is None:
        least = min(map(float, thresholds), default=None)
        raise ModelProblem(
            f"the {whose} has no threshold for a share of {fpr:g} of honest accounts; the least is {least}"
        )
    return thresholds[target]


@dataclass(frozen=True)
class Model:
    """A version: its heads and where it came from.

    `members`: as a head's `thresholds`, for the standing of members of clusters to act on.
    """

    version: str
    catalog: Catalog
    heads: dict[str, Head]
    about: dict[str, Any]
    members: dict[str, float] = field(default_factory=dict)

    def member_threshold(self, fpr: float) -> float:
        """The standing to which a member of a cluster is held that the policy would act on."""
        return (
            _strictest(self.members, fpr, "model") if self.members else self.standing.threshold(fpr)
        )

    @cached_property
    def event(self) -> Head:
        return self.heads["event"]

    @cached_property
    def standing(self) -> Head:
        return self.heads["standing"]


def save(model: Model, folder: Path) -> Path:
    """Write a version under `folder`, whole or not at all.

    Raises:
        ModelProblem: the version exists, or its name is not one.
    """
    if not NAME.fullmatch(model.version) or model.version in LINKS:
        raise ModelProblem(
            f"{model.version!r} is not a model name: letters, digits, dot, dash and underscore"
        )
    target = folder / model.version
    if target.exists():
        raise ModelProblem(f"model {model.version!r} exists already in {folder}")
    draft = folder / f".{model.version}.{os.getpid()}"
    draft.mkdir(parents=True)
    heads: dict[str, Any] = {}
    for name, head in model.heads.items():
        body = head.text.encode()
        (draft / f"{name}.txt").write_bytes(body)
        heads[name] = {
            "sha256": hashlib.sha256(body).hexdigest(),
            "columns": list(head.columns),
            "columns_hash": names_hash(head.columns),
            "knots": list(head.knots),
            "levels": list(head.levels),
            "thresholds": head.thresholds,
        }
    manifest = {
        "format": FORMAT,
        "version": model.version,
        "kinds": list(model.catalog.kinds),
        "feature_hash": model.catalog.hash,
        "heads": heads,
        "members": model.members,
        **model.about,
    }
    (draft / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    draft.rename(target)
    return target


def load(folder: Path, name: str = "current") -> Model:
    """Read a version and check it.

    Raises:
        ModelProblem: it is missing, damaged, or of another feature list or format.
    """
    path = folder / name
    if not NAME.fullmatch(name) or not (path / "manifest.json").is_file():
        known = versions(folder)
        have = f"there are {', '.join(known)}" if known else "there are none yet: run `shoal train`"
        raise ModelProblem(f"no model {name!r} in {folder}; {have}")
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["format"] != FORMAT:
            raise ModelProblem(
                f"{path}: model format {manifest['format']}, this version reads {FORMAT}"
            )
        catalog = Catalog(tuple(manifest["kinds"]))
        if manifest["feature_hash"] != catalog.hash:
            raise ModelProblem(
                f"model {manifest['version']!r} was trained on other features "
                f"(feature hash {manifest['feature_hash']}, this catalogue is {catalog.hash}); run `shoal train`"
            )
        heads = {name: _head(path, name, told) for name, told in manifest["heads"].items()}
        members = dict(manifest.get("members", {}))
    except ModelProblem:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as problem:
        raise ModelProblem(f"{path}: not a readable model: {problem!r}") from None
    about = {
        k: v
        for k, v in manifest.items()
        if k not in ("format", "version", "kinds", "feature_hash", "heads", "members")
    }
    return Model(manifest["version"], catalog, heads, about, members)


def _head(path: Path, name: str, told: dict[str, Any]) -> Head:
    body = (path / f"{name}.txt").read_bytes()
    if hashlib.sha256(body).hexdigest() != told["sha256"]:
        raise ModelProblem(f"{path / name}.txt is damaged: its sha256 is not the manifest's")
    return Head(
        name,
        tuple(told["columns"]),
        body.decode(),
        tuple(told["knots"]),
        tuple(told["levels"]),
        told["thresholds"],
    )


def versions(folder: Path) -> list[str]:
    """The versions in a model folder, oldest first."""
    found = [
        p.parent
        for p in folder.glob("*/manifest.json")
        if not p.parent.is_symlink() and p.parent.name[0] != "."
    ]
    return [p.name for p in sorted(found, key=lambda p: (p.stat().st_mtime_ns, p.name))]


def promote(folder: Path, version: str) -> None:
    """Make a version the current one; the one it replaces is remembered for `rollback`.

    Raises:
        ModelProblem: it cannot be loaded.
    """
    load(folder, version)
    # `current` and `previous` are names of a version too
    version = (folder / version).resolve().name
    was = current(folder)
    if was and was != version:
        _point(folder, "previous", was)
    _point(folder, "current", version)


def rollback(folder: Path) -> str:
    """Return to the version before the last promotion.

    Raises:
        ModelProblem: there is none.
    """
    link = folder / "previous"
    if not link.is_symlink():
        raise ModelProblem("no earlier model to return to")
    version = os.readlink(link)
    promote(folder, version)
    return version


def current(folder: Path) -> str | None:
    """The name of the current version."""
    link = folder / "current"
    return os.readlink(link) if link.is_symlink() else None


def _point(folder: Path, name: str, version: str) -> None:
    draft = folder / f".{name}.{os.getpid()}"
    draft.unlink(missing_ok=True)
    draft.symlink_to(version)
    draft.replace(folder / name)
