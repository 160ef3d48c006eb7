import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.snapshot import SnapshotDamaged, _load, load_latest, save

ARRAYS = {"ids": np.arange(1000, dtype=np.uint64), "seen": np.zeros((3, 7), dtype=np.int64)}


def same(left: dict[str, NDArray[Any]], right: dict[str, NDArray[Any]]) -> bool:
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    arrays=st.dictionaries(
        st.text(max_size=8),
        hnp.arrays(
            dtype=st.one_of(hnp.scalar_dtypes(), hnp.array_dtypes(allow_subarrays=True)),
            shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
        ),
        max_size=4,
    ),
    meta=st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.none()), max_size=3),
)
def test_round_trip(
    tmp_path: Path, arrays: dict[str, NDArray[Any]], meta: dict[str, object]
) -> None:
    save(tmp_path, "any", arrays, meta)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert same(loaded[0], arrays)
    assert loaded[1] == meta


def test_odd_strides_structs_and_padding(tmp_path: Path) -> None:
    aligned = np.dtype([("kind", "u1"), ("at", "<i8")], align=True)
    arrays: dict[str, NDArray[Any]] = {
        "backwards": np.arange(10)[::-1],
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "struct": np.array([(1, 2), (3, 4)], dtype=aligned),
        "when": np.array(["2026-01-01T00:00"], dtype="datetime64[ms]"),
        "scalar": np.array(5, dtype=">u2"),
        "none": np.zeros((0, 4), dtype=np.float32),
    }
    save(tmp_path, "odd", arrays, {})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert same(loaded[0], arrays)
    loaded[0]["backwards"][0] = 99  # a fold goes on writing into it
    assert loaded[0]["backwards"][0] == 99
    assert loaded[0]["struct"]["at"].tolist() == [2, 4]


def test_nothing_to_load(tmp_path: Path) -> None:
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "absent") is None


def test_newest_wins_and_two_are_kept(tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path / "s", f"at-{number}", ARRAYS, {"number": number})
        loaded = load_latest(tmp_path / "s")
        assert loaded is not None
        assert loaded[1] == {"number": number}
    assert sorted(os.listdir(tmp_path / "s")) == [
        "000000000011-at-10.snapshot",
        "000000000012-at-11.snapshot",
    ]


@pytest.mark.parametrize("kept_bytes", [0, 5, 16, 100, 4000, -33, -1])
def test_torn_write_falls_back(
    tmp_path: Path, kept_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, "old", ARRAYS, {"which": "old"})
    path = save(tmp_path, "new", ARRAYS, {"which": "new"})
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with caplog.at_level(logging.WARNING):
        loaded = load_latest(tmp_path)
    assert loaded is not None
    assert same(loaded[0], ARRAYS)
    assert loaded[1] == {"which": "old"}
    assert str(path) in caplog.text


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, "x", {"a": np.arange(4, dtype=np.uint8)}, {"k": 1})
    whole = path.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(SnapshotDamaged, match="Restore one, or remove them"):
            load_latest(tmp_path)
    path.write_bytes(whole)
    assert load_latest(tmp_path) is not None


def test_unfinished_write_is_ignored_and_tidied(tmp_path: Path) -> None:
    save(tmp_path, "a", ARRAYS, {"which": "a"})
    stale = tmp_path / ".000000000009-b.snapshot.0123456789abcdef.partial"
    stale.write_bytes(b"half")
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded[1] == {"which": "a"}
    save(tmp_path, "c", ARRAYS, {})
    assert stale.exists(), "somebody may be writing it"
    os.utime(stale, (0, 0))
    save(tmp_path, "d", ARRAYS, {})
    assert not stale.exists()


def test_who_was_succeeded_while_he_wrote_may_finish(tmp_path: Path) -> None:
    """Each step of a save that sleeps is followed by a save of the successor's."""
    save(tmp_path, "a", ARRAYS, {"which": "a"})

    class Sleeper(dict[str, Any]):
        def values(self) -> Any:
            for n, array in enumerate(super().values()):
                yield array
                save(tmp_path, f"successor{n}", ARRAYS, {"which": n})

    save(tmp_path, "sleeper", Sleeper(ARRAYS), {"which": "sleeper"})
    assert not list(tmp_path.glob(".*"))
    for path in tmp_path.iterdir():
        loaded = _load(path)
        assert same(loaded[0], ARRAYS)
    assert load_latest(tmp_path) is not None


def test_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "a", ARRAYS, {"which": "a"})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, "b", ARRAYS, {})
    assert os.listdir(tmp_path) == ["000000000001-a.snapshot"]
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded[1] == {"which": "a"}


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for name in "abc":
        save(tmp_path, name, ARRAYS, {})
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "a/b", "..\n", "x" * 65, "ü"])
def test_bad_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="snapshot name"):
        save(tmp_path, name, ARRAYS, {})


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'o' holds Python objects"):
        save(tmp_path, "x", {"o": np.array([None])}, {})
    with pytest.raises(TypeError, match="JSON"):
        save(tmp_path, "x", {}, {"o": object()})
    assert load_latest(tmp_path) is None
