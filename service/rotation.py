"""The rotation of the identity key: an overlap in which the log learns the new names, and a switch.

In the overlap the service goes on with the old key, so that window, log and answers are what they would
be without a rotation. Of each identifier that it meets it also writes what the next key will make of it:

    {shoal:log}:pairs   hash    the first 8 bytes of an old token -> the 16 bytes of the new one

before the event that needs it, in the same file as the log and as durable. A token that an edge has made
is noted as its own successor. The switch, with the service stopped, puts new tokens in the place of old
ones wherever they are kept. What is derived from the log (snapshots) is removed instead, and comes back by
a replay, as after an erasure. A token without a pair, one that nobody has shown since the overlap began,
becomes a hash of itself by a key that is thrown away: who shared it is linked as before, and nobody will
match it again.

A step may be killed and is done again: archive files, the hot log and the records each say, in the write
that renames them, of which key they are; old key, pairs and the note that a switch has begun go last, in
this order. Between the first step and the last no service starts on the folder.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any, cast

import msgspec
import redis

from features.catalog import Catalog
from features.event import AnyEvent, decode, encode
from features.identity import Secret, identifiers, replace_identifiers
from features.plan import CUSTOM_SPAN, LATE, plan
from service.cold import ColdLog
from service.folder import Folder, FolderProblem, Identity, Rotation
from service.lease import Lease
from service.log import Entry, EventLog, LogError
from service.records import IDENTITY_KEY, LOCAL, Records
from service.valkey import MARKER, EmbeddedValkey

PAIRS = "{shoal:log}:pairs"
TOKEN = re.compile(r"h:[0-9a-fA-F]{32}")
_TOKENS = re.compile(rb"h:([0-9a-fA-F]{16})[0-9a-fA-F]{16}")
# A case shows a token by its first half; in the text of a message JSON may have escaped the dots.
_IN_TEXT = re.compile(r"h:([0-9a-f]{16})(…|\\u2026|[0-9a-f]{16}(?![0-9a-f]))")
MET = 1 << 17  # identifiers remembered as met, about 20 MB
DAY_MS = 86_400_000


class RotationProblem(RuntimeError):
    """The identity key cannot be rotated as asked, and why."""


class KeyChanged(LogError):
    """The folder's identity key is no longer what a service began with."""


def overlap_ms() -> int:
    """How long what was met before can still count: the longest span, and the latest late event."""
    return max(int(plan(Catalog()).sets[:, 3].max()), CUSTOM_SPAN) + LATE


class Overlap:
    """Notes pairs while events are taken in."""

    def __init__(self, old: Secret, rotation: Rotation, client: redis.Redis) -> None:
        self._old, self._new, self._client = old, Secret(rotation.key), client
        self._met: set[tuple[str, str]] = set()

    def note(self, events: Iterable[AnyEvent]) -> None:
        """Have a pair kept of every identifier of these events, which are canonical and not hashed.

        Raises redis.RedisError.
        """
        found = {i for event in events for i in identifiers(event)} - self._met
        self._keep(found)
        if len(self._met) > MET:
            self._met.clear()
        self._met |= found

    def note_one(self, family: str, value: str) -> None:
        """The same, of one identifier."""
        self._keep([(family, value)])

    def forget(self, log: Callable[[], Iterable[Entry]], erased: Callable[[bytes], bool]) -> None:
        """Drop the pairs of tokens that only events to be `erased` hold. Raises what reading does."""
        own: set[bytes] = set()
        for body in _bodies(log()):
            if erased(body):
                own |= _halves(body)
        for body in _bodies(log()) if own else ():
            if not erased(body):
                own -= _halves(body)
        if own:
            self._client.hdel(PAIRS, *own)
        self._met.clear()

    def _keep(self, found: Iterable[tuple[str, str]]) -> None:
        made: dict[bytes, bytes] = {}
        theirs = []
        for family, value in found:
            if not value.startswith("h:"):
                made[self._old.digest(family, value)[:8]] = self._new.digest(family, value)
            elif TOKEN.fullmatch(value):  # an edge's; unless it is one of ours that came back
                theirs.append(_bytes(value))
        if made or theirs:
            with self._client.pipeline(transaction=False) as told:
                for token in theirs:
                    told.hsetnx(PAIRS, token[:8], token)
                if made:
                    told.hset(PAIRS, items=[*chain.from_iterable(made.items())])
                told.execute()


