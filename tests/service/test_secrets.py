"""A service with known secrets says none of them, whatever it is asked and however it fails."""

import base64
import re
import signal
import tomllib
from pathlib import Path

import pytest
from served import Process, one

from service.audit import read_anchors
from service.folder import Folder, now_ms
from service.records import Records, RecordsError

ROOT = Path(__file__).parents[2]


def test_no_secret_is_in_what_a_service_says(tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder = Folder(data)
    folder.secret()
    with Records(folder.records_url, clock=now_ms, anchors=folder.anchors) as records:
        key = records.create_key("root", ["admin", "ingest", "read", "act"])
    wrong = "shoal_0011223344556677_" + "w" * 43
    told = "hush-hush-in-the-url"
    with Process(data) as service:
        api, mine = service.client, {"authorization": f"Bearer {key}"}
        assert api.post("/v1/events", json=one(1, email="jo@example.org")).status_code == 401
        event = one(1, type="account_signup", email="jo@example.org", phone="+4915112345678")
        assert api.post("/v1/events", json=event, headers=mine).status_code == 200
        bad = event | {"event_id": "e2", "email": "jo at example.org"}
        assert api.post("/v1/events", json=bad, headers=mine).status_code == 422
        for header in (f"Bearer {wrong}", f"Basic {key}", key):
            assert api.get("/v1/cases", headers={"authorization": header}).status_code == 401
        hook = {"url": f"https://127.0.0.1/{told}", "events": ["decision"]}
        assert api.post("/v1/webhooks", json=hook, headers=mine).status_code == 422
        assert api.get(f"/v1/cases?cursor={key}", headers=mine).status_code == 422
        service.signal(signal.SIGTERM)
        service.ended()
    said = (tmp_path / "data.stderr").read_text()
    assert "serving" in said  # or there would be nothing to search
    hidden = [key, key.split("_", 2)[2], wrong, told, "jo@example.org", "+4915112345678"]
    for name in ("identity.key", "webhook.key"):
        hidden.append((data / name).read_text().strip())
        hidden.append(base64.b64encode(bytes.fromhex(hidden[-1])).decode())
    assert [secret for secret in hidden if secret in said] == []
    assert read_anchors(folder.anchors)


@pytest.mark.parametrize("host", ["absent.invalid", "127.0.0.1:1"])
def test_a_database_that_cannot_be_reached_is_said_without_its_password(host: str) -> None:
    with pytest.raises(RecordsError, match="records at postgresql") as caught:
        Records(f"postgresql://me:hunter2@{host}/x", clock=now_ms)
    assert "hunter2" not in str(caught.value)


def test_every_dependency_is_pinned_by_hash() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    for package in lock["package"]:
        if "registry" not in package["source"]:
            assert package["name"] == "shoal"
            continue
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files, package["name"]
        for file in files:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]), package["name"]


def test_the_threat_model_names_tests_that_exist() -> None:
    """A threat is answered by a test, not by a sentence about one."""
    text = (ROOT / "docs" / "threat-model.md").read_text()
    tests = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"\btest_\w+\b(?!\.py)", text))
    files = set(re.findall(r"\b(test_\w+\.py)\b", text))
    assert len(named) >= 15
    assert [name for name in named if f"def {name}(" not in tests] == []
    there = {p.name for p in (ROOT / "tests").rglob("test_*.py")}
    assert files <= there
