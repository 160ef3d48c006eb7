"""A sweep: the same sightings as links, clusters and standing."""

from types import TracebackType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detector.sweep
from detector.clusters import FEATURES
from detector.engine import Engine
from detector.model import Model
from detector.sweep import CLUSTER_COLUMNS, STANDING_COLUMNS, Sweep, cluster_vectors, look, silenced
from features.feature import HOUR, MINUTE
from features.memory import MemoryWindow
from features.window import Window
from tests.detector.handmade import (
    START,
    Fields,
    Log,
    accepted,
    engine_of,
    events_of,
    made_model,
    small_logs,
    standing_columns,
)


def ring_among_strangers() -> Log:
    """Six accounts on one card and device within minutes, forty that share nothing."""
    log = Log().crowd(40)
    for i in range(6):
        log.card(f"r{i}", 300 + i, "card", device_id="device")
    return log


def swept(log: Log, model: Model | None = None) -> tuple[Engine, Sweep]:
    engine = engine_of(model)
    engine.ingest(log.events)
    return engine, look(engine.window, engine.kinds, model)


def named(engine: Engine, found: Sweep) -> list[str]:
    return [engine.names[int(a)] for a in found.account]


def test_a_ring_among_strangers_is_a_cluster() -> None:
    engine, found = swept(ring_among_strangers())
    names = named(engine, found)
    inside = {n for n, p in zip(names, found.place, strict=True) if p >= 0}
    assert len(found.clusters) == 1
    assert inside == {f"r{i}" for i in range(6)}
    assert found.at == engine.window.watermark == START + 1440 * MINUTE
    assert (found.cluster_score == found.clusters.score).all(), "without a model surprise speaks"
    assert np.isnan(found.standing).all()


@settings(max_examples=50)
@given(small_logs(), st.sets(st.sampled_from(["device", "card"])))
def test_a_kind_that_is_silenced_might_never_have_been_sent(
    log: list[Fields], mute: set[str]
) -> None:
    named = {"device": "device_id", "card": "instrument_id"}
    dropped = [named[kind] for kind in mute]
    engine, never = engine_of(), engine_of()
    engine.ingest(events_of(log))
    never.ingest(events_of([{k: v for k, v in said.items() if k not in dropped} for said in log]))
    found = look(engine.window, engine.kinds, None)
    told = silenced(engine.window, engine.kinds, found, mute)
    expected = look(never.window, never.kinds, None)
    width = len(engine.catalog.features)
    np.testing.assert_array_equal(told[:, width:], expected.vectors[:, width:])
    np.testing.assert_array_equal(told[:, :width], found.vectors[:, :width])


def test_accounts_of_one_organisation_are_one_owner() -> None:
    log = Log().crowd(40)
    for i in range(6):
        log.card(f"staff{i}", 300 + i, "card", device_id="device", org_id="firm")
    _, found = swept(log)
    assert len(found.clusters) == 0
    log.card("r", 310, "card", device_id="device").card("s", 311, "card", device_id="device")
    engine, found = swept(log)
    assert found.clusters.size.tolist() == [3]
    at = dict(zip(named(engine, found), found.place.tolist(), strict=True))
    assert {at[f"staff{i}"] for i in range(6)} == {at["r"]} == {0}
    assert at["stranger0"] == -1


def test_an_account_that_joins_an_organisation_does_not_link_to_itself() -> None:
    """What it was seen on alone is the organisation's from then on."""
    log = Log().crowd(40)
    for name in ("founder", "founder", "clerk"):
        log.card(name, 300, "card", device_id="device", ip="192.0.2.1")
    log.card("founder", 310, "card", device_id="device", ip="192.0.2.1", org_id="firm")
    log.card("clerk", 320, "card", device_id="device", org_id="firm")
    _, found = swept(log)
    assert len(found.clusters) == 0
    assert len(found.sets.owners) == 40 + 1


def test_standing_and_cluster_scores_are_the_models() -> None:
    model = made_model(standing="accounts_by_device_30d", cluster="size")
    engine, found = swept(ring_among_strangers(), model)
    standing = dict(zip(named(engine, found), found.standing, strict=True))
    assert standing["r3"] == pytest.approx(0.6)
    assert standing["stranger7"] == pytest.approx(0.1)
    assert found.cluster_score == pytest.approx([0.6])
    assert found.margin == pytest.approx(10 * found.standing)
    # the cluster head is shown raw margins: six on one device
    lowest = made_model(standing="accounts_by_device_30d", cluster="standing_least")
    assert swept(ring_among_strangers(), lowest)[1].cluster_score == pytest.approx([0.6])


def test_a_model_without_a_cluster_head_leaves_surprise() -> None:
    model = made_model()
    model.heads.pop("cluster")
    _, found = swept(ring_among_strangers(), model)
    assert (found.cluster_score == found.clusters.score).all()


