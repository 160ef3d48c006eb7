"""The generator beside what is known of real relays: `uv run python bench/world.py`.

References are those of the adversary model that this world is built after: a simulation of relay schedulers (M),
users' claims (I), and a recorded run of a real relay (R). Ours are measured on events alone, per typology
or cohort. A call of this world stands for some twenty (synth/prices.py), so counts a day are as much
smaller where they grow with traffic; shares are not.
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass, field

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from synth.prices import CALLS_A_CALL
from synth.world import simulate

DAY = 86_400_000
HOUR = 3_600_000


class Call(msgspec.Struct):
    """What is read of an event."""

    type: str
    account_id: str
    occurred_at: int
    status: int = 0
    kind: str = ""
    chain_root: str = ""
    chain_length: int = 0
    home_id: str = ""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    input_tokens: int = 0


@dataclass
class Traffic:
    """What the calls of one kind of account amount to."""

    users: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    talks: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    hours: dict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    accounts_of: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    visited: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    stayed: list[int] = field(default_factory=lambda: [0, 0])  # tokens read from cache, and all
    hopped: list[int] = field(default_factory=lambda: [0, 0])
    hops: int = 0
    later: int = 0  # calls that carry on a conversation

    def add(self, call: Call) -> None:
        day = call.account_id, call.occurred_at // DAY
        self.talks[day].add(call.chain_root)
        self.hours[day].add(call.occurred_at // HOUR)
        if call.home_id:
            self.users[day].add(call.home_id)
            self.accounts_of[call.home_id, call.occurred_at // DAY].add(call.account_id)
        before = self.visited[call.chain_root]
        if call.chain_length > 1 and before:
            hop = before[-1] != call.account_id
            self.later, self.hops = self.later + 1, self.hops + hop
            tokens = self.hopped if hop else self.stayed
            tokens[0] += call.cache_read_tokens
            tokens[1] += call.cache_read_tokens + call.cache_write_tokens + call.input_tokens
        before.append(call.account_id)

    def told(self) -> list[str]:
        talks = [v for v in self.visited.values() if len(v) > 1]
        return [
            _spread([len(v) for v in self.users.values()]),
            _spread([len(v) for v in self.talks.values()]),
            _spread([len(v) for v in self.hours.values()]),
            _spread([len(v) for v in self.accounts_of.values()]),
            f"{self.hops / max(1, self.later):.1%}",
            f"{np.mean([len(set(v)) > 1 for v in talks]):.0%}" if talks else "-",
            f"{self.stayed[0] / max(1, self.stayed[1]):.2f}",
            f"{self.hopped[0] / self.hopped[1]:.2f}" if self.hopped[1] else "-",
        ]


def _spread(counts: list[int]) -> str:
    return "-" if not counts else f"{np.median(counts):.0f} ({np.quantile(counts, 0.9):.0f})"


REFERENCES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("own account (M)", ("1", "4 (12)", "6 (13)", "1", "0%", "0%", ".92 (R)", "")),
    ("station, sliding hour (M)", ("13-53", "16-69", "17-21", "4 (10-12)", "", "0%", ".90-.91 (R)", "falls")),
    ("station, fixed hour (M)", ("17-70", "23-98", "18-22", "6 (13-18)", "", "27%", "", "0")),
    ("station, default-like (R)", ("", "", "", "", "1.5%", "29%", ".90-.91", "")),
    ("station, pinned (M)", ("3-5", "", "", "1", "0%", "0%", "", "")),
    ("under load (I)", ("", "", "", "", "13-40%/h", "75%", ".95", ".54")),
    ("company gateway (R)", ("", "", "", "", "67%", "long: all", "", "")),
)  # fmt: skip


def measure(
    scenario: str, tier: str, accounts: int, days: float, **knobs: float
) -> dict[str, Traffic]:
    """Traffic by typology or cohort."""
    world = simulate(scenario, seed=5, accounts=accounts, days=days, tier=tier,
                     abusive_share=0.0 if scenario == "honest" else 0.4, knobs=knobs)  # fmt: skip
    decode = msgspec.json.Decoder(Call).decode
    calls = [
        c
        for line in world.lines()
        if b'"type":"request"' in line
        if (c := decode(line)).status == 200
    ]
    side = {row.account_id: row.typology or row.cohort for row in world.truth()}
    found: dict[str, Traffic] = defaultdict(Traffic)
    for call in calls:
        if call.kind not in ("title", "count", "probe"):
            found[side[call.account_id]].add(call)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=1500)
    parser.add_argument("--days", type=float, default=4)
    size = parser.parse_args()
    table = Table(
        box=None, padding=(0, 1), title="medians (90 %); dim: references", title_justify="left"
    )
    for column in ("", "users/\nacct-day", "talks/\nacct-day", "hours/\nday", "accts/\nuser-day",
                   "calls\nthat hop", "talks\nthat hop", "cache read\nstaying", "… on\na hop"):  # fmt: skip
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name, figures in REFERENCES:
        table.add_row(name, *figures, style="dim")
    honest = measure("honest", "T1", size.accounts, size.days)
    for cohort in ("consumer", "company_gateway", "personal_pool", "agent_fleet"):
        table.add_row(cohort, *honest[cohort].told())
    for name, tier, knobs in (
        ("station, T0", "T0", {}),
        ("station, fixed hour", "T1", {"sliding": 0, "sticky_ms": HOUR, "pinned": 0}),
        ("station, sliding hour", "T1", {"sliding": 1, "sticky_ms": HOUR, "pinned": 0}),
        ("station, pinned", "T2", {"pinned": 1}),
    ):
        found = measure("transfer_station", tier, size.accounts, size.days, **knobs)
        table.add_row(name, *found["transfer_station"].told())
    console = Console(width=120)
    console.print(table)
    console.print(f"one call here stands for {CALLS_A_CALL}", style="dim")


if __name__ == "__main__":
    main()
