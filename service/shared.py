"""Log and window of several instances, as one of them uses them: the log first, then the fold.

The window outlives whoever folds into it, so what is folded is in the log before. The log's server
knows which entries are being folded. One whose instance died is folded again from the log, by whoever
meets it first: another instance that is asked for one of its events, that sees it twice in a row when
it looks, or that starts. A fold that is done again gives what it would have given (features/redis.py),
and of two answers to one event the first that is kept stands.

Nobody counts the events that all instances take in, so the answer a duplicate gets is kept under its
event id (`FirstAnswers`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import redis
import structlog

from detector.decision import Decision
from detector.engine import Answered, Engine
from features.event import AnyEvent, InvalidEvent, decode
from features.redis import RedisWindow
from service.log import BeingFolded, Entry, EventLog

BOOKS = 200_000  # events of a shared log within which a second delivery is recognised
ANSWER_DAYS = 7  # how long the answer that a duplicate gets is kept

_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Decision).decode
Record = Callable[[Sequence[AnyEvent], Sequence[Decision | None]], None]


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What became of some events. `answered` has the decisions that are news, `decisions` all of them."""

    answered: Answered
    refused: list[tuple[int, InvalidEvent]]
    decisions: list[Decision | None]
    entry: str  # of the log; empty where nothing was new to it
    logged: int  # events


class SharedFold:
    """One instance's part in it. While it serves, the caller holds the Shoal's lock.

    Args:
        record: told of the events of each entry that is completed here; some may be recorded already.
    """

    def __init__(
        self,
        engine: Engine,
        window: RedisWindow,
        log: EventLog,
        client: redis.Redis,
        record: Record,
    ) -> None:
        self._engine, self._window, self._log, self._record = engine, window, log, record
        self.answers = FirstAnswers(client)
        self._answered: list[str] = []  # events answered since the log was told so last
        self._met: set[str] = set()  # entries that were being folded when last looked
        self._books: dict[str, None] = {}  # the events that were booked last

    def take_in(self, events: Sequence[AnyEvent]) -> TakenIn:
        """Log what is new, fold, decide, and keep the answers.

        Raises:
            redis.RedisError, LogError: nothing is to be acknowledged; whoever goes on with the log
                ends what was begun.
        """
        sealed, refused = self._engine.sealer.seal(events)
        good = sealed.events
        known, new, entry = self._log_unanswered(good, sealed.bodies)
        folded = self._window.fold(sealed.rows, entry)
        self._engine.book(sealed, folded)
        answered = self._engine.decide(sealed, folded)
        for event, decision in zip(good, answered.decisions, strict=True):
            if decision is not None:
                self._booked(event.event_id)
        news = self.answers.keep(good, answered.decisions)
        self._answered += new
        known |= self.answers.of(
            e for e, d in zip(good, news, strict=True) if d is None and e.event_id not in known
        )
        first = [known.get(e.event_id) if d is None else d for e, d in zip(good, news, strict=True)]
        return TakenIn(replace(answered, decisions=news), refused, first, entry, len(new))

    def _log_unanswered(
        self, events: Sequence[AnyEvent], bodies: Sequence[bytes]
    ) -> tuple[dict[str, Decision], list[str], str]:
        """Log what has no answer yet; the answers there are, what was logged, and its entry, if any.

        What two instances get at once may be logged twice, if one answers it while the other has just
        asked for its answer; the fold ignores the second.
        """
        while True:
            known = self.answers.of(events)
            new: dict[str, bytes] = {}
            for event, body in zip(events, bodies, strict=True):
                if event.event_id not in known:
                    # of two under one id the first is folded, so it is logged, and in the first's place
                    new.setdefault(event.event_id, body)
            if not new:
                return known, [], ""
            try:
                entry = self._log.append_to_fold([*new.values()], [*new], self._answered)
            except BeingFolded as others:
                self._answered.clear()
                held = self._log.folding()
                self.complete({id: held[id] for id in held if id in others.entries})
                continue
            self._answered.clear()
            return known, [*new], entry

    def refold(self, entry: Entry, events: Sequence[AnyEvent]) -> None:
        """Take in what is ours alone of an entry that another instance folded, or we did before we died."""
        engine = self._engine
        for event in events:
            engine.names.name(event.account_id)
            if event.org_id is not None:
                engine.names.name(event.org_id)
            if self._booked(event.event_id):
                engine.ledger.record(event)
        engine.news += len(events)

    def _booked(self, event_id: str) -> bool:
        """Whether this is the first time that an event reaches our ledger.

        A shared log may hold an event twice: of a caller who asked two instances at once, or asked
        again after the first one died between log and answer. That is soon after.
        """
        if event_id in self._books:
            return False
        self._books[event_id] = None
        if len(self._books) > BOOKS:
            del self._books[next(iter(self._books))]
        return True

    def finish_others(self) -> None:
        """Complete what was being folded already when we looked last: its instance may be gone."""
        self.say_answered()
        held = self._log.folding()
        self.complete({id: held[id] for id in held if id in self._met})
        self._met = set(held)

    def say_answered(self) -> None:
        """Tell the log what need not be folded again."""
        self._log.folded(self._answered)
        self._answered.clear()

    def complete(self, held: Mapping[str, Sequence[str]]) -> None:
        """Fold entries that were not folded to the end, and keep their answers.

        Also where another instance is about to: both come to the same. The ledger has it from the log.

        Args:
            held: of `EventLog.folding`: the entries, oldest first, and their event_ids.
        """
        for id, event_ids in held.items():
            entry = self._log.entry(id)
            # an entry that was lost in a failover was answered to nobody: it is sent again
            events = [decode(body) for body in entry.events] if entry is not None else []
            known = self.answers.of(events)
            decisions = [known.get(e.event_id) for e in events]
            if entry is not None and None in decisions:
                sealed = self._engine.sealer.read(entry.events, events)
                answered = self._engine.decide(sealed, self._window.fold(sealed.rows, id))
                decisions = self.answers.keep(events, answered.decisions)
                _log.warning("completed a fold", entry=id, events=len(events))
            self._record(events, decisions)
            self._log.folded(event_ids)


class FirstAnswers:
    """What each event was answered with, kept in Redis under its id for as long as ids are known.

    shoal:answer:<event_id>   string  the decision as JSON
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def of(self, events: Iterable[AnyEvent]) -> dict[str, Decision]:
        """The answers that are kept, by event id."""
        ids = [e.event_id for e in events]
        with self._client.pipeline(transaction=False) as asked:
            for id in ids:
                asked.get(_key(id))
            kept = asked.execute()
        return {id: _decode(a) for id, a in zip(ids, kept, strict=True) if a is not None}

    def keep(
        self, events: Iterable[AnyEvent], decisions: Sequence[Decision | None]
    ) -> list[Decision | None]:
        """Keep the decisions; returns those that stand, which are the first of each event."""
        with self._client.pipeline(transaction=False) as told:
            for event, decision in zip(events, decisions, strict=True):
                if decision is not None:
                    life = ANSWER_DAYS * 86_400
                    told.set(_key(event.event_id), _encode(decision), ex=life, nx=True, get=True)
            before = iter(told.execute())
        stand: list[Decision | None] = []
        for decision in decisions:
            first = next(before) if decision is not None else None
            stand.append(decision if first is None else _decode(first))
        return stand


def _key(event_id: str) -> bytes:
    return b"shoal:answer:" + event_id.encode()
