"""The courier: takes what is due from the outbox to the webhooks it is for.

A message is a POST in the form of the Standard Webhooks specification, so that receivers can check it
with a library they have:

    webhook-id         the message's id: the same at every attempt, for receivers to tell a repetition
    webhook-timestamp  seconds since the epoch, of this attempt
    webhook-signature  v1,<base64 of HMAC-SHA256(secret, "<id>.<timestamp>.<body>")>

A receiver refuses a timestamp further than 5 minutes from his clock, and an id he has seen. The
secret is derived from the data folder's webhook.key and the webhook's id: it is shown when the
webhook is made, and kept nowhere.

Any 2xx is delivered. Anything else is tried again after 5 s, 10 s, 20 s, … (halved at random at the
most, so that a receiver that comes back is not met by everybody at once), ATTEMPTS times in about
three hours; then it is a dead letter.

Whoever may set a webhook could make us knock on doors of our own network. So the host is resolved
once, every address it has must be public (or in a network that the operator allowed), and the
connection goes to the address that was looked at: a name that changes its mind in between changes
nothing. Redirects are not followed, proxies of the environment not used.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import random
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from service.outbox import Due
from service.records import Records

ATTEMPTS = 12
FIRST_RETRY_MS = 5_000
LEASE_MS = 60_000  # who takes a message has as long; then another may
ROUND = 64  # messages taken at once
THREADS = 8
DEADLINE_S = 10.0  # for all of one attempt
URL_MAX = 2048

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_log = structlog.get_logger()


class BadUrl(ValueError):
    """A webhook cannot have this URL, and why; the words do not repeat it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a message goes: `address` is what `host` was found to be, and is connected to."""

    secure: bool
    host: str
    port: int
    path: str
    address: str


def secret_of(key: bytes, webhook_id: str) -> str:
    """A webhook's secret, `whsec_` and base64."""
    digest = hmac.digest(key, b"shoal webhook " + webhook_id.encode(), hashlib.sha256)
    return "whsec_" + base64.b64encode(digest).decode()


def sign(secret: str, message_id: str, timestamp_s: int, body: str) -> str:
    """The signature of a message.

    >>> sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek",
    ...      1614265330, '{"test": 2432232314}')
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    text = f"{message_id}.{timestamp_s}.{body}".encode()
    return "v1," + base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode()


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def target_of(url: str, allowed: Sequence[Network], resolve: Resolve = resolve) -> Target:
    """Where a webhook's URL leads now. Raises BadUrl if it must not be asked."""
    if len(url) > URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise BadUrl(f"a URL has at most {URL_MAX} printable ASCII characters and no spaces")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as problem:
        raise BadUrl(f"not a URL: {problem}") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise BadUrl("a webhook's URL begins with https:// and names a host")
    if parts.username is not None or parts.password is not None:
        raise BadUrl("a webhook's URL holds no user and no password: check the signature instead")
    secure = parts.scheme == "https"
    port = port or (443 if secure else 80)
    try:
        addresses = [ipaddress.ip_address(a.split("%")[0]) for a in resolve(parts.hostname, port)]
    except (OSError, UnicodeError):
        raise BadUrl("the host of the URL cannot be resolved") from None
    inside = [any(a in network for network in allowed) for a in addresses]
    if not addresses or not all(a or _public(b) for a, b in zip(inside, addresses, strict=True)):
        raise BadUrl(
            "the host has an address that is not public; see `shoal serve --webhook-allow`"
        )
    if not secure and not all(inside):
        raise BadUrl("a webhook's URL begins with https://, except in networks that are allowed")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(secure, parts.hostname, port, path, str(addresses[0]))


