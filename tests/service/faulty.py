"""Faults done to services under load, and the audit after each: used by test_faults.py and bench/faults.py.

Callers send what callers send (batches with fresh events, redeliveries, late ones, lines that are no
events, ids used twice) and keep every answer. They retry what was not answered, as the contract
says. A fault is done at a random moment; then everything is sent again and the audit compares

    lost      acknowledged events that the log does not hold, or sent ones that nobody took in the end
    doubled   events that the log holds twice, or that an account's books count twice or not at all
    wrong     answers that differ from the first one given, and vectors that a replay computes otherwise
"""

import contextlib
import json
import os
import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import redis
from served import NDJSON, START, Process, one

from features.event import decode
from features.plan import IDS_SPAN
from service.cold import ColdLog, History
from service.folder import Folder
from service.log import EventLog
from service.valkey import EmbeddedValkey

ACCOUNTS = 12
APART = 2_000  # ms of the callers' clock between two events
RECOVERY_S = 120.0  # the longest that a service may take to be ready again on a busy machine
DAY = 86_400_000
LATEST = 3 * DAY  # how much too late an event comes at most


def serve_small(
    port: int, data: str, said: str, state: str, clock: str, fsync: str, standby: bool = False
) -> None:
    """A service that sweeps, snapshots and archives all the time, on a clock that can be stepped."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    from service import app, lease, serve, shoal

    class Stepped:
        """The module `time`, with a wall clock that is off by what stands in a file."""

        def __getattr__(self, name: str) -> Any:
            return getattr(time, name)

        def time_ns(self) -> int:
            off = Path(clock).read_text() if Path(clock).exists() else ""
            return time.time_ns() + int(off or "0") * 1_000_000_000

    shoal.SNAPSHOT_EVENTS = 300
    shoal.time = Stepped()  # type: ignore[assignment]
    app.SWEEP_EVERY_S = 0.2
    lease.LEASE_S = 1.5
    serve.run("127.0.0.1", port, state, None, "none", fsync, Path(data), None, standby)


@dataclass
class Found:
    """What an audit found; all of it should be 0."""

    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.wrong)

    def note(self, what: str, number: int, words: str) -> None:
        if number:
            setattr(self, what, getattr(self, what) + number)
            self.notes.append(f"{what}: {number} {words}")


class Callers:
    """Whoever sends: what was sent, and the first answer to each event."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.sent: dict[str, bytes] = {}
        self.answers: dict[str, Any] = {}
        self.found = Found()
        self._lock = threading.Lock()
        self._n = 0

    def fresh(self, late: bool = False) -> bytes:
        n, self._n = self._n, self._n + 1
        # an event that nobody need know any more would be taken in as news, and rightly
        assert APART * n + LATEST < IDS_SPAN, "too many events for one data folder"
        at = START + APART * n - (self.dice.randrange(1, LATEST) if late else 0)
        types = ("login", "request", "payment")
        event = one(
            n,
            f"a{self.dice.randrange(ACCOUNTS)}",
            types[n % 3],
            occurred_at=at,
            device_id=f"d{self.dice.randrange(6)}",
            ip=f"203.0.113.{self.dice.randrange(9)}",
        )
        if event["type"] == "request":
            event |= {"status": 200, "cost_usd": 0.25, "prompt_id": f"p{self.dice.randrange(40)}"}
        if event["type"] == "payment":
            event |= {"kind": "charge", "amount_usd": 5, "instrument_id": f"c{n % 5}"}
        return msgspec.json.encode(event)

    def batch(self, late: float = 0.05, again: float = 0.1, poison: float = 0.05) -> list[bytes]:
        """Some lines as callers send them."""
        lines = []
        with self._lock:
            for _ in range(self.dice.randrange(1, 40)):
                luck = self.dice.random()
                if luck < poison:
                    lines.append(self._poison())
                elif luck < poison + again and self.sent:
                    lines.append(self.sent[f"e{self.dice.randrange(len(self.sent))}"])
                else:
                    line = self.fresh(late=self.dice.random() < late)
                    self.sent[msgspec.json.decode(line)["event_id"]] = line
                    lines.append(line)
        return lines

    def _poison(self) -> bytes:
        known = f"e{self.dice.randrange(len(self.sent))}" if self.sent else "e0"
        n = self.dice.randrange(10**9)
        soon = time.time_ns() // 1_000_000 + 10 * DAY
        return self.dice.choice(
            [
                b'{"event_id": "x',
                b"\xff\xfe",
                b'{"event_id": "x", "type": "teleport", "occurred_at": 1, "account_id": "a"}',
                msgspec.json.encode(one(0, "a0", event_id=f"future{n}", occurred_at=soon)),
                # another body under an id that is known: the first one stands
                msgspec.json.encode(one(0, "a0", event_id=known, user_id=f"other {n}"))
                if self.sent
                else b"{}",
                msgspec.json.encode(one(0, "a0", event_id=f"odd{n}", email="no mail address")),
            ]
        )

    def told(self, answers: list[dict[str, Any]], again: bool = False) -> None:
        """Hold answers against those that were given before; `again`: nobody else sends now."""
        with self._lock:
            for answer in answers:
                id, status = answer["event_id"], answer["status"]
                if status == "rejected" or answer.get("conflict") or id not in self.sent:
                    continue
                if again and id in self.answers and status != "duplicate":
                    self.found.note("lost", 1, f"{id} was acknowledged and is {status} now")
                decision = answer.get("decision")
                if decision is None:
                    self.found.note("wrong", 1, f"{id} is {status} and has no decision")
                    continue
                first = self.answers.setdefault(id, decision)
                if first != decision:
                    self.found.note("wrong", 1, f"{id} was answered {first}, then {answer}")

    def post(self, client: httpx.Client, lines: list[bytes], again: bool = False) -> bool:
        """Send a batch once; whether it was answered."""
        try:
            answer = client.post("/v1/events", content=b"\n".join(lines), headers=NDJSON)
        except httpx.TransportError:
            return False
        if answer.status_code != 200:
            assert answer.status_code in (429, 503), answer.text
            return False
        self.told(answer.json(), again)
        return True

    def call(self, url: Callable[[], str], stop: threading.Event, **mix: float) -> None:
        """Send batch after batch until told to stop; what is not answered is sent again."""
        with httpx.Client(timeout=10) as client:
            while not stop.is_set():
                lines = self.batch(**mix)
                while not stop.is_set():
                    client.base_url = httpx.URL(url())
                    if self.post(client, lines):
                        break
                    time.sleep(0.05)


