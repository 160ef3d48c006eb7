"""Webhooks: the outbox on each kind of database, and the courier against real receivers."""

import base64
import hashlib
import hmac
import ipaddress
import json
import random
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Start, a_ring, live, post

from service import courier, outbox
from service.courier import (
    AT_ONCE,
    ATTEMPTS,
    FIRST_RETRY_MS,
    LEASE_MS,
    PRUNE_EVERY_MS,
    BadUrl,
    Courier,
    sign,
    target_of,
)
from service.outbox import DEAD_MS, WAITS_MS
from service.records import Decision, NotFound, Records

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
KEY = bytes(32)


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


@dataclass
class Receiver:
    """A receiver of webhooks that answers with `status`, and keeps what it was sent."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""
    port: int = 0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


class receiving:  # noqa: N801 # a context manager
    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        mine = self.receiver = Receiver()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the library's name
                body = self.rfile.read(int(self.headers["content-length"]))
                mine.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(mine.status)
                for name, value in mine.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # of its 5, the sixth of several couriers waits a second

        self.server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        mine.port = self.server.server_address[1]
        mine.url = f"http{'s' if context else ''}://127.0.0.1:{mine.port}/hook?token=hush"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> Receiver:
        self.thread.start()
        return self.receiver

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(database: Callable[[], str], clock: Clock) -> Iterator[Records]:
    with Records(database(), clock=clock) as records:
        yield records


Couriers = Callable[..., Courier]


@pytest.fixture
def new_courier(records: Records, clock: Clock) -> Iterator[Couriers]:
    made: list[Courier] = []

    def make(**more: Any) -> Courier:
        dice = random.Random(7)
        given = {"allowed": LOOPBACK, "dice": dice} | more
        made.append(Courier(records, KEY, clock=clock, **given))
        return made[-1]

    yield make
    for one in made:
        one.close()


def drain(carry: Courier) -> int:
    """Rounds until none ends anything; how many attempts ended."""
    ended = 0
    while n := carry.round():
        ended += n
    return ended


class silent:  # noqa: N801 # a context manager
    """A receiver that accepts and says nothing, until it goes: its port, and who was asked so far."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __enter__(self) -> "silent":
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def resolve(self, host: str, port: int) -> list[str]:
        """For a courier: every attempt asks once."""
        if port == self.port:
            self.asked.append(host)
        return ["127.0.0.1"]


def acted(n: int, account: str = "acct_1") -> Decision:
    return Decision(f"e{n}", account, n, "review", 0.5, [{"code": "C"}], "m", "p", "k1")


# --- what is told


def test_what_happened_is_told_and_signed(
    records: Records, receiver: Receiver, new_courier: Couriers, clock: Clock
) -> None:
    carry = new_courier()
    assert carry.round() == 0
    hook = records.add_webhook(receiver.url, ["decision", "case.opened"], "h", by="ann")
    records.add_decisions([acted(1)])
    records.add_decisions([acted(1)])  # known: nothing happened
    records.open_or_update_case("k1", "review", {"members": ["acct_1"], "size": 1, "score": 0.9})
    assert drain(carry) == 2
    bodies = [json.loads(body) for _, body in receiver.got]
    by_type = {body["type"]: body for body in bodies}
    assert by_type["decision"]["data"]["event_id"] == "e1"
    assert by_type["decision"]["data"]["reasons"] == [{"code": "C"}]
    told = by_type["case.opened"]
    assert told["timestamp"] == clock.now
    assert (told["data"]["status"], told["data"]["size"], told["data"]["score"]) == ("open", 1, 0.9)
    assert "acct_1" not in json.dumps(told)  # a case is told without names
    secret = base64.b64decode(carry.secret(hook.id).removeprefix("whsec_"))
    for headers, body in receiver.got:
        text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        mac = base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{mac}"
        assert int(headers["webhook-timestamp"]) == clock.now // 1000
    assert records.list_webhooks() == [hook]  # nothing waits, nothing is dead


