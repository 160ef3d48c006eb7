"""One Shoal: the engine between its log and its records.

An event is acknowledged only when it is in the log. With the memory window the engine folds and
decides first and then appends events and answers in one write; if that write fails, the window knows
something the log does not, so the service stops answering and rebuilds itself from the log (`mend`,
every few seconds, which also starts an embedded Valkey that died again). With a shared (redis) window
the log is written first (service/shared.py), and each instance follows the log for what the others
took in.

A standby follows the log of another service on the same data folder, answers reads, and becomes the
writer when that service is gone or silent for longer than its lease; whoever is no longer the writer
follows in turn. Whose Valkey it is and who writes are two things: a service that was deposed in its
sleep still runs the server that its successor writes to, until it ends.

A duplicate gets its first answer: the window counts accepted events, the log's entries are counted
the same way, so the ordinal of the first delivery leads to the entry that holds the answer.
"""

import contextlib
import hashlib
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import redis
import structlog
from numpy.typing import NDArray

from detector.case import Case, case_of
from detector.decision import Decision, Reason
from detector.engine import Answered, Engine
from detector.model import Model
from detector.policy import Action, Policy
from detector.sweep import Sweep, look
from features.catalog import Catalog
from features.event import AnyEvent, InvalidEvent, Request, decode
from features.feature import HOUR
from features.kind import KIND
from features.plan import IDS_SPAN, LATE
from features.redis import RedisKinds, RedisWindow
from features.rows import F64, ROWS
from features.window import CONFLICT, DUPLICATE, LATE_EVENT
from service import lease, refold, snapshot, views
from service.cold import ColdLog, History, archiver
from service.database import RecordsError
from service.erasure import Erased, digest_of_log, digest_of_state
from service.folder import Folder
from service.lease import Lease
from service.log import NOTHING, EventLog, Fenced, LogError, parse_id
from service.ordinals import Ordinals
from service.records import LOCAL, PAGE_ROWS_MAX, Records
from service.records import Action as Proposed
from service.records import Case as KeptCase
from service.records import Decision as ActedOn
from service.refold import ahead
from service.rotation import Overlap, refuse_other_key
from service.scribe import Hit, Scribe
from service.shared import SharedFold
from service.valkey import (
    CLIENT_ERRORS,
    EmbeddedValkey,
    FolderInUse,
    ValkeyError,
    connect,
    look_around,
    server_of,
)

SNAPSHOT_EVENTS = 500_000  # events between two snapshots: what a restart has to replay at most
# Of the log between two, which lives in Valkey's memory until they cover it; single events fill it ten
# times as fast as batches. Where a snapshot is larger, half its size, or we would do nothing but save.
SNAPSHOT_BYTES = 128 * 2**20
CHUNK = 512  # events folded between two chances for others to run
SERVED_CHUNKS = 32  # chunks whose vectors are kept for a look at parity
PROMPT = KIND["prompt"].family  # the family that canaries' marks are hashed in
NO_TOKEN = 0  # nobody's: the first writer takes 1
ERASED = "erasure"  # the control entry that tells of one
BEGUN = "begin to erase"  # the audit's word until it has ended
HASTY_S = 1.0  # how long the event loop waits for the log: twice in an append
FLUSH_S = 10.0  # the longest that an erasure waits for the scribe
AHEAD = InvalidEvent(
    "occurred_at",
    "more than 5 minutes ahead of this service's clock",
    "epoch milliseconds, in UTC",
)
STANDBY = "this is a standby: it answers reads, events go to the service that it follows"

_log = structlog.get_logger()
Refused = list[tuple[int, InvalidEvent]]
_STATUS = {0: "new", DUPLICATE: "duplicate", CONFLICT: "duplicate", LATE_EVENT: "late"}


class Unavailable(RuntimeError):
    """The service cannot take events now; it will, later."""


class Answer(msgspec.Struct, omit_defaults=True, gc=False):
    """What one event is answered with."""

    event_id: str | None
    status: str
    decision: Decision | None = None
    conflict: bool = False  # another body came under this event_id; the first one stands
    error: str | None = None
    field: str | None = None
    hint: str | None = None
    line: int | None = None


class Earlier(NamedTuple):
    """A duplicate, and where the answer to its first delivery is: in an entry, by these ordinals."""

    answer: Answer
    entry: str
    place: int
    of: Ordinals


