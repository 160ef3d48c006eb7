"""A few rounds of what bench/faults.py does at length; each must leave nothing lost, doubled or wrong."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import faulty
import pytest
from faulty import Pair, Target, Worker

ROUNDS: dict[str, tuple[list[Callable[[Target], None]], dict[str, float]]] = {
    "service killed": ([faulty.kill_service, faulty.kill_service], {}),
    "killed while archiving": ([faulty.nothing, faulty.kill_while_archiving], {}),
    "valkey killed": ([faulty.kill_valkey, faulty.pause_then_kill_valkey], {}),
    "valkey paused": ([faulty.pause_valkey], {}),
    "disk full": ([faulty.full_disk, faulty.full_disk], {}),
    "clocks stepped": ([faulty.step_clock, faulty.step_log_clock, faulty.kill_service], {}),
    "late flood, duplicates, poison": (
        [faulty.nothing],
        {"late": 0.5, "again": 0.3, "poison": 0.2},
    ),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_nothing_is_lost_doubled_or_wrong(name: str, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    done, mix = ROUNDS[name]
    target = Target(tmp_path / "data", seed)
    try:
        for fault in done:
            assert target.round(fault, **mix).notes == []
        assert len(target.callers.answers) > 0
    finally:
        target.close()


def test_a_standby_takes_over_and_the_old_writer_is_shut_out(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    pair = Pair(tmp_path / "data", seed)
    try:
        refused = pair.standby.client.post("/v1/events", content=b"{}")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        for fault in (faulty.nothing, faulty.pause_writer, faulty.kill_writer):
            assert pair.round(fault).notes == []
        assert pair.status() == ["ready", "standby"]
        # what it answers are the reads of the writer, once it has caught up
        deadline = time.monotonic() + faulty.RECOVERY_S
        told = [0, -1]
        while told[0] != told[1] and time.monotonic() < deadline:
            told = [
                one.client.get("/v1/accounts/a1").json()["events"]
                for one in (pair.service, pair.standby)
            ]
            time.sleep(0.05)
        assert told[0] == told[1] > 0
    finally:
        pair.close()


def test_a_worker_over_a_shared_window_is_killed_in_the_middle_of_a_fold(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    worker = Worker(tmp_path / "data", seed)
    try:
        assert worker.round(faulty.kill_service).notes == []
        assert len(worker.callers.answers) > 0
    finally:
        worker.close()
