"""Every answer has a name, and strangers are answered before they are read."""

import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from served import Start, live, one

from service.shoal import Shoal

NAME = "x-request-id"


@pytest.fixture
def shoal(start: Start) -> Shoal:
    return start()


@pytest.fixture
def api(shoal: Shoal) -> Iterator[httpx.Client]:
    with live(shoal) as client:
        yield client


def test_a_callers_name_for_a_request_is_kept_and_an_odd_one_is_not(api: httpx.Client) -> None:
    for name in ("a", "4bf92f3577b34da6-a3ce929d0e0e4736", "x.y:z_1", "n" * 64):
        assert api.get("/healthz", headers={NAME: name}).headers[NAME] == name
    ours = set()
    for name in ("", "n" * 65, "two words", "<b>", "a\tb", "ü".encode()):
        told = api.get("/healthz", headers={NAME: name}).headers[NAME]
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", told)
        ours.add(told)
    assert len(ours) == 6


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "/nowhere", {}),
        ("PUT", "/v1/labels", {}),
        ("GET", "/v1/cases?limit=0", {}),
        ("POST", "/v1/labels", {"content": b"{"}),
        ("POST", "/v1/events", {"content": b""}),
        ("POST", "/v1/events", {"content": b"{}", "headers": {"content-encoding": "br"}}),
        ("GET", "/v1/clusters", {"headers": {"authorization": "Bearer shoal_no_no"}}),
        ("POST", "/v1/labels", {"content": bytes(5 * 2**20)}),
    ],
)
def test_every_problem_names_its_request(
    api: httpx.Client, method: str, path: str, more: dict[str, Any]
) -> None:
    told = api.request(method, path, **more)
    assert told.status_code >= 400
    assert told.headers["content-type"] == "application/problem+json"
    assert told.json()["request_id"] == told.headers[NAME]


def test_a_fault_of_ours_is_a_problem_and_in_the_log(
    api: httpx.Client,
    shoal: Shoal,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret words")

    monkeypatch.setattr(shoal, "cluster_list", broken)
    told = api.get("/v1/clusters", headers={NAME: "mine-1"})
    assert (told.status_code, told.headers[NAME]) == (500, "mine-1")
    assert told.json()["request_id"] == "mine-1"
    assert "secret words" not in told.text
    monkeypatch.setattr(shoal, "take_in", broken)
    told = api.post("/v1/events", json=one(1), headers={NAME: "mine-2"})
    assert (told.status_code, told.headers[NAME]) == (500, "mine-2")
    said = capfd.readouterr().out
    assert all(f"mine-{n}" in said for n in (1, 2))
    assert api.get("/healthz").status_code == 200


def test_a_method_that_is_not_there_says_which_are(api: httpx.Client) -> None:
    assert api.put("/v1/labels").headers["allow"] == "POST"
    assert "POST" in api.get("/v1/events").headers["allow"]
    assert api.put("/v1/canaries").headers["allow"] == "GET, POST"
    assert {"GET", "DELETE"} <= set(api.put("/v1/accounts/a/b").headers["allow"].split(", "))


def test_every_answer_is_guarded(api: httpx.Client) -> None:
    for path in ("/", "/docs", "/healthz", "/v1/clusters", "/nowhere"):
        headers = api.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_pages_load_nothing_and_run_nothing(api: httpx.Client, shoal: Shoal) -> None:
    api.headers["authorization"] = f"Bearer {shoal.records.create_key('ann', ['read'])}"
    for path, forms in (("/", "self"), ("/docs", "none"), ("/sign-in", "self")):
        told = api.get(path)
        policy = told.headers["content-security-policy"]
        assert re.fullmatch(
            r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; base-uri 'none'; "
            rf"form-action '{forms}'; frame-ancestors 'none'",
            policy,
        )
        assert not re.search(
            r"<script|<img|<link|<iframe|style=|\son\w+=|src=|https?://", told.text
        )


def test_strangers_are_answered_before_they_are_read(start: Start) -> None:
    """A body is promised and never sent: who waited for it would not answer."""
    shoal = start()
    shoal.records.create_key("ann", ["admin"])
    with live(shoal) as api:
        for path in ("/v1/events", "/v1/labels", "/v1/cases/1/notes", "/nowhere"):
            where = (api.base_url.host, api.base_url.port or 0)
            with socket.create_connection(where, timeout=20) as raw:
                ask = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n"
                raw.sendall(ask.encode())
                assert raw.recv(12) == b"HTTP/1.1 401", path


def test_a_key_above_its_rate_is_told_to_wait(start: Start) -> None:
    shoal = start()
    secret = {"authorization": f"Bearer {shoal.records.create_key('ann', ['ingest'])}"}
    other = {"authorization": f"Bearer {shoal.records.create_key('bob', ['ingest'])}"}
    many = [one(n) for n in range(500)]
    with live(shoal, rate=2) as api:
        assert len(api.post("/v1/events", json=many, headers=secret).json()) == 500
        told = api.post("/v1/events", json=many, headers=secret)
        assert (told.status_code, told.json()["title"]) == (429, "Too fast")
        assert 200 < int(told.headers["retry-after"]) <= 250
        assert api.post("/v1/events", json=one(1), headers=other).status_code == 200
        assert 'shoal_refused_total{cause="too_fast"} 1.0' in api.get("/metrics").text


def test_no_room_is_said_and_nothing_is_kept(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ingest.BYTES_MAX", 1000)
    with live(start()) as api:
        told = api.post("/v1/events", json=[one(n) for n in range(50)])
        assert (told.status_code, told.headers["retry-after"]) == (503, "1")
        assert api.post("/v1/events", json=one(1)).json()["status"] == "new"
        metrics = api.get("/metrics").text
        assert "shoal_queue_bytes 0.0" in metrics
        assert 'shoal_refused_total{cause="too_busy"} 1.0' in metrics
        assert api.get("/readyz").json()["events"] == 1
