import gzip
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest
import zstandard
from served import NDJSON, Start, a_ring, live, one, post

from detector.model import Model
from detector.policy import read_policy
from service import intake
from service.app import pointer_to
from service.folder import Folder
from service.shoal import Shoal

JSON = {"content-type": "application/json"}
DECISION = {
    "action", "score", "risk_level", "reasons", "cluster_id", "model_version", "policy_version",
}  # fmt: skip


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an answer that must be an RFC 9457 problem."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = response.json()
    assert told["status"] == status
    assert {"type", "title", "detail"} <= told.keys()
    assert told["detail"]
    return told


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service for what is refused: it never takes anything in."""
    shoal = Shoal(Folder(tmp_path_factory.mktemp("idle")), read_policy(), None)
    shoal.start()
    with live(shoal) as client:
        yield client
        assert client.get("/readyz").json()["events"] == 0


@pytest.fixture
def ringed(api: httpx.Client) -> httpx.Client:
    """A service that has seen a ring and looked at it."""
    post(api, a_ring())
    assert api.post("/v1/sweep").json()["clusters"] == 1
    return api


# --- events


def test_one_event(api: httpx.Client) -> None:
    response = api.post("/v1/events", json=one(1))
    assert response.status_code == 200
    told = response.json()
    assert (told["event_id"], told["status"]) == ("e1", "new")
    assert told["decision"].keys() == DECISION
    assert told["decision"]["action"] == "allow"


def test_forms_of_a_body(api: httpx.Client) -> None:
    def of(response: httpx.Response) -> Any:
        assert response.status_code == 200, response.text
        told = response.json()
        return [a["event_id"] for a in told] if isinstance(told, list) else told["event_id"]

    assert of(api.post("/v1/events", json=[one(1), one(2)])) == ["e1", "e2"]
    lines = b"\n".join(msgspec.json.encode(one(n)) for n in (3, 4))
    assert of(api.post("/v1/events", content=lines, headers=NDJSON)) == ["e3", "e4"]
    assert of(api.post("/v1/events", content=lines + b"\n", headers=NDJSON)) == ["e3", "e4"]
    assert of(api.post("/v1/events", content=lines, headers=JSON)) == ["e3", "e4"]
    pretty = msgspec.json.format(msgspec.json.encode(one(5)), indent=2)
    assert of(api.post("/v1/events", content=pretty, headers=JSON)) == "e5"
    form = {"content-type": "application/x-www-form-urlencoded"}  # what `curl -d` says
    assert of(api.post("/v1/events", content=pretty, headers=form)) == "e5"
    assert of(api.post("/v1/events", content=msgspec.json.encode(one(6)))) == "e6"
    assert of(api.post("/v1/events", content=msgspec.json.encode(one(7)), headers=NDJSON)) == ["e7"]
    assert of(api.post("/v1/events", content=b"[]", headers=JSON)) == []
    assert of(api.post("/v1/events", content=(c for c in (lines[:20], lines[20:])))) == ["e3", "e4"]


def test_bad_lines_cost_only_themselves(api: httpx.Client) -> None:
    good = [msgspec.json.encode(one(n)) for n in range(3)]
    wrong = msgspec.json.encode(one(8, devise_id="d"))
    phone = msgspec.json.encode(one(9, type="phone_verified", phone="not a phone"))
    ahead = msgspec.json.encode(one(10) | {"occurred_at": 2**52})
    lines = [good[0], b"{broken", wrong, good[1], b"", phone, ahead, good[2]]
    for body, headers in (
        (b"\n".join(lines), NDJSON),
        (
            b"[" + b",".join(line if line != b"{broken" else b"7" for line in lines if line) + b"]",
            JSON,
        ),
    ):
        response = api.post("/v1/events", content=body, headers=headers)
        assert response.status_code == 200
        told = response.json()
        kept = [a["event_id"] for a in told if a["status"] in ("new", "duplicate")]
        assert kept == ["e0", "e1", "e2"]
        bad = [a for a in told if a["status"] == "rejected"]
        assert all(a.get("decision") is None for a in bad)
        assert [a["line"] for a in bad][:2] == [2, 3]
        assert [a.get("field") for a in bad][1:] in (
            ["devise_id", "phone", "occurred_at"],
            ["devise_id", "occurred_at"],
        )
        assert bad[1]["event_id"] == "e8"
        assert bad[1]["hint"] == "did you mean `device_id`?"
        lines_told = [a["line"] for a in bad]
        assert lines_told == sorted(lines_told)


@pytest.mark.parametrize(
    ("event", "pointer", "words"),
    [
        (one(1, devise_id="d"), "#/devise_id", "did you mean `device_id`?"),
        (one(1, type="logn"), "#/type", "did you mean `login`?"),
        (one(1) | {"occurred_at": None}, "#/occurred_at", ""),
        (one(1) | {"occurred_at": 2**52}, "#/occurred_at", "5 minutes ahead"),
        (one(1, asn="x"), "#/asn", "int"),
        ([1], "#", "an event is a JSON object"),
    ],
)
def test_a_single_bad_event_is_a_problem_with_a_pointer(
    idle: httpx.Client, event: Any, pointer: str, words: str
) -> None:
    body = msgspec.json.encode(event).strip(b"[]")
    told = problem(idle.post("/v1/events", content=body, headers=JSON), 422)
    assert told["title"] == "Not an event"
    assert told["errors"][0]["pointer"].startswith(pointer)
    assert words in told["errors"][0]["detail"]
    assert words in told["detail"]


def test_pointers() -> None:
    assert pointer_to(None) == "#"
    assert pointer_to("owners[2].share") == "#/owners/2/share"
    assert pointer_to("a/b~c") == "#/a~1b~0c"


def test_bodies_that_are_none(idle: httpx.Client) -> None:
    problem(idle.post("/v1/events", content=b""), 400)
    problem(idle.post("/v1/events", content=b"hello", headers=JSON), 422)
    problem(idle.post("/v1/events", content=b"\xff\xfe{", headers=JSON), 422)
    problem(idle.post("/v1/events", content=b"[{]", headers=JSON), 400)
    problem(idle.get("/v1/events"), 405)
    problem(idle.get("/v1/nothing"), 404)


@pytest.mark.parametrize("path", ["/v1/events", "/v1/labels"])
def test_a_body_too_large(start: Start, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr("service.door.BODY_MAX", 1000)
    monkeypatch.setattr("service.door.SMALL_MAX", 1000)
    body = msgspec.json.encode([one(n) for n in range(100)])
    with live(start()) as api:
        for content in (body, (body[i : i + 500] for i in range(0, len(body), 500))):
            told = problem(api.post(path, content=content, headers=JSON), 413)
            assert "at most 1000 bytes" in told["detail"]
        assert api.get("/readyz").json()["events"] == 0
        assert (
            api.post("/v1/events", content=body[:0] + msgspec.json.encode(one(1))).status_code
            == 200
        )


def test_too_large_is_refused_before_it_is_sent(idle: httpx.Client) -> None:
    with socket.create_connection((idle.base_url.host, idle.base_url.port or 0), timeout=5) as raw:
        size = intake.BODY_MAX + 1
        raw.sendall(
            f"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n".encode()
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_packed_bodies(api: httpx.Client, encoding: str) -> None:
    pack = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[encoding]
    packed = {"content-encoding": encoding}
    single = api.post("/v1/events", content=pack(msgspec.json.encode(one(1))), headers=packed)
    assert single.json()["event_id"] == "e1"
    lines = pack(b"\n".join(msgspec.json.encode(one(n)) for n in range(2, 5000)))
    pieces = (lines[i : i + 1000] for i in range(0, len(lines), 1000))
    told = api.post("/v1/events", content=pieces, headers=packed | NDJSON)
    assert [a["event_id"] for a in told.json()] == [f"e{n}" for n in range(2, 5000)]
    problem(api.post("/v1/events", content=lines[:-9], headers=packed | NDJSON), 400)
    problem(api.post("/v1/events", content=b"{}", headers=packed), 400)
    told = problem(
        api.post("/v1/events", content=pack(bytes(intake.BODY_MAX + 1)), headers=packed), 413
    )
    assert str(intake.BODY_MAX) in told["detail"]
    assert api.get("/readyz").json()["events"] == 4999


def test_encodings_that_are_not_read(idle: httpx.Client) -> None:
    refused = idle.post("/v1/events", content=b"{}", headers={"content-encoding": "br"})
    problem(refused, 415)
    assert refused.headers["accept-encoding"] == "gzip, zstd"
    packed = gzip.compress(b'{"account_id": "a", "label": "honest"}')
    for path in ("/v1/labels", "/v1/canaries"):
        problem(idle.post(path, content=packed, headers={"content-encoding": "gzip"}), 415)


def test_a_body_that_does_not_arrive(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.app.BODY_S", 0.1)
    with (
        live(start()) as api,
        socket.create_connection((api.base_url.host, api.base_url.port or 0), timeout=5) as raw,
    ):
        raw.sendall(b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
        assert raw.recv(100).startswith(b"HTTP/1.1 408 ")


def test_duplicates_over_http(api: httpx.Client) -> None:
    first = api.post("/v1/events", json=one(1)).json()
    again = api.post("/v1/events", json=one(1)).json()
    assert again == first | {"status": "duplicate"}
    other = api.post("/v1/events", json=one(1, ip="198.51.100.7")).json()
    assert other == first | {"status": "duplicate", "conflict": True}


def test_many_callers_at_once(api: httpx.Client) -> None:
    """Single events of concurrent callers are folded together; each gets its own answer."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        told = list(
            pool.map(lambda n: api.post("/v1/events", json=one(n, f"a{n}")).json(), range(200))
        )
    assert [(a["event_id"], a["status"] in ("new", "late")) for a in told] == [
        (f"e{n}", True) for n in range(200)
    ]
    assert api.get("/readyz").json()["events"] == 200


