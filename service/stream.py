"""The stream of decisions: server-sent events of what is acted on, as it is decided.

The last decisions are kept once, in a ring, and a listener is only a place in it: nothing is buffered
for anybody. Who falls behind by a whole ring is told so and dropped, who does not read is dropped
after a few seconds; either may come back with `Last-Event-ID` and goes on where it was, as far as
that is still kept. What is gone is said (`event: gap`).

id        <run>-<n>: n counts up by one within a run of the service
event     decision | gap | dropped
data      {event_id, account_id, occurred_at, decision}
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from detector.decision import Decision
from detector.policy import Action
from features.event import AnyEvent
from service.problem import busy
from service.shoal import Answer

KEPT = 10_000  # decisions that a listener may be behind
LISTENERS_MAX = 100
HEARTBEAT_S = 10.0
SEND_S = 10.0  # who takes nothing for so long is gone
PIECE = 500  # decisions written at a time


class Acted(msgspec.Struct):
    """One message of the stream."""

    event_id: str
    account_id: str
    occurred_at: int
    decision: Decision


_encode = msgspec.json.Encoder().encode


class Decisions:
    """What was acted on lately."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(4)
        self.next = 1  # the number that the next decision gets
        self.closed = False
        self.listeners = 0
        self._kept: deque[tuple[Action, bytes]] = deque(maxlen=KEPT)
        self._news = asyncio.Event()

    def put(self, events: Sequence[AnyEvent], answers: Sequence[Answer]) -> None:
        """Keep those above `allow` that were decided just now."""
        before = self.next
        for event, answer in zip(events, answers, strict=True):
            decision = answer.decision
            if decision is None or decision.action == "allow" or answer.status == "duplicate":
                continue
            at = event.occurred_at
            assert isinstance(at, int)
            data = _encode(Acted(event.event_id, event.account_id, at, decision))
            message = b"id: %b-%d\nevent: decision\ndata: %b\n\n" % (
                self.run.encode(),
                self.next,
                data,
            )
            self._kept.append((Action[decision.action], message))
            self.next += 1
        if self.next > before:
            self.wake()

    def close(self) -> None:
        """End every stream: the service stops."""
        self.closed = True
        self.wake()

    def wake(self) -> None:
        """Let every listener look around."""
        self._news.set()
        self._news = asyncio.Event()

    @property
    def oldest(self) -> int:
        """The number of the oldest decision that is kept; `next` when there is none."""
        return self.next - len(self._kept)

    def after(self, last_id: str | None) -> tuple[int, bool]:
        """Where to go on after this id, and whether something between is gone."""
        if not last_id:
            return self.next, False
        run, _, number = last_id.partition("-")
        if run == self.run and number.isdecimal() and len(number) < 19:
            place = int(number) + 1
            if self.oldest <= place <= self.next:
                return place, False
        return self.oldest, True

    def read(self, place: int, least: Action) -> tuple[bytes, int]:
        """Some messages from `place` on, and the place after them."""
        at = place - self.oldest
        end = min(at + PIECE, len(self._kept))
        some = [self._kept[i] for i in range(at, end)]
        return b"".join(m for action, m in some if action >= least), self.oldest + end

    async def news(self, place: int) -> None:
        """Wait until there may be something at `place`, or a heartbeat is due."""
        if place >= self.next and not self.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._news.wait()


class Listening(Response):
    """The answer to a listener. `welcome` is asked at each heartbeat whether it still is.

    Raises:
        Problem: 503 when too many listen.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        decisions: Decisions,
        last_id: str | None,
        least: Action,
        welcome: Callable[[], Awaitable[bool]],
    ) -> None:
        if decisions.listeners >= LISTENERS_MAX:
            raise busy(f"{LISTENERS_MAX} listen already")
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._decisions, self._least, self._welcome = decisions, least, welcome
        self._place, self._gap = decisions.after(last_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        decisions = self._decisions
        decisions.listeners += 1
        gone = asyncio.create_task(_gone(receive))
        gone.add_done_callback(lambda _: decisions.wake())

        async def write(body: bytes, more: bool = True) -> None:
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": body, "more_body": more})

        try:
            async with asyncio.timeout(SEND_S):
                await send(
                    {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                )
            await write(b"event: gap\ndata: {}\n\n" if self._gap else b": welcome\n\n")
            checked = asyncio.get_running_loop().time()
            while not (gone.done() or decisions.closed):
                await decisions.news(self._place)
                if self._place < decisions.oldest:
                    await write(b'event: dropped\ndata: {"detail": "too slow"}\n\n')
                    break
                body, self._place = decisions.read(self._place, self._least)
                now = asyncio.get_running_loop().time()
                if now - checked >= HEARTBEAT_S:
                    if not await self._welcome():
                        break
                    checked = now
                    body = body or b": alive\n\n"
                if body:
                    await write(body)
            await write(b"", more=False)
        except TimeoutError:
            pass  # it does not read; the server closes what is not ended
        finally:
            gone.cancel()
            decisions.listeners -= 1


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
