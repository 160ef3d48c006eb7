"""A client of a server that dies, or sleeps, in the middle of a fold."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import redis


class Killed(Exception):
    """The end of a process, in the middle of a fold."""


def die() -> None:
    raise Killed


class Mortal:
    """A client that sends so many commands of pipelines, and then does something else.

    `left` has a number for each node of a cluster, which are not in step; keys are dealt out to the
    nodes by what is hashed of them. Afterwards the rest is sent.
    """

    def __init__(self, client: redis.Redis, left: Sequence[int], then: Callable[[], None]) -> None:
        self._client, self._left, self._then = client, [*left], then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pipeline(self, **how: Any) -> Any:
        pipe = self._client.pipeline(**how)
        execute = pipe.execute
        # a cluster's pipeline keeps its commands elsewhere
        cluster = hasattr(pipe, "_execution_strategy")
        held = pipe._execution_strategy if cluster else pipe
        name = "command_queue" if cluster else "command_stack"

        def some(**how: Any) -> list[Any]:
            before, after = [], []
            for place, command in enumerate(getattr(held, name)):
                (before if self._sent(command) else after).append((place, command))
            replies = {}
            for part in (before, after):
                if part is after and after:
                    self._left = [10**9] * len(self._left)
                    self._then()
                setattr(held, name, [command for _, command in part])
                places = [place for place, _ in part]
                replies |= dict(zip(places, execute(**how), strict=True))
            return [replies[place] for place in sorted(replies)]

        pipe.execute = some
        return pipe

    def _sent(self, command: Any) -> bool:
        words = cast(Sequence[Any], command.args if hasattr(command, "args") else command[0])
        key = words[3] if str(words[0]).startswith("EVAL") else words[1]
        tag = bytes(key).partition(b"{")[2].partition(b"}")[0] or bytes(key)
        node = zlib.crc32(tag) % len(self._left)
        self._left[node] -= 1
        return self._left[node] >= 0
