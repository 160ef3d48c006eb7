"""A world: a scenario played out from one seed.

`simulate` sets the stage and casts the actors; `World.lines` then plays them forward slice by slice
and hands out events in the order in which they are observed. Nothing is kept of an event once it
has been handed out, so memory follows the number of accounts. Everything random comes from one
seeded stream in a fixed order: the same arguments give the same bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from synth.account import Account
from synth.books import Book, settle
from synth.cast import SCENARIOS, cast, check_knobs
from synth.geography import Prefix
from synth.labels import LabelRow, labels
from synth.people import DAY
from synth.provider import ACTS
from synth.stage import Stage

TIERS = ("T0", "T1", "T2", "T3", "mixed")
START = 1_772_409_600_000  # Monday 2026-03-02 00:00 UTC
_SLICE_MS = 15 * 60_000


class UnknownScenario(ValueError):
    """No such scenario, tier, or an impossible size; the message says what there is."""


@dataclass(frozen=True, slots=True)
class TruthRow:
    """One row of truth.csv."""

    account_id: str
    ring_id: str
    typology: str
    cohort: str
    tier: str
    group_id: str


class World:
    """Plays once. `lines` is consumed as a stream; `truth` grows as accounts appear in it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @property
    def plan(self) -> list[Prefix]:
        """The address plan that the events' `ip` come from."""
        return self._stage.plan.prefixes

    def blocks(self) -> Iterator[tuple[bytes, int]]:
        """NDJSON in order of observation, in blocks of whole lines, and how many lines each holds."""
        for _, blocks in self._slices():
            yield from blocks

    def _slices(self) -> Iterator[tuple[int, Iterator[tuple[bytes, int]]]]:
        stage, now = self._stage, self._stage.start
        while now < stage.end:
            now = min(now + _SLICE_MS, stage.end)
            stage.pass_time(now)
            yield now, stage.exchange.drain(now)

    def lines(self) -> Iterator[bytes]:
        """The same line by line; each ends in a newline."""
        for block, _ in self.blocks():
            yield from block.splitlines(keepends=True)

    def truth(self) -> list[TruthRow]:
        """The truth about every account of which an event has been observed, in order of its (random) id."""
        rows = [_row(account) for account in self._stage.roster if account.observed]
        return sorted(rows, key=lambda row: row.account_id)

    def play(
        self, decide: Callable[[bytes], Iterable[tuple[str, str]]], every_ms: int = _SLICE_MS
    ) -> None:
        """Play with a detector in the loop: what it decides happens, and everybody reacts.

        Args:
            decide: is handed the NDJSON that was observed in each `every_ms`; returns (account id, action)
                pairs, the action `challenge`, `throttle`, `review` or `suspend`.

        Raises:
            ValueError: it names an action or an account that there is not.
        """
        stage, due = self._stage, self._stage.start + every_ms
        accounts = {account.id: account for account in stage.roster}
        observed: list[bytes] = []
        for now, blocks in self._slices():
            observed += [block for block, _ in blocks]
            if now < due and now < stage.end:
                continue
            due = now + every_ms
            for account_id, action in decide(b"".join(observed)):
                if action not in ACTS:
                    raise ValueError(f"no action {action!r}; there are {', '.join(ACTS)}")
                if account_id not in accounts:
                    raise ValueError(f"no account {account_id!r} in this world")
                stage.provider.act(accounts[account_id], action, now)
            observed.clear()

    def books(self) -> list[Book]:
        """What each ring has spent and got so far."""
        settle(self._stage.books, self._stage.roster)
        return list(self._stage.books)

    def labels(self) -> list[LabelRow]:
        """What people and processors have said so far; see synth/labels.py."""
        return labels(self._stage)


def _row(account: Account) -> TruthRow:
    t = account.truth
    return TruthRow(account.id, t.ring_id, t.typology, t.cohort, t.tier, t.group_id or account.id)


def simulate(
    scenario: str = "market",
    *,
    seed: int = 1,
    accounts: int = 2000,
    days: float = 7.0,
    abusive_share: float = 0.05,
    tier: str = "T1",
    start: int = START,
    knobs: Mapping[str, float] = MappingProxyType({}),
) -> World:
    """Set up a world.

    Args:
        scenario: a name in `SCENARIOS`.
        accounts: how many accounts there are, honest and abusive.
        days: length of the span.
        abusive_share: share of the accounts that belong to rings (0-1).
        tier: effort of the adversary, `T0` to `T3`, or `mixed`: each ring its own.
        start: begin of the span, epoch milliseconds.
        knobs: fields of `synth.traits.Traits` set for every ring, and those of `synth.cast.cast`.

    Raises:
        UnknownScenario: a name or a number that this world cannot play.
    """
    if scenario not in SCENARIOS:
        raise UnknownScenario(f"no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    if tier not in TIERS:
        near = [name for name in TIERS if name.lower() == tier.lower()]
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TIERS)}"
        raise UnknownScenario(f"no tier {tier!r}; {hint}")
    if accounts < 1 or days <= 0 or not 0 <= abusive_share <= 1:
        raise UnknownScenario("accounts and days must be positive and abusive_share within 0-1")
    try:
        check_knobs(knobs)
    except ValueError as problem:
        raise UnknownScenario(str(problem)) from None
    stage = Stage(seed, start, start + int(days * DAY), accounts)
    cast(stage, scenario, accounts, abusive_share, tier, knobs)
    return World(stage)
