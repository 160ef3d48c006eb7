"""Who may come in, to do what, and how fast: bearer keys, their scopes and their rates.

As long as no key exists everybody may do everything, which is for one machine (`shoal serve` then
listens on the loopback only). Which keys there are is looked up twice a second and not once a request:
a key that is revoked by `shoal keys` in another process ends at the latest one second later, one that
is revoked over HTTP at once. A secret is looked up once. One that names no key that is known leads to
a fresh look, so that a new key counts at once, but not more than GUESSES times a second: strangers who
guess cost next to nothing.

While the records cannot be read, who was let in stays so for STALE_S: they are a database of their own, and
its restart is not to stop the decisions. A revocation cannot be known meanwhile.
"""

import ipaddress
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from service.database import RecordsError
from service.problem import Problem
from service.records import Records, Scope

LIFE_S = 1.0
STALE_S = 300.0
REMEMBERED = 4096  # secrets that name a key, wrong ones too
GUESSES = 20
RATE = 50_000.0  # events a second and key, if nothing else is said: more than one core decides
BURST_S = 5.0  # how many seconds' worth may come at once

_LOOPBACK_NAMES = ("localhost", "ip6-localhost")
_ASK = {"WWW-Authenticate": "Bearer"}


class Bucket:
    """A token bucket that may be overdrawn: who has anything left is let in, and pays afterwards.

    So a batch larger than the bucket passes, and on average nobody exceeds the rate.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._left, self._at = rate * BURST_S, clock()

    def wait_s(self) -> float:
        """Seconds until there is something left; 0 when there is."""
        now = self._clock()
        self._left = min(self._rate * BURST_S, self._left + (now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._left > 0 else -self._left / self._rate + 1e-3

    def pay(self, events: int) -> None:
        self._left -= events


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `scopes` is None for everybody on a machine without keys."""

    name: str
    scopes: frozenset[Scope] | None = None
    bucket: Bucket | None = None
    key_id: str = ""

    def must(self, scope: Scope) -> None:
        """Raises Problem (403) without the scope."""
        if self.scopes is not None and scope not in self.scopes:
            has = ", ".join(sorted(self.scopes))
            raise Problem(403, "Not allowed", f"this key lacks the scope `{scope}`; it has {has}")

    def knock(self) -> None:
        """Raises Problem (429) when more was sent than the key's rate lets through."""
        if self.bucket is not None:
            if wait := self.bucket.wait_s():
                raise Problem(
                    429,
                    "Too fast",
                    "this key sends more than its rate; slow down, or ask for a higher one",
                    {"Retry-After": str(math.ceil(wait))},
                )
            self.bucket.pay(1)

    def pay(self, events: int) -> None:
        if self.bucket is not None:
            self.bucket.pay(events)


class Gate:
    """`clock` gives seconds that only go forward; `rate` is in events a second and key.

    `look`, `admit` and `revoked` read the records and are for a thread; the rest answers from memory.
    """

    def __init__(
        self,
        records: Records,
        clock: Callable[[], float] = time.monotonic,
        rate: float = RATE,
    ) -> None:
        self._records, self._clock, self._rate = records, clock, rate
        self.lost: str | None = None  # why the records cannot be read, while they cannot
        self._until = self._known_at = -math.inf
        self._looking = False
        self._guesses, self._guessed_at = 0, -math.inf
        self._open = False
        self._callers: dict[str, Caller] = {}  # by key id; revoked ones are not here
        self._named: dict[str, str | None] = {}  # secret to key id
        self._lock = threading.Lock()

    @property
    def fresh(self) -> bool:
        """Whether what is known may be gone by; else somebody has to `look` first."""
        now = self._clock()
        # nobody waits for a look under way, which may be one at a database that hangs
        return now < self._until or (self._looking and now < self._known_at + STALE_S)

    def look(self) -> None:
        """Learn which keys there are. Raises RecordsError when what is known is too old, too."""
        with self._lock:
            self._look()

    def recall(self, authorization: str) -> Caller | None:
        """The caller as far as that is known; None where the records have to be asked (`admit`).

        Raises:
            Problem: 401 without a key that counts.
        """
        if not authorization:
            if self._open:
                return Caller("local")
            raise Problem(401, "Not signed in", "send `Authorization: Bearer <key>`", _ASK)
        secret = _secret(authorization)
        if secret in self._named:
            caller = self._callers.get(self._named[secret] or "")
            if caller is not None:
                return caller
        elif secret and (_id(secret) in self._callers or self._may_guess()):
            return None
        raise Problem(401, "Not signed in", "no such key, or it is revoked", _ASK)

    def admit(self, authorization: str) -> Caller:
        """The caller.

        Raises:
            Problem: 401 without a key that counts.
            RecordsError: the records cannot be read.
        """
        with self._lock:
            if not self.fresh:
                self._look()
            known = self.recall(authorization)
            if known is not None:
                return known
            secret = _secret(authorization)
            if _id(secret) not in self._callers and self._may_guess():
                self._guesses += 1
                self._look()
            if _id(secret) in self._callers:
                if len(self._named) >= REMEMBERED:
                    self._named.clear()
                found = self._records.find_key(secret)
                self._named[secret] = found.id if found else None
            caller = self._callers.get(self._named.get(secret) or "")
        if caller is None:
            raise Problem(401, "Not signed in", "no such key, or it is revoked", _ASK)
        return caller

    def holder(self, key_id: str) -> Caller:
        """The holder of the key with this id; sessions name it so.

        Raises:
            Problem: 401 when it is revoked.
        """
        caller = self._callers.get(key_id)
        if caller is None:
            raise Problem(401, "Not signed in", "the key of this session is revoked", _ASK)
        return caller

    def revoked(self, key_id: str) -> None:
        """A key was just revoked: it ends now. Raises RecordsError."""
        with self._lock:
            self._callers.pop(key_id, None)  # also if the records are gone by now
            self._look()

    def _may_guess(self) -> bool:
        now = self._clock()
        if now >= self._guessed_at + LIFE_S:
            self._guesses, self._guessed_at = 0, now
        return self._guesses < GUESSES

    def _look(self) -> None:
        self._looking = True
        try:
            keys = self._records.list_keys()
        except RecordsError as problem:
            self.lost = str(problem)
            if self._clock() >= self._known_at + STALE_S:
                raise
            self._until = self._clock() + LIFE_S
            return
        finally:
            self._looking = False
        before = self._callers
        self._callers = {
            k.id: before.get(k.id)
            or Caller(k.name, k.scopes, Bucket(k.rate or self._rate, self._clock), k.id)
            for k in keys
            if k.revoked_at is None
        }
        self._open = not keys
        self.lost, self._known_at = None, self._clock()
        self._until = self._known_at + LIFE_S


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES


@lru_cache(maxsize=64)
def refuse_rebound(host: bytes) -> None:
    """Raises Problem (403) where a `Host` names another machine.

    A service without keys listens on the loopback only. Whoever asks it for another name is a page whose
    name was made to lead here (DNS rebinding), and its `Origin` is right.
    """
    try:
        name = urlsplit(f"//{host.decode('latin-1')}").hostname or ""
    except ValueError:
        name = ""
    if host and not is_loopback(name):
        raise Problem(403, "Forged", "without a key this service answers to localhost only")


def _secret(authorization: str) -> str:
    """The key in a header's value; empty when it is of another kind."""
    kind, _, secret = authorization.partition(" ")
    return secret.strip() if kind.lower() == "bearer" else ""


def _id(secret: str) -> str:
    """The id of the key that a secret names, whether there is one or not."""
    return secret.split("_", 2)[1] if secret.count("_") >= 2 else ""