# --- accounts, clusters


def test_an_account(ringed: httpx.Client) -> None:
    told = ringed.get("/v1/accounts/ring1").json()
    assert (told["account_id"], told["events"]) == ("ring1", 3)
    assert (told["cost_usd"], told["paid_usd"]) == (2.5, 0)
    assert told["action"] == "review"
    assert told["cluster_id"]
    assert told["reasons"][0]["code"] == "cluster"
    assert told["reasons"][0]["evidence"] == [told["cluster_id"]]
    assert "14 accounts of different owners" in told["reasons"][0]["text"]
    honest = ringed.get("/v1/accounts/honest1").json()
    assert (honest["action"], honest["cluster_id"], honest["reasons"]) == ("allow", None, [])


def test_the_next_decision_carries_the_cluster(ringed: httpx.Client) -> None:
    answer = ringed.post("/v1/events", json=one(999, "ring1")).json()["decision"]
    assert answer["action"] == "review"
    assert answer["risk_level"] == "high"
    assert answer["cluster_id"]
    assert {"code", "impact", "text"} <= answer["reasons"][0].keys()
    (kept,) = ringed.get("/v1/accounts/ring1").json()["decisions"]
    assert (kept["event_id"], kept["action"]) == ("e999", "review")


def test_a_decision_of_a_model_has_reasons(start: Start, model: Model, world: list[bytes]) -> None:
    with live(start(model)) as api:
        told = []
        for i in range(0, len(world), 2000):
            told += post(api, world[i : i + 2000])
            api.post("/v1/sweep").raise_for_status()
        acted = [a["decision"] for a in told if a["decision"]["action"] != "allow"]
        assert acted
        for decision in acted:
            assert decision["model_version"] == "first"
            assert decision["reasons"]
            assert all(r["text"] and r["code"] for r in decision["reasons"])
        listed = api.get("/v1/accounts", params={"action": "challenge"}).json()["accounts"]
        assert {a["account_id"] for a in listed} >= {
            a["account_id"] for a in api.get("/v1/accounts").json()["accounts"]
        }
        assert api.get("/readyz").json()["model"] == "first"
        assert api.get("/v1/parity").json()["differing"] == 0