def test_a_case_is_news_when_people_would_act_on_it(
    records: Records, receiver: Receiver, new_courier: Couriers
) -> None:
    carry = new_courier()
    records.add_webhook(receiver.url, ["case.opened", "case.updated", "case.closed"], "h")
    case = records.open_or_update_case("k", "review", {"members": ["a"], "score": 0.1})
    records.open_or_update_case("k", "review", {"members": ["a"], "score": 0.2})  # no news
    records.open_or_update_case("k", "review", {"members": ["a", "b"], "score": 0.2})
    records.open_or_update_case("k", "suspend", {"members": ["b", "a"], "score": 0.2})
    records.claim_case(case.id, "ann")
    records.claim_case(case.id, "ann")  # no news
    records.decide_case(case.id, "ann", "suspend")
    drain(carry)
    bodies = [json.loads(body) for _, body in receiver.got]
    assert sorted(b["type"] for b in bodies) == [
        "case.closed", "case.opened", "case.updated", "case.updated", "case.updated"
    ]  # fmt: skip
    (closed,) = (b["data"] for b in bodies if b["type"] == "case.closed")
    assert (closed["decided_by"], closed["decided_action"]) == ("ann", "suspend")


def test_what_was_rolled_back_is_not_told(
    records: Records, receiver: Receiver, new_courier: Couriers
) -> None:
    records.add_webhook(receiver.url, ["case.closed"], "h")
    case = records.open_or_update_case("k", "review", {})
    with pytest.raises(ValueError, match="label is"):
        records.decide_case(case.id, "ann", "suspend", label="x")  # type: ignore[arg-type]
    assert new_courier().round() == 0


def test_a_removed_webhook_is_told_nothing_more(
    records: Records, receiver: Receiver, new_courier: Couriers
) -> None:
    hook = records.add_webhook(receiver.url, ["decision"], "h")
    records.add_decisions([acted(1)])
    records.remove_webhook(hook.id)
    records.add_decisions([acted(2)])
    assert new_courier().round() == 0
    for act in (records.remove_webhook, records.get_webhook, records.redeliver):
        with pytest.raises(NotFound, match="no webhook"):
            act(hook.id)  # type: ignore[operator]


def test_unknown_events_get_a_hint(records: Records) -> None:
    with pytest.raises(ValueError, match=r"event is 'decisions'.*did you mean 'decision'"):
        records.add_webhook("https://h", ["decisions"], "h")  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least one event"):
        records.add_webhook("https://h", [], "h")


# --- what fails


def test_a_failure_is_tried_again_later_each_time_and_then_given_up(
    records: Records, receiver: Receiver, new_courier: Couriers, clock: Clock
) -> None:
    carry = new_courier()
    hook = records.add_webhook(receiver.url, ["decision"], "h")
    records.add_decisions([acted(1)])
    receiver.status = 500
    for attempt in range(1, ATTEMPTS + 1):
        assert carry.round() == 1
        assert carry.round() == 0  # not at once
        longest = FIRST_RETRY_MS * 2 ** (attempt - 1)
        clock.now += longest // 2 - 1
        assert carry.round() == 0
        clock.now += longest // 2 + 1
    clock.now += 10**9
    assert carry.round() == 0
    found, (letter,) = records.get_webhook(hook.id)
    assert (found.waiting, found.dead) == (0, 1)
    assert (letter.attempts, letter.error) == (ATTEMPTS, "answered 500")
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({headers["webhook-timestamp"] for headers, _ in receiver.got}) == ATTEMPTS
    receiver.status = 204
    assert records.redeliver(hook.id, by="ann") == 1
    assert carry.round() == 1
    assert records.get_webhook(hook.id)[0].dead == 0
    assert records.list_audit()[-1].action == "redeliver"


