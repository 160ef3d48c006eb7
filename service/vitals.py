"""What the service tells its operator of itself: metrics, and why it is not ready.

docs/operating.md says what each of them means and when to worry.
"""

import contextlib
import shutil
import time
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from service.gate import Gate
from service.ingest import Ingest, Room
from service.shoal import Answer, Shoal
from service.stream import Decisions

DISK_MIN_BYTES = 256 * 2**20  # less than this and the log may stop at any moment

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_GAUGES = {
    "ready": "1 when events are taken",
    "accounts": "Accounts known to the fold",
    "clusters": "Clusters at the last sweep",
    "log_entries": "Entries in the hot log",
    "news_events": "Events that no sweep has seen yet",
    "queue_events": "Events waiting for the fold",
    "queue_bytes": "Bytes of event bodies that are arriving, being read or waiting",
    "streams": "Listeners of the decision stream",
    "sweep_age_seconds": "Since the last look at the links ended",
    "snapshot_age_seconds": "Since the newest snapshot was written; NaN when there is none",
    "disk_free_bytes": "Left on the disk of the data folder",
}


class Vitals:
    """Counted by who answers, read at each scrape."""

    def __init__(
        self, shoal: Shoal, ingest: Ingest, room: Room, decisions: Decisions, gate: Gate
    ) -> None:
        self._shoal, self._ingest, self._room, self._decisions = shoal, ingest, room, decisions
        self._gate = gate
        self._registry = made = CollectorRegistry()
        self.batch = Histogram(
            "shoal_batch_events",
            "Events folded together",
            registry=made,
            buckets=(1, 8, 64, 512, 4096),
        )
        self._events = Counter(
            "shoal_events_total", "Events answered, by status", ["status"], registry=made
        )
        self._decided = Counter(
            "shoal_decisions_total", "New decisions, by action", ["action"], registry=made
        )
        self.ingest_seconds = Histogram(
            "shoal_ingest_seconds",
            "POST /v1/events from its first byte to its answer",
            registry=made,
            buckets=_SECONDS,
        )
        self.sweep_seconds = Histogram("shoal_sweep_seconds", "Looking at the links", registry=made)
        self._refused = Counter(
            "shoal_refused_total", "Requests refused, by cause", ["cause"], registry=made
        )
        self._gauges = {n: Gauge(f"shoal_{n}", h, registry=made) for n, h in _GAUGES.items()}
        ProcessCollector(registry=made)
        self.swept_at = time.monotonic()

    def answered(self, answers: Iterable[Answer]) -> None:
        for status, n in Tally(a.status for a in answers).items():
            self._events.labels(status).inc(n)

    def decided(self, answers: Sequence[Answer]) -> None:
        """Count a folded batch and what was decided in it."""
        self.batch.observe(len(answers))
        new = (a.decision.action for a in answers if a.decision and a.status != "duplicate")
        for action, n in Tally(new).items():
            self._decided.labels(action).inc(n)

    def refused(self, cause: str) -> None:
        self._refused.labels(cause).inc()

    def scrape(self) -> bytes:
        """Everything in Prometheus' text format."""
        shoal, told = self._shoal, self._gauges
        told["ready"].set(not self.not_ready())
        if shoal.fault is None:
            told["accounts"].set(len(shoal.engine.ledger))
            told["clusters"].set(len(shoal.engine.cluster_ids))
            told["log_entries"].set(shoal.log_entries)
            told["news_events"].set(shoal.engine.news)
        told["queue_events"].set(self._ingest.count)
        told["queue_bytes"].set(self._room.taken)
        told["streams"].set(self._decisions.listeners)
        told["sweep_age_seconds"].set(time.monotonic() - self.swept_at)
        saved = _saved_at(shoal.folder.snapshots)
        told["snapshot_age_seconds"].set(float("nan") if saved is None else time.time() - saved)
        told["disk_free_bytes"].set(shutil.disk_usage(shoal.folder.path).free)
        return generate_latest(self._registry)

    def not_ready(self) -> list[dict[str, Any]]:
        """Why no events should be sent here now: `{code, detail}` each."""
        reasons = []
        if (fault := self._shoal.fault) is not None:
            reasons.append({"code": _code(fault), "detail": fault})
        free = shutil.disk_usage(self._shoal.folder.path).free
        if free < DISK_MIN_BYTES:
            reasons.append(
                {"code": "disk_full", "detail": f"{free} bytes are left for the log and snapshots"}
            )
        lost = self._gate.lost or self._shoal.scribe.lost
        if lost is not None and (self._shoal.scribe.full or not self._gate.fresh):
            reasons.append({"code": "records_lost", "detail": lost})
        return reasons

    def notes(self) -> list[dict[str, Any]]:
        """What else whoever sends events should know: `{code, detail}` each."""
        notes = []
        if self._shoal.model is None:
            detail = "clusters alone decide: no model is loaded"
            notes.append({"code": "no_model", "detail": detail})
        if (lost := self._gate.lost or self._shoal.scribe.lost) is not None:
            notes.append({"code": "records_lost", "detail": lost})
        return notes


def _saved_at(folder: Path) -> float | None:
    """When the newest snapshot was written, in seconds since 1970."""
    newest = None
    for path in folder.glob("*.snapshot"):
        with contextlib.suppress(FileNotFoundError):  # a newer one was just written
            newest = max(newest or 0.0, path.stat().st_mtime)
    return newest


def _code(fault: str) -> str:
    """A fault as one word: `starting`, `recovering`, `erasing`, `stopped`, `log_lost`."""
    return "log_lost" if fault.startswith("the log") else fault.split()[0]