def _public(address: Address) -> bool:
    """Whether an address is on the open Internet, also when it carries another inside."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if any(a is not None and not _public(a) for a in inner):
            return False
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast


class Courier:
    """Delivers what is due, a round at a time.

    Args:
        key: of the data folder, from which every webhook's secret is derived.
        allowed: networks that are not public and may be asked all the same.
        clock: epoch milliseconds; dice: of the jitter; resolve, context: of TLS: for tests.
    """

    def __init__(
        self,
        records: Records,
        key: bytes,
        *,
        clock: Callable[[], int],
        allowed: Sequence[Network] = (),
        dice: random.Random | None = None,
        resolve: Resolve = resolve,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._records, self._key, self._clock = records, key, clock
        self._allowed, self._resolve = tuple(allowed), resolve
        self._dice = dice or random.SystemRandom()
        self._context = context or ssl.create_default_context()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="webhook")

    def secret(self, webhook_id: str) -> str:
        return secret_of(self._key, webhook_id)

    def check(self, url: str) -> str:
        """The host of a URL that a webhook may have. Raises BadUrl."""
        return target_of(url, self._allowed, self._resolve).host

    def round(self) -> int:
        """Attempt what is due, at most ROUND messages; returns how many that were."""
        due = self._records.take_deliveries(self._clock() + LEASE_MS, ROUND)
        told = list(self._threads.map(self._attempt, due))
        self._records.settle_deliveries(
            [message.id for message, error in zip(due, told, strict=True) if error is None],
            {
                message.id: (error, self._next(message.attempts))
                for message, error in zip(due, told, strict=True)
                if error is not None
            },
        )
        return len(due)

    def close(self) -> None:
        """Wait for the attempts under way; what they were for is due again when its lease ends."""
        self._threads.shutdown(cancel_futures=True)

    def _next(self, attempts: int) -> int | None:
        """When a message is due again after so many attempts; None: never."""
        if attempts >= ATTEMPTS:
            return None
        wait = FIRST_RETRY_MS * 2 ** (attempts - 1)
        return self._clock() + int(wait * self._dice.uniform(0.5, 1.0))

    def _attempt(self, message: Due) -> str | None:
        """Deliver; what went wrong, in words without the URL, which may hold a secret."""
        try:
            error = self._post(target_of(message.url, self._allowed, self._resolve), message)
        except BadUrl as problem:
            error = str(problem)
        except (OSError, http.client.HTTPException) as problem:
            error = f"{type(problem).__name__}: {getattr(problem, 'strerror', None) or 'failed'}"
        if error is not None:
            _log.warning(
                "webhook not delivered",
                webhook=message.webhook_id,
                message=message.message_id,
                attempt=message.attempts,
                why=error,
            )
        return error

    def _post(self, target: Target, message: Due) -> str | None:
        now_s = self._clock() // 1000
        secret = secret_of(self._key, message.webhook_id)
        headers = {
            "content-type": "application/json",
            "user-agent": "shoal",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": sign(secret, message.message_id, now_s, message.body),
        }
        connection = _Connection(target, self._context)
        # a receiver that sends a byte now and then would hold the thread for ever
        deadline = threading.Timer(DEADLINE_S, connection.cut)
        deadline.start()
        try:
            connection.request("POST", target.path, message.body.encode(), headers)
            status = connection.getresponse().status
        finally:
            deadline.cancel()
            connection.close()
        if 200 <= status < 300:
            return None
        return f"answered {status}" + (", and is not followed" if 300 <= status < 400 else "")


class _Connection(http.client.HTTPConnection):
    """To the address that was looked at, with the certificate of the name that was asked for."""

    def __init__(self, target: Target, context: ssl.SSLContext) -> None:
        super().__init__(target.host, target.port, timeout=DEADLINE_S)
        if target.secure:
            self.default_port = 443  # of the Host header
        self._target, self._context = target, context

    def connect(self) -> None:
        target = self._target
        self.sock = socket.create_connection((target.address, target.port), self.timeout)
        if target.secure:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=target.host)

    def cut(self) -> None:
        """End whatever is waited for, from another thread."""
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # it ended by itself
                sock.shutdown(socket.SHUT_RDWR)