def test_a_vector_has_every_feature(ringed: httpx.Client) -> None:
    told = ringed.get("/v1/accounts/ring1/vector").json()
    assert told["feature_hash"] == ringed.get("/readyz").json()["feature_hash"]
    assert len(told["vector"]) > 50
    assert told["vector"]["accounts_by_device_30d"] == 14
    assert None in told["vector"].values()


def test_links(ringed: httpx.Client) -> None:
    links = ringed.get("/v1/accounts/ring1/links").json()["links"]
    assert {x["owner"] for x in links} <= {f"ring{n}" for n in range(14)} - {"ring1"}
    assert links
    assert links == sorted(links, key=lambda x: -x["surprise_nats"])
    assert "card" in links[0]["kinds"]
    assert ringed.get("/v1/accounts/honest1/links").json()["links"] == []


def test_clusters(ringed: httpx.Client) -> None:
    told = ringed.get("/v1/clusters").json()
    (cluster,) = told["clusters"]
    assert told["total"] == 1
    assert ringed.get("/v1/clusters", params={"offset": 1}).json()["clusters"] == []
    name = cluster["cluster_id"]
    case = ringed.get(f"/v1/clusters/{name}").json()
    assert (case["size"], case["proposed_action"]) == (14, "review")
    assert sorted(case["members"]) == sorted(f"ring{n}" for n in range(14))
    assert case["cost_usd"] == 14 * 2.5
    assert case["evidence"]
    assert case["timeline"][-1]["text"].startswith("14 of 14")
    members = ringed.get(f"/v1/clusters/{name}/members").json()
    assert sorted(members["members"]) == sorted(case["members"])