def refuse_other_key(folder: Folder, began_with: Identity) -> None:
    """Raises KeyChanged where the key or its rotation is another than a service began with."""
    try:
        same = folder.identity() == began_with
    except FolderProblem as problem:
        raise KeyChanged(str(problem)) from None
    if not same:
        raise KeyChanged(
            "the identity key was rotated, or a rotation was opened, while this service followed or "
            "slept: start it anew"
        )


class Renaming:
    """What becomes of tokens at the switch: what their pairs say, or a hash by a key nobody keeps."""

    def __init__(self, client: redis.Redis, rest: bytes) -> None:
        self._client, self._rest = client, rest

    def bodies(self, bodies: list[bytes]) -> list[bytes]:
        """Events of the log with the tokens of the next key.

        Raises redis.RedisError.
        """
        new = self._new_of(set().union(*map(_halves, bodies)))

        def change(value: str) -> str:
            if not TOKEN.fullmatch(value) or new[_bytes(value)[:8]] == _bytes(value):
                return value
            return "h:" + new[_bytes(value)[:8]].hex()

        return [_changed(body, change) for body in bodies]

    def text(self, text: str) -> str:
        """Words of the records, in which tokens may stand whole or by their first half."""
        old = {bytes.fromhex(half) for half, _ in _IN_TEXT.findall(text)}
        paired = self._paired(old)
        new = self._new_of(old)

        def change(match: re.Match[str]) -> str:
            half, rest = bytes.fromhex(match[1]), match[2]
            if len(rest) < 16:
                return f"h:{new[half][:8].hex()}{rest}"
            # whole and not known, it may be an account's name
            return "h:" + paired[half].hex() if half in paired else match[0]

        return _IN_TEXT.sub(change, text)

    def mark(self, mark: str) -> tuple[str, bool]:
        """A canary's mark, and whether the next key's will be met again."""
        if not TOKEN.fullmatch(mark):
            return mark, True
        old = _bytes(mark)[:8]
        return "h:" + self._new_of({old})[old].hex(), old in self._paired({old})

    def _new_of(self, old: set[bytes]) -> dict[bytes, bytes]:
        paired = self._paired(old)
        return {o: paired.get(o) or _hashed(o, self._rest) for o in old}

    def _paired(self, old: set[bytes]) -> dict[bytes, bytes]:
        if not old:
            return {}
        asked = list(old)
        found = cast(list[bytes | None], self._client.hmget(PAIRS, asked))
        return {o: n for o, n in zip(asked, found, strict=True) if n is not None}


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switch has done, in this run of it: events renamed, in the archive and in the hot log, which
    may hold the same; snapshots removed; rows changed, by table. `dead_canaries` are to be planted again.
    """

    archived: int
    logged: int
    snapshots: int
    records: dict[str, int]
    dead_canaries: list[int]


def refuse_misuse(folder: Folder, opened: bool, records_url: str | None) -> None:
    """Refuse before anything is made or opened.

    Raises:
        RotationProblem: a rotation is not open where it is to be, or is where it is not to be; the
            folder has no log of its own; the records are not where they are looked for.
        FolderProblem: what it says.
    """
    rotation = folder.rotation()
    if opened and rotation is None:
        raise RotationProblem(
            f"no rotation of the identity key is open on {folder.path}: "
            f"`shoal keys rotate-identity` opens one"
        )
    if rotation is not None and not opened:
        raise RotationProblem(
            f"a rotation of the identity key is open on {folder.path}: end it with --finish, "
            f"or give it up with --cancel"
        )
    if not (folder.valkey / MARKER).exists():
        raise RotationProblem(
            f"{folder.path} holds no log of its own. The identity key is rotated where the log is "
            f"embedded; over a shared Redis it cannot be yet"
        )
    if records_url is None and not (folder.path / "records.db").exists():
        raise RotationProblem(
            f"{folder.path} holds no records: give --records as `shoal serve` was given it"
        )


def epochs(folder: Folder) -> list[str]:
    """What there is to say of each epoch's key, a line each.

    Raises FolderProblem: it has none, or it cannot be read.
    """
    if not (folder.path / "identity.key").exists():
        raise FolderProblem(f"{folder.path} has no identity key yet: the first start makes one")
    past, rotation = folder.past_epochs(), folder.rotation()
    told = [f"epoch {n}  destroyed {_date(at)}" for n, at in enumerate(past, 1)]
    now = len(past) + 1
    if rotation is None or rotation.epoch == now:
        told.append(f"epoch {now}  in use")
    else:
        told.append(f"epoch {now}  in use, to be destroyed at the switch")
    if rotation is None:
        return told
    if rotation.switching:
        told.append(
            f"epoch {rotation.epoch}  switch begun and not ended: "
            f"`shoal keys rotate-identity --finish` goes on"
        )
    else:
        over = _date(rotation.since + overlap_ms())
        told.append(
            f"epoch {rotation.epoch}  noted since {_date(rotation.opened_at)}; the overlap is over when "
            f"events of {over} are in: then stop the service, `shoal keys rotate-identity --finish`"
        )
    return told


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def begin(folder: Folder, records: Records, now: int, by: str = LOCAL) -> Rotation:
    """Make the next key and open the overlap; a service that starts from now on notes pairs.

    Raises:
        RotationProblem: the log failed, or somebody writes to it all the same.
        ValkeyError, LogError, FolderProblem, RecordsError: what they say.
    """
    with _server(folder) as client:
        lease = Lease(client, "rotation")
        token = lease.take(by_force=True)
        assert token is not None
        client.delete(PAIRS)
        rotation = Rotation(
            epoch=folder.identity().epoch + 1,
            key=secrets.token_bytes(32),
            rest=secrets.token_bytes(32),
            opened_at=now,
            since=_newest(folder, client),
        )
        if not lease.renew(token):
            raise RotationProblem("a standby has taken over the log meanwhile: stop it first")
        records.audit(by, "begin rotation", IDENTITY_KEY, _told_of(rotation))
        folder.keep_rotation(rotation)
    return rotation


def cancel(folder: Folder, records: Records, by: str = LOCAL) -> Rotation:
    """Give up a rotation that has not begun to switch: nothing has been renamed yet.

    Raises:
        RotationProblem: it is switching, or the log failed.
        ValkeyError, FolderProblem, RecordsError: what they say.
    """
    rotation = _open_one(folder)
    if rotation.switching:
        raise RotationProblem(
            "the switch has begun, and the log may be of either key: go on with --finish"
        )
    with _server(folder) as client:
        records.audit(by, "cancel rotation", IDENTITY_KEY, _told_of(rotation))
        # first: a rotation that has lost its pairs must not look like one that has them
        folder.drop_rotation()
        client.delete(PAIRS)
        EventLog(client).rewrite_file()
    return rotation


def finish(
    folder: Folder, records: Records, now: int, by: str = LOCAL, *, early: bool = False
) -> Switched:
    """Switch to the next key, or go on with a switch that was killed; then the old key is gone.

    `early`: whether or not the overlap has lasted as long as anything can count.

    Raises:
        RotationProblem: it is too early, or the log failed.
        ValkeyError, LogError, FolderProblem, RecordsError, OSError: what they say.
    """
    rotation = _open_one(folder)
    with _server(folder) as client:
        if not (early or rotation.switching):
            _refuse_early(rotation, _newest(folder, client))
        return _Switch(folder, records, rotation, client, now, by).run()


@contextmanager
def _server(folder: Folder) -> Iterator[redis.Redis]:
    """The server of the folder's log, which is ours alone meanwhile."""
    try:
        with EmbeddedValkey(folder.valkey) as valkey:
            yield valkey.client()
    except redis.RedisError as problem:
        raise RotationProblem(
            f"the log cannot be used: {problem}. Nothing is lost: give the same command again"
        ) from None