def test_a_courier_that_dies_in_the_middle_loses_nothing(
    records: Records, receiver: Receiver, new_courier: Couriers, clock: Clock
) -> None:
    hook = records.add_webhook(receiver.url, ["decision"], "h")
    records.add_decisions([acted(1)])
    (taken,) = records.take_deliveries(clock.now + LEASE_MS, {hook.id: 10})  # and never settled
    carry = new_courier()
    assert carry.round() == 0
    clock.now += LEASE_MS
    assert carry.round() == 1
    ((headers, _),) = receiver.got
    assert headers["webhook-id"] == taken.message_id


def test_a_receiver_that_hangs_holds_up_nobody_else(
    records: Records, receiver: Receiver, new_courier: Couriers
) -> None:
    """It has the oldest messages, and more than there are threads."""
    with silent() as bad:
        carry = new_courier(resolve=bad.resolve)
        hook = records.add_webhook(f"http://127.0.0.1:{bad.port}/", ["decision"], "h")
        records.add_decisions([acted(n) for n in range(100)])
        records.add_webhook(receiver.url, ["decision"], "h")
        records.add_decisions([acted(n) for n in range(100, 120)])
        assert drain(carry) == 20
        assert len(bad.asked) == AT_ONCE
    carry.close()
    assert len(receiver.got) == 20
    assert records.get_webhook(hook.id)[0].waiting == 120


