"""A client of a server that dies, or sleeps, in the middle of a fold."""

from collections.abc import Callable
from typing import Any, cast

import redis


class Killed(Exception):
    """The end of a process, in the middle of a fold."""


class Mortal:
    """A client that sends so many commands of pipelines, and then does something else."""

    def __init__(self, client: redis.Redis, left: int, then: Callable[[], None]) -> None:
        self._client, self._left, self._then = client, left, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pipeline(self, **how: Any) -> Any:
        pipe = self._client.pipeline(**how)
        execute = pipe.execute

        def some(**how: Any) -> list[Any]:
            sent = pipe.command_stack
            pipe.command_stack, after = sent[: self._left], sent[self._left :]
            self._left -= len(pipe.command_stack)
            replies = execute(**how)
            if after:
                self._left = 10**9
                self._then()
                pipe.command_stack = after
                replies += execute(**how)
            return cast(list[Any], replies)

        pipe.execute = some
        return pipe


def die() -> None:
    raise Killed
