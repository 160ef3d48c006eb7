"""A simulated world, a model of it, and started Shoals."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before lightgbm: two cores are shared

import databases
import httpx
import msgspec
import pytest
import structlog
import zstandard
from served import Ran, Run, Start, live

from detector.model import Model, load
from detector.policy import read_policy
from service import cli
from service.folder import Folder
from service.scenario import write
from service.shoal import Shoal

LONG_AGO = 320 * 7 * 86_400_000  # no machine's clock is behind what happened before it


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a simulated world (events.ndjson.zst, truth.csv)."""
    folder = tmp_path_factory.mktemp("past")
    write("market", folder, 1, 250, 2, 0.15, "mixed")
    return folder


@pytest.fixture(scope="session")
def trained(past: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the model `first`, which is current."""
    data = tmp_path_factory.mktemp("trained")
    events, truth = str(past / "events.ndjson.zst"), str(past / "truth.csv")
    words = ["train", "--events", events, "--labels", truth, "--as", "first", "--data", str(data)]
    assert cli.app(words, standalone_mode=False) is None
    return data


@pytest.fixture(scope="session")
def model(trained: Path) -> Model:
    return load(Folder(trained).models)


@pytest.fixture(scope="session")
def world(past: Path) -> list[bytes]:
    """The simulated events as lines of JSON, each once, moved to years ago."""
    packed = (past / "events.ndjson.zst").read_bytes()
    text = zstandard.ZstdDecompressor().stream_reader(packed).read()
    events = [msgspec.json.decode(line) for line in text.splitlines()]
    first = {event["event_id"]: event for event in reversed(events)}  # some are delivered twice
    for event in first.values():
        event["occurred_at"] -= LONG_AGO
    return [msgspec.json.encode(event) for event in reversed(first.values())]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a real PostgreSQL, started for these tests; skipped where there is none."""
    try:
        with databases.postgres() as url:
            yield url
    except databases.NoPostgres:
        pytest.skip("there is no PostgreSQL here: install its server, such as `postgresql`")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """`database()` gives the URL of an empty database, of each kind that records may have."""
    if request.param == "sqlite":
        return lambda: databases.file(tmp_path)
    server: str = request.getfixturevalue("server")
    return lambda: databases.schema(server)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start()` a Shoal on tmp_path/"data"; closed at the end, if it is not by then."""
    with ExitStack() as all_of_them:

        def started(model: Model | None = None, data: str = "data", **more: Any) -> Shoal:
            shoal = Shoal(Folder(tmp_path / data), read_policy(), model, **more)
            all_of_them.callback(lambda: None if shoal.fault == "stopped" else shoal.close())
            shoal.start()
            return shoal

        yield started


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """`run("models", "list")` as from a shell. An error that is no sentence fails the test."""
    monkeypatch.setenv("TERMINAL_WIDTH", "100")

    def ran(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["shoal", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Ran(code, said.out, said.err)

    yield ran
    structlog.reset_defaults()  # `serve` points it at the stderr of its test


@pytest.fixture
def api(start: Start) -> Iterator[httpx.Client]:
    """An empty service without a model, over HTTP."""
    with live(start()) as client:
        yield client