def test_every_list_comes_in_pages(ringed: httpx.Client) -> None:
    """Walked in pages of any size, a list is what it is at once."""
    for n in range(3):
        ringed.post("/v1/canaries", json={"prompt_id": f"p{n}", "station": "s"}).raise_for_status()
    (cluster,) = ringed.get("/v1/clusters").json()["clusters"]
    for path, name in (
        ("/v1/accounts", "accounts"),
        ("/v1/accounts/ring1/links", "links"),
        ("/v1/clusters", "clusters"),
        (f"/v1/clusters/{cluster['cluster_id']}/members", "members"),
        ("/v1/cases", "cases"),
        ("/v1/canaries", "canaries"),
        ("/v1/keys", "keys"),
    ):
        whole = ringed.get(path).json()
        assert whole["next"] is None
        for limit in (1, 3, len(whole[name]) or 1):
            walked, cursor = [], None
            while True:
                asked = {"limit": limit} | ({"cursor": cursor} if cursor else {})
                page = ringed.get(path, params=asked).json()
                assert len(page[name]) <= limit
                walked += page[name]
                cursor = page["next"]
                if cursor is None:
                    break
            assert walked == whole[name], path
        told = problem(ringed.get(path, params={"cursor": "zzz"}), 422)
        assert "cursor" in told["detail"]


def test_an_account_id_may_hold_anything(api: httpx.Client) -> None:
    for n, name in enumerate(("org/7", "ü 1", "a?b#c", "..", "x/y/z", "%41")):
        assert api.post("/v1/events", json=one(n, name)).json()["status"] in ("new", "late")
        quoted = "".join(f"%{b:02X}" for b in name.encode())
        for tail in ("", "/vector", "/links"):
            told = api.get(f"/v1/accounts/{quoted}{tail}")
            assert told.status_code == 200, (name, tail, told.text)
            assert told.json()["account_id"] == name


@pytest.mark.parametrize(
    "path",
    [
        "/v1/accounts/nobody",
        "/v1/accounts/nobody/links",
        "/v1/accounts/nobody/vector",
        "/v1/clusters/none",
        "/v1/clusters/none/members",
        "/v1/cases/77",
        "/v1/cases/99999999999999999999999",
        "/nowhere",
    ],
)
def test_what_is_not_there(idle: httpx.Client, path: str) -> None:
    problem(idle.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("GET", "/v1/clusters?limit=0", None, "#/limit"),
        ("GET", "/v1/clusters?offset=x", None, "#/offset"),
        ("GET", "/v1/accounts?action=allow", None, "#/action"),
        ("GET", "/v1/cases?status=shut", None, "#/status"),
        ("GET", "/v1/cases/seven", None, "#/case_id"),
        ("GET", "/v1/cases?cursor=zzz", None, "#/cursor"),
        ("GET", "/v1/keys?cursor=c1", None, "#/cursor"),
        ("POST", "/v1/labels", {"account_id": "a", "label": "bad"}, "#/label"),
        ("POST", "/v1/labels", {"account_id": "a", "label": "honest", "x": 1}, "x"),
        ("POST", "/v1/labels", {"label": "honest"}, None),
        ("POST", "/v1/labels", {"label": "honest", "account_id": "a", "cluster_id": "c"}, None),
        ("POST", "/v1/labels", "no", ""),
        ("POST", "/v1/canaries", {"station": "s"}, "#/prompt_id"),
        ("POST", "/v1/cases/1/notes", {"text": ""}, "#/text"),
        ("POST", "/v1/cases/1/decide", {"action": "jail"}, "#/action"),
    ],
)
def test_what_is_not_as_expected(
    idle: httpx.Client, method: str, path: str, body: Any, pointer: str | None
) -> None:
    told = problem(idle.request(method, path, json=body), 422)
    if pointer is not None:
        assert any(pointer in e["pointer"] and e["detail"] for e in told["errors"])


