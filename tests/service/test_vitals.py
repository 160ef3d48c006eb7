"""What an operator is told: numbers that add up, and why events should not be sent."""

import re
from collections import namedtuple
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import Start, a_ring, live, one, post

from service.shoal import Shoal


def numbers(api: httpx.Client) -> dict[str, float]:
    """Every sample of /metrics: `name` or `name{label}` to value."""
    told = api.get("/metrics")
    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        s.name + "".join(f"{{{v}}}" for k, v in s.labels.items()): s.value
        for family in text_string_to_metric_families(told.text)
        for s in family.samples
    }


def test_the_numbers_add_up(start: Start) -> None:
    shoal = start()
    with live(shoal) as api:
        lines = a_ring()
        post(api, lines)
        post(api, [*lines[:5], b"broken"])
        api.post("/v1/sweep").raise_for_status()
        api.post("/v1/events", json=one(900, "ring1")).raise_for_status()
        api.get("/nowhere")
        shoal.mend()  # which looks at the log's length
        now = numbers(api)
        assert now["shoal_events_total{new}"] == len(lines) + 1
        assert now["shoal_events_total{duplicate}"] == 5
        assert now["shoal_events_total{rejected}"] == 1
        assert now["shoal_decisions_total{review}"] == 1
        assert now["shoal_decisions_total{allow}"] == len(lines)
        assert now["shoal_ingest_seconds_count"] == 3
        assert now["shoal_batch_events_sum"] == len(lines) + 5 + 1
        assert now["shoal_refused_total{not_found}"] == 1
        assert (now["shoal_queue_events"], now["shoal_queue_bytes"]) == (0, 0)
        assert now["shoal_sweep_seconds_count"] == 1
        assert 0 <= now["shoal_sweep_age_seconds"] < 60
        assert (now["shoal_clusters"], now["shoal_accounts"]) == (1, 54)
        assert now["shoal_log_entries"] == 2
        assert now["shoal_news_events"] == 1
        assert now["shoal_snapshot_age_seconds"] != now["shoal_snapshot_age_seconds"]  # none yet
        assert now["shoal_ready"] == 1
        assert now["shoal_disk_free_bytes"] > 0
        assert now["process_resident_memory_bytes"] > 0


def test_every_number_is_in_the_page_for_operators(start: Start) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    with live(start()) as api:
        ours = {
            m.name
            for m in text_string_to_metric_families(api.get("/metrics").text)
            if m.name.startswith("shoal_") and not m.name.endswith("_created")
        }
    told = {name.removesuffix("_total") for name in re.findall(r"`(shoal_\w+)", page)}
    assert ours == told


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("starting", "starting"),
        ("recovering", "recovering"),
        ("erasing an account", "erasing"),
        ("the log cannot be used: Valkey has ended", "log_lost"),
    ],
)
def test_a_fault_is_a_reason(start: Start, fault: str, code: str) -> None:
    shoal: Shoal = start()
    with live(shoal) as api:
        shoal.fault = fault
        told = api.get("/readyz")
        assert (told.status_code, told.headers["retry-after"]) == (503, "1")
        assert told.headers["content-type"] == "application/problem+json"
        assert told.json()["reasons"] == [{"code": code, "detail": fault}]
        assert numbers(api)["shoal_ready"] == 0
        assert api.get("/healthz").status_code == 200
        shoal.fault = None
        assert api.get("/readyz").status_code == 200


def test_a_full_disk_is_a_reason(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = namedtuple("usage", "free")
    with live(start()) as api:
        monkeypatch.setattr("service.vitals.shutil.disk_usage", lambda _: usage(1000))
        (reason,) = api.get("/readyz").json()["reasons"]
        assert reason["code"] == "disk_full"
        assert "1000 bytes" in reason["detail"]


def test_no_model_is_said_and_is_no_fault(start: Start) -> None:
    with live(start()) as api:
        told = api.get("/readyz").json()
        assert told["status"] == "ready"
        assert [n["code"] for n in told["notes"]] == ["no_model"]
