"""A world as a provider's index of it: who has shown what, and who else has."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from synth.world import TruthRow, simulate

HOUR = 3_600_000


class Line(msgspec.Struct):
    """What these tests read of an event."""

    type: str
    account_id: str
    occurred_at: int
    kind: str | None = None
    org_id: str | None = None
    ip: str | None = None
    country: str | None = None
    device_id: str | None = None
    ja4: str | None = None
    header_order_id: str | None = None
    session_id: str | None = None
    end_user_id: str | None = None
    promo_id: str | None = None
    referrer_id: str | None = None
    phone: str | None = None
    line_type: str | None = None
    face_id: str | None = None
    instrument_id: str | None = None
    funding: str | None = None
    card_country: str | None = None
    billing_address_id: str | None = None
    home_id: str | None = None
    repo_id: str | None = None
    git_user_id: str | None = None
    instructions_id: str | None = None
    system_id: str | None = None
    prompt_id: str | None = None
    chain_root: str | None = None
    output_tokens: int = 0
    minted_refs: list[str] | None = None
    emitted_refs: list[str] | None = None
    result: str | None = None
    action: str | None = None
    outcome: str | None = None
    duration_ms: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


SHARED = (
    "ip", "device_id", "header_order_id", "end_user_id", "promo_id", "referrer_id", "phone",
    "face_id", "instrument_id", "billing_address_id", "home_id", "repo_id", "git_user_id",
    "instructions_id", "system_id", "prompt_id", "chain_root",
)  # fmt: skip


@dataclass
class Seen:
    """All accounts of a world by what they have shown."""

    truth: dict[str, TruthRow]
    org: dict[str, str] = field(default_factory=dict)
    lines: dict[str, list[Line]] = field(default_factory=lambda: defaultdict(list))
    holders: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    shown: dict[str, dict[str, set[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )

    @classmethod
    def of(cls, lines: Iterable[Line], truth: Mapping[str, TruthRow]) -> "Seen":
        seen = cls(dict(truth))
        for line in lines:
            account = line.account_id
            seen.lines[account].append(line)
            if line.org_id:
                seen.org[account] = line.org_id
            for name in SHARED:
                value = getattr(line, name)
                if value is not None:
                    seen.holders[name, value].add(account)
                    seen.shown[account][name].add(value)
        return seen

    def cohort(self, name: str) -> list[str]:
        return [a for a, row in self.truth.items() if row.cohort == name and a in self.lines]

    def owner(self, account: str) -> str:
        return self.org.get(account, account)

    def others(self, account: str, name: str, among: str = "strangers") -> int:
        """The most accounts that one value of `name` of this account's is shared with: `strangers`
        (of other owners), the same `owner`'s, or of its `group` in truth."""
        most, group = 0, self.truth[account].group_id
        owner = self.owner(account)
        for value in self.shown[account][name]:
            holders = self.holders[name, value]
            if among == "group":
                count = sum(self.truth[other].group_id == group for other in holders) - 1
            elif account in self.org:
                own = sum(self.owner(other) == owner for other in holders)
                count = own - 1 if among == "owner" else len(holders) - own
            else:
                count = len(holders) - 1 if among == "strangers" else 0
            most = max(most, count)
        return most

    def shared_values(self, account: str, name: str, at_least: int) -> int:
        """How many values of `name` this account shares with so many others."""
        return sum(len(self.holders[name, v]) > at_least for v in self.shown[account][name])

    def share(self, cohort: str, holds: Callable[["Seen", str], bool]) -> float:
        """The share of a cohort's accounts of which something holds."""
        accounts = self.cohort(cohort)
        return sum(holds(self, a) for a in accounts) / len(accounts) if accounts else 0.0

    def without(self, names: Iterable[str]) -> "Seen":
        """The same world in which nobody shares a value of `names`: each account has its own."""
        names = tuple(names)

        def own(line: Line) -> Line:
            changed = {
                name: f"{line.account_id}/{value}"
                for name in names
                if name in SHARED and (value := getattr(line, name)) is not None
            }
            return msgspec.structs.replace(line, **changed)

        return Seen.of((own(x) for xs in self.lines.values() for x in xs), self.truth)


def look(scenario: str, **options: object) -> Seen:
    """Play a world and index it."""
    world = simulate(scenario, **options)  # type: ignore[arg-type]
    read = msgspec.json.Decoder(Line)
    lines = [read.decode(raw) for block, _ in world.blocks() for raw in block.splitlines()]
    return Seen.of(lines, {row.account_id: row for row in world.truth()})