def test_more_receivers_hang_than_there_are_threads(
    records: Records,
    receiver: Receiver,
    new_courier: Couriers,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once they are known for it, they have half of the threads, whatever is due to them."""
    monkeypatch.setattr(courier, "THREADS", 4)
    with silent() as bad:
        carry = new_courier(resolve=bad.resolve)
        hosts = [f"h{n}.example" for n in range(9)]
        for host in hosts:
            records.add_webhook(f"http://{host}:{bad.port}/", ["decision"], "h")
        records.add_decisions([acted(n) for n in range(5)])
        monkeypatch.setattr(courier, "DEADLINE_S", 0.1)
        _until(lambda: carry.round() == 0 and set(bad.asked) == set(hosts))
        monkeypatch.setattr(courier, "DEADLINE_S", 60.0)
        clock.now += FIRST_RETRY_MS
        bad.asked.clear()
        assert carry.round() == 0
        records.add_webhook(receiver.url, ["decision"], "h")
        records.add_decisions([acted(n) for n in range(5, 10)])
        assert drain(carry) == 5
        assert len(set(bad.asked)) == len(bad.asked) == 2
    carry.close()
    assert len(receiver.got) == 5


def test_a_receiver_that_hangs_is_cut_off(
    records: Records, new_courier: Couriers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "DEADLINE_S", 0.2)
    with silent() as bad:
        hook = records.add_webhook(f"http://127.0.0.1:{bad.port}/", ["decision"], "h")
        records.add_decisions([acted(1)])
        assert drain(new_courier()) == 1
    assert records.get_webhook(hook.id)[0].waiting == 1


def test_what_fails_holds_back_the_rest_of_its_webhook(
    records: Records, receiver: Receiver, new_courier: Couriers, clock: Clock
) -> None:
    carry = new_courier()
    hook = records.add_webhook(receiver.url, ["decision"], "h")
    records.add_decisions([acted(n) for n in range(50)])
    receiver.status = 500
    assert drain(carry) <= AT_ONCE
    clock.now += FIRST_RETRY_MS
    assert drain(carry) == 1  # to see whether it is back
    clock.now += FIRST_RETRY_MS - 1
    assert drain(carry) == 0  # at least half of twice as long
    receiver.status = 200
    clock.now += FIRST_RETRY_MS + 1
    assert drain(carry) == 50
    assert records.get_webhook(hook.id)[0].waiting == 0


def test_in_an_outage_no_attempt_is_counted_that_was_not_made(
    records: Records, receiver: Receiver, new_courier: Couriers, clock: Clock
) -> None:
    carry = new_courier()
    hook = records.add_webhook(receiver.url, ["decision"], "h")
    records.add_decisions([acted(n) for n in range(12)])
    receiver.status = 500
    for _ in range(200):
        clock.now += 60_000
        drain(carry)
    made = Counter(headers["webhook-id"] for headers, _ in receiver.got)
    found, letters = records.get_webhook(hook.id)
    assert {x.message_id for x in letters} == {m for m, n in made.items() if n == ATTEMPTS}
    assert 0 < found.dead < 12
    assert max(made.values()) == ATTEMPTS
    receiver.status = 200
    clock.now += 10**9  # a machine that slept: what waits is tried before it is given up
    assert drain(carry) == 12 - found.dead
    assert records.get_webhook(hook.id)[0].waiting == 0


def test_several_couriers_share_the_work(
    records: Records, receiver: Receiver, new_courier: Couriers
) -> None:
    records.add_webhook(receiver.url, ["decision"], "h")
    records.add_decisions([acted(n) for n in range(60)])
    couriers = [new_courier() for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        assert sum(threads.map(drain, couriers)) == 60
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == len(receiver.got) == 60


def test_what_ends_while_the_courier_closes_is_written_down(
    records: Records, receiver: Receiver, new_courier: Couriers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "ROUND_S", 0.0)
    hook = records.add_webhook(receiver.url, ["decision"], "h")
    records.add_decisions([acted(1)])
    carry = new_courier()
    carry.round()
    carry.close()
    assert len(receiver.got) == 1
    assert records.get_webhook(hook.id)[0].waiting == 0


# --- what is forgotten


def test_what_waits_too_long_for_a_receiver_that_fails_is_given_up(
    records: Records, receiver: Receiver, new_courier: Couriers, clock: Clock
) -> None:
    well = records.add_webhook(receiver.url, ["decision"], "h")
    ill = records.add_webhook("https://203.0.113.1/", ["decision"], "h")  # refused: not public
    records.add_decisions([acted(n) for n in range(20)])
    clock.now += WAITS_MS  # the service was off, which is no receiver's fault
    carry = new_courier()
    drain(carry)
    assert len(receiver.got) == 20
    found, _ = records.get_webhook(ill.id)
    assert (found.waiting, found.dead) == (20, 0)
    clock.now += PRUNE_EVERY_MS
    drain(carry)
    found, letters = records.get_webhook(ill.id)
    assert (found.waiting, found.dead) == (AT_ONCE + 1, 20 - AT_ONCE - 1)  # tried: due again
    assert {x.error for x in letters} == {"due for 3 days, while the receiver failed"}
    assert records.get_webhook(well.id)[0].dead == 0
    assert records.redeliver(ill.id) == found.dead
    drain(carry)
    clock.now += PRUNE_EVERY_MS
    drain(carry)
    assert records.get_webhook(ill.id)[0].dead == 0  # as if new


def test_dead_letters_are_kept_for_a_time_and_up_to_a_number(
    records: Records,
    receiver: Receiver,
    new_courier: Couriers,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(courier, "ATTEMPTS", 1)
    monkeypatch.setattr(outbox, "DEAD_MAX", 7)
    monkeypatch.setattr(outbox, "PRUNED", 2)  # rows at once
    carry = new_courier()
    receiver.status = 500
    hooks = [records.add_webhook(receiver.url + x, ["decision"], "h") for x in "ab"]
    for n in range(10):
        records.add_decisions([acted(n)])
        drain(carry)
        clock.now += courier.PAUSE_MAX_MS
    assert [h.dead for h in records.list_webhooks()] == [10, 10]
    before = [records.get_webhook(h.id)[1] for h in hooks]
    receiver.status = 200
    clock.now += PRUNE_EVERY_MS
    for _ in range(3):
        carry.round()
    assert [records.get_webhook(h.id)[1] for h in hooks] == [told[:7] for told in before]
    clock.now = before[0][3].created_at + DEAD_MS
    for _ in range(3):
        carry.round()
    assert [records.get_webhook(h.id)[1] for h in hooks] == [told[:4] for told in before]


def test_redirects_are_not_followed(
    records: Records, receiver: Receiver, new_courier: Couriers
) -> None:
    hook = records.add_webhook(receiver.url, ["decision"], "h")
    receiver.status, receiver.headers = 307, {"location": receiver.url}
    records.add_decisions([acted(1)])
    new_courier().round()
    assert len(receiver.got) == 1
    assert records.get_webhook(hook.id)[0].waiting == 1


# --- where it may go


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:0:a00:1::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(BadUrl, match="not public"):
        target_of("https://example.org/", [], lambda *_: [address])
    with pytest.raises(BadUrl, match="not public"):  # one of several is enough
        target_of("https://example.org/", [], lambda *_: ["93.184.216.34", address])


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_are_not(address: str) -> None:
    target = target_of("https://example.org/a?b", [], lambda *_: [address])
    assert (target.address, target.port, target.path) == (address, 443, "/a?b")
    with pytest.raises(BadUrl, match="https"):
        target_of("http://example.org/", [], lambda *_: [address])


@given(st.ip_addresses(v=4))
def test_no_private_address_passes_in_any_dress(address: ipaddress.IPv4Address) -> None:
    """As it is, mapped, by 6to4 and by NAT64: public exactly when it is."""
    public = address.is_global and not address.is_multicast
    n = int(address)
    dresses = [
        str(address),
        f"::ffff:{address}",
        str(ipaddress.IPv6Address((0x2002 << 112) | (n << 80))),
        str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | n)),
    ]
    for dress in dresses:
        try:
            target_of("https://h/", [], lambda *_, d=dress: [d])
        except BadUrl:
            passed = False
        else:
            passed = True
        assert not passed or public, dress


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.org/", "https"),
        ("https:///x", "names a host"),
        ("https://me:hunter2@example.org/", "no password"),
        ("https://example.org:x/", "not a URL"),
        ("https://example.org/\r\nx: y", "printable"),
        ("https://exämple.org/", "printable"),
        ("https://example.org/" + "a" * 3000, "at most"),
    ],
)
def test_bad_urls(url: str, said: str) -> None:
    with pytest.raises(BadUrl, match=said) as caught:
        target_of(url, [], lambda *_: ["93.184.216.34"])
    assert "hunter2" not in str(caught.value)


def test_a_name_that_changes_its_mind_changes_nothing(
    records: Records, receiver: Receiver, new_courier: Couriers
) -> None:
    """DNS rebinding: public when looked at first, ours when connected to."""
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    carry = new_courier(allowed=[], resolve=rebinding)
    url = f"https://rebinding.example:{receiver.port}/"
    assert carry.check(url) == "rebinding.example"
    hook = records.add_webhook(url, ["decision"], "rebinding.example")
    records.add_decisions([acted(1)])
    carry.round()
    assert receiver.got == []
    assert len(asked) == 2  # each attempt looks once, and connects to what it saw
    assert records.get_webhook(hook.id)[0].waiting == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_the_certificate_is_checked_against_the_name(
    records: Records, new_courier: Couriers, tmp_path: Path
) -> None:
    """Connected to by address, the receiver still has to prove the name."""
    words = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=hook.example",
    ]
    words += ["-addext", "subjectAltName=DNS:hook.example", "-keyout", "key.pem", "-out", "c.pem"]
    subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "c.pem", tmp_path / "key.pem")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "c.pem"))
    with receiving(served) as receiver:
        here: Callable[[str, int], list[str]] = lambda *_: ["127.0.0.1"]  # noqa: E731
        carry = new_courier(context=trusting, resolve=here)
        right = records.add_webhook(f"https://hook.example:{receiver.port}/", ["decision"], "h")
        wrong = records.add_webhook(f"https://other.example:{receiver.port}/", ["decision"], "h")
        records.add_decisions([acted(1)])
        assert drain(carry) == 2
    ((headers, _),) = receiver.got
    assert headers["host"] == f"hook.example:{receiver.port}"
    assert records.get_webhook(right.id)[0].waiting == 0
    assert records.get_webhook(wrong.id)[0].waiting == 1


def test_signature_of_the_specification() -> None:
    """The example that implementations of Standard Webhooks are held to."""
    signed = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        '{"test": 2432232314}',
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# --- over HTTP


def test_webhooks_over_http(
    start: Start, receiver: Receiver, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with live(start(), webhook_allow=LOOPBACK) as api:
        wanted = {"url": receiver.url, "events": ["case.opened"]}
        made = api.post("/v1/webhooks", json=wanted)
        assert made.status_code == 201
        secret = made.json()["secret"]
        id = made.json()["id"]
        assert secret not in api.get("/v1/webhooks").text + api.get(f"/v1/webhooks/{id}").text
        bad = api.post("/v1/webhooks", json=wanted | {"url": "https://[::1]/"})
        assert bad.status_code == 422
        assert bad.json()["errors"][0]["pointer"] == "#/url"
        receiver.status = 500
        post(api, a_ring())
        api.post("/v1/sweep")
        _until(lambda: bool(receiver.got))
        _until(lambda: api.get(f"/v1/webhooks/{id}").json()["waiting"] == 1)
        assert api.delete(f"/v1/webhooks/{id}").json() == {"removed": id}
        assert api.delete(f"/v1/webhooks/{id}").status_code == 404
    assert json.loads(receiver.got[0][1])["type"] == "case.opened"
    said = "".join(capfd.readouterr())
    assert "webhook not delivered" in said
    raw = secret.removeprefix("whsec_").encode()
    assert raw.decode() not in said
    assert "hush" not in said  # a secret of the receiver's, in his URL
    for file in (tmp_path / "data").rglob("*"):
        if file.is_file():
            assert raw not in file.read_bytes()
    assert (tmp_path / "data" / "webhook.key").stat().st_mode & 0o077 == 0


def _until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        threading.Event().wait(0.05)
    raise AssertionError("not within 30 s")


def test_only_admins_have_webhooks(start: Start) -> None:
    shoal = start()
    key = shoal.records.create_key("ann", ["read", "act", "ingest"])
    headers = {"authorization": f"Bearer {key}"}
    wanted = {"url": "https://example.org/", "events": ["decision"]}
    with live(shoal) as api:
        for method, path in (
            ("GET", "/v1/webhooks"),
            ("POST", "/v1/webhooks"),
            ("GET", "/v1/webhooks/x"),
            ("DELETE", "/v1/webhooks/x"),
            ("POST", "/v1/webhooks/x/redeliver"),
        ):
            assert api.request(method, path, json=wanted, headers=headers).status_code == 403


def test_the_documented_receiver_checks_what_the_courier_signs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    (code,) = re.findall(r"```python\n(.+?)```", text, re.S)
    documented: dict[str, Any] = {}
    exec(code, documented)
    now, secret, body = int(time.time()), courier.secret_of(KEY, "wh_1"), '{"a":1}'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secret, "msg_1", now, body),
    }
    verify = documented["verify"]
    verify(secret, headers, body.encode())
    with pytest.raises(ValueError, match="not signed"):
        verify(secret, headers, b'{"a":2}')
    with pytest.raises(ValueError, match="not signed"):
        verify(courier.secret_of(KEY, "wh_2"), headers, body.encode())
    with pytest.raises(ValueError, match="not signed"):
        verify(secret, headers | {"webhook-timestamp": str(now - 1)}, body.encode())
    with pytest.raises(ValueError, match="replay"):
        verify(secret, headers | {"webhook-timestamp": str(now - 400)}, body.encode())
