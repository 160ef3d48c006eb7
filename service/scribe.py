"""The scribe: what was acted on, written into the records behind the answers.

The log holds every answer, so nobody waits for the records, and records that are gone for a while keep
nobody from being answered: what is to be written waits here. The log says how far it has been written
down, and whoever becomes its writer goes on from there. So what was acted on reaches people and webhooks
at least once, however a service ended; the records keep the first decision of an event.
"""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from service.database import RecordsError
from service.log import NOTHING, EventLog
from service.records import Decision, NotFound, Records
from service.valkey import CLIENT_ERRORS

WAITING_MAX = 50_000  # while the records are gone; some 100 MB
AT_ONCE = 1000
PAUSE_S = 1.0  # between attempts, and between notes in the log

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Hit:
    """A canary's prompt came in a request, at epoch ms `at`."""

    mark: str
    account_id: str
    event_id: str
    at: int


class Scribe:
    """Writes on a thread from `start` to `close`. `lost` says why the records refuse, while they do."""

    def __init__(self, records: Records) -> None:
        self.lost: str | None = None
        self._records = records
        self._log: EventLog | None = None
        self._waiting: list[Decision | Hit] = []
        self._upto = self._noted = (
            NOTHING  # the last entry that was told, and the last noted in the log
        )
        self._closing = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="scribe", daemon=True)

    def start(self, log: EventLog) -> None:
        """Begin; note in this log from now on how far we are."""
        self._log = log
        if not self._thread.is_alive():
            self._thread.start()

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should be decided."""
        return len(self._waiting) >= WAITING_MAX

    def tell(self, entry: str, news: Sequence[Decision | Hit]) -> None:
        """What is to be written of the log's next entry."""
        with self._change:
            self._upto = entry
            if news:
                self._waiting += news
                self._change.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all that was told is written; whether it is."""
        with self._change:
            return self._change.wait_for(lambda: not self._waiting, seconds)

    def close(self) -> None:
        """Try once more, and end."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def write(self, news: Sequence[Decision | Hit]) -> None:
        """Write this at once. Raises RecordsError."""
        self._records.add_decisions([x for x in news if isinstance(x, Decision)])
        for hit in (x for x in news if isinstance(x, Hit)):
            with contextlib.suppress(NotFound):
                self._records.hit_canary(hit.mark, hit.account_id, hit.event_id, hit.at)

    def _run(self) -> None:
        while not self._closing:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closing, PAUSE_S)
            self._write_all()
            if self.lost is not None:
                with self._change:
                    self._change.wait_for(lambda: self._closing, PAUSE_S)

    def _write_all(self) -> None:
        while some := self._waiting[:AT_ONCE]:
            try:
                self.write(some)
            except RecordsError as problem:
                if self.lost is None:
                    _log.error("the records refuse: what was acted on waits", why=str(problem))
                self.lost = str(problem)
                return
            except Exception:
                _log.exception("left out of the records", events=[x.event_id for x in some])
            with self._change:
                del self._waiting[: len(some)]
                self._change.notify_all()
        self.lost = None
        with self._change:
            upto = NOTHING if self._waiting else self._upto
        if self._log is not None and upto not in (NOTHING, self._noted):
            with contextlib.suppress(*CLIENT_ERRORS):  # then more is written twice after a crash
                self._log.note_written(upto)
                self._noted = upto
