"""The data folder: where everything that one Shoal keeps lies.

identity.key   the key of the identifiers' hashes (0600); without it nothing can be matched again
identity.rotation  while it is being changed: the next key, and how far that is (0600)
identity.epochs    when each key before this one was destroyed
valkey/        the embedded log
cold/          the older part of the log, as Parquet, a folder a day
snapshots/     the window's state, to start from
models/        model versions and the `current` link
webhook.key    what the secrets of webhooks are derived from (0600)
records.db     labels, cases, decisions, keys, audit (unless --records names a database)
audit.anchors  the hashes of the audit's rows, beside the database that holds them
"""

import hashlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from features.disk import sync_folder, tidy, whole
from features.identity import Secret

DEFAULT = "shoal-data"
T = TypeVar("T")


def now_ms() -> int:
    """Epoch milliseconds by this machine's clock."""
    return time.time_ns() // 1_000_000


class FolderProblem(RuntimeError):
    """The data folder cannot be used, and why."""


class Rotation(msgspec.Struct, frozen=True):
    """A change of the identity key that is under way (service/rotation.py). Times in epoch ms.

    `since` is when the latest event in the log had happened when it was opened. `rest` is what tokens
    are hashed with whose identifier was not met: they are told apart by it, and matched by nobody.
    """

    epoch: int  # of the next key; the first one that a folder has is of epoch 1
    key: bytes
    rest: bytes
    opened_at: int
    since: int
    switching: bool = False  # the log may be of either key

    @property
    def mark(self) -> str:
        """A name of the next key, for what is of it already; a number could come twice, after a restore."""
        return hashlib.blake2b(self.key, digest_size=8, person=b"identity key").hexdigest()


@dataclass(frozen=True, slots=True)
class Identity:
    """What a service has to know of the identity key, and whether that is still so."""

    epoch: int
    key: bytes
    rotation: Rotation | None


@dataclass(frozen=True, slots=True)
class Folder:
    path: Path

    @property
    def valkey(self) -> Path:
        return self.path / "valkey"

    @property
    def cold(self) -> Path:
        return self.path / "cold"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def records_url(self) -> str:
        return f"sqlite:///{self.path.resolve() / 'records.db'}"

    @property
    def anchors(self) -> Path:
        return self.path / "audit.anchors"

    def secret(self) -> Secret:
        """The identity key, made on first use.

        Raises:
            FolderProblem: the folder cannot be written, or the key file is not one.
        """
        try:
            return Secret(self._key(self._identity_key))
        except ValueError as problem:
            raise FolderProblem(f"{self._identity_key} is not an identity key: {problem}") from None

    # --- the rotation of the identity key

    def identity(self) -> Identity:
        """The identity key as of now, made on first use. Raises FolderProblem like `secret`."""
        rotation = self.rotation()
        return Identity(len(self.past_epochs()) + 1, self._key(self._identity_key), rotation)

    def rotation(self) -> Rotation | None:
        """The rotation that is open, if one is. Raises FolderProblem."""
        text = self._read(self._rotation)
        return None if text is None else _decoded(self._rotation, text, Rotation)

    def past_epochs(self) -> list[int]:
        """When the key of each epoch before this one was destroyed. Raises FolderProblem."""
        text = self._read(self._epochs)
        return [] if text is None else _decoded(self._epochs, text, list[int])

    def keep_rotation(self, rotation: Rotation) -> None:
        """Note how far a rotation is; all or nothing. Raises FolderProblem."""
        self._write(self._rotation, msgspec.json.encode(rotation))

    def switch_key(self, rotation: Rotation) -> None:
        """Put the next key in the place of the one there is. Raises FolderProblem."""
        self._write(self._identity_key, rotation.key.hex().encode() + b"\n")

    def end_rotation(self, rotation: Rotation, at: int) -> None:
        """The last step: the key before this one is gone. May be repeated. Raises FolderProblem."""
        ended = self.past_epochs()
        if len(ended) + 1 < rotation.epoch:
            self._write(self._epochs, msgspec.json.encode([*ended, at]))
        self.drop_rotation()

    def drop_rotation(self) -> None:
        """Forget what is known of the rotation. Raises FolderProblem."""
        try:
            self._rotation.unlink(missing_ok=True)
            sync_folder(self.path)
        except OSError as problem:
            raise self._unusable(problem) from None

    def refuse_half_switched(self) -> None:
        """Raises FolderProblem where the log may hold tokens of two keys."""
        rotation = self.rotation()
        if rotation is not None and rotation.switching:
            raise FolderProblem(
                f"the switch of {self.path} to the identity key of epoch {rotation.epoch} has begun "
                f"and not ended: run `shoal keys rotate-identity --finish`, which goes on with it"
            )

    @property
    def _identity_key(self) -> Path:
        return self.path / "identity.key"

    @property
    def _rotation(self) -> Path:
        return self.path / "identity.rotation"

    @property
    def _epochs(self) -> Path:
        return self.path / "identity.epochs"

    def _read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise self._unusable(problem) from None

    def _write(self, path: Path, text: bytes) -> None:
        try:
            with whole(path) as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(text)
            tidy(path.parent)  # a partial holds what the file would
        except OSError as problem:
            raise self._unusable(problem) from None

    def _unusable(self, problem: OSError) -> FolderProblem:
        return FolderProblem(
            f"the data folder {self.path} cannot be used: {problem.strerror}: {problem.filename}"
        )

    def webhook_key(self) -> bytes:
        """The key that the secrets of webhooks are derived from, made on first use.

        Raises:
            FolderProblem: the folder cannot be written, or the key file is not one.
        """
        path = self.path / "webhook.key"
        try:
            return self._key(path)
        except ValueError as problem:
            raise FolderProblem(f"{path} is not a key: {problem}") from None

    def _key(self, path: Path) -> bytes:
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass
            else:
                with os.fdopen(descriptor, "w") as file:
                    file.write(secrets.token_hex(32) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            return bytes.fromhex(path.read_text().strip())
        except OSError as problem:
            raise self._unusable(problem) from None


def _decoded(path: Path, text: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=type_)
    except msgspec.DecodeError as problem:
        raise FolderProblem(f"{path} cannot be read: {problem}") from None


# Files read offline (train, evaluate, replay without a service) are hashed with a fixed key: nothing is
# kept, and the same files then always give the same figures.
OFFLINE = Secret(b"shoal offline key, nothing kept.")
