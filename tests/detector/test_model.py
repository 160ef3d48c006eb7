"""The artifact: what is written is what is read, and what is damaged or foreign is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.model import (
    Head,
    Model,
    ModelProblem,
    current,
    load,
    names_hash,
    promote,
    rollback,
    save,
    versions,
)
from detector.train import calibrate
from features.catalog import Catalog


def kept(made: Model, folder: Path, *names: str) -> None:
    for name in names:
        save(replace(made, version=name), folder)


def edit(path: Path, **changed: object) -> None:
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | changed))


# --- the folder


def test_a_version_is_read_as_it_was_written(made: Model, tmp_path: Path) -> None:
    path = save(made, tmp_path)
    again = load(tmp_path, "made")
    assert again == made
    assert path == tmp_path / "made"
    assert again.catalog.hash == made.catalog.hash
    x = np.random.default_rng(0).integers(0, 12, (50, len(made.event.columns))).astype(float)
    for name, head in made.heads.items():
        wide = np.resize(x, (50, len(head.columns)))
        assert (again.heads[name].score(wide) == head.score(wide)).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made"], "no draft is left behind"


def test_custom_kinds_are_part_of_the_model(made: Model, tmp_path: Path) -> None:
    catalog = Catalog(("seat", "wallet"))
    save(replace(made, catalog=catalog), tmp_path)
    assert load(tmp_path, "made").catalog.names == catalog.names


def test_an_existing_version_is_never_overwritten(made: Model, tmp_path: Path) -> None:
    save(made, tmp_path)
    with pytest.raises(ModelProblem, match="exists already"):
        save(replace(made, about={"other": True}), tmp_path)
    assert load(tmp_path, "made") == made


@pytest.mark.parametrize(
    "name", ["", "current", "previous", ".hidden", "../up", "a/b", "a b", "-x", "x" * 65, "a\n"]
)
def test_names_that_are_none(made: Model, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelProblem, match="not a model name"):
        save(replace(made, version=name), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_an_unknown_name_lists_what_there_is(made: Model, tmp_path: Path) -> None:
    with pytest.raises(ModelProblem, match="there are none yet: run `shoal train`"):
        load(tmp_path)
    kept(made, tmp_path / "models", "b", "a")
    for unknown in ("c", "current", "../models/a"):
        with pytest.raises(ModelProblem, match=f"no model '{re.escape(unknown)}'.*there are b, a$"):
            load(tmp_path / "models", unknown)


def test_versions_are_listed_oldest_first(made: Model, tmp_path: Path) -> None:
    kept(made, tmp_path, "9", "10", "a", "B")
    promote(tmp_path, "a")
    (tmp_path / ".draft.1").mkdir()
    (tmp_path / ".draft.1" / "manifest.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    assert versions(tmp_path) == ["9", "10", "a", "B"]


# --- damage


@given(data=st.data())
def test_any_changed_byte_of_a_head_is_noticed(
    made: Model, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("models")
    head = save(made, folder) / f"{data.draw(st.sampled_from(sorted(made.heads)))}.txt"
    body = bytearray(head.read_bytes())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    head.write_bytes(body)
    with pytest.raises(ModelProblem, match=f"{head.name} is damaged"):
        load(folder, "made")


def test_a_shorter_or_missing_head_is_noticed(made: Model, tmp_path: Path) -> None:
    head = save(made, tmp_path) / "event.txt"
    head.write_bytes(head.read_bytes()[:-1])
    with pytest.raises(ModelProblem, match="damaged"):
        load(tmp_path, "made")
    head.unlink()
    with pytest.raises(ModelProblem, match="not a readable model"):
        load(tmp_path, "made")


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"[]", b"null", b'{"format": 1}', b"\xff\xfe", b'{"format": 1, "kinds": 7}'],
)
def test_a_manifest_that_is_none(made: Model, tmp_path: Path, manifest: bytes) -> None:
    (save(made, tmp_path) / "manifest.json").write_bytes(manifest)
    with pytest.raises(ModelProblem, match="not a readable model"):
        load(tmp_path, "made")


@pytest.mark.parametrize("heads", [[], {"event": 3}, {"event": {"sha256": "0"}}])
def test_a_manifest_with_no_heads(made: Model, tmp_path: Path, heads: object) -> None:
    edit(save(made, tmp_path) / "manifest.json", heads=heads)
    with pytest.raises(ModelProblem):
        load(tmp_path, "made")


def test_another_catalogue_is_refused_by_name(made: Model, tmp_path: Path) -> None:
    edit(save(made, tmp_path) / "manifest.json", feature_hash="0123456789abcdef")
    with pytest.raises(ModelProblem) as problem:
        load(tmp_path, "made")
    assert str(problem.value) == (
        "model 'made' was trained on other features (feature hash 0123456789abcdef, "
        f"this catalogue is {made.catalog.hash}); run `shoal train`"
    )


def test_another_format_is_refused(made: Model, tmp_path: Path) -> None:
    edit(save(made, tmp_path) / "manifest.json", format=2)
    with pytest.raises(ModelProblem, match="model format 2, this version reads 1"):
        load(tmp_path, "made")


def test_a_vector_of_another_width_is_refused(made: Model) -> None:
    width = len(made.event.columns)
    with pytest.raises(
        ModelProblem, match=rf"`event` head .* {width} features .* given {width - 1}"
    ):
        made.event.score(np.zeros((1, width - 1)))


def test_columns_are_identified_with_their_order() -> None:
    assert len({names_hash(n) for n in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""])}) == 4


# --- promotion


def test_promotion_and_its_way_back(made: Model, tmp_path: Path) -> None:
    kept(made, tmp_path, "v1", "v2")
    assert current(tmp_path) is None
    with pytest.raises(ModelProblem, match="no earlier model"):
        rollback(tmp_path)
    promote(tmp_path, "v1")
    assert (current(tmp_path), load(tmp_path).version) == ("v1", "v1")
    with pytest.raises(ModelProblem, match="no earlier model"):
        rollback(tmp_path)
    for _ in range(2):  # promoting twice is promoting once
        promote(tmp_path, "v2")
        assert current(tmp_path) == "v2"
    assert rollback(tmp_path) == "v1"
    assert current(tmp_path) == "v1"
    assert rollback(tmp_path) == "v2", "and forward again"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_the_names_of_links_promote_the_version_behind_them(made: Model, tmp_path: Path) -> None:
    kept(made, tmp_path, "v1", "v2")
    promote(tmp_path, "v1")
    promote(tmp_path, "current")
    assert current(tmp_path) == "v1"
    promote(tmp_path, "v2")
    promote(tmp_path, "current")
    assert current(tmp_path) == "v2"
    promote(tmp_path, "previous")
    assert current(tmp_path) == "v1"
    assert load(tmp_path).version == "v1"


def test_what_cannot_be_loaded_is_not_promoted(made: Model, tmp_path: Path) -> None:
    kept(made, tmp_path, "v1", "v2")
    promote(tmp_path, "v1")
    (tmp_path / "v2" / "standing.txt").write_text("broken")
    for name in ("v2", "v3"):
        with pytest.raises(ModelProblem):
            promote(tmp_path, name)
    assert load(tmp_path).version == "v1"
    with pytest.raises(ModelProblem, match="no earlier model"):
        rollback(tmp_path)


def test_a_reader_never_meets_a_folder_without_a_current_model(
    made: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is replaced, never removed: at every step of a promotion some version is current."""
    kept(made, tmp_path, "v1", "v2")
    promote(tmp_path, "v1")
    met: list[str] = []
    for step in ("unlink", "symlink_to", "replace"):
        real = getattr(Path, step)

        def watched(self: Path, *args: object, real=real, **kw: object) -> object:  # type: ignore[no-untyped-def]
            met.append(str(current(tmp_path)))
            done = real(self, *args, **kw)
            met.append(str(current(tmp_path)))
            return done

        monkeypatch.setattr(Path, step, watched)
    promote(tmp_path, "v2")
    assert set(met) == {"v1", "v2"}
    assert met == sorted(met), "and it changes once"


