"""Sessions of the console: who has one, when it ends, and what another site cannot do with it."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Start, live
from test_app import problem
from test_gate import Clock

from service.problem import Problem
from service.session import COOKIE, LIFE_S, Sessions, refuse_elsewhere, refuse_forged
from service.shoal import Shoal

KEY = b"k" * 32
FORM = {"content-type": "application/x-www-form-urlencoded"}


def cookie(value: str) -> dict[bytes, bytes]:
    return {b"cookie": f"other=1; {COOKIE}={value}".encode()}


def test_a_session_is_of_its_key_until_it_ends() -> None:
    clock = Clock()
    sessions = Sessions(KEY, clock)
    headers = cookie(sessions.begin("0123456789abcdef"))
    found = sessions.of(headers)
    assert found is not None
    assert (found.key_id, found.ends_at) == ("0123456789abcdef", clock.now + LIFE_S)
    clock.now += LIFE_S - 1
    assert sessions.of(headers) == found
    clock.now += 1
    assert sessions.of(headers) is None
    assert Sessions(b"o" * 32, Clock()).of(headers) is None  # another data folder's


@given(place=st.integers(0, 400), to=st.characters(min_codepoint=33, max_codepoint=126))
def test_a_cookie_that_was_touched_is_nobodys(place: int, to: str) -> None:
    sessions = Sessions(KEY, Clock())
    value = sessions.begin("0123456789abcdef")
    place %= len(value)
    other = value[:place] + to + value[place + 1 :]
    if other != value:
        assert sessions.of(cookie(other)) is None


@given(value=st.binary(max_size=300))
def test_any_cookie_can_be_read(value: bytes) -> None:
    assert Sessions(KEY, Clock()).of({b"cookie": b"shoal_session=" + value}) is None
    assert Sessions(KEY, Clock()).of({b"cookie": value}) is None


def test_cookies_of_others_cost_neither_the_session_nor_time() -> None:
    sessions = Sessions(KEY, Clock())
    mine = f"{COOKIE}={sessions.begin('0123456789abcdef')}"
    for before in ('prefs={"a":1}; ', "x=a b c; ", "{}; ", ";;=; ", f"{COOKIE}x=1; "):
        assert sessions.of({b"cookie": (before + mine).encode()}) is not None, before
    # quadratic readers take hours for these; ours a hundredth of a second
    for evil in (b"a" + b"=" * 10**6 + b'"', b'a="' + b'\\"' * 10**6, b";" * 10**6):
        began = time.process_time()
        assert sessions.of({b"cookie": evil}) is None
        assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({}, True),
        ({b"sec-fetch-site": b"same-origin"}, True),
        ({b"sec-fetch-site": b"none"}, True),  # typed, or from a bookmark
        ({b"sec-fetch-site": b"same-site"}, False),
        ({b"sec-fetch-site": b"cross-site", b"origin": b"https://shoal.example"}, False),
        ({b"origin": b"https://shoal.example"}, True),
        ({b"origin": b"https://shoal.example.evil.example"}, False),
        ({b"origin": b"null"}, False),
        ({b"origin": b"//["}, False),
    ],
)
def test_where_a_request_comes_from(headers: dict[bytes, bytes], ours: bool) -> None:
    headers = {b"host": b"shoal.example", **headers}
    if ours:
        refuse_elsewhere(headers)
        return
    with pytest.raises(Problem) as told:
        refuse_elsewhere(headers)
    assert told.value.status == 403


def test_a_change_by_session_brings_its_token() -> None:
    sessions = Sessions(KEY, Clock())
    mine, other = (sessions.of(cookie(sessions.begin("0123456789abcdef"))) for _ in range(2))
    assert mine is not None
    assert other is not None
    refuse_forged(mine, "GET", {})
    refuse_forged(mine, "POST", {b"x-csrf-token": mine.csrf.encode()})
    for token in (b"", b"\xff", other.csrf.encode()):
        with pytest.raises(Problem, match="X-CSRF-Token"):
            refuse_forged(mine, "DELETE", {b"x-csrf-token": token})


Keyed = tuple[httpx.Client, Callable[..., str], Shoal]


@pytest.fixture
def keyed(start: Start) -> Iterator[Keyed]:
    shoal = start()

    def key(*scopes: Any) -> str:
        return shoal.records.create_key("ann", scopes)

    key("admin")
    with live(shoal) as client:
        yield client, key, shoal


def test_a_browser_signs_in_reads_changes_and_signs_out(keyed: Keyed) -> None:
    api, key, shoal = keyed
    html = {"accept": "text/html,*/*"}
    assert api.get("/", headers=html).headers["location"] == "/sign-in"
    assert problem(api.get("/"), 401)
    form = api.get("/sign-in")
    assert "form-action 'self'" in form.headers["content-security-policy"]
    assert 'name="key"' in form.text

    said = api.post("/sign-in", data={"key": key("read", "act")})
    assert (said.status_code, said.headers["location"]) == (303, "/")
    told = said.headers["set-cookie"].lower()
    assert all(x in told for x in ("httponly", "samesite=strict", "path=/", f"max-age={LIFE_S}"))
    assert shoal.records.list_audit()[-1].action == "sign in"

    assert "Signed in as ann" in api.get("/", headers=html).text
    who = api.get("/v1/session").json()
    assert (who["name"], who["scopes"]) == ("ann", ["act", "read"])
    label = {"account_id": "a", "label": "honest", "source": "analyst"}
    assert problem(api.post("/v1/labels", json=label), 403)["title"] == "Forged"
    sent = {"x-csrf-token": who["csrf"]}
    elsewhere = sent | {"sec-fetch-site": "cross-site"}
    assert problem(api.post("/v1/labels", json=label, headers=elsewhere), 403)
    assert api.post("/v1/labels", json=label, headers=sent).status_code == 201
    assert problem(api.get("/v1/keys"), 403)["title"] == "Not allowed"  # its scopes are the key's

    assert problem(api.post("/sign-out", headers={"sec-fetch-site": "cross-site"}), 403)
    copied = {"cookie": f"{COOKIE}={api.cookies[COOKIE]}"}
    assert api.get("/v1/session", headers=copied).status_code == 200
    assert api.post("/sign-out").headers["location"] == "/sign-in"
    assert shoal.records.list_audit()[-1].action == "sign out"
    assert problem(api.get("/v1/session"), 401)
    assert problem(api.get("/v1/session", headers=copied), 401)
    assert api.post("/sign-out", headers=copied).status_code == 303  # again: nothing to end
    assert shoal.records.list_audit()[-1].action == "sign out"
    assert shoal.records.list_audit()[-2].action != "sign out"

    asked = {"authorization": f"Bearer {key('read')}"}
    assert "Signed in" not in api.get("/", headers=html | asked).text  # nobody is


def test_a_session_that_was_signed_out_is_forgotten_when_it_would_have_ended() -> None:
    clock = Clock()
    sessions = Sessions(KEY, clock)
    for _ in range(3):
        headers = cookie(sessions.begin("0123456789abcdef"))
        session = sessions.of(headers)
        assert session is not None
        sessions.end(session)
        assert sessions.of(headers) is None
        clock.now += LIFE_S
    assert len(sessions._ended) == 1


def test_nobody_signs_in_where_there_are_no_keys(start: Start) -> None:
    with live(start()) as api:
        assert api.get("/sign-in").headers["location"] == "/"


def test_a_session_ends_with_its_key(keyed: Keyed) -> None:
    api, key, _ = keyed
    secret = key("read")
    api.post("/sign-in", data={"key": secret})
    assert api.get("/v1/session").status_code == 200
    admin = {"authorization": f"Bearer {key('admin')}"}
    assert api.delete(f"/v1/keys/{secret.split('_')[1]}", headers=admin).status_code == 200
    assert "revoked" in problem(api.get("/v1/session"), 401)["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"key=",
        b"key=shoal_0_x",
        b"\xff\xfe",
        b"key=" + b"x" * 10_000,
        b"a=1&" * 100,
        b"key=%E2%98%82%00",
        b"key=\xe2\x98\x82",
    ],
)
def test_who_has_no_key_is_asked_again(keyed: Keyed, body: bytes) -> None:
    api, _, _ = keyed
    said = api.post("/sign-in", content=body, headers=FORM)
    assert said.status_code in (401, 413)
    assert "set-cookie" not in said.headers


def test_a_key_that_may_not_read_has_no_session(keyed: Keyed) -> None:
    api, key, _ = keyed
    said = api.post("/sign-in", data={"key": key("ingest")})
    assert said.status_code == 403
    assert "lacks the scope" in said.text
    assert "set-cookie" not in said.headers


def test_other_sites_change_nothing_where_there_are_no_keys(start: Start) -> None:
    with live(start()) as api:
        event = {"headers": {"sec-fetch-site": "cross-site"}, "content": b"{}"}
        assert problem(api.post("/v1/events", **event), 403)["title"] == "Forged"
        assert api.get("/v1/clusters", headers={"sec-fetch-site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "203.0.113.7", "[", "127.0.0.1.evil.example"]
)
def test_a_name_that_was_made_to_lead_here_is_refused(start: Start, host: str) -> None:
    with live(start()) as api:
        rebound = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
        assert problem(api.get("/v1/clusters", headers=rebound), 403)["title"] == "Forged"
        assert problem(api.post("/v1/events", headers=rebound, content=b"{}"), 403)
        for ours in ("localhost:8000", "[::1]:8000", "127.0.0.1"):
            assert api.get("/v1/clusters", headers={"host": ours}).status_code == 200


def test_a_key_may_be_asked_for_from_anywhere(keyed: Keyed) -> None:
    api, key, _ = keyed
    headers = {"authorization": f"Bearer {key('read')}", "host": "shoal.example"}
    assert api.get("/v1/clusters", headers=headers).status_code == 200


def test_signing_in_is_at_the_rate_of_the_key(keyed: Keyed) -> None:
    api, _, shoal = keyed
    secret = shoal.records.create_key("ann", ["read"], rate=0.2)
    told = [api.post("/sign-in", data={"key": secret}) for _ in range(5)]
    assert [x.status_code for x in told][-2:] == [429, 429]
    assert int(told[-1].headers["retry-after"]) >= 1
    assert 'shoal_refused_total{cause="too_fast"}' in api.get("/metrics").text


def test_a_key_and_a_cookie_are_the_key(keyed: Keyed) -> None:
    api, key, _ = keyed
    api.post("/sign-in", data={"key": key("read")})
    headers = {"authorization": f"Bearer {key('ingest')}"}
    told = api.get("/v1/session", headers=headers).json()
    assert (told["scopes"], told["csrf"], told["ends_at"]) == (["ingest"], None, None)


def test_no_page_makes_a_browser_hide_where_it_comes_from(keyed: Keyed) -> None:
    api, _, _ = keyed  # without an Origin our own forms would be taken for another site's
    assert api.get("/sign-in").headers["referrer-policy"] == "same-origin"
