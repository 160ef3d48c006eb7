"""A window over a Cluster: any number of workers answer as one memory window does; failover costs nothing."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import redis
from served import Start, a_ring, one
from test_shoal import feed

from service.parity import parity
from service.shoal import Shoal, Unavailable
from service.valkey import _binary_path
from tests.features.mortal import Killed, Mortal, die

READY_S = 60.0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Cluster:
    """Three primaries, and as many replicas if asked for, on ports of this machine alone."""

    def __init__(self, folder: Path, replicas: bool) -> None:
        self.ports: list[int] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        for n in range(6 if replicas else 3):
            home = folder / str(n)
            home.mkdir(parents=True)
            port = free_port()
            self.ports.append(port)
            words = (
                f"--port {port} --bind 127.0.0.1 --cluster-enabled yes --cluster-port {free_port()}"
            )
            words += f" --dir {home} --cluster-node-timeout 1500 --appendonly yes --appendfsync no"
            command = [str(_binary_path()), *words.split(), "--save", ""]
            self.processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        self._nodes = [redis.Redis(port=port) for port in self.ports]

    def meet(self) -> None:
        """Become a Cluster."""
        for node in self._nodes:
            self._until(node.ping)
        buses = [int(n.config_get("cluster-port")["cluster-port"]) for n in self._nodes]
        for n, node in enumerate(self._nodes[:3]):
            first, last = 16384 * n // 3, 16384 * (n + 1) // 3 - 1
            node.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        for port, bus in zip(self.ports[1:], buses[1:], strict=True):
            self._nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
        self._until(lambda: all(self._knows(node, len(self.ports)) for node in self._nodes))
        for primary, replica in zip(self._nodes, self._nodes[3:], strict=False):
            replica.execute_command("CLUSTER REPLICATE", primary.execute_command("CLUSTER MYID"))
        self._until(lambda: all(self._well(node) for node in self._nodes))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.ports[0]}"

    def serving(self, key: str) -> subprocess.Popen[bytes]:
        """The process of the primary that serves a key."""
        slot = self._nodes[0].execute_command("CLUSTER KEYSLOT", key)
        return self.processes[slot * 3 // 16384]

    def close(self) -> None:
        for node in self._nodes:
            node.close()
        for process in self.processes:
            process.kill()
            process.wait()

    @staticmethod
    def _knows(node: redis.Redis, size: int) -> bool:
        told = node.execute_command("CLUSTER INFO")
        return str(told.get("cluster_known_nodes")) == str(size)

    @staticmethod
    def _well(node: redis.Redis) -> bool:
        told = node.info("replication")
        linked = told["role"] == "master" or told["master_link_status"] == "up"
        return linked and node.execute_command("CLUSTER INFO").get("cluster_state") == "ok"

    @staticmethod
    def _until(there: object) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(redis.RedisError):
                if there():  # type: ignore[operator]
                    return
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    running = Cluster(tmp_path / "cluster", request.param)
    try:
        running.meet()
        yield running
    finally:
        running.close()


def workers(start: Start, tmp_path: Path, cluster: Cluster) -> list[Shoal]:
    """Two on one cluster, with one key."""
    shared = {"state": cluster.url, "records_url": f"sqlite:///{tmp_path / 'records.db'}"}
    key = start(data="alone").folder.path / "identity.key"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(key, tmp_path / name)
    return [start(data=name, **shared) for name in ("one", "two")]


@pytest.mark.parametrize("cluster", [False], indirect=True)
def test_workers_over_a_cluster_answer_as_one_memory_window(
    start: Start, tmp_path: Path, cluster: Cluster
) -> None:
    lines = a_ring()
    a, b = workers(start, tmp_path, cluster)
    alone = start(data="memory")
    shutil.copy(tmp_path / "one" / "identity.key", tmp_path / "memory" / "identity.key")
    alone.close()
    alone = start(data="memory")
    for n, line in enumerate(lines):
        assert feed((a, b)[n % 2], [line]) == feed(alone, [line])
    for shoal in (a, b):
        shoal.mend()
        shoal.look()
        assert [x.status for x in feed(shoal, lines)] == ["duplicate"] * len(lines)
    alone.look()
    for account in alone.engine.ledger:
        for shoal in (a, b):
            np.testing.assert_array_equal(shoal.vector_of(account), alone.vector_of(account))
    assert a.engine.ledger == b.engine.ledger == alone.engine.ledger
    # the order in which a cluster's members are listed is not part of an answer
    ours, theirs = ([sorted(c["members"]) for c in shoal.cluster_list()] for shoal in (alone, a))
    assert ours == theirs != []


@pytest.mark.parametrize("cluster", [False], indirect=True)
def test_a_fold_that_a_dead_worker_began_is_ended_by_another(
    start: Start, tmp_path: Path, cluster: Cluster
) -> None:
    """It died when one node had all that it sent, one some, and one nothing."""
    lines = a_ring()
    a, b = workers(start, tmp_path, cluster)
    alone = start(data="alone two")
    shutil.copy(tmp_path / "one" / "identity.key", tmp_path / "alone two" / "identity.key")
    alone.close()
    alone = start(data="alone two")
    told = feed(alone, lines[:30]) + feed(alone, lines[30:])
    feed(a, lines[:30])
    window: Any = a.engine.window
    window._client = Mortal(a.client, [0, 90, 1000], die)
    with pytest.raises(Killed):
        feed(a, lines[30:])
    a.fault = "killed"
    again = feed(b, lines)
    assert [x.status for x in again] == ["duplicate"] * len(lines)
    assert [x.decision for x in again] == [x.decision for x in told]
    b.mend()
    b.mend()
    assert b.log.folding() == {}
    assert b.engine.ledger == alone.engine.ledger
    for account in alone.engine.ledger:
        np.testing.assert_array_equal(b.vector_of(account), alone.vector_of(account))
    assert parity(b).differing == 0


@pytest.mark.parametrize("cluster", [True], indirect=True)
def test_failover_of_the_logs_node_loses_nothing_acknowledged(
    start: Start, tmp_path: Path, cluster: Cluster
) -> None:
    a, _ = workers(start, tmp_path, cluster)
    lines = [msgspec.json.encode(one(n, f"a{n % 5}")) for n in range(120)]
    acknowledged: list[str] = []
    killed = cluster.serving("{shoal:log}")
    deadline = time.monotonic() + READY_S
    for n, line in enumerate(lines):
        if n == 60:
            os.kill(killed.pid, signal.SIGKILL)
        while True:
            try:
                (answer,) = feed(a, [line])
                acknowledged.append(str(answer.event_id))
                break
            except Unavailable:
                assert time.monotonic() < deadline
                time.sleep(0.1)
                a.mend()
    assert len(acknowledged) == len(lines)
    kept = [body for entry in a.log.read() for body in entry.events]
    ids = {msgspec.json.decode(body)["event_id"] for body in kept}
    assert ids == set(acknowledged)


@pytest.mark.parametrize("cluster", [False], indirect=True)
def test_without_its_cluster_a_worker_refuses_and_says_why(
    start: Start, tmp_path: Path, cluster: Cluster
) -> None:
    a, _ = workers(start, tmp_path, cluster)
    feed(a, [msgspec.json.encode(one(0))])
    for process in cluster.processes:
        os.kill(process.pid, signal.SIGKILL)
    for n in range(3):  # the client finds out step by step, and by errors of two families
        with pytest.raises(Unavailable):
            feed(a, [msgspec.json.encode(one(1 + n))])
        a.mend()
    assert "the log cannot be used" in str(a.fault)
