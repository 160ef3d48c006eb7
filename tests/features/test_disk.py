"""Files that appear whole, whoever else writes them."""

from pathlib import Path

import pytest

from features.disk import whole


def test_one_who_slept_while_another_finished_leaves_that_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with whole(path) as sleeper:
        sleeper.write(b"half of ")
        sleeper.flush()
        with whole(path) as successor:
            successor.write(b"another")
        assert path.read_bytes() == b"another"
        sleeper.write(b"mine")
        sleeper.flush()
        assert path.read_bytes() == b"another"
    assert path.read_bytes() == b"half of mine"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")

    def refuse(_: Path) -> None:
        raise ValueError("read back and found wanting")

    with pytest.raises(ValueError, match="wanting"), whole(path, refuse) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
