"""Files that are whole or not there, and stay after a power cut."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ABANDONED_S = 3600.0


@contextmanager
def whole(path: Path, check: Callable[[Path], object] = lambda _: None) -> Iterator[IO[bytes]]:
    """A file to write, which appears under its name when it is complete, synced and checked.

    Until then it lies beside its place as `.<name>.<random>.partial`, of which each writer has his own:
    one who slept while another finished writes on in a file that nobody reads. When this returns, the
    name is on disk, too. Whatever is raised inside, by `check` or by the disk (OSError) leaves what
    was there before. One who is killed leaves his partial, for `tidy`.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def tidy(folder: Path) -> None:
    """Remove what killed writers have left: partials an hour older than the last change in their folder."""
    now = folder.stat().st_mtime
    for left in folder.glob(".*.partial"):
        with contextlib.suppress(FileNotFoundError):  # its writer, or another who tidies, was first
            if now - left.stat().st_mtime > ABANDONED_S:
                left.unlink()


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
