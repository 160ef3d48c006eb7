"""Who may come in: bearer keys and their scopes, looked up once a second and not once a request.

As long as no key exists everybody may do everything, which is for one machine (`shoal serve` then
listens on the loopback only). What the records say is remembered for a second: a key that is made
or revoked, here or by `shoal keys` in another process, counts at the latest one second later.
"""

import threading
import time
from collections.abc import Callable

from service.problem import Problem
from service.records import Key, Records, Scope

LIFE_S = 1.0
REMEMBERED = 4096  # secrets, wrong ones too

_ASK = {"WWW-Authenticate": "Bearer"}


class Gate:
    """`clock` gives seconds that only go forward."""

    def __init__(self, records: Records, clock: Callable[[], float] = time.monotonic) -> None:
        self._records, self._clock = records, clock
        self._until = -1.0
        self._open = False
        self._keys: dict[str, Key | None] = {}
        self._lock = threading.Lock()

    def known(self, authorization: str) -> bool:
        """Whether `admit` would answer without a look at the records."""
        return self._clock() < self._until and (
            not authorization or _secret(authorization) in self._keys
        )

    def admit(self, authorization: str, scope: Scope) -> str:
        """The caller's name.

        Raises:
            Problem: 401 without a key that counts, 403 without the scope.
            RecordsError: the records cannot be read.
        """
        with self._lock:
            if self._clock() >= self._until or len(self._keys) > REMEMBERED:
                self._keys.clear()
                self._open = not self._records.list_keys()
                self._until = self._clock() + LIFE_S
            if not authorization:
                if self._open:
                    return "local"
                raise Problem(401, "Not signed in", "send `Authorization: Bearer <key>`", _ASK)
            secret = _secret(authorization)
            if secret not in self._keys:
                self._keys[secret] = self._records.find_key(secret) if secret else None
            key = self._keys[secret]
        if key is None:
            raise Problem(401, "Not signed in", "no such key, or it is revoked", _ASK)
        if scope not in key.scopes:
            has = ", ".join(sorted(key.scopes))
            raise Problem(403, "Not allowed", f"this key lacks the scope `{scope}`; it has {has}")
        return key.name


def _secret(authorization: str) -> str:
    """The key in a header's value; empty when it is of another kind."""
    kind, _, secret = authorization.partition(" ")
    return secret.strip() if kind.lower() == "bearer" else ""