def test_a_method_that_is_not_there(idle: httpx.Client) -> None:
    problem(idle.put("/v1/labels", json={}), 405)
    problem(idle.delete("/v1/clusters/x"), 405)


# --- people's words


def test_labels(ringed: httpx.Client) -> None:
    one_label = {"account_id": "ring1", "label": "abusive", "typology": "sms_farm", "note": "seen"}
    assert ringed.post("/v1/labels", json=one_label).json() == {"labels": 1}
    two = [
        {"account_id": "ring1", "label": "unsure", "at": 2**51},
        {"cluster_id": "c", "label": "honest"},
    ]
    assert ringed.post("/v1/labels", json=two).status_code == 201
    told = ringed.get("/v1/accounts/ring1").json()["labels"]
    assert [x["label"] for x in told] == ["abusive", "unsure"]
    assert told[0]["source"] == "analyst"
    assert told[0]["at"] > 1_600_000_000_000


def test_a_case_from_claim_to_verdict(ringed: httpx.Client) -> None:
    page = ringed.get("/v1/cases", params={"status": "open"}).json()
    (case,) = page["cases"]
    assert page["next_cursor"] is None
    assert case["proposed_action"] == "review"
    assert case["body"]["size"] == 14
    at = f"/v1/cases/{case['id']}"
    assert ringed.post(f"{at}/claim").json()["claimed_by"] == "local"
    assert ringed.post(f"{at}/notes", json={"text": "one card"}).status_code == 201
    assert [n["text"] for n in ringed.get(at).json()["notes"]] == ["one card"]
    verdict = {"action": "suspend", "label": "abusive", "typology": "carded", "note": "sure"}
    closed = ringed.post(f"{at}/decide", json=verdict).json()
    assert (closed["status"], closed["decided_action"]) == ("closed", "suspend")
    for account in ("ring0", "ring13"):  # the words become labels
        (label,) = ringed.get(f"/v1/accounts/{account}").json()["labels"]
        assert (label["label"], label["typology"], label["source"]) == (
            "abusive",
            "carded",
            "analyst",
        )
    assert ringed.get("/v1/accounts/honest1").json()["labels"] == []
    problem(ringed.post(f"{at}/decide", json=verdict), 409)
    problem(ringed.post(f"{at}/claim"), 409)
    problem(ringed.post("/v1/cases/77/claim"), 404)
    ringed.post("/v1/sweep")
    assert ringed.get("/v1/cases", params={"status": "open"}).json()["cases"] == []


def test_a_verdict_for_some_of_the_members(ringed: httpx.Client) -> None:
    (case,) = ringed.get("/v1/cases").json()["cases"]
    verdict = {"action": "review", "label": "abusive", "accounts": ["ring0"]}
    ringed.post(f"/v1/cases/{case['id']}/decide", json=verdict).raise_for_status()
    assert ringed.get("/v1/accounts/ring0").json()["labels"]
    assert not ringed.get("/v1/accounts/ring1").json()["labels"]


def test_a_canary_labels_the_account_it_surfaces_on(api: httpx.Client) -> None:
    made = api.post("/v1/canaries", json={"prompt_id": "marked", "station": "cheap tokens"})
    assert made.status_code == 201
    assert made.json()["mark"].startswith("h:")
    (kept,) = api.get("/v1/canaries").json()["canaries"]
    assert kept["station"] == "cheap tokens"
    problem(api.post("/v1/canaries", json={"prompt_id": "marked", "station": "again"}), 409)
    sent = [one(1, "reseller", "request", status=200, prompt_id="marked")]
    sent.append(one(2, "bystander", "request", status=200, prompt_id="other"))
    post(api, [msgspec.json.encode(e) for e in sent])
    (label,) = api.get("/v1/accounts/reseller").json()["labels"]
    assert (label["label"], label["source"]) == ("abusive", "canary")
    assert "cheap tokens" in label["note"]
    assert api.get("/v1/accounts/bystander").json()["labels"] == []


