"""Databases to test the records on: files of SQLite, and schemas on a private PostgreSQL server."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

START_S = 30.0
_numbers = itertools.count()


def _binaries() -> Path | None:
    """Where PostgreSQL's server is, of all versions the newest; None where there is none."""
    asked = shutil.which("pg_config")
    found = [Path(subprocess.check_output([asked, "--bindir"], text=True).strip())] if asked else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
    there = [p for p in found if (p / "initdb").exists() and (p / "postgres").exists()]
    return there[-1] if there else None


class NoPostgres(Exception):
    """There is no PostgreSQL on this machine."""


@contextmanager
def postgres() -> Iterator[str]:
    """A server of our own on a unix socket, as long as the block lasts; gives its URL.

    Its server refuses to run as root, who is `nobody` here instead.
    """
    binaries = _binaries()
    if binaries is None:
        raise NoPostgres
    with tempfile.TemporaryDirectory(prefix="shoal-pg-", ignore_cleanup_errors=True) as name:
        folder, user = Path(name), None
        if os.geteuid() == 0:
            user = "nobody"
            shutil.chown(folder, user)
        data = folder / "data"
        subprocess.run(
            [
                binaries / "initdb",
                "--pgdata",
                data,
                "--username=shoal",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            user=user,
            cwd=folder,
        )
        settings = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off"}
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", data, *(f"--{k}={v}" for k, v in settings.items())],
                stdout=log,
                stderr=log,
                user=user,
                cwd=folder,
            )
        url = f"postgresql://shoal@/postgres?host={folder}"
        try:
            _await(url, server, folder / "log")
            yield url
        finally:
            server.send_signal(signal.SIGQUIT)  # nothing is to be kept
            server.wait(START_S)


def _await(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert server.poll() is None, log.read_text()
        try:
            run(url, "SELECT 1")
            return
        except OperationalError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def run(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements past the records, as whoever has the database can; rows of the last."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
    try:
        with engine.begin() as connection:
            for statement in statements:
                told = connection.exec_driver_sql(statement)
            return [tuple(row) for row in told] if told.returns_rows else []
    finally:
        engine.dispose()


def schema(server: str) -> str:
    """The URL of an empty schema of its own on a server."""
    name = f"s{next(_numbers)}"
    run(server, f"CREATE SCHEMA {name}")
    return f"{server}&options=-csearch_path%3D{name}"


def file(folder: Path) -> str:
    """The URL of a new SQLite file in a folder."""
    return f"sqlite:///{folder}/{next(_numbers)}.db"


def load_sql(path: Path, script: str) -> None:
    """A SQLite file out of what `.dump` printed."""
    import sqlite3

    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(script)