class _Switch:
    """The steps of a switch, in order; each may be done again."""

    def __init__(
        self,
        folder: Folder,
        records: Records,
        rotation: Rotation,
        client: redis.Redis,
        now: int,
        by: str,
    ) -> None:
        self._folder, self._records, self._rotation = folder, records, rotation
        self._client, self._now, self._by = client, now, by
        self._log = EventLog(client)
        self._renaming = Renaming(client, rotation.rest)
        self._told = Switched(0, 0, 0, {}, [])

    def run(self) -> Switched:
        self.close()
        self.fence()
        self.drop_snapshots()
        self.rename_archive()
        self.rename_log()
        self.rename_records()
        self.replace_key()
        self.forget_pairs()
        self.end()
        return self._told

    def close(self) -> None:
        """From here on no service starts on the folder until the last step is done."""
        self._folder.keep_rotation(msgspec.structs.replace(self._rotation, switching=True))

    def fence(self) -> None:
        """Whoever was the writer, and sleeps, appends nothing more."""
        Lease(self._client, "rotation").take(by_force=True)

    def drop_snapshots(self) -> None:
        """They name tokens by their first half; the log, from which they came, is still whole."""
        old = list(self._folder.snapshots.glob("*.snapshot*"))
        for path in [*old, *self._folder.snapshots.glob(".*.partial")]:
            path.unlink()
        self._told = replace(self._told, snapshots=len(old))

    def rename_archive(self) -> None:
        cold = ColdLog(self._folder.cold)
        events = cold.rename(self._renaming.bodies, self._rotation.mark)
        self._told = replace(self._told, archived=events)

    def rename_log(self) -> None:
        events = self._log.rename(self._renaming.bodies, self._rotation.mark)
        self._told = replace(self._told, logged=events)

    def rename_records(self) -> None:
        touched, dead = self._records.rename_tokens(
            _told_of(self._rotation), self._renaming.text, self._renaming.mark, by=self._by
        )
        self._told = replace(self._told, records=touched, dead_canaries=dead)

    def replace_key(self) -> None:
        self._folder.switch_key(self._rotation)

    def forget_pairs(self) -> None:
        self._client.delete(PAIRS)
        self._log.rewrite_file()

    def end(self) -> None:
        self._folder.end_rotation(self._rotation, self._now)