class Taken(NamedTuple):
    """What became of events: an answer each, and those whose decision was made earlier."""

    answers: list[Answer]
    earlier: list[Earlier]


_TRIAL = tuple(
    decode(
        msgspec.json.encode(
            {"event_id": f"e{n}", "type": "login", "occurred_at": n, "account_id": f"a{n}",
             "device_id": "d"}
        )
    )
    for n in range(1, 4)
)  # fmt: skip

_encode = msgspec.json.Encoder().encode
_decode_answer = msgspec.json.Decoder(Decision).decode
_decode_answers = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_all = msgspec.json.Decoder(list[Decision]).decode


class Shoal:
    """Start with `start`, feed with `ingest`, end with `close`.

    Args:
        state: "memory", or the URL of a Redis or Valkey that holds log and window.
        clock: epoch milliseconds now; used for records and refusing events from the future.
        fsync: of the embedded log: "everysec" (a power cut may cost a second), "always", "no".
        standby: follow the service that runs on this folder, and take over when it is gone.
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
        standby: bool = False,
    ) -> None:
        self.folder, self.policy, self.model, self.clock = folder, policy, model, clock
        self.shared = state != "memory"
        folder.refuse_half_switched()
        self.secret = folder.secret()
        self._identity = folder.identity()
        if self.shared and self._identity.rotation is not None:
            raise Unavailable(
                "a rotation of the identity key is open on this data folder, and over a shared log "
                "there can be none yet: give it up with `shoal keys rotate-identity --cancel`"
            )
        self._overlap: Overlap | None = None
        self.records = Records(
            records_url or folder.records_url, clock=clock, anchors=folder.anchors
        )
        self._state, self._fsync = state, fsync
        self._valkey: EmbeddedValkey | None = None
        self.lock = threading.RLock()  # held while the window is read or written
        # one long job at a time (sweep, snapshot, erasure, recovery); always taken before `lock`
        self._looking = threading.RLock()
        self.fault: str | None = "starting"
        self.standby = standby
        self._token: int | None = None  # by which we are the writer, while we are
        self._warm = False  # the state is the log's up to `_at`, and nothing else
        self._stopping = threading.Event()
        self._archiver: subprocess.Popen[bytes] | None = None
        self._lost = False  # the fault is the log's, and `mend` may end it
        self._written: dict[str, list[Reason]] = {}
        self.scribe = Scribe(self.records)

    # --- life

    def start(self) -> None:
        """Open the log and rebuild the state from the newest snapshot and what came after it.

        Raises:
            ValkeyError, LogError, SnapshotDamaged, RecordsError: what they say; nothing stays open.
            Unavailable: it was closed meanwhile.
        """
        try:
            with self._looking:
                self._refuse_stopped()
                self._warm_up()
                self._open()
                if not self.shared:
                    # from here on, for what is to be read again may take longer than a lease
                    threading.Thread(target=self._keep_lease, name="lease", daemon=True).start()
                self.recover()
                self._note_rules()
        except BaseException:
            self.close()
            raise

    def _refuse_stopped(self) -> None:
        if self._stopping.is_set():
            raise Unavailable("stopped")

    def _warm_up(self) -> None:
        """Load what is compiled, a third of a second in all, before a caller has to wait for it."""
        trial = Engine(self.policy, self.secret, self.model)
        trial.ingest(_TRIAL)
        trial.sweep(everyone=True)

    def _note_rules(self) -> None:
        """Write into the audit by which model and policy is decided from now on, if that is new."""
        rules = {
            "model": self.model.version if self.model else None,
            "policy": self.policy.version,
            "policy_sha256": hashlib.sha256(_encode(self.policy)).hexdigest(),
        }
        last = self.records.last_audit("rules")
        if last is None or last.body != rules:
            self.records.audit("service", "decide by", "rules", rules)

    def _open(self) -> None:
        if self.shared:
            self.client: redis.Redis = connect(self._state)
            self.log = EventLog(self.client)
        else:
            self._open_folder()
            self.log = EventLog(self.client, hasty=self._hasty)
        self.history = History(self.log, ColdLog(self.folder.cold))
        if self.shared:
            return
        self._lease = Lease(self.client, f"process {os.getpid()}")
        if (
            self._valkey is not None
        ):  # a power cut may have cost the hot log a tail that is archived
            self.log.follow_on(self.history.cold.last_id())
        if self._token is not None and not self._lease.renew(self._token):
            self._token, self.standby = None, True  # somebody else became the writer meanwhile
        elif self._token is None and not self.standby:
            self._token = self._lease.take(by_force=True)  # the folder is ours
        self.log.token = NO_TOKEN if self.standby or self._token is None else self._token
        self._open_overlap()

    def _open_overlap(self) -> None:
        """Where the identity key is being rotated, take notes of it, from nothing."""
        if self._identity.rotation is not None:
            self._overlap = Overlap(self.secret, self._identity.rotation, self.client)

    def _open_folder(self) -> None:
        """Run the folder's Valkey; where another service does, and we may be its second, use that."""
        valkey = EmbeddedValkey(self.folder.valkey, fsync=self._fsync)  # type: ignore[arg-type]
        try:
            valkey.start()
        except FolderInUse:
            if not self.standby and self._token is None:
                raise
            self._valkey = None
            self.client, self._hasty, self._url = server_of(self.folder.valkey, HASTY_S)
        else:
            self._valkey = valkey
            self.client, self._hasty, self._url = (
                valkey.client(),
                valkey.client(HASTY_S),
                valkey.url,
            )

    def recover(self) -> None:
        """State = snapshot + the log after it."""
        began = time.monotonic()
        self.fault = "recovering"
        self._renew()
        at = NOTHING
        if not self.shared:
            kept = snapshot.load_latest(
                self.folder.snapshots, self._unusable, ours=not self.standby
            )
            if kept is not None:
                at = self._load(*kept)
        self._follow(at)
        if not self.standby:
            self._write_up()
        self._name_clusters()
        self.look(everyone=True)
        if self.shared:  # after the look: an account that stands badly is not to be let off
            self._together.complete(self.log.folding())
        self.fault, self._lost, self._warm = None, False, self.standby
        _log.info("recovered", events=self.accepted, seconds=round(time.monotonic() - began, 2))

    def _unusable(self, meta: Mapping[str, Any]) -> str | None:
        """Why the state in a snapshot is not one that this service can go on from."""
        if meta.get("catalog") != self.engine.catalog.hash:
            return "it was taken with another catalogue"
        if meta.get("rows") != ROWS:
            return "another version took it, which named events otherwise"
        # a power cut may cost the log its last second, and entries may have come since
        if not self.history.holds(str(meta["log"])):
            return "it holds events that the log has lost"
        return None

    def _renew(self) -> None:
        """An engine that has seen nothing, and what goes with it."""
        catalog = self.model.catalog if self.model else Catalog()
        if self.shared:
            window = RedisWindow(self.client, catalog)
            # all instances over one server number the kinds alike
            kinds = RedisKinds(self.client, catalog.kinds)
            self.engine = Engine(self.policy, self.secret, self.model, catalog, window, kinds)
            self._together = SharedFold(self.engine, window, self.log, self.client, self._record)
        else:
            self.engine = Engine(self.policy, self.secret, self.model, catalog)
        self.entries = Ordinals()
        self.accepted = self._snapshot_at = self.log_entries = 0
        self._save_at = self.log.appended + SNAPSHOT_BYTES
        # where in the log the snapshots that can be read were taken, oldest first
        self._snapshots_of: deque[str] = deque(maxlen=snapshot.KEPT)
        self._at = (
            NOTHING  # shared: how far the log has been followed, and what is ours beyond that
        )
        self._own: set[str] = set()
        self.served: deque[tuple[int, F64]] = deque(maxlen=SERVED_CHUNKS)
        self.canaries = {c.mark for c in self.records.list_canaries()}

    def _follow(self, at: str) -> None:
        """Take in what the log holds after `at`, except what this instance wrote there itself."""
        self._at = at
        if self.shared:  # the window kept itself; only what lives here is rebuilt
            for entry in self.log.read(at):
                self._at = entry.id
                if entry.id in self._own:
                    self._own.discard(entry.id)
                elif entry.kind == "events":
                    self._together.refold(entry, [decode(body) for body in entry.events])
                    self._noted(entry.id, len(entry.events))
            return
        for run in ahead(map(refold.read, refold.runs(self.history.read(at)))):
            self._refuse_stopped()
            last = run.entries[-1]
            if last.kind == "events":
                self.engine.restore(self.engine.sealer.read(run.bodies, run.events))
                for entry in run.entries:
                    self._noted(entry.id, len(entry.events))
            self._at = last.id
            if last.name == ERASED and self.fault is None:  # while we followed
                self._warm, self._lost = False, True
                self.fault = "an account was erased: rebuilding without it"
                return

    def _name_clusters(self) -> None:
        """A cluster that a case was opened for keeps its name, whatever the snapshot knows of it."""
        account, owner, _, _ = self.engine.window.accounts()
        owners = dict(zip(account.tolist(), owner.tolist(), strict=True))
        for case in reversed(self._all_cases()):  # oldest first: the last word stays
            for member in case.body.get("members", ()):
                number = owners.get(views.number(member))
                if number is not None:
                    self.engine.lineage.past[number] = case.cluster_id

    def _all_cases(self) -> list[KeptCase]:
        page = self.records.list_cases(limit=PAGE_ROWS_MAX)
        found = page.cases
        while page.next_cursor is not None:
            page = self.records.list_cases(cursor=page.next_cursor, limit=PAGE_ROWS_MAX)
            found += page.cases
        return found

    def mend(self) -> None:
        """Notice a log that is gone; come back when it is there again. Call it every few seconds."""
        try:
            if self.fault is None:
                self.log_entries = self.log.length()
                with contextlib.suppress(RecordsError):  # another instance may have been given one
                    self.canaries = {c.mark for c in self.records.list_canaries()}
                if self.shared:
                    with self.lock:
                        self._follow(self._at)
                        self._together.finish_others()
                elif not self.standby:
                    self._archive()
            elif self._lost:
                with self._looking, self.lock:  # whoever is still inside `ingest` fails first
                    if self._stopping.is_set():
                        return
                    if not self.shared:
                        refuse_other_key(self.folder, self._identity)
                    if not self.shared and not self._reachable():
                        if self._valkey is not None:
                            self._valkey.stop()
                        self._open()
                    look_around(self.client)
                    self.client.ping()
                    if self._token is not None:  # what we sent and gave up must not come now
                        self._token = self._lease.advance(self._token)
                        if self._token is None:
                            self._depose()
                        else:
                            self.log.token = self._token
                    if self._warm and self.history.holds(self._at):
                        self._follow(self._at)
                        self.fault, self._lost = None, False
                    else:
                        self.recover()
        except Unavailable:  # stopped in the middle of it
            return
        except (*CLIENT_ERRORS, ValkeyError, LogError, RecordsError) as problem:
            self._lose(problem)

    def _reachable(self) -> bool:
        """Whether a server is there; one that says why it refuses us is."""
        if self._valkey is not None:
            return self._dead() is None
        try:
            self.client.ping()
        except redis.ConnectionError:
            return False
        return True

    # --- who writes

    def _keep_lease(self) -> None:
        """Stay the writer, or follow the one there is and succeed him."""
        while not self._stopping.wait(lease.LEASE_S / lease.RENEWALS):
            try:
                if self.standby:
                    self._follow_or_succeed()
                elif not self._lease.renew(self._token or NO_TOKEN):
                    self._depose()  # also in a long job, such as an erasure: it ends as a standby
            except Unavailable:  # stopped in the middle of it
                return
            except (*CLIENT_ERRORS, ValkeyError, LogError, RecordsError) as problem:
                if self.fault is None and not self._stopping.is_set():
                    self._lose(problem)

    def _follow_or_succeed(self) -> None:
        if self.fault is not None:
            self.mend()
            return
        with self.lock:
            self._follow(self._at)
        refuse_other_key(self.folder, self._identity)
        token = self._lease.take()
        if token is None:
            return
        with self._looking, self.lock:
            # from here on nobody else can append: what the log holds now is all there is
            self._token = self.log.token = token
            self.standby = self._warm = False
            self._open_overlap()
            self._follow(self._at)
            self._write_up()
            _log.warning("took over as the writer of the log", events=self.accepted, token=token)
        self.look(everyone=True)

    def _depose(self) -> None:
        """Somebody else is the writer now. What we folded and could not log must go."""
        self._token, self.standby, self._warm = None, True, False
        self._lost, self.fault = True, "another service has taken over this log"
        _log.error("another service has taken over this log: following it from now on")

    def _lose(self, problem: BaseException) -> None:
        """The log cannot be used: take nothing in until `mend` has rebuilt the state from it."""
        own = str(problem).partition(" Its log ends")[0].partition("\n")[0] or repr(problem)
        why = own if isinstance(problem, ValkeyError) else self._dead() or own
        self._lost, self.fault = True, f"the log cannot be used: {why}"
        _log.error("the log cannot be used", why=why)

    def _dead(self) -> str | None:
        """What became of an embedded Valkey that no longer runs."""
        try:
            if self._valkey is not None:
                _ = self._valkey.pid
        except ValkeyError as problem:
            return str(problem).partition(" Its log ends")[0]
        return None

    def _noted(self, entry_id: str, n: int) -> None:
        if not self.shared:
            self.entries.add(self.accepted, entry_id)
        self.accepted += n

    def close(self) -> None:
        """Snapshot, and stop what was started."""
        self._stopping.set()
        try:
            if self.shared and self.fault is None:
                # a server that is gone: others will find the answers
                with contextlib.suppress(*CLIENT_ERRORS), self.lock:
                    self._together.say_answered()
            writer = not self.shared and not self.standby
            if writer and self.fault is None and self.accepted > self._snapshot_at:
                self.snapshot()
        finally:
            with self._looking, self.lock:  # nobody is just opening what is closed here
                self.fault, self._lost = "stopped", False
                self.scribe.close()
                self.records.close()
                self._stop_archiver()
                if self._valkey is not None:
                    self._valkey.stop()
                elif hasattr(self, "client"):
                    self.client.close()
                    if not self.shared:
                        self._hasty.close()

    # --- events

    def ingest(self, events: Sequence[AnyEvent]) -> list[Answer]:
        """Answer each event; when this returns, every accepted one is in the log.

        Raises:
            Unavailable: the log cannot be written; nothing was acknowledged.
        """
        taken = self.take_in(events)
        self.look_up(taken.earlier)
        return taken.answers

    def take_in(self, events: Sequence[AnyEvent], hasty: bool = False) -> Taken:
        """The same, but that duplicates of what was answered earlier have no decision yet (`look_up`).

        `hasty` is for who must not wait: a log that does not answer within a second is lost.
        """
        taken = Taken([], [])
        for first in range(0, len(events), CHUNK):
            with self.lock:
                self._take_in(events[first : first + CHUNK], taken, hasty)
        return taken

    def _take_in(self, events: Sequence[AnyEvent], taken: Taken, hasty: bool) -> None:
        if self.fault is not None:
            raise Unavailable(self.fault)
        if self.standby:
            raise Unavailable(STANDBY)
        if self.scribe.full:
            raise Unavailable(f"what was acted on cannot be written down: {self.scribe.lost}")
        limit = self.clock() + 5 * 60_000
        ahead = {i for i, e in enumerate(events) if e.occurred_at > limit}  # type: ignore[operator]
        timely = [e for i, e in enumerate(events) if i not in ahead] if ahead else events
        folded = self._log_then_fold(timely) if self.shared else self._fold_then_log(timely, hasty)
        told, unsaid = answers_of(timely, *folded)
        for answer, ordinal in unsaid:
            if (held := self.entries.of(ordinal)) is not None:
                taken.earlier.append(Earlier(answer, *held, self.entries))
        if ahead:
            rest = iter(told)
            told = [
                _rejected(e.event_id, AHEAD) if i in ahead else next(rest)
                for i, e in enumerate(events)
            ]
        taken.answers.extend(told)

    def _fold_then_log(self, events: Sequence[AnyEvent], hasty: bool) -> tuple[Answered, Refused]:
        sealed, refused = self.engine.sealer.seal(events)
        with self._losing_the_log():
            answered = self.engine.answer(sealed)
            new = [i for i, d in enumerate(answered.decisions) if d is not None]
            if self._overlap is not None:
                self._overlap.note(sealed.events)
            if new:
                entry = self.log.append(
                    [sealed.bodies[i] for i in new],
                    _encode([answered.decisions[i] for i in new]),
                    hasty,
                )
                self.served.append((self.accepted, answered.vectors[new]))
                self._noted(entry, len(new))
        if new:
            self.scribe.tell(entry, self._news(sealed.events, answered.decisions))
        return answered, refused

    def _log_then_fold(self, events: Sequence[AnyEvent]) -> tuple[Answered, Refused]:
        with self._losing_the_log():
            taken = self._together.take_in(events)
        if taken.entry:
            self._own.add(taken.entry)
            self._noted(taken.entry, taken.logged)
        self._record(taken.answered.sealed.events, taken.answered.decisions)
        return replace(taken.answered, decisions=taken.decisions), taken.refused

    @contextlib.contextmanager
    def _losing_the_log(self) -> Iterator[None]:
        """What fails in here may leave the window ahead of the log: rebuild it before answering on."""
        try:
            yield
        except Fenced:
            self._depose()
            raise Unavailable(str(self.fault)) from None
        except (*CLIENT_ERRORS, LogError) as problem:
            self._lose(problem)
            raise Unavailable(str(self.fault)) from None
        except BaseException as problem:  # ours; whoever asked is told so
            self._lose(problem)
            raise

    def look_up(self, earlier: Sequence[Earlier]) -> None:
        """Give duplicates the decision of their first delivery, as far as it can be read.

        Takes no lock: the archive may have to be read for it. Raises Unavailable.
        """
        found: dict[str, list[msgspec.Raw]] = {}
        try:
            for id, answers in self.history.answers({one.entry for one in earlier}):
                found[id] = _decode_answers(answers)
        except CLIENT_ERRORS as problem:
            raise Unavailable(f"the log cannot be used: {problem}") from None
        except LogError as problem:  # a damaged archive is no reason to refuse what is known
            _log.error("duplicates are answered without a decision", why=str(problem))
        # an erasure moves what is left in an entry, and a rebuilt state has ordinals of its own
        if self.fault is not None or any(one.of is not self.entries for one in earlier):
            raise Unavailable(self.fault or "the state was rebuilt from the log meanwhile")
        for one in earlier:
            decisions = found.get(one.entry, [])
            if one.place < len(decisions):
                one.answer.decision = _decode_answer(decisions[one.place])

    # --- what was acted on

    def _record(self, events: Sequence[AnyEvent], decisions: Sequence[Decision | None]) -> None:
        """Write down what was acted on before it is answered. Raises RecordsError."""
        try:
            self.scribe.write(self._news(events, decisions))
        except RecordsError:
            self._written.clear()  # it is news again
            raise

    def _news(
        self, events: Sequence[AnyEvent], decisions: Sequence[Decision | None]
    ) -> list[ActedOn | Hit]:
        """What of it people and appeals are to find, and the canaries in it."""
        news: list[ActedOn | Hit] = []
        for event, decision in zip(events, decisions, strict=True):
            if decision is None:
                continue
            # an account that is acted on at every event is written down when the reasons change
            if decision.reasons and decision.reasons != self._written.get(event.account_id):
                self._written[event.account_id] = decision.reasons
                news.append(
                    ActedOn(
                        event_id=event.event_id,
                        account_id=event.account_id,
                        at=cast(int, event.occurred_at),
                        action=cast(Proposed, decision.action),
                        score=decision.score or 0.0,
                        reasons=[msgspec.to_builtins(r) for r in decision.reasons],
                        model_version=decision.model_version or "none",
                        policy_version=decision.policy_version,
                        cluster_id=decision.cluster_id,
                    )
                )
            if self.canaries and type(event) is Request and event.prompt_id is not None:
                mark = self._mark(event.prompt_id)
                if mark in self.canaries:
                    at = cast(int, event.occurred_at)
                    news.append(Hit(mark, event.account_id, event.event_id, at))
        return news

    def _write_up(self) -> None:
        """Tell the scribe what whoever wrote the log last did not come to write down."""
        written = self.log.written()
        if written is None:  # a log of before the scribe: its writers wrote before they answered
            self.scribe.tell(self.entries.last, [])
        for entry in self.history.read(written) if written is not None else ():
            if entry.kind == "events":
                decisions = _decode_all(entry.answers)
                if self.canaries or any(d.reasons for d in decisions):
                    events = [decode(body) for body in entry.events]
                    self.scribe.tell(entry.id, self._news(events, decisions))
        self.scribe.start(self.log)

    def canary_mark(self, prompt_id: str) -> str:
        """The mark that the requests with this prompt bear; in an overlap the next one is noted, too.

        Raises Unavailable.
        """
        try:
            if self._overlap is not None:
                self._overlap.note_one(PROMPT, prompt_id)
        except CLIENT_ERRORS as problem:
            raise Unavailable(f"the log cannot be used: {problem}") from None
        return self._mark(prompt_id)

    def _mark(self, prompt_id: str) -> str:
        return self.secret.token(PROMPT, prompt_id)

    # --- looking at the links

    def look(self, everyone: bool = False) -> Sweep:
        """Sweep, adopt its verdicts, and open or update the cases they call for."""
        active = None if everyone else self.policy.sweep.active_h * HOUR
        with self._looking:
            seen = self.engine.news
            found = look(self.engine.window, self.engine.kinds, self.model, active, self.lock)
            with self.lock:
                if self.shared:  # whoever the others have met in the meantime has a name here, too
                    self._follow(self._at)
                self.engine.adopt(found, seen)
            # callers need not wait for what is written down: only another look changes it
            for case in [] if self.standby else self.cases_of(found):
                action = cast(Proposed, case.proposed_action)
                self.records.open_or_update_case(case.cluster_id, action, msgspec.to_builtins(case))
        return found

    def cases_of(self, found: Sweep) -> list[Case]:
        """A case for each cluster that the policy takes seriously."""
        size = found.clusters.size
        return [
            case_of(self.engine, found, c)
            for c in range(len(found.clusters))
            if self.engine.verdict(int(size[c]), float(found.cluster_score[c])) > Action.allow
        ]

    # --- what people ask

    def case(self, cluster_id: str) -> Case | None:
        with self.lock:
            return views.case(self.engine, cluster_id)

    def cluster_list(self) -> list[dict[str, Any]]:
        with self.lock:
            return views.clusters(self.engine)

    def members_of(self, cluster_id: str) -> list[str] | None:
        with self.lock:
            return views.members(self.engine, cluster_id)

    def links_of(self, account_id: str) -> dict[str, Any]:
        with self.lock:
            return {"account_id": account_id, "links": views.links(self.engine, account_id)}

    def vector_of(self, account_id: str) -> list[float]:
        with self.lock:
            return views.vector(self.engine, account_id)

    # --- snapshots

    def snapshot_due(self) -> bool:
        return (
            not self.shared
            and not self.standby
            and self.fault is None
            and (
                self.accepted - self._snapshot_at >= SNAPSHOT_EVENTS
                or self.log.appended >= self._save_at
            )
        )

    def snapshot(self) -> Path:
        """Save the state as of the last acknowledged event."""
        with self._looking:
            with self.lock:
                arrays = {k: v.copy() for k, v in self.engine.window.save().items()}  # type: ignore[attr-defined]
                self.entries.drop_before(self._oldest_known(arrays))
                meta = self.engine.save() | {
                    "catalog": self.engine.catalog.hash,
                    "rows": ROWS,
                    "log": self.entries.last,
                    "accepted": self.accepted,
                }
                arrays |= self.entries.save()
                accepted, appended = self.accepted, self.log.appended
            path = snapshot.save(self.folder.snapshots, f"{accepted}", arrays, meta)
            self._snapshot_at = accepted
            self._save_at = appended + max(SNAPSHOT_BYTES, path.stat().st_size // 2)
            self._snapshots_of.append(meta["log"])
            return path

    def _oldest_known(self, window: Mapping[str, NDArray[Any]]) -> int:
        """The ordinal of the first event whose redelivery would be told from news."""
        known = window["id_t"] > self.engine.window.watermark - LATE - IDS_SPAN
        known &= window["id_key"] != 0
        return int(window["id_ordinal"][known].min(initial=self.accepted))

    def _load(self, arrays: dict[str, Any], meta: dict[str, Any]) -> str:
        self.entries = Ordinals.load(arrays, meta)
        self.accepted = self._snapshot_at = int(meta["accepted"])
        self.engine.window.load(arrays)  # type: ignore[attr-defined]
        self.engine.load(meta)
        self._snapshots_of.append(str(meta["log"]))
        return str(meta["log"])

    # --- the cold log

    def _archive(self) -> None:
        """Copy what a snapshot covers to the cold log, and drop what two of them cover from the hot one.

        A step a call; never waits.
        """
        if not self._looking.acquire(blocking=False):
            return
        try:
            if self._archiver is not None:
                ended = self._archiver.poll()
                if ended is None:
                    return
                self._archiver = None
                if ended:
                    _log.error("archiving failed and is tried again", exit=ended)
            if len(self._snapshots_of) == snapshot.KEPT:
                self.history.trim(self._snapshots_of[0])
            newest = self._snapshots_of[-1] if self._snapshots_of else NOTHING
            if parse_id(newest) > parse_id(self.history.cold.last_id()):
                self._archiver = archiver(self.history.cold, self._url, newest)
        finally:
            self._looking.release()

    def _stop_archiver(self) -> None:
        """What it has finished is kept, the rest is done again."""
        if self._archiver is not None:
            self._archiver.kill()
            self._archiver.wait()
            self._archiver = None

    # --- erasure

    def erase(self, account_id: str, by: str = LOCAL) -> Erased | None:
        """Remove an account's events from the log and everything derived from them.

        The state is a fold over the log, so it is rebuilt from a log without them: nothing of the
        account can be left in it. Returns the proof, which is in the audit, too, without the
        account's name; None when there was nothing of it. One that was cut off is ended by asking again:
        the audit knows that it began, and the proof says that some went before (`resumed`).

        Raises:
            Unavailable: the log or its window is not ours alone, or cannot be used; ask again.
        """
        if self.shared:
            raise Unavailable(
                "an account is erased where its log is embedded, not from a shared one"
            )
        with self._looking, self.lock:
            if self.fault is not None:
                raise Unavailable(self.fault)
            if not self.scribe.flush(FLUSH_S):
                raise Unavailable(f"what was acted on waits to be written: {self.scribe.lost}")
            self.fault = "erasing an account"
            needle, began = _encode(account_id), self.clock()
            # what the audit calls the account: the key tells that it was she, the text does not
            subject = f"account {self.secret.digest('account', account_id).hex()}"

            def hers(body: bytes) -> bool:
                return needle in body and decode(body).account_id == account_id

            snapshots = 0
            try:
                last = self.records.last_audit(subject)
                resumed = last is not None and last.action == BEGUN
                log_before, held = digest_of_log(self.history.read(), hers)
                state_before = self._digest()
                # snapshots first: a crash half-way must not bring back what they hold
                for old in self.folder.snapshots.glob("*.snapshot*"):
                    old.unlink()
                    snapshots += 1
                self._stop_archiver()
                if self._overlap is not None:
                    self._overlap.forget(self.history.read, hers)
                erased = self.records.erase_account(
                    account_id, began=(by, BEGUN, subject), more=held > 0 or resumed
                )
                found = self.history.cold.erase(account_id) + self.log.rewrite(hers)
                self._written.pop(account_id, None)
                if found or resumed:
                    self.log.append_control(ERASED)  # for those who follow
                    self.log.rewrite_file()
                self.recover()
                if not (found or resumed or any(erased.values())):
                    return None
                proof = Erased(
                    began_at=began,
                    ended_at=self.clock(),
                    resumed=resumed,
                    events=found,
                    snapshots=snapshots,
                    records=erased,
                    log_before=log_before,
                    log_after=digest_of_log(self.history.read())[0],
                    state_before=state_before,
                    state_after=self._digest(),
                )
                self.records.audit(by, "erase", subject, asdict(proof))
            except (*CLIENT_ERRORS, LogError, RecordsError, OSError) as problem:
                self._lose(problem)
                raise Unavailable(str(self.fault)) from None
        return proof

    def _digest(self) -> str:
        return digest_of_state(self.engine.window.save())  # type: ignore[attr-defined]


def answers_of(
    events: Sequence[AnyEvent], answered: Answered, refused: Refused
) -> tuple[list[Answer], list[tuple[Answer, int]]]:
    """One answer an event, in order; and those that are to tell another batch's decision, by its ordinal."""
    told: list[Answer] = []
    unsaid: list[tuple[Answer, int]] = []
    bad = dict(refused)
    status, ordinal = answered.status.tolist(), answered.ordinal.tolist()
    here = {
        o: d for o, d in zip(ordinal, answered.decisions, strict=True) if d is not None and o >= 0
    }
    j = 0
    for i, event in enumerate(events):
        if i in bad:
            told.append(_rejected(event.event_id, bad[i]))
            continue
        decision = answered.decisions[j]
        if decision is None:
            decision = here.get(ordinal[j])
        what = status[j]
        told.append(Answer(event.event_id, _STATUS[what], decision, what == CONFLICT))
        if decision is None:
            unsaid.append((told[-1], ordinal[j]))
        j += 1
    return told, unsaid


def _rejected(event_id: str | None, problem: InvalidEvent) -> Answer:
    return Answer(
        event_id, "rejected", None, error=problem.error, field=problem.field, hint=problem.hint
    )
