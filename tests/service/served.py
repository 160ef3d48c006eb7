"""Services to test against, in a thread of ours or in a process to be killed, and events for them."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvicorn

from service.app import create_app
from service.courier import Network
from service.gate import RATE
from service.serve import bind, config_of, run
from service.shoal import Shoal

READY_S = 60.0
NDJSON = {"content-type": "application/x-ndjson"}
START = 1_580_000_000_000
Start = Callable[..., Shoal]  # the fixture `start`


@dataclass
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]  # the fixture `run`


def one(n: int, account: str = "a1", type: str = "login", **more: Any) -> dict[str, Any]:
    """An event as a caller sends it."""
    return {
        "event_id": f"e{n}",
        "type": type,
        "occurred_at": START + n,
        "account_id": account,
    } | more


def a_ring(size: int = 14) -> list[bytes]:
    """A few honest accounts, and a ring that shares a device, a card and an address, in order."""
    told = []
    for n in range(40):
        told.append(one(n, f"honest{n}", "account_signup", device_id=f"d{n}", ip=f"198.51.100.{n}"))
    for n in range(size):
        shared = {"device_id": "shared", "ip": "203.0.113.9"}
        told.append(one(100 + 3 * n, f"ring{n}", "account_signup", **shared))
        paid = {"kind": "card_added", "instrument_id": "card", "billing_address_id": "street"}
        told.append(one(101 + 3 * n, f"ring{n}", "payment", **shared, **paid))
        used = {"status": 200, "cost_usd": 2.5, "prompt_id": f"p{n}", "workspace_id": "w"}
        told.append(one(102 + 3 * n, f"ring{n}", "request", **shared, **used))
    return [msgspec.json.encode(event) for event in told]


@contextmanager
def live(
    shoal: Shoal, rate: float = RATE, webhook_allow: Sequence[Network] = ()
) -> Iterator[httpx.Client]:
    """A client of a started Shoal behind HTTP in this process; the Shoal is closed with it."""
    with bind("127.0.0.1", 0) as listening:
        config = config_of(create_app(shoal, rate, webhook_allow))
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with httpx.Client(base_url=url, timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["service.serve", "warmed"])


def _prepare_forks() -> None:
    """Start the process that services are forked from, if it does not run yet."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # where it finds what to load
    try:
        ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def serve(port: int, data: str, said: str) -> None:
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    run("127.0.0.1", port, "memory", None, "none", "everysec", Path(data), None)


class Process:
    """`shoal serve --model none` on a data folder, in a process of its own.

    `serve` is what that process runs: given port, data folder, where stderr goes, and `more`. It is
    `ready` when it is made, unless that is not asked for.
    """

    def __init__(
        self,
        data: Path,
        serve: Callable[..., None] = serve,
        more: tuple[object, ...] = (),
        ready: bool = True,
    ) -> None:
        _prepare_forks()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._said = data.with_name(data.name + ".stderr")
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        args = (port, str(data), str(self._said), *more)
        self.process = _FORKS.Process(target=serve, args=args)
        self.process.start()
        if ready:
            self.wait()

    def wait(self) -> None:
        """Until it is ready."""
        deadline = time.monotonic() + READY_S
        while not self._ready():
            assert self.process.is_alive(), self._said.read_text(errors="replace")
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _ready(self) -> bool:
        return self._says("/readyz")

    def alive(self) -> bool:
        return self._says("/healthz")

    def _says(self, path: str) -> bool:
        try:
            return self.client.get(path).status_code == 200
        except httpx.TransportError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        self.process.join(READY_S)
        assert self.process.exitcode is not None
        return self.process.exitcode

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.kill()
        self.process.join()
        self.process.close()


def post(client: httpx.Client, lines: list[bytes]) -> list[dict[str, Any]]:
    """The answers to these events, posted as NDJSON."""
    response = client.post("/v1/events", content=b"\n".join(lines), headers=NDJSON)
    assert response.status_code == 200, response.text
    told: list[dict[str, Any]] = response.json()
    return told
