"""What comes before there is a request: bounded in bytes and in time, and refused as a problem."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from served import Start, live, one

from service import head

ASK = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture
def api(start: Start) -> Iterator[httpx.Client]:
    with live(start()) as client:
        yield client


def read_on(raw: socket.socket) -> bytes:
    """Everything until the other side hangs up."""
    return b"".join(iter(lambda: raw.recv(1 << 16), b""))


def said(api: httpx.Client, sent: list[bytes], pause: float = 0) -> tuple[int, Any]:
    """Status and problem that a connection is told before it is ended; 0 and None if nothing."""
    where = (api.base_url.host, api.base_url.port or 0)
    told = b""
    with socket.create_connection(where, timeout=20) as raw:
        try:
            for piece in sent:
                raw.sendall(piece)
                time.sleep(pause)
            told = read_on(raw)
        except ConnectionError:  # it was ended while we were still sending
            pass
    if not told:
        return 0, None
    first, _, body = told.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    "endless",
    [
        [b"GET /", *[b"a" * 1000] * 2000],
        [ASK + b"x: ", *[b"a" * 10_000] * 200],
        [ASK, *[b"x: a\r\n" * 100] * 4000],
        [POST + b"transfer-encoding: chunked\r\n\r\n0\r\n", *[b"x: a\r\n" * 100] * 4000],
        [POST + b"transfer-encoding: chunked\r\n\r\n1;", *[b"x=a;" * 100] * 4000],
    ],
    ids=["path", "header", "headers", "trailers", "extension"],
)
def test_a_head_without_an_end_is_cut_off(api: httpx.Client, endless: list[bytes]) -> None:
    began = time.monotonic()
    status, problem = said(api, endless)
    # whoever still sends when it is cut off may not get to read why
    assert status in (0, 400, 431)
    assert problem is None or problem["status"] == status
    assert time.monotonic() - began < head.HEAD_S  # by its bytes, not by the time it took
    assert api.get("/readyz").status_code == 200


def test_why_is_told(api: httpx.Client) -> None:
    # in one piece, read to the end before it is refused
    status, problem = said(api, [ASK + b"x: " + b"a" * head.HEAD_MAX])
    assert (status, problem["title"]) == (431, "Head too large")
    status, problem = said(api, [b"\x16\x03\x01 this is TLS\r\n\r\n"])
    assert (status, problem["title"]) == (400, "Not HTTP")


def test_some_may_be_sent_ahead_of_their_answers(api: httpx.Client) -> None:
    where = (api.base_url.host, api.base_url.port or 0)
    for many, all_of_them in ((head.AHEAD_MAX, True), (5000, False)):
        with socket.create_connection(where, timeout=20) as raw:
            told = b""
            with contextlib.suppress(ConnectionError):
                raw.sendall((ASK + b"\r\n") * many + ASK + b"connection: close\r\n\r\n")
                told = read_on(raw)
        assert (told.count(b"HTTP/1.1 200 OK") == many + 1) == all_of_them
    assert api.get("/readyz").status_code == 200


def test_a_large_head_and_a_large_body_are_taken(api: httpx.Client) -> None:
    assert api.get("/readyz", headers={"x": "a" * (head.HEAD_MAX - 1000)}).status_code == 200
    many = [one(n) | {"user_agent": "a" * 200} for n in range(1500)]
    assert len(api.post("/v1/events", json=many).json()) == 1500
    pieces = (json.dumps(one(n)).encode() + b"\n" for n in range(2000, 4000))
    ndjson = {"content-type": "application/x-ndjson"}
    assert len(api.post("/v1/events", content=pieces, headers=ndjson).json()) == 2000  # chunked


def test_who_is_slow_or_says_nothing_is_hung_up_on(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "HEAD_S", 0.3)
    assert said(api, []) == (0, None)
    status, problem = said(api, [ASK])
    assert (status, problem["title"]) == (408, "Too slow")
    status, problem = said(api, [bytes([letter]) for letter in ASK[:30]], pause=0.02)
    assert status in (0, 408)
    assert api.get("/readyz").status_code == 200  # a connection that is kept, and asked again
    time.sleep(0.5)
    assert api.get("/readyz").status_code == 200


def test_the_next_head_may_wait_for_an_answer_and_not_for_ever(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "HEAD_S", 0.3)
    where = (api.base_url.host, api.base_url.port or 0)
    with socket.create_connection(where, timeout=20) as raw:
        raw.sendall(
            b"GET /v1/decisions/stream HTTP/1.1\r\nhost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\nx: "
        )
        assert raw.recv(15) == b"HTTP/1.1 200 OK"
        raw.settimeout(0.7)
        with pytest.raises(TimeoutError):  # the stream is still there, and has nothing to tell
            read_on(raw)
        raw.settimeout(20)
        with contextlib.suppress(ConnectionError):
            raw.sendall(b"a" * (2 * head.HEAD_MAX))
            read_on(raw)
    assert api.get("/readyz").status_code == 200


def test_who_does_not_read_his_answer_is_cut_off(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "UNREAD_S", 0.2)
    lines = b"\n".join([b"{}"] * 100_000)  # each is answered with why it is no event
    head_of = POST.replace(b"json", b"x-ndjson").removesuffix(b"\r\n")
    ask = head_of + b"\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(lines) + lines
    where = (api.base_url.host, api.base_url.port or 0)

    def told(first_s: float, every_s: float) -> int:
        """How much is read by who waits so long at first, and then before each piece."""
        size = 0
        with (
            socket.create_connection(where, timeout=20) as raw,
            contextlib.suppress(ConnectionError),
        ):
            raw.sendall(ask)
            size = len(raw.recv(1 << 16))
            time.sleep(first_s)
            while piece := raw.recv(1 << 19):
                size += len(piece)
                time.sleep(every_s)
        return size

    whole = told(0, 0.02)  # slow, but he reads
    assert whole > 100_000 * len('{"status":"rejected"}')
    assert told(2, 0) < whole
