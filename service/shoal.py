"""One Shoal: the engine between its log and its records.

An event is acknowledged only when it is in the log. With the memory window the engine folds and
decides first and then appends events and answers in one write; if that write fails, the window knows
something the log does not, so the service stops answering and rebuilds itself from the log. With a
shared (redis) window the log is written first, because the window outlives a crash.

A duplicate gets its first answer: the window counts accepted events, the log's entries are counted
the same way, so the ordinal of the first delivery leads to the entry that holds the answer.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import redis
import structlog

from detector.case import Case, case_of
from detector.clusters import families_of
from detector.decision import Decision, Reason
from detector.engine import Answered, Engine
from detector.model import Model
from detector.policy import Action, Policy
from detector.sweep import Sweep, look
from features.catalog import Catalog
from features.event import AnyEvent, InvalidEvent, Request, decode
from features.feature import HOUR
from features.memory import MemoryWindow
from features.redis import RedisWindow
from features.rows import Names
from features.window import CONFLICT, DUPLICATE, LATE_EVENT
from service import snapshot
from service.folder import Folder
from service.log import Entry, EventLog
from service.records import Decision as ActedOn
from service.records import Records
from service.valkey import EmbeddedValkey, connect

SNAPSHOT_EVENTS = 500_000  # events between two snapshots: what a restart has to replay at most
CHUNK = 512  # events folded between two chances for others to run

_log = structlog.get_logger()
Refused = list[tuple[int, InvalidEvent]]
_STATUS = {0: "new", DUPLICATE: "duplicate", CONFLICT: "duplicate", LATE_EVENT: "late"}


class Unavailable(RuntimeError):
    """The service cannot take events now; it will, later."""


class Answer(msgspec.Struct, omit_defaults=True):
    """What one event is answered with."""

    event_id: str | None
    status: str
    decision: Decision | None = None
    conflict: bool = False  # another body came under this event_id; the first one stands
    error: str | None = None
    field: str | None = None
    hint: str | None = None
    line: int | None = None


_encode = msgspec.json.Encoder().encode
_decode_answers = msgspec.json.Decoder(list[Decision]).decode


class Shoal:
    """Start with `start`, feed with `ingest`, end with `close`.

    Args:
        state: "memory", or the URL of a Redis or Valkey that holds log and window.
        clock: epoch milliseconds now; used for records and refusing events from the future.
        fsync: of the embedded log: "everysec" (a power cut may cost a second), "always", "no".
    """

    def __init__(
        self,
        folder: Folder,
        policy: Policy,
        model: Model | None,
        *,
        state: str = "memory",
        records_url: str | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        fsync: str = "everysec",
    ) -> None:
        self.folder, self.policy, self.model, self.clock = folder, policy, model, clock
        self.shared = state != "memory"
        self.secret = folder.secret()
        self.records = Records(records_url or folder.records_url, clock=clock)
        self._state, self._fsync = state, fsync
        self._valkey: EmbeddedValkey | None = None
        self.lock = threading.RLock()  # held while the window is read or written
        self.fault: str | None = "starting"
        self._written: dict[str, list[Reason]] = {}

    # --- life

    def start(self) -> None:
        """Open the log and rebuild the state from the newest snapshot and what came after it."""
        if self.shared:
            self.client: redis.Redis = connect(self._state)
        else:
            self._valkey = EmbeddedValkey(self.folder.valkey, fsync=self._fsync)  # type: ignore[arg-type]
            self._valkey.start()
            self.client = self._valkey.client()
        self.log = EventLog(self.client)
        self.recover()

    def recover(self) -> None:
        """State = snapshot + the log after it."""
        began = time.monotonic()
        self.fault = "recovering"
        catalog = self.model.catalog if self.model else Catalog()
        window = RedisWindow(self.client, catalog) if self.shared else MemoryWindow(catalog)
        self.engine = Engine(self.policy, self.secret, self.model, catalog, window)
        self.entry_first: list[int] = []  # ordinal of each entry's first event, and the entry's id
        self.entry_id: list[str] = []
        self.accepted = 0
        self.canaries = {c.mark for c in self.records.list_canaries()}
        at, self._snapshot_at = "0-0", 0
        if not self.shared:
            kept = snapshot.load_latest(self.folder.snapshots)
            if kept is not None and kept[1].get("catalog") == catalog.hash:
                at = self._load(*kept)
        for entry in self.log.read(at):
            if entry.kind == "events":
                self._refold(entry)
        self.look()
        self.fault = None
        _log.info("recovered", events=self.accepted, seconds=round(time.monotonic() - began, 2))

    def _refold(self, entry: Entry) -> None:
        events = [decode(body) for body in entry.events]
        if self.shared:
            for event in events:  # the window kept itself; only what lives here is rebuilt
                self.engine.names.name(event.account_id)
                self.engine.ledger.record(event)
        else:
            self.engine.restore(events, entry.events)
        self._noted(entry.id, len(events))

    def _noted(self, entry_id: str, n: int) -> None:
        self.entry_first.append(self.accepted)
        self.entry_id.append(entry_id)
        self.accepted += n

    def close(self) -> None:
        """Snapshot, and stop what was started."""
        if self.fault is None and not self.shared and self.accepted > self._snapshot_at:
            self.snapshot()
        self.fault = "stopped"
        self.records.close()
        if self._valkey is not None:
            self._valkey.stop()

    # --- events

    def ingest(self, events: Sequence[AnyEvent]) -> list[Answer]:
        """Answer each event; when this returns, every accepted one is in the log.

        Raises:
            Unavailable: the log cannot be written; nothing was acknowledged.
        """
        answers: list[Answer] = []
        for first in range(0, len(events), CHUNK):
            with self.lock:
                answers += self._ingest(events[first : first + CHUNK])
        return answers

    def _ingest(self, events: Sequence[AnyEvent]) -> list[Answer]:
        if self.fault is not None:
            raise Unavailable(self.fault)
        limit = self.clock() + 5 * 60_000
        answers: list[Answer | None] = [None] * len(events)
        timely, place = [], []
        for i, event in enumerate(events):
            if event.occurred_at > limit:  # type: ignore[operator]
                problem = InvalidEvent(
                    "occurred_at", "more than 5 minutes ahead of this service's clock", "epoch milliseconds, in UTC"
                )
                answers[i] = _rejected(event.event_id, problem)
            else:
                timely.append(event)
                place.append(i)
        if self.shared:
            answered, refused = self._log_then_fold(timely)
        else:
            answered, refused = self.engine.ingest(timely)
            self._append(answered)
        for i, answer in zip(place, answers_of(timely, answered, refused, self.first_answer), strict=True):
            answers[i] = answer
        self._record(answered)
        return [a for a in answers if a is not None]

    def _append(self, answered: Answered) -> None:
        new = [i for i, d in enumerate(answered.decisions) if d is not None]
        if not new:
            return
        try:
            entry = self.log.append(
                [answered.bodies[i] for i in new], _encode([answered.decisions[i] for i in new])
            )
        except redis.RedisError as problem:
            # the window now holds events that the log does not: rebuild before answering again
            self.fault = f"the log cannot be written: {problem}"
            _log.error("log write failed", error=str(problem))
            raise Unavailable(self.fault) from None
        self._noted(entry, len(new))

    def _log_then_fold(self, events: Sequence[AnyEvent]) -> tuple[Answered, Refused]:
        good, bodies, refused = self.engine.seal(events)
        try:
            if good:
                self._noted(self.log.append(bodies, b"[]"), len(good))
            return self.engine.answer(good, bodies), refused
        except redis.RedisError as problem:
            raise Unavailable(f"the shared state cannot be reached: {problem}") from None

    def first_answer(self, ordinal: int) -> Decision | None:
        """The decision that the event with this ordinal was answered with; None if it is not kept."""
        place = bisect_right(self.entry_first, ordinal) - 1
        if ordinal < 0 or place < 0:
            return None
        entry = self.log.entry(self.entry_id[place])
        decisions = _decode_answers(entry.answers) if entry is not None else []
        at = ordinal - self.entry_first[place]
        return decisions[at] if at < len(decisions) else None

    def _record(self, answered: Answered) -> None:
        """Keep what was acted on where people and appeals can find it; mind the canaries."""
        acted = []
        for event, decision in zip(answered.events, answered.decisions, strict=True):
            if decision is None:
                continue
            at = event.occurred_at
            assert isinstance(at, int)
            # an account that is acted on at every event is written down when the reasons change
            if decision.reasons and self._written.get(event.account_id) is not decision.reasons:
                self._written[event.account_id] = decision.reasons
                acted.append(
                    ActedOn(
                        event_id=event.event_id,
                        account_id=event.account_id,
                        at=at,
                        action=Action[decision.action].name,
                        score=decision.score or 0.0,
                        reasons=[msgspec.to_builtins(r) for r in decision.reasons],
                        model_version=decision.model_version or "none",
                        policy_version=decision.policy_version,
                        cluster_id=decision.cluster_id,
                    )
                )
            if self.canaries and type(event) is Request and event.prompt_id in self.canaries:
                self.records.hit_canary(event.prompt_id, event.account_id, event.event_id, at)
        if acted:
            self.records.add_decisions(acted)

    # --- looking at the links

    def look(self) -> Sweep:
        """Sweep, adopt its verdicts, and open or update the cases they call for."""
        found = look(
            self.engine.window, self.engine.kinds, self.model, self.policy.sweep.active_h * HOUR, self.lock
        )
        with self.lock:
            self.engine.adopt(found)
            cases = self.cases_of(found)
        for case in cases:
            self.records.open_or_update_case(
                case.cluster_id, case.proposed_action, msgspec.to_builtins(case)  # type: ignore[arg-type]
            )
        return found

    def cases_of(self, found: Sweep) -> list[Case]:
        """A case for each cluster that the policy takes seriously."""
        size = found.clusters.size
        return [
            case_of(self.engine, found, c)
            for c in range(len(found.clusters))
            if self.engine.verdict(int(size[c]), float(found.cluster_score[c])) > Action.allow
        ]

    def cluster_list(self) -> list[dict[str, Any]]:
        """The clusters of the last sweep, worst first, without their evidence."""
        with self.lock:
            found = self.engine.last_sweep
            if found is None:
                return []
            order = np.argsort(-found.cluster_score, kind="stable")
            size = found.clusters.size
            by_cluster: dict[int, list[str]] = {}
            for account, place in zip(found.account.tolist(), found.place.tolist(), strict=True):
                if place >= 0:
                    by_cluster.setdefault(place, []).append(self.engine.names[account])
            told = []
            for c in order.tolist():
                members = by_cluster.get(c, [])
                entries = [self.engine.ledger[a] for a in members]
                told.append(
                    {
                        "cluster_id": self.engine.cluster_ids[c],
                        "score": float(found.cluster_score[c]),
                        "proposed_action": self.engine.verdict(int(size[c]), float(found.cluster_score[c])).name,
                        "size": int(size[c]),
                        "kinds": list(families_of(found.links.names, int(found.clusters.families[c]))),
                        "cost_usd": sum(e.cost for e in entries),
                        "paid_usd": sum(e.kept for e in entries),
                        "members": members[:50],
                    }
                )
            return told

    def members_of(self, cluster_id: str) -> list[str]:
        """Accounts of a cluster of the last sweep."""
        with self.lock:
            found = self.engine.last_sweep
            if found is None or cluster_id not in self.engine.cluster_ids:
                return []
            inside = found.place == self.engine.cluster_ids.index(cluster_id)
            return [self.engine.names[a] for a in found.account[inside].tolist()]

    def links_of(self, account_id: str) -> dict[str, Any]:
        """The accounts this one is linked to at the last sweep, strongest first, and by what."""
        with self.lock:
            found = self.engine.last_sweep
            number = _number(account_id)
            told: list[dict[str, Any]] = []
            rows = np.flatnonzero(found.account == number) if found is not None else []
            if found is not None and len(rows):
                links = found.links
                me = int(links.index(found.owner[rows[:1]])[0])
                near = np.flatnonzero((links.a == me) | (links.b == me)) if me >= 0 else []
                for k in sorted(near, key=lambda k: -float(links.surprise[k]))[:100]:
                    other = int(links.owners[links.b[k] if links.a[k] == me else links.a[k]])
                    told.append(
                        {
                            "owner": self.engine.names.get(other, f"{other:016x}"),
                            "surprise_nats": round(float(links.surprise[k]), 3),
                            "shared": int(links.shared[k]),
                            "kinds": list(families_of(links.names, int(links.families[k]))),
                        }
                    )
            return {"account_id": account_id, "links": told}

    def vector_of(self, account_id: str) -> list[float]:
        """The account's vector as of the last event folded."""
        with self.lock:
            window = self.engine.window
            return window.ask(np.array([_number(account_id)], np.uint64), window.watermark)[0].tolist()

    # --- snapshots

    def snapshot_due(self) -> bool:
        return not self.shared and self.fault is None and self.accepted - self._snapshot_at >= SNAPSHOT_EVENTS

    def snapshot(self) -> Path:
        """Save the state as of the last acknowledged event."""
        with self.lock:
            arrays = {k: v.copy() for k, v in self.engine.window.save().items()}  # type: ignore[attr-defined]
            meta = self.engine.save() | {
                "catalog": self.engine.catalog.hash,
                "log": self.entry_id[-1] if self.entry_id else "0-0",
                "accepted": self.accepted,
                "entry_id": self.entry_id,
            }
            arrays["entry_first"] = np.array(self.entry_first, np.int64)
            accepted = self.accepted
        path = snapshot.save(self.folder.snapshots, f"{accepted}", arrays, meta)
        self._snapshot_at = accepted
        return path

    def _load(self, arrays: dict[str, Any], meta: dict[str, Any]) -> str:
        self.entry_first = arrays.pop("entry_first").tolist()
        self.entry_id = list(meta["entry_id"])
        self.accepted = self._snapshot_at = int(meta["accepted"])
        self.engine.window.load(arrays)  # type: ignore[attr-defined]
        self.engine.load(meta)
        return str(meta["log"])

    # --- erasure

    def erase(self, account_id: str) -> bool:
        """Remove an account's events from the log and everything derived from them.

        The state is a fold over the log, so it is rebuilt from a log without them: nothing of the
        account can be left in it. Returns whether there was anything.
        """
        if self.shared:
            raise Unavailable("erasure from a shared window is not possible yet")
        with self.lock:
            self.fault = "erasing an account"
            needle = _encode(account_id)
            found = self.log.rewrite(
                lambda body: needle in body and decode(body).account_id == account_id
            )
            for old in self.folder.snapshots.glob("*.snapshot"):
                old.unlink()
            erased = self.records.erase_account(account_id)
            self.recover()
        return bool(found or erased)


def _number(account_id: str) -> int:
    return Names().name(account_id)


def answers_of(
    events: Sequence[AnyEvent], answered: Answered, refused: Refused, first_answer: Callable[[int], Decision | None]
) -> list[Answer]:
    """One answer an event, in order; a duplicate gets the decision that `first_answer` has for its ordinal."""
    told: list[Answer] = []
    bad = dict(refused)
    here = {int(o): d for o, d in zip(answered.ordinal, answered.decisions, strict=True) if d is not None}
    j = 0
    for i, event in enumerate(events):
        if i in bad:
            told.append(_rejected(event.event_id, bad[i]))
            continue
        status, decision = int(answered.status[j]), answered.decisions[j]
        if decision is None:
            ordinal = int(answered.ordinal[j])
            decision = here.get(ordinal) or first_answer(ordinal)
        told.append(Answer(event.event_id, _STATUS[status], decision, conflict=status == CONFLICT))
        j += 1
    return told


def _rejected(event_id: str | None, problem: InvalidEvent) -> Answer:
    return Answer(event_id, "rejected", None, error=problem.error, field=problem.field, hint=problem.hint)
