"""Running the service: settings checked, port taken, then uvicorn, behind which the state is rebuilt.

Whoever asks meanwhile is answered: `/healthz` that the process is alive, `/readyz` what is waited for,
all else 503. A supervisor that hears nothing would end a service that has much to read again, every time
before it comes to save a snapshot.
"""

import asyncio
import gc
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI

from detector.model import Model, current, load
from detector.policy import read_policy
from service.app import create_app
from service.folder import Folder
from service.gate import RATE, is_loopback
from service.head import BoundedHead
from service.records import Records
from service.shoal import Shoal
from service.stream import Decisions

BACKLOG = 2048  # connections that wait to be taken
SWITCH_S = 0.0005  # after which a thread that waits for the interpreter gets it


class ServeProblem(RuntimeError):
    """The service cannot start, and why."""


def model_named(folder: Folder, name: str | None) -> Model | None:
    """The version asked for; with no name the current one, if there is one; `none` is none.

    Raises:
        ModelProblem: it is missing or does not fit.
    """
    if name == "none" or (name is None and current(folder.models) is None):
        return None
    return load(folder.models, name or "current")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; who connects before the service is ready waits.

    Raises:
        ServeProblem: the port is taken or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as problem:
        listening.close()
        taken = (
            "; another program listens there: choose another with --port"
            if problem.errno == 98
            else ""
        )
        raise ServeProblem(f"cannot listen on {host}:{port}: {problem.strerror}{taken}") from None
    return listening


def run(
    host: str,
    port: int,
    state: str,
    records: str | None,
    model: str | None,
    fsync: str,
    data: Path,
    policy: Path | None,
    standby: bool = False,
    rate: float = RATE,
    webhook_allow: Sequence[str] = (),
) -> None:
    """Serve until SIGINT or SIGTERM, then save a snapshot and return.

    Raises:
        ServeProblem: a setting that cannot be; ModelProblem, PolicyProblem, FolderProblem,
        ValkeyError, RecordsError: what they say.
    """
    if fsync not in ("everysec", "always", "no"):
        raise ServeProblem(f"--fsync {fsync}: one of everysec, always, no")
    if state != "memory" and not state.startswith(("redis://", "rediss://", "unix://")):
        raise ServeProblem(f"--state {state}: `memory`, or a URL such as redis://localhost:6379/0")
    if standby and state != "memory":
        raise ServeProblem(
            "--standby is for the memory window; over a shared one every service is a writer"
        )
    try:
        networks = [ipaddress.ip_network(network) for network in webhook_allow]
    except ValueError as problem:
        raise ServeProblem(f"--webhook-allow: {problem}") from None
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    folder = Folder(data)
    chosen = model_named(folder, model)
    shoal = Shoal(
        folder,
        read_policy(policy),
        chosen,
        state=state,
        records_url=records,
        fsync=fsync,
        standby=standby,
    )
    with closing(shoal):
        _refuse_strangers(host, shoal.records)
        with bind(host, port) as listening:
            app = create_app(shoal, rate, networks)
            # uvicorn raises what it was stopped by once more when it has ended; that is no failure
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: None)
            where = listening.getsockname()
            url = f"http://{f'[{where[0]}]' if ':' in where[0] else where[0]}:{where[1]}"
            server = _Server(config_of(app), shoal, app.state.decisions, url)
            server.run(sockets=[listening])
            if server.problem is not None:
                raise server.problem


def config_of(app: FastAPI) -> uvicorn.Config:
    """How the application is served."""
    return uvicorn.Config(
        app,
        http=BoundedHead,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=10,
    )


class _Server(uvicorn.Server):
    """Starts the Shoal once requests are answered, and ends with it if that fails: `problem` is why."""

    def __init__(
        self, config: uvicorn.Config, shoal: Shoal, decisions: Decisions, url: str
    ) -> None:
        super().__init__(config)
        self._shoal, self._decisions, self._url = shoal, decisions, url
        self._start: asyncio.Task[None] | None = None
        self.problem: Exception | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._start = asyncio.create_task(self._start_shoal())

    async def _start_shoal(self) -> None:
        try:
            await asyncio.to_thread(self._shoal.start)
        except Exception as problem:
            if not self.should_exit:  # or it was ended in the middle of it
                self.problem, self.should_exit = problem, True
            return
        # what is here now stays as long as the process: the collector need not look at it again
        # with every few thousand events (a tenth of an ingest's time)
        gc.freeze()
        # a sweep computes beside the event loop: who has an event to answer waits this long for
        # the interpreter, several times an answer, and not the 5 ms that are the default
        sys.setswitchinterval(SWITCH_S)
        model = self._shoal.model
        structlog.get_logger().info(
            "serving",
            url=self._url,
            model=model.version if model is not None else "none (clusters alone)",
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._decisions.close()  # the server waits for whoever is still being answered
        await super().shutdown(sockets)


def _refuse_strangers(host: str, records: Records) -> None:
    """Without a key everybody may do everything, which is for this machine only."""
    if not is_loopback(host) and not any(k.revoked_at is None for k in records.list_keys()):
        raise ServeProblem(
            f"--host {host} can be reached by others and there is no API key yet; "
            "run `shoal keys create NAME --scope admin` first"
        )
