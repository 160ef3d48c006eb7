"""The data folder: where everything that one Shoal keeps lies.

identity.key   the key of the identifiers' hashes (0600); without it nothing can be matched again
valkey/        the embedded log
cold/          the older part of the log, as Parquet, a folder a day
snapshots/     the window's state, to start from
models/        model versions and the `current` link
webhook.key    what the secrets of webhooks are derived from (0600)
records.db     labels, cases, decisions, keys, audit (unless --records names a database)
audit.anchors  the hashes of the audit's rows, beside the database that holds them
"""

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from features.identity import Secret

DEFAULT = "shoal-data"


def now_ms() -> int:
    """Epoch milliseconds by this machine's clock."""
    return time.time_ns() // 1_000_000


class FolderProblem(RuntimeError):
    """The data folder cannot be used, and why."""


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
        path = self.path / "identity.key"
        try:
            return Secret(self._key(path))
        except ValueError as problem:
            raise FolderProblem(f"{path} is not an identity key: {problem}") from None

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
            raise FolderProblem(
                f"the data folder {self.path} cannot be used: {problem.strerror}: {problem.filename}"
            ) from None


# Files read offline (train, evaluate, replay without a service) are hashed with a fixed key: nothing is
# kept, and the same files then always give the same figures.
OFFLINE = Secret(b"shoal offline key, nothing kept.")
