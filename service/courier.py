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

No receiver is waited for on another's account. A webhook has AT_ONCE attempts under way at the most,
and a round waits for the first that ends. After a failure its other messages are held back as well,
for 5 s, 10 s, … up to a minute each time it fails on end, and then one is tried. They are not
counted as attempted, and wait for three days. Webhooks that failed last share half of the threads:
however many hang, those that answer have the other half. When more than THREADS / AT_ONCE begin to
hang in the same moment, the others wait for one deadline, and no more once it is known. Who fails is
known to this process only: another, or the next, finds out with AT_ONCE attempts.

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
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from service.database import RecordsError
from service.outbox import Due
from service.records import Records

ATTEMPTS = 12
FIRST_RETRY_MS = 5_000
LEASE_MS = 60_000  # who takes a message has as long; then another may
PAUSE_MAX_MS = 60_000  # how long a receiver that is back waits for us at the most
THREADS = 64  # they do little but wait
AT_ONCE = 4  # attempts to one webhook
ROUND_S = 1.0  # a round looks for what has become due meanwhile after this time
DEADLINE_S = 10.0  # for all of one attempt
PRUNE_EVERY_MS = 600_000  # and not before: after a time off, receivers have a chance first
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


@dataclass(slots=True)
class Failing:
    """A webhook whose last attempt failed: how often on end, and until when it is left alone."""

    failures: int = 0
    until: int = 0


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
    """Delivers what is due, a round at a time; on one thread, with others for the attempts.

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
        self._under_way: dict[Future[str | None], Due] = {}
        self._failing: dict[str, Failing] = {}
        self._prune_at = clock() + PRUNE_EVERY_MS

    def secret(self, webhook_id: str) -> str:
        return secret_of(self._key, webhook_id)

    def check(self, url: str) -> str:
        """The host of a URL that a webhook may have. Raises BadUrl."""
        return target_of(url, self._allowed, self._resolve).host

    def round(self) -> int:
        """Begin what is due and has room, wait for the first attempt that ends, and write down how
        those went that have; returns how many.
        """
        limits = self._room(self._records.webhooks_due())
        for message in self._records.take_deliveries(self._clock() + LEASE_MS, limits):
            self._under_way[self._threads.submit(self._attempt, message)] = message
        ended, _ = wait(self._under_way, ROUND_S, FIRST_COMPLETED)
        self._settle(ended)
        self._prune()
        return len(ended)

    def close(self) -> None:
        """Wait for the attempts under way, and write down how they went."""
        self._threads.shutdown()
        try:
            self._settle(list(self._under_way))
        except RecordsError as problem:  # they are due again when their lease ends
            _log.error("webhooks may be told twice", why=str(problem))

    def _room(self, due: Sequence[str]) -> Counter[str]:
        """How many more attempts each of these webhooks may have now."""
        now, failing = self._clock(), self._failing
        busy = Counter(message.webhook_id for message in self._under_way.values())
        ill = [id for id in due if id in failing and failing[id].until <= now and not busy[id]]
        ill.sort(key=lambda id: failing[id].until)
        well = [id for n in range(AT_ONCE) for id in due if id not in failing and busy[id] <= n]
        probes = THREADS // 2 - sum(busy[id] for id in failing)
        return Counter((ill[: max(probes, 0)] + well)[: THREADS - len(self._under_way)])

    def _settle(self, ended: Collection[Future[str | None]]) -> None:
        told: list[int] = []
        failed: dict[int, tuple[str, int | None]] = {}
        for attempt in ended:
            message, error = self._under_way.pop(attempt), attempt.result()
            if error is None:
                told.append(message.id)
                self._failing.pop(message.webhook_id, None)
            else:
                failed[message.id] = error, self._next(message.attempts)
                self._hold_back(message.webhook_id)
        self._records.settle_deliveries(told, failed)

    def _hold_back(self, webhook_id: str) -> None:
        known = self._failing.setdefault(webhook_id, Failing())
        if known.until <= self._clock():  # those that began together failed once
            known.failures += 1
            known.until = self._clock() + min(self._pause(known.failures), PAUSE_MAX_MS)

    def _next(self, attempts: int) -> int | None:
        """When a message is due again after so many attempts; None: never."""
        return self._clock() + self._pause(attempts) if attempts < ATTEMPTS else None

    def _pause(self, failures: int) -> int:
        longest = FIRST_RETRY_MS * 2 ** (min(failures, ATTEMPTS) - 1)
        return int(longest * self._dice.uniform(0.5, 1.0))

    def _prune(self) -> None:
        """Now and then, and then in every round until there is nothing more."""
        now = self._clock()
        if now >= self._prune_at:
            held_back = [id for id, known in self._failing.items() if known.until > now]
            given_up, dropped = self._records.prune_deliveries(held_back)
            if given_up or dropped:
                _log.warning("webhook messages are not kept", given_up=given_up, dropped=dropped)
            else:
                self._prune_at = now + PRUNE_EVERY_MS

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