def test_a_canary_of_another_instance(start: Start) -> None:
    with live(shoal := start()) as api:
        # as another one would, over the same records
        mark = shoal.canary_mark("marked")
        shoal.records.add_canary(mark, "station")
        problem(api.post("/v1/canaries", json={"prompt_id": "marked", "station": "again"}), 409)
        shoal.mend()
        post(api, [msgspec.json.encode(one(1, "a1", "request", status=200, prompt_id="marked"))])
        assert [x["source"] for x in api.get("/v1/accounts/a1").json()["labels"]] == ["canary"]


def test_a_canary_survives_a_restart(start: Start) -> None:
    with live(start()) as api:
        api.post("/v1/canaries", json={"prompt_id": "marked", "station": "s"}).raise_for_status()
    with live(start()) as api:
        post(
            api,
            [msgspec.json.encode(one(1, "reseller", "request", status=200, prompt_id="marked"))],
        )
        assert api.get("/v1/accounts/reseller").json()["labels"]


def test_erasure(ringed: httpx.Client) -> None:
    before = ringed.get("/readyz").json()["events"]
    ringed.post("/v1/labels", json={"account_id": "ring3", "label": "abusive"})
    gone = ringed.delete("/v1/accounts/ring3").json()
    assert gone["erased"] == "ring3"
    assert gone["proof"]["events"] == 3
    for path in ("", "/vector", "/links"):
        problem(ringed.get(f"/v1/accounts/ring3{path}"), 404)
    problem(ringed.delete("/v1/accounts/ring3"), 404)
    assert ringed.get("/readyz").json()["events"] == before - 3
    everything = "".join(
        ringed.get(p).text for p in ("/v1/clusters", "/v1/cases", "/v1/accounts", "/", "/v1/parity")
    )
    assert "ring3" not in everything
    assert "ring4" in everything


# --- the operator's


def test_health_metrics_page_and_description(ringed: httpx.Client) -> None:
    assert ringed.get("/healthz").json() == {"status": "alive"}
    ready = ringed.get("/readyz").json()
    assert (ready["status"], ready["events"], ready["model"]) == ("ready", len(a_ring()), None)
    metrics = ringed.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    for line in (
        f'shoal_events_total{{status="new"}} {len(a_ring())}.0',
        "shoal_ready 1.0",
        "shoal_accounts 54.0",
        "shoal_clusters 1.0",
    ):
        assert line in metrics.text
    page = ringed.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "ring1" in page.text
    assert "No clusters yet" not in page.text
    assert ringed.get("/docs").status_code == 200


def test_the_page_shows_names_as_they_are(api: httpx.Client) -> None:
    lines = [line.replace(b"ring", b"<b>ring") for line in a_ring()]
    post(api, lines)
    api.post("/v1/sweep")
    page = api.get("/").text
    assert "&lt;b&gt;ring1" in page
    assert "<b>ring" not in page


def test_the_description_names_every_route_and_every_field(idle: httpx.Client) -> None:
    told = idle.get("/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    assert {
        "/v1/events", "/v1/accounts/{account_id}", "/v1/accounts/{account_id}/links",
        "/v1/accounts/{account_id}/vector", "/v1/clusters", "/v1/clusters/{cluster_id}",
        "/v1/clusters/{cluster_id}/members", "/v1/labels", "/v1/cases", "/v1/canaries",
        "/healthz", "/readyz", "/metrics",
    } <= told["paths"].keys()  # fmt: skip
    body = told["paths"]["/v1/events"]["post"]["requestBody"]["content"]
    assert body.keys() == {"application/json", "application/x-ndjson"}
    schemas = told["components"]["schemas"]
    kinds = schemas["Event"]["discriminator"]["mapping"]
    assert len(kinds) == len(schemas["Event"]["oneOf"]) == 11
    request = schemas[kinds["request"].rpartition("/")[2]]
    assert {"event_id", "occurred_at", "account_id", "status"} <= set(request["required"])
    assert "prompt_id" in request["properties"]
    text = idle.get("/openapi.json").text
    assert "\\\\Z" not in text  # Python's patterns, not ECMA's
    for ref in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
        assert ref in schemas
    for path in told["paths"].values():
        for route in path.values():
            assert "application/problem+json" in route["responses"]["4XX"]["content"]
            assert "422" not in route["responses"]


# --- keys


Keyed = tuple[httpx.Client, Callable[..., dict[str, str]], Shoal]


