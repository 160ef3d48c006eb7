"""A world: a scenario played out from one seed.

`simulate` sets the stage and casts the actors; `World.lines` then plays them forward slice by slice
and hands out events in the order in which they are observed. Nothing is kept of an event once it
has been handed out, so memory follows the number of accounts. Everything random comes from one
seeded stream in a fixed order: the same arguments give the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from synth.account import Account
from synth.cast import SCENARIOS, cast
from synth.geography import Prefix
from synth.people import DAY
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
        self._accounts = {account.id: account for account in stage.roster}

    @property
    def plan(self) -> list[Prefix]:
        """The address plan that the events' `ip` come from."""
        return self._stage.plan.prefixes

    def blocks(self) -> Iterator[tuple[bytes, int]]:
        """NDJSON in order of observation, in blocks of whole lines, and how many lines each holds."""
        stage, now = self._stage, self._stage.start
        while now < stage.end:
            now = min(now + _SLICE_MS, stage.end)
            stage.pass_time(now)
            yield from stage.exchange.drain(now)

    def lines(self) -> Iterator[bytes]:
        """The same line by line; each ends in a newline."""
        for block, _ in self.blocks():
            yield from block.splitlines(keepends=True)

    def truth(self) -> list[TruthRow]:
        """The truth about every account that has acted so far, in order of its (random) id."""
        rows = [_row(account) for account in self._stage.roster if account.events]
        return sorted(rows, key=lambda row: row.account_id)

    def suspend(self, account_id: str) -> bool:
        """Feed a decision back: from now on no call of this account is served.

        Returns whether there is such an account.
        """
        account = self._accounts.get(account_id)
        if account is None:
            return False
        self._stage.provider.suspend(account, self._stage.agenda.now)
        return True


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
) -> World:
    """Set up a world.

    Args:
        scenario: a name in `SCENARIOS`.
        accounts: how many accounts there are, honest and abusive.
        days: length of the span.
        abusive_share: share of the accounts that belong to rings (0-1).
        tier: effort of the adversary, `T0` to `T3`, or `mixed`: each ring its own.
        start: begin of the span, epoch milliseconds.

    Raises:
        UnknownScenario: a name or a number that this world cannot play.
    """
    if scenario not in SCENARIOS:
        raise UnknownScenario(f"no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    if tier not in TIERS:
        raise UnknownScenario(f"no tier {tier!r}; there are {', '.join(TIERS)}")
    if accounts < 1 or days <= 0 or not 0 <= abusive_share <= 1:
        raise UnknownScenario("accounts and days must be positive and abusive_share within 0-1")
    stage = Stage(seed, start, start + int(days * DAY), accounts)
    cast(stage, scenario, accounts, abusive_share, tier)
    return World(stage)