class Target:
    """A service on a data folder, restarted when it was killed, and callers who do not mind."""

    may_log_twice = False  # whether a redelivery may stand in the log, where a fold ignores it

    def __init__(self, data: Path, seed: int, fsync: str = "everysec") -> None:
        self.data, self.fsync = data, fsync
        self.clock = data.with_name(data.name + ".clock")
        self.callers = Callers(seed)
        self.dice = random.Random(seed + 1)
        self.service = self._started()

    def _started(self) -> Process:
        return Process(self.data, serve_small, (self.state(), str(self.clock), self.fsync))

    def state(self) -> str:
        return "memory"

    def url(self) -> str:
        return str(self.service.client.base_url)

    def close(self) -> None:
        self.service.__exit__(None, None, None)

    def restart(self) -> None:
        self.close()
        self.service = self._started()

    def valkey_pid(self) -> int:
        return int(json.loads((self.data / "valkey" / "lock").read_text())["valkey_pid"])

    def until_ready(self) -> None:
        deadline = time.monotonic() + RECOVERY_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                if self.service.client.get("/readyz").status_code == 200:
                    return
            assert self.service.process.is_alive(), self.service._said.read_text(errors="replace")[
                -2000:
            ]
            assert time.monotonic() < deadline, self.service._said.read_text(errors="replace")[
                -2000:
            ]
            time.sleep(0.05)

    def round(self, fault: Callable[["Target"], None], seconds: float = 0.6, **mix: float) -> Found:
        """Load, a fault at a random moment, recovery, more load, and the audit."""
        stop = threading.Event()
        with ThreadPoolExecutor() as threads:
            callers = [threads.submit(self.callers.call, self.url, stop, **mix) for _ in range(2)]
            try:
                time.sleep(self.dice.uniform(0.05, seconds))
                fault(self)
                self.until_ready()
                time.sleep(self.dice.uniform(0.05, seconds / 2))
            finally:
                stop.set()
        for caller in callers:
            caller.result()  # one that failed has sent nothing since, and nothing was tried
        return self.audit()

    def audit(self) -> Found:
        """Send everything again; compare answers, log and state."""
        found, callers = self.callers.found, self.callers
        self.callers.found = Found()
        lines = list(callers.sent.values())
        acknowledged = set(callers.answers)
        with httpx.Client(base_url=self.url(), timeout=60) as client:
            for i in range(0, len(lines), 500):
                deadline = time.monotonic() + RECOVERY_S
                while not callers.post(client, lines[i : i + 500], again=True):
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            found.note("lost", len(callers.sent.keys() - callers.answers.keys()), "never taken")
            found.note("lost", callers.found.lost, f"forgotten: {callers.found.notes[:1]}")
            found.note("wrong", callers.found.wrong, f"answers changed: {callers.found.notes[:1]}")
            events = self._log()
            ids = Counter(e.event_id for e in events)
            if self.may_log_twice:
                events = [*{e.event_id: e for e in reversed(events)}.values()]
                ids = Counter(e.event_id for e in events)
            found.note("lost", len(acknowledged - ids.keys()), "acknowledged and not in the log")
            found.note("lost", len(callers.sent.keys() - ids.keys()), "taken and not in the log")
            twice = sum(n - 1 for n in ids.values())
            found.note("doubled", twice, "in the log again")
            for account, n in Counter(e.account_id for e in events).items():
                counted = client.get(f"/v1/accounts/{account}").json()["events"]
                found.note("doubled", abs(counted - n), f"more or fewer counted for {account}")
            parity = client.get("/v1/parity").json()
            found.note(
                "wrong",
                parity["differing"],
                f"numbers differ from those of a replay: {parity['features']}",
            )
            if not self.may_log_twice:
                found.note("doubled", abs(parity["events"] - len(events)), "events more or fewer")
        callers.found = Found()
        return found

    def _log(self) -> list[Any]:
        """The events in the whole log, read beside the service."""
        socket = json.loads((self.data / "valkey" / "lock").read_text())["socket"]
        with redis.Redis(unix_socket_path=socket) as client:
            history = History(EventLog(client), ColdLog(Folder(self.data).cold))
            return [decode(body) for entry in history.read() for body in entry.events]