@pytest.fixture
def keyed(start: Start) -> Iterator[Keyed]:
    """A service with a key, headers for keys of given scopes, and the Shoal behind it."""
    shoal = start()
    shoal.records.create_key("first", ["admin"])

    def key(*scopes: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {shoal.records.create_key('ann', scopes)}"}

    with live(shoal) as client:
        yield client, key, shoal


def test_with_one_key_everything_needs_one(keyed: Keyed) -> None:
    api, _, _ = keyed
    for path in ("/healthz", "/readyz", "/metrics"):
        assert api.get(path).status_code == 200
    described = api.get("/openapi.json").json()["paths"]
    for path, methods in described.items():
        for method in methods:
            if path in ("/healthz", "/readyz", "/metrics"):
                continue
            url = path.replace("{account_id}", "a").replace("{cluster_id}", "c")
            told = problem(api.request(method, url.replace("{case_id}", "1")), 401)
            assert told["title"] == "Not signed in", (method, path)
    assert problem(api.get("/"), 401)
    refused = api.post("/v1/events", json=one(1))
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"


def test_keys_that_are_none(keyed: Keyed) -> None:
    almost = keyed[1]("read")["authorization"][:-1]
    for given in ("Bearer", "Basic abc", "shoal_x_y", "Bearer shoal_x_y", almost, almost + "AA"):
        problem(keyed[0].get("/v1/clusters", headers={"authorization": given}), 401)


def test_scopes(keyed: Keyed) -> None:
    api, key, _ = keyed
    ingest, read, act, admin = (key(s) for s in ("ingest", "read", "act", "admin"))
    asked: list[tuple[str, str, Any, dict[str, str]]] = [
        ("POST", "/v1/events", one(1), ingest),
        ("GET", "/v1/accounts/a1", None, read),
        ("GET", "/v1/cases", None, read),
        ("GET", "/", None, read),
        ("POST", "/v1/labels", {"account_id": "a1", "label": "honest"}, act),
        ("POST", "/v1/canaries", {"prompt_id": "p", "station": "s"}, act),
        ("POST", "/v1/sweep", None, admin),
        ("GET", "/v1/parity", None, admin),
        ("DELETE", "/v1/accounts/a1", None, admin),
    ]
    for method, path, body, right in asked:
        for headers in (ingest, read, act, admin):
            if headers is not right:
                told = problem(api.request(method, path, json=body, headers=headers), 403)
                assert "lacks the scope" in told["detail"]
        assert api.request(method, path, json=body, headers=right).is_success, (method, path)
    both = key("read", "act")
    assert api.get("/v1/cases", headers=both).is_success


def test_who_did_it_is_in_the_audit(keyed: Keyed) -> None:
    api, key, shoal = keyed
    api.post("/v1/labels", json={"account_id": "a", "label": "honest"}, headers=key("act"))
    rules, *told = shoal.records.list_audit()
    assert (rules.actor, rules.subject) == ("service", "rules")
    assert [(x.actor, x.action) for x in told] == [
        ("local", "create key"),
        ("local", "create key"),
        ("ann", "label"),
    ]
    assert shoal.records.verify_audit() == 4


def test_a_revoked_key_ends_within_a_second(keyed: Keyed) -> None:
    api, key, shoal = keyed
    headers = key("read")
    assert api.get("/v1/clusters", headers=headers).status_code == 200
    (mine,) = (k for k in shoal.records.list_keys() if k.name == "ann")
    shoal.records.revoke_key(mine.id)
    time.sleep(1.05)
    problem(api.get("/v1/clusters", headers=headers), 401)


def test_keys_are_not_looked_up_at_every_request(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, key, shoal = keyed
    headers = key("ingest")
    reads = 0
    read = shoal.records._read

    def counted() -> Any:
        nonlocal reads
        reads += 1
        return read()

    monkeypatch.setattr(shoal.records, "_read", counted)
    began = time.monotonic()
    for n in range(100):
        assert api.post("/v1/events", json=one(n), headers=headers).status_code == 200
    # keys twice a second, webhooks once, canaries now and then
    assert reads <= 4 * (1 + time.monotonic() - began)


def test_the_last_key_revoked_opens_nothing(keyed: Keyed) -> None:
    api, _, shoal = keyed
    for key in shoal.records.list_keys():
        shoal.records.revoke_key(key.id)
    time.sleep(1.05)
    problem(api.get("/v1/clusters"), 401)
