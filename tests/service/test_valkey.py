import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from service.valkey import EmbeddedValkey, ValkeyError, connect, too_old, without_password

# Prints the server's pid, writes one key, and then only waits to be killed.
SERVICE = """
import sys, time
from service.valkey import EmbeddedValkey
valkey = EmbeddedValkey(sys.argv[1])
valkey.start()
valkey.client().set("kept", "yes")
print(valkey.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    try:
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that runs Valkey on tmp_path/"valkey", and that server's pid."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(tmp_path / "valkey")],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def test_starts_answers_and_stops(tmp_path: Path) -> None:
    folder = tmp_path / "valkey"
    with EmbeddedValkey(folder) as valkey:
        client, pid, path = valkey.client(), valkey.pid, valkey.socket_path
        client.set("a", "b")
        with closing(redis.Redis.from_url(valkey.url)) as by_url:
            assert by_url.get("a") == b"b"
        assert alive(pid)
    assert not alive(pid)
    assert not path.exists()
    with pytest.raises(ValkeyError, match="not running"):
        valkey.client()


def test_settings_are_the_promised_ones(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey", fsync="always") as valkey:
        settings = valkey.client().config_get("*")
        assert settings["port"] == "0"
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "always"
        assert settings["save"] == ""
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["dir"] == str(tmp_path / "valkey")
        assert stat.S_IMODE((tmp_path / "valkey").stat().st_mode) == 0o700
        assert stat.S_IMODE(valkey.socket_path.stat().st_mode) == 0o700
        listening = Path(f"/proc/{valkey.pid}/fd")
        if listening.exists():
            sockets = {os.readlink(fd) for fd in listening.iterdir() if fd.is_symlink()}
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/{valkey.pid}/net/{table}").read_text().splitlines()[1:]:
                    assert f"socket:[{line.split()[9]}]" not in sockets


@pytest.mark.parametrize("fsync", ["everysec", "always", "no"])
def test_data_survives_a_clean_stop(tmp_path: Path, fsync: str) -> None:
    with EmbeddedValkey(tmp_path / "valkey", fsync=fsync) as valkey:  # type: ignore[arg-type]
        valkey.client().xadd("s", {"n": "1"})
    with EmbeddedValkey(tmp_path / "valkey", fsync=fsync) as valkey:  # type: ignore[arg-type]
        assert valkey.client().xlen("s") == 1


def test_data_survives_kill_of_the_server(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        client = valkey.client()
        for number in range(500):
            client.xadd("s", {"n": str(number)})
        os.kill(valkey.pid, signal.SIGKILL)
        valkey._process.wait()  # type: ignore[union-attr]
        with pytest.raises(ValkeyError, match="has died"):
            valkey.client()
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        assert valkey.client().xlen("s") == 500


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel flag is Linux's")
def test_dies_with_a_killed_service(
    tmp_path: Path, service: tuple[subprocess.Popen[str], int]
) -> None:
    process, pid = service
    assert alive(pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 3
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        assert valkey.client().get("kept") == b"yes"


def test_an_orphan_is_ended_before_the_next_start(tmp_path: Path) -> None:
    """As on macOS, where the server outlives a killed service: give up the lock, not the server."""
    folder = tmp_path / "valkey"
    first = EmbeddedValkey(folder)
    first.start()
    first.client().set("kept", "yes")
    orphan = first.pid
    assert first._lock is not None
    first._lock.close()
    first._lock = None
    with EmbeddedValkey(folder) as second:
        assert second.client().get("kept") == b"yes"
        assert not alive(orphan)
        assert second.pid != orphan
        # The socket now belongs to the second, so the first must not tidy it away.
        first._socket = None
        first.stop()


def test_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    valkey = EmbeddedValkey(tmp_path / "valkey")
    starter = threading.Thread(target=valkey.start)
    starter.start()
    starter.join()
    time.sleep(0.2)
    assert valkey.client().ping()
    valkey.stop()


def test_second_service_is_refused_and_told_who_holds(
    tmp_path: Path, service: tuple[subprocess.Popen[str], int]
) -> None:
    process, pid = service
    with pytest.raises(ValkeyError, match=rf"in use by process {process.pid}\b"):
        EmbeddedValkey(tmp_path / "valkey").start()
    assert alive(pid)


def test_second_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as first:
        second = EmbeddedValkey(tmp_path / "x" / ".." / "valkey")
        (tmp_path / "x").mkdir()
        with pytest.raises(ValkeyError, match=rf"in use by process {os.getpid()}\b"):
            second.start()
        second.stop()
        with pytest.raises(ValkeyError, match="already started"):
            first.start()
        assert first.client().ping()


def test_forked_child_does_not_stop_the_server(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        valkey._owner_pid += 1  # what a forked child sees: another process started it
        valkey.stop()
        valkey._owner_pid -= 1
        assert valkey.client().ping()


@pytest.mark.parametrize("foreign", ["dump.rdb", "appendonly.aof", "appendonlydir", "letter.txt"])
def test_foreign_folder_is_refused_untouched(tmp_path: Path, foreign: str) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    (folder / foreign).write_text("x")
    with pytest.raises(ValkeyError, match=f"not made by Shoal: it holds {foreign}"):
        EmbeddedValkey(folder).start()
    assert os.listdir(folder) == [foreign]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_fresh_volume_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    with EmbeddedValkey(tmp_path) as valkey:
        assert valkey.client().ping()


def test_newer_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shoal-valkey").write_text("2\n")
    with pytest.raises(ValkeyError, match=r"layout '2'; this Shoal reads '1'"):
        EmbeddedValkey(tmp_path).start()


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValkeyError, match=r"cannot use data folder .*file: File exists"):
        EmbeddedValkey(tmp_path / "file").start()


def test_damaged_data_is_said_with_the_servers_words(tmp_path: Path) -> None:
    folder = tmp_path / "valkey"
    with EmbeddedValkey(folder) as valkey:
        valkey.client().set("a", "b")
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(ValkeyError, match=r"(?s)did not start .*valkey\.log.*nonsense"):
        EmbeddedValkey(folder).start()
    # The failed start has given the folder back.
    with pytest.raises(ValkeyError, match="did not start"):
        EmbeddedValkey(folder).start()


def test_torn_tail_is_cut(tmp_path: Path) -> None:
    folder = tmp_path / "valkey"
    with EmbeddedValkey(folder) as valkey:
        valkey.client().set("a", "1")
        valkey.client().set("b", "2")
    (file,) = (folder / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(file.read_bytes()[:-3])
    with EmbeddedValkey(folder) as valkey:
        assert valkey.client().mget("a", "b") == [b"1", None]


class SlowToLoad(EmbeddedValkey):
    """Waits 50 ms at each key of its base file, and answers clients between them."""

    def _settings(self, socket_path: Path) -> Iterator[str]:
        yield from super()._settings(socket_path)
        yield from ("--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024")


def test_waits_while_the_server_is_loading(tmp_path: Path) -> None:
    """Loading takes longer than our patience, which is for silence only."""
    folder = tmp_path / "valkey"
    with EmbeddedValkey(folder) as valkey:
        client = valkey.client()
        client.mset({f"{number}": os.urandom(1024) for number in range(40)})
        client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.01)
    began = time.monotonic()
    with SlowToLoad(folder, start_seconds_max=1.2) as valkey:
        assert time.monotonic() - began > 1.9
        assert valkey.client().dbsize() == 40


@pytest.mark.parametrize("name", ["with space", 'quo"te', "ünï-中转站", "x" * 120])
def test_any_folder_name(tmp_path: Path, name: str) -> None:
    """The last is longer than a socket path may be."""
    with EmbeddedValkey(tmp_path / name) as valkey:
        valkey.client().set("a", "b")
        path = valkey.socket_path
        with closing(redis.Redis.from_url(valkey.url)) as by_url:
            assert by_url.get("a") == b"b"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()
    if path.parent != tmp_path / name:
        assert not path.parent.exists()
    with EmbeddedValkey(tmp_path / name) as valkey:
        assert valkey.client().get("a") == b"b"


def test_unknown_fsync(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="everysec, always, no"):
        EmbeddedValkey(tmp_path, fsync="sometimes")  # type: ignore[arg-type]


def test_connect_to_a_running_server(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey, closing(connect(valkey.url)) as client:
        client.set("a", "b")
        assert client.get("a") == b"b"


def test_connect_unreachable_names_url_and_reason_but_no_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        port = taken.getsockname()[1]
        with pytest.raises(ValkeyError) as caught:
            connect(f"redis://me:hunter2@127.0.0.1:{port}/0")
    message = str(caught.value)
    assert f"redis://127.0.0.1:{port}/0" in message
    assert "refused" in message
    assert "hunter2" not in message


def test_connect_to_a_server_that_says_nothing() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        began = time.monotonic()
        with pytest.raises(ValkeyError, match=r"(?i)time"):
            connect(f"redis://127.0.0.1:{mute.getsockname()[1]}", seconds_max=0.2)
        assert time.monotonic() - began < 3


def test_connect_with_a_wrong_password(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        valkey.client().config_set("requirepass", "right")
        with pytest.raises(ValkeyError, match=r"(?i)password|auth") as caught:
            connect(valkey.url.replace("unix://", "unix://:hunter2@"))
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://x", "redis://:hun/ter2@host:1", "redis://h:port", "", "cache:6379"]
)
def test_connect_to_no_url(url: str) -> None:
    with pytest.raises(ValkeyError, match="is not a server's URL") as caught:
        connect(url)
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("info", "refusal"),
    [
        ({"redis_version": "7.0.0"}, None),
        ({"redis_version": "8.2.1"}, None),
        ({"redis_version": "10.0.0"}, None),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, None),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, None),
        ({"redis_version": "6.2.14"}, "it is Redis 6.2.14; Redis 7.0 or newer is needed"),
        (
            {"redis_version": "7.2.4", "valkey_version": "7.1.9"},
            "it is Valkey 7.1.9; Valkey 7.2 or newer is needed",
        ),
        ({}, "it does not say which version of Redis or Valkey it is"),
    ],
)
def test_versions(info: dict[str, str], refusal: str | None) -> None:
    assert too_old(info) == refusal


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://u:p@h:1/0?password=p", "redis://h:1/0"),
        ("unix://u:p@/run/x.sock?db=0", "unix:///run/x.sock"),
        ("p4ssw0rd", "the given text"),
    ],
)
def test_without_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