# --- thresholds and calibration


def test_a_threshold_is_that_of_the_nearest_stricter_target() -> None:
    head = Head("event", (), "", (), (), {"0.001": 0.9, "0.01": 0.5, "0.03": 0.2})
    asked = (0.001, 0.0099, 0.01, 0.02, 0.03, 1.0)
    assert [head.threshold(f) for f in asked] == [0.9, 0.9, 0.5, 0.5, 0.2, 0.2]
    assert head.threshold(0.1 * 0.1) == 0.5, "0.1 * 0.1 is a little more than 0.01, 0.3 * 0.1 less"
    assert head.threshold(0.003 * 10) == 0.2


@pytest.mark.parametrize("thresholds", [{"0.001": 0.9, "0.01": 0.5}, {}])
def test_a_share_that_no_target_keeps_is_refused(thresholds: dict[str, float]) -> None:
    head = Head("event", (), "", (), (), thresholds)
    with pytest.raises(ModelProblem, match=r"`event` head has no threshold for a share of 0\.0005"):
        head.threshold(0.0005)


@given(
    rows=st.lists(
        st.tuples(st.integers(-400, 400), st.booleans(), st.integers(1, 9)), min_size=1, max_size=60
    )
)
def test_calibration_strictly_increases_and_keeps_the_ranking(
    rows: list[tuple[int, bool, int]],
) -> None:
    margin = np.array([m / 16 for m, _, _ in rows])
    y = np.array([float(b) for _, b, _ in rows])
    weight = np.array([float(w) for _, _, w in rows])
    knots, levels = calibrate(margin, y, weight)
    assert (np.diff(knots) > 0).all()
    assert (np.diff(levels) > 0).all()
    assert (levels > 0).all()
    assert (levels < 1).all()
    head = Head("event", (), "", tuple(knots), tuple(levels), {})
    later = np.array([margin.min() - 1, *np.unique(margin), margin.max() + 1])
    assert (np.diff(head.calibrate(later)) > 0).all(), "accounts with different margins never tie"


@given(seed=st.integers(0, 2**32 - 1))
def test_calibration_finds_the_true_probability(seed: int) -> None:
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 2, 4000)
    truth = 1 / (1 + np.exp(-0.5 * margin - 1))
    y = (rng.random(4000) < truth).astype(float)
    knots, levels = calibrate(margin, y, np.ones(4000))
    assert np.abs(np.interp(margin, knots, levels) - truth).mean() < 0.05


def test_calibration_weighs_rows() -> None:
    """Rows that weigh k count as k rows."""
    margin, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.0, 1.0])
    weight = np.array([1, 2, 3, 1])
    whole = calibrate(np.repeat(margin, weight), np.repeat(y, weight), np.ones(weight.sum()))
    told = calibrate(margin, y, weight.astype(float))
    np.testing.assert_allclose(told, whole, atol=1e-12)
