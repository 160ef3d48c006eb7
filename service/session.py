"""Sessions of the console: a browser signs in with a key once, and has a signed cookie from then on.

    shoal_session = <key id>.<ends at, epoch s>.<nonce>.<HMAC of the rest>

The cookie names the key and holds nothing of it: every instance with this data folder's `webhook.key`
knows it. A session ends with its key (a revoked one at the latest a second later), after LIFE_S, or when
it is signed out: then the browser forgets it, and so does the instance that was told, copies included,
for as long as it runs.

So that no other site can use it: the cookie is `SameSite=Strict` and `HttpOnly`; a request by session
that changes something must bring the session's token in `X-CSRF-Token` (`GET /v1/session` tells it,
which no other site can read), and must not be said to come from elsewhere by `Sec-Fetch-Site` or
`Origin`. The token is an HMAC of the session (OWASP's "HMAC based token"). Where there are no keys yet,
and everybody on this machine may do everything, other sites are refused likewise, and so is whoever asks
for another name than this machine's own (`service/gate.py`).
Requests with a key in `Authorization` need none of it: a browser does not send that by itself.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.problem import Problem

COOKIE = "shoal_session"
LIFE_S = 8 * 3600
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

Headers = Mapping[bytes, bytes]  # names in lower case


@dataclass(frozen=True, slots=True)
class Session:
    key_id: str
    ends_at: int  # epoch seconds
    csrf: str


class Sessions:
    """`key` is a secret of 32 bytes of the data folder; `clock` gives epoch seconds."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key = hashlib.blake2b(key, digest_size=32, person=b"shoal session").digest()
        self._clock = clock
        self._ended: dict[
            str, int
        ] = {}  # tokens of those that were signed out, and when they would end

    def begin(self, key_id: str) -> str:
        """The cookie of a new session of the holder of this key."""
        said = f"{key_id}.{int(self._clock()) + LIFE_S}.{secrets.token_hex(16)}"
        return f"{said}.{self._mac('cookie', said)}"

    def of(self, headers: Headers) -> Session | None:
        """The session that a request is by; None without one, a forged or a past one, or with a key."""
        if headers.get(b"authorization"):
            return None
        said, _, mac = _cookie(headers).rpartition(".")
        if not said or not hmac.compare_digest(mac.encode(), self._mac("cookie", said).encode()):
            return None
        key_id, ends_at, _ = said.split(".")
        if int(ends_at) <= self._clock():
            return None
        csrf = self._mac("csrf", said)
        return None if csrf in self._ended else Session(key_id, int(ends_at), csrf)

    def end(self, session: Session) -> None:
        """It was signed out."""
        now = self._clock()
        self._ended = {csrf: at for csrf, at in self._ended.items() if at > now}
        self._ended[session.csrf] = session.ends_at

    def _mac(self, what: str, said: str) -> str:
        return hmac.new(self._key, f"{what}:{said}".encode(), hashlib.sha256).hexdigest()


def _cookie(headers: Headers) -> str:
    """The value of our cookie; empty without one.

    `http.cookies` is not used: strangers send this, its time is quadratic in what they send, and one odd
    cookie of another service on this host would cost the whole header.
    """
    for part in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def refuse_forged(session: Session, method: str, headers: Headers) -> None:
    """Raises Problem (403) where a request by session changes something and may be another site's."""
    if method in SAFE:
        return
    refuse_elsewhere(headers)
    if not hmac.compare_digest(headers.get(b"x-csrf-token", b""), session.csrf.encode()):
        raise Problem(
            403,
            "Forged",
            "a request by session that changes something brings `X-CSRF-Token`, from GET /v1/session",
        )


def refuse_elsewhere(headers: Headers) -> None:
    """Raises Problem (403) where a browser says that a request is another site's."""
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        ours = site in (b"same-origin", b"none")
    elif origin is not None:
        # an older browser, or plain http off this machine; a proxy has to leave `Host` as it was
        ours = origin.partition(b"://")[2] == headers.get(b"host", b"")
    else:
        ours = True  # not a browser, which would send one or the other with what changes something
    if not ours:
        raise Problem(403, "Forged", "this request comes from another site")