def test_the_silent_are_linked_but_not_scored(made: Model) -> None:
    log = Log().crowd(40, 0, 6000)
    for i in range(6):
        log.card(f"r{i}", 300 + i, "card", device_id="device")
    log.request("r5", 5900)
    engine = engine_of(made)
    engine.ingest(log.events)
    found = look(engine.window, engine.kinds, made, active_ms=24 * HOUR)
    names = named(engine, found)
    assert found.place[[names.index(f"r{i}") for i in range(6)]].tolist() == [0] * 6
    scored = {n for n, s in zip(names, found.standing, strict=True) if s == s}
    assert {n for n in scored if n[0] == "r"} == {"r5"}
    assert 0 < len(scored) - 1 < 40
    assert {n for n, r in zip(names, found.row, strict=True) if r >= 0} == scored
    whole = look(engine.window, engine.kinds, made)
    some = found.row >= 0
    assert np.array_equal(found.vectors[found.row[some]], whole.vectors[some], equal_nan=True)


@settings(max_examples=25)
@given(fields=small_logs())
def test_columns_are_those_a_model_was_trained_on_whatever_is_seen(fields: list[Fields]) -> None:
    engine = engine_of()
    engine.ingest(events_of(fields))
    found = look(engine.window, engine.kinds, None)
    assert found.columns == standing_columns(engine.catalog)
    assert len(set(found.columns)) == len(found.columns)
    assert found.vectors.shape == (len(found.account), len(found.columns))
    assert len(found.account) == len({f["account_id"] for f in accepted(fields)})
    width = len(engine.catalog.names)
    asked = engine.window.ask(found.account, found.at)
    assert np.array_equal(found.vectors[:, :width], asked, equal_nan=True)
    # owners in one cluster, and they alone, have its place
    at = found.links.index(found.owner)
    expected = [int(found.clusters.of[i]) if i >= 0 else -1 for i in at]
    assert found.place.tolist() == expected


@settings(max_examples=15)
@given(fields=small_logs(min_size=1))
def test_looking_moves_nothing(fields: list[Fields]) -> None:
    engine = engine_of()
    engine.ingest(events_of(fields))
    before = {k: v.copy() for k, v in engine.window.save().items()}  # type: ignore[attr-defined]
    one, two = (look(engine.window, engine.kinds, None) for _ in range(2))
    for name, array in engine.window.save().items():  # type: ignore[attr-defined]
        assert np.array_equal(array, before[name], equal_nan=array.dtype.kind == "f"), name
    assert np.array_equal(one.vectors, two.vectors, equal_nan=True)
    assert (one.clusters.id == two.clusters.id).all()


class _Lock:
    """Says whether it is held."""

    held = False
    taken = 0

    def __enter__(self) -> None:
        assert not self.held
        self.held, self.taken = True, self.taken + 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.held = False


class _Watched:
    """A window that is asked only under the lock."""

    def __init__(self, window: Window, lock: _Lock) -> None:
        self._window, self._lock = window, lock
        self.plan = window.plan  # never changes

    def __getattr__(self, name: str) -> object:
        assert self._lock.held, f"window.{name} without the lock"
        return getattr(self._window, name)


def test_the_window_is_read_under_the_lock_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, whole = swept(ring_among_strangers())
    lock = _Lock()
    monkeypatch.setattr(detector.sweep, "ASK", 10)
    watched: Window = _Watched(engine.window, lock)  # type: ignore[assignment]
    found = look(watched, engine.kinds, None, lock=lock)
    assert lock.taken == 1 + 5, "ingest can come in between"
    assert np.array_equal(found.vectors, whole.vectors, equal_nan=True)


def test_a_window_that_saw_nothing_has_no_clusters(made: Model) -> None:
    engine = engine_of(made)
    found = look(MemoryWindow(engine.catalog), engine.kinds, made)
    assert len(found.clusters) == len(found.account) == len(found.cluster_score) == 0


@given(
    rows=st.lists(
        st.tuples(st.integers(-1, 4), st.sampled_from([0.1, 0.2, 0.9, np.nan])), max_size=30
    )
)
def test_cluster_vectors_summarise_members_standing(rows: list[tuple[int, float]]) -> None:
    place = np.array([p for p, _ in rows], np.int64)
    standing = np.array([s for _, s in rows], np.float64)
    structure = np.arange(5.0 * len(FEATURES)).reshape(5, -1)
    told = cluster_vectors(structure, place, standing)
    assert told.shape == (5, len(CLUSTER_COLUMNS))
    assert (told[:, : len(FEATURES)] == structure).all()
    for c in range(5):
        known = [s for p, s in rows if p == c and s == s]
        expected = np.full(4, np.nan)
        if known:
            expected[:] = np.mean(known), np.median(known), min(known), max(known)
        assert told[c, -len(STANDING_COLUMNS) :] == pytest.approx(expected, nan_ok=True)