def _told_of(rotation: Rotation) -> dict[str, Any]:
    """What the audit says of a rotation."""
    return {"epoch": rotation.epoch, "mark": rotation.mark}


def _open_one(folder: Folder) -> Rotation:
    rotation = folder.rotation()
    assert rotation is not None, "refuse_misuse comes before"
    return rotation


def _refuse_early(rotation: Rotation, newest: int) -> None:
    missing = overlap_ms() - (newest - rotation.since)
    if missing > 0:
        raise RotationProblem(
            f"the overlap is not over: an identifier that was last shown before it can count for "
            f"{-(-missing // DAY_MS)} more days of events. With --now those that were not shown since "
            f"are never matched again (links that rest on them stay)"
        )


def _newest(folder: Folder, client: redis.Redis) -> int:
    """When the latest event in the log happened, 0 where there is none."""
    hot = _bodies(EventLog(client).read())
    told = (msgspec.json.decode(body, type=_When).occurred_at for body in hot)
    return max(max(told, default=0), ColdLog(folder.cold).newest())


class _When(msgspec.Struct):
    occurred_at: int


def _changed(body: bytes, change: Callable[[str], str]) -> bytes:
    if _TOKENS.search(body) is None:
        return body  # byte for byte, whoever has written it
    event = decode(body)
    replace_identifiers(event, change)
    return encode(event)


def _bodies(log: Iterable[Entry]) -> Iterator[bytes]:
    return (body for entry in log for body in entry.events)


def _halves(body: bytes) -> set[bytes]:
    """The first half of each token in an event of the log, and of what looks like one."""
    return {bytes.fromhex(half.decode()) for half in _TOKENS.findall(body)}


def _hashed(old: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(old, key=key, digest_size=16).digest()


def _bytes(token: str) -> bytes:
    return bytes.fromhex(token[2:])
