"""Snapshots of the window's arrays: one file each, all or nothing.

A restart is the newest snapshot plus the log after it, so a snapshot must be whole or not be there
at all. It is written beside its place, synced, read back, renamed into it, and the folder is synced;
the last 32 bytes are the SHA-256 of all before them. A newest file that does not verify (a torn write, a
bad disk) is passed over, with a warning, for the one before it: the log then has more to replay
and nothing is lost, as long as the log is trimmed no further than the *older* snapshot.

    0    8     "SHOALSN1"
    8    8     length of the header, u64 little-endian
    16   …     header, JSON: {"name", "meta", "arrays": [{"name", "dtype", "shape", "at"}]}
    at   …     each array's bytes in C order, 64-byte aligned, zeros between
    -32  32    SHA-256 of everything before

A file is `<number>-<name>.snapshot`; a higher number is newer. One folder holds one series and has
one writer; one who was succeeded while he wrote may finish, and leaves his successor's files whole.
Loaded arrays are views of one buffer, writable, without a copy.
"""

import ast
import hashlib
import json
import logging
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from features.disk import tidy, whole

MAGIC = b"SHOALSN1"
ALIGNMENT_BYTES = 64
DIGEST_BYTES = 32
KEPT = 2

_LENGTH = struct.Struct("<Q")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FILE = re.compile(r"([0-9]+)-[A-Za-z0-9._-]{1,64}\.snapshot")

_log = logging.getLogger(__name__)


class SnapshotDamaged(RuntimeError):
    """Snapshots exist and none of them can be read."""


def save(
    folder: str | Path, name: str, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]
) -> Path:
    """Write a snapshot as the newest of `folder`, drop all but the last two; returns its path.

    `name` is for people (letters, digits, `.`, `_`, `-`; at most 64). `arrays` may have any dtype
    except object, any shape. `meta` must survive JSON: a tuple comes back as a list. When this
    returns, the snapshot is on disk; when it raises (ValueError for a bad name or dtype, TypeError
    for a meta that is no JSON, OSError from the disk), the older snapshots are untouched.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"snapshot name {name!r}: 1 to 64 letters, digits, '.', '_' and '-' are allowed"
        )
    for array_name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"array {array_name!r} holds Python objects, which are not saved")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = _files(folder)
    number = _number(files[0]) + 1 if files else 1
    path = folder / f"{number:012d}-{name}.snapshot"
    header = _header(name, arrays, meta)
    with whole(path, _verify) as file:
        _write(file, header, arrays)
    for old in _files(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    tidy(folder)
    return path


def load_latest(
    folder: str | Path,
    unusable: Callable[[Mapping[str, Any]], str | None] = lambda meta: None,
    ours: bool = True,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """Arrays and meta of the newest snapshot that verifies; None when the folder has none.

    `unusable` says of a snapshot's meta why it cannot be used here, if it cannot. Logs a warning for
    each newer one that is passed over. A damaged one is set aside as `….damaged`, so that the two
    that are kept are two that can be read (unless the folder is not `ours` to write). Raises
    SnapshotDamaged when all are damaged: to start from nothing must then be somebody's decision, not
    an accident.
    """
    damage = []
    usable = None
    files = _files(Path(folder))
    for path in files:
        try:
            found = _load(path)
        except (ValueError, OSError) as error:
            _log.error("SNAPSHOT DAMAGED, the one before it is used: %s", error)
            damage.append((path, str(error)))
            continue
        reason = unusable(found[1])
        if reason is None:
            usable = found
            break
        _log.warning("snapshot %s passed over: %s", path.name, reason)
    if damage and len(damage) == len(files):
        raise SnapshotDamaged(
            f"no snapshot in {folder} can be read ({'; '.join(told for _, told in damage)}). "
            f"Restore one, or remove them to replay the log from its start"
        )
    for path, _ in damage if ours else ():
        path.rename(path.with_name(path.name + ".damaged"))
    return usable


def _header(name: str, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> bytes:
    """The header. Where the arrays lie depends on its length, so offsets count from its end."""
    entries = []
    at = 0
    for array_name, array in arrays.items():
        entries.append(
            {
                "name": array_name,
                "dtype": repr(np.lib.format.dtype_to_descr(array.dtype)),
                "shape": array.shape,
                "at": at,
            }
        )
        at += _aligned(array.nbytes)
    return json.dumps({"name": name, "meta": dict(meta), "arrays": entries}).encode()


def _write(file: IO[bytes], header: bytes, arrays: Mapping[str, NDArray[Any]]) -> None:
    digest = hashlib.sha256()

    def put(data: bytes | memoryview) -> None:
        digest.update(data)
        file.write(data)

    head = MAGIC + _LENGTH.pack(len(header)) + header
    put(head.ljust(_aligned(len(head)), b"\0"))
    for array in arrays.values():
        if array.nbytes:
            put(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            put(bytes(_aligned(array.nbytes) - array.nbytes))
    file.write(digest.digest())


def _load(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Raises ValueError, naming the file, when it is not exactly what was written."""
    body = _verify(path)
    start = len(MAGIC) + _LENGTH.size
    (length,) = _LENGTH.unpack(bytes(body[len(MAGIC) : start]))
    header = json.loads(bytes(body[start : start + length]))
    base = _aligned(start + length)
    arrays = {}
    for entry in header["arrays"]:
        dtype = np.lib.format.descr_to_dtype(ast.literal_eval(entry["dtype"]))
        shape = tuple(entry["shape"])
        at = base + entry["at"]
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays[entry["name"]] = (
            body[at : at + size].view(dtype).reshape(shape) if size else np.zeros(shape, dtype)
        )
    return arrays, header["meta"]


def _verify(path: Path) -> NDArray[np.uint8]:
    """All of a snapshot but its digest. Raises ValueError, naming the file, when they differ."""
    content = np.fromfile(path, dtype=np.uint8)
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if bytes(body[: len(MAGIC)]) != MAGIC:
        raise ValueError(f"{path} is no snapshot that this Shoal can read")
    if hashlib.sha256(body.data).digest() != digest.tobytes():
        raise ValueError(f"{path} is damaged: its SHA-256 does not match")
    return body


def _files(folder: Path) -> list[Path]:
    """The finished snapshots, newest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (path for path in folder.iterdir() if _FILE.fullmatch(path.name)),
        key=lambda path: (_number(path), path.name),
        reverse=True,
    )


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