class Pair(Target):
    """A service and its standby on one data folder; callers ask one after the other."""

    def _started(self) -> Process:
        service = super()._started()
        self.standby = self._second()
        return service

    def _second(self) -> Process:
        return Process(self.data, serve_small, ("memory", str(self.clock), self.fsync, True))

    def url(self) -> str:
        """One of the two."""
        return str(self.dice.choice([self.service, self.standby]).client.base_url)

    def close(self) -> None:
        super().close()
        if self.standby is not self.service:  # it may have failed to succeed
            self.standby.__exit__(None, None, None)

    def until_ready(self) -> None:
        deadline = time.monotonic() + RECOVERY_S
        while self.status() != ["ready", "standby"]:
            assert time.monotonic() < deadline, (self.status(), self._words())
            time.sleep(0.05)

    def status(self) -> list[str]:
        """What each says it is, sorted."""
        return sorted(_status(one) for one in (self.service, self.standby))

    def _words(self) -> str:
        return self.service._said.read_text(errors="replace")[-3000:]

    def exchange(self) -> None:
        """The standby is the service now; a new standby is started beside it."""
        self.service.__exit__(None, None, None)
        self.service = self.standby
        deadline = time.monotonic() + RECOVERY_S
        while _status(self.service) != "ready":
            assert time.monotonic() < deadline, self._words()
            time.sleep(0.02)
        self.standby = self._second()

    def audit(self) -> Found:
        """Of whoever writes now."""
        if _status(self.standby) == "ready":
            self.service, self.standby = self.standby, self.service
        one_only, self.url = self.url, lambda: str(self.service.client.base_url)  # type: ignore[method-assign]
        try:
            return super().audit()
        finally:
            self.url = one_only  # type: ignore[method-assign]


class Worker(Target):
    """A worker whose log and window are in a Valkey that outlives it."""

    may_log_twice = True

    def __init__(self, data: Path, seed: int, fsync: str = "everysec") -> None:
        self._outside = EmbeddedValkey(data.with_name(data.name + ".valkey"), fsync="no")
        self._outside.start()
        super().__init__(data, seed, fsync)

    def state(self) -> str:
        return self._outside.url

    def valkey_pid(self) -> int:
        return self._outside.pid

    def close(self) -> None:
        super().close()
        self._outside.stop()

    def restart(self) -> None:
        super().close()
        self.service = self._started()

    def _log(self) -> list[Any]:
        log = EventLog(self._outside.client())
        return [decode(body) for entry in log.read() for body in entry.events]


def _status(process: Process) -> str:
    try:
        told = process.client.get("/readyz", timeout=2)
    except httpx.TransportError:
        return "silent"
    return str(told.json()["status"])


# --- faults


def kill_service(target: Target) -> None:
    target.service.signal(signal.SIGKILL)
    target.service.ended()
    target.restart()


def end_service(target: Target) -> None:
    target.service.signal(signal.SIGTERM)
    target.service.ended()
    target.restart()


def kill_valkey(target: Target) -> None:
    os.kill(target.valkey_pid(), signal.SIGKILL)
    _notice(target)


def pause_valkey(target: Target) -> None:
    pid = target.valkey_pid()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(target.dice.uniform(0.2, 1.5))
    os.kill(pid, signal.SIGCONT)


def pause_then_kill_valkey(target: Target) -> None:
    pid = target.valkey_pid()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(target.dice.uniform(0.2, 1.0))
    os.kill(pid, signal.SIGKILL)
    _notice(target)


def full_disk(target: Target) -> None:
    """No file of Valkey's may grow beyond a size that it is about to reach; then it may again."""
    pid = target.valkey_pid()
    newest = max((target.data / "valkey" / "appendonlydir").glob("*.incr.aof"))
    size = newest.stat().st_size + target.dice.randrange(4000)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    _notice(target)
    if target.dice.random() < 0.5:
        os.kill(pid, signal.SIGKILL)  # and what it holds in memory alone is gone
    else:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def _notice(target: Target) -> None:
    """Wait until the service has seen it, or has mended it already."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if target.service.client.get("/readyz").status_code != 200:
                return
        time.sleep(0.02)


def step_clock(target: Target) -> None:
    """The wall clock of the service jumps by up to a day, forward and back."""
    target.clock.write_text(str(target.dice.randrange(-86_400, 86_400)))
    time.sleep(0.3)
    target.clock.write_text("0")


def step_log_clock(target: Target) -> None:
    """The clock that numbers entries jumped an hour ahead, and came back."""
    socket = json.loads((target.data / "valkey" / "lock").read_text())["socket"]
    with redis.Redis(unix_socket_path=socket) as client:
        log = EventLog(client)
        log.follow_on(f"{int(log.last_id().partition('-')[0]) + 3_600_000}-0")


def kill_while_archiving(target: Target) -> None:
    """Wait until files appear in the cold log, then kill."""
    deadline = time.monotonic() + 5
    cold = target.data / "cold"
    while time.monotonic() < deadline and not list(cold.rglob(".*.partial")):
        time.sleep(0.002)
    kill_service(target)


def kill_writer(target: Target) -> None:
    """The writer is killed, and its Valkey with it; the standby takes the folder."""
    assert isinstance(target, Pair)
    target.service.signal(signal.SIGKILL)
    target.service.ended()
    target.exchange()


def pause_writer(target: Target) -> None:
    """The writer sleeps through its lease, with requests in its hands; its Valkey serves the successor."""
    assert isinstance(target, Pair)
    target.service.signal(signal.SIGSTOP)
    deadline = time.monotonic() + RECOVERY_S
    while _status(target.standby) != "ready":
        assert time.monotonic() < deadline, target._words()
        time.sleep(0.02)
    time.sleep(target.dice.uniform(0, 0.5))
    target.service.signal(signal.SIGCONT)


def nothing(_: Target) -> None:
    """The load itself is the fault."""
