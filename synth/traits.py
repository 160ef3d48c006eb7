"""What an operator does by habit, and what he takes trouble over.

Two tables. `RELAYS` is relay software as it comes: who is called next, how long a conversation
sticks, what follows an error, how tokens are renewed and accounts probed; its defaults belong
together, so a ring draws one row. `PARAMETERS` is the rest, by tier: T0 changes nothing, T1 unifies
what clients say and renews stickiness on each use, T2 adds an egress and a TLS stack for each
account and mostly uses it through what it was opened with, T3 pins users to accounts and takes the
workspace out of the bodies, as a few do before. A tier is a preset over the same fields, and
`with_knobs` changes any of them.

Every row names its class of source: S read in public source code, I users' claims, M measured in a
small simulation, A assumed. A `Mix` is drawn once a ring; a pair is an inclusive range from which
each good, batch or account draws its own; a share between 0 and 1 is a probability.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, get_type_hints

from synth.dice import Dice

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
Range = tuple[int, int]
UNLIMITED = 1_000_000
EVERYBODY = 1_000_000  # one good serves the whole ring
TIER_NAMES = ("T0", "T1", "T2", "T3")


@dataclass(frozen=True, slots=True)
class Traits:
    """One ring's. Times in the unit of the name; what each means stands in the tables below."""

    tier: str
    relay: str
    # The relay's scheduler.
    scheduler: str
    sticky_ms: int
    sliding: bool
    pinned: bool
    switches: int
    retries_403: int
    retry_403_ms: int
    cool_fault_s: int
    cool_overload_s: int
    cool_denied_s: int
    cool_limit_s: int
    obeys_reset: bool
    cool_jitter: float
    seat_cap: int
    stop_threshold: float
    # Its own traffic.
    refresh_lead_s: int
    refresh_grid_s: int
    polls: float
    poll_cache_s: int
    polls_an_hour: Range
    probes: float
    probe_every_s: int
    probe_offset_s: int
    probe_parallel: int
    probe_failing_only: bool
    probe_max_tokens: int
    probe_text: str
    # What it rewrites, and what leaks.
    unified_agent: bool
    unified_device: bool
    masked_session: bool
    own_tls: bool
    new_tls: bool
    replaces_system: bool
    sanitised: bool
    invents_place: bool
    hands_out_client: bool
    intercepts: float
    leaks_headers: float
    shared_connection: float
    # Goods: how many accounts one of them serves.
    phone_uses: Range
    phone_block: int
    voip: float
    card_uses: Range
    card_bins: Range
    face_uses: Range
    synthetic_faces: float
    templates: Range
    rooms: Range
    device_uses: Range
    domain_uses: Range
    egress_uses: Range
    egress_quality: float
    signup_egress_uses: Range
    local: float
    keeps_profile: float
    human_mail: float
    buys_ready: float
    # Onboarding and use.
    batch: Range
    batch_ms: Range
    dormancy_ms: Range
    aged: float
    scripts: int
    credit_share: float
    prompt_templates: int
    public_prompts: bool
    # Losses, and what follows.
    life_days: float
    life_sigma: float
    replace_ms: Range
    reserve: float
    adapts_at: float
    quits_after_days: float

    @property
    def unified(self) -> bool:
        """Clients are dressed as one."""
        return self.unified_agent or self.unified_device


class Mix(tuple[tuple[Any, float], ...]):
    """Values and how often a ring has them."""

    def __new__(cls, *choices: tuple[Any, float]) -> "Mix":
        return super().__new__(cls, choices)


@dataclass(frozen=True, slots=True)
class Relay:
    """Defaults of one kind of relay software, all read in source code [S]; its weight is [A]."""

    name: str
    weight: float
    values: Mapping[str, Any]


# fmt: off
_PLAIN: dict[str, Any] = {
    "scheduler": "lru", "sticky_ms": HOUR, "sliding": True, "switches": 3, "retries_403": 0,
    "retry_403_ms": 0, "cool_fault_s": 60, "cool_overload_s": 60, "cool_denied_s": 1800,
    "cool_limit_s": 60, "obeys_reset": True, "refresh_lead_s": 60, "refresh_grid_s": 0,
    "poll_cache_s": 300, "probe_every_s": 0, "probe_offset_s": 0, "probe_parallel": 1,
    "probe_failing_only": False, "probe_max_tokens": 100, "probe_text": "hi", "new_tls": False,
}
RELAYS: tuple[Relay, ...] = (
    # Fixed hour from the first call; errors only steer the next request; daily probe by cron.
    Relay("subscription_fixed", 30, _PLAIN | {
        "sliding": False, "switches": 0, "retries_403": 2, "retry_403_ms": 2 * SECOND,
        "cool_fault_s": 300, "cool_overload_s": 600, "obeys_reset": True, "refresh_grid_s": 300,
        "probe_every_s": 86_400, "probe_max_tokens": 1000}),
    # An hour from the last call; three switches in a request; 403 tried ten times first.
    Relay("subscription_sliding", 30, _PLAIN | {
        "retries_403": 10, "retry_403_ms": 3 * SECOND, "cool_overload_s": 600, "cool_limit_s": 300,
        "refresh_lead_s": 1800, "refresh_grid_s": 300, "poll_cache_s": 600,
        "probe_every_s": 10_800, "probe_offset_s": 1020, "probe_parallel": 5,
        "probe_max_tokens": 1024, "probe_text": "questions", "new_tls": True}),
    # Tries every credential; renews hours or days ahead; one setting burns account after account.
    Relay("credential_pool", 9, _PLAIN | {
        "scheduler": "round_robin", "switches": UNLIMITED, "refresh_lead_s": 14_400}),
    Relay("credential_pool_filling", 6, _PLAIN | {
        "scheduler": "fill_first", "switches": UNLIMITED, "refresh_lead_s": 14_400}),
    Relay("credential_pool_days", 3, _PLAIN | {
        "scheduler": "round_robin", "switches": UNLIMITED, "refresh_lead_s": 432_000}),
    # Random channel, no memory; every channel tested each ten minutes.
    Relay("channel_router", 9, _PLAIN | {
        "scheduler": "random", "sticky_ms": 0, "switches": 0, "obeys_reset": False,
        "probe_every_s": 600, "probe_max_tokens": 10, "probe_text": "model_name"}),
    # Strict rotation of keys; only failing ones are probed, hourly, ten at a time.
    Relay("key_rotation", 7, _PLAIN | {
        "scheduler": "round_robin", "sticky_ms": 0, "obeys_reset": False, "probe_every_s": 3600,
        "probe_parallel": 10, "probe_failing_only": True}),
    # Five sticky minutes, circuits that stay open for half an hour.
    Relay("circuit_hub", 4, _PLAIN | {
        "scheduler": "random", "sticky_ms": 300 * SECOND, "cool_fault_s": 1800,
        "probe_text": "ping", "probe_max_tokens": 20}),
    # Sticks for six idle hours; a batch of probes when a weekly window opens.
    Relay("idle_sticky", 2, _PLAIN | {
        "sticky_ms": 6 * HOUR, "cool_fault_s": 300, "probe_every_s": 604_800, "probe_parallel": 3,
        "probe_max_tokens": 1}),
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field of `Traits`: its class of source, its value at each tier, what it means."""

    name: str
    source: str
    t0: Any
    t1: Any
    t2: Any
    t3: Any
    meaning: str


AS_IT_COMES = object()  # the relay's own default
_STICKY = Mix((HOUR, 8), (6 * HOUR, 1), (300 * SECOND, 1))
PARAMETERS: tuple[Parameter, ...] = (
    #         name                source     T0            T1            T2            T3   meaning
    Parameter("sliding",            "S", AS_IT_COMES,     True,         True,         True, "stickiness is renewed on each use"),
    Parameter("sticky_ms",        "S/A", AS_IT_COMES, _STICKY, _STICKY, _STICKY, "how long a conversation stays on an account; 0 is not at all"),
    Parameter("pinned",             "A", Mix((True, 1), (False, 9)), Mix((True, 3), (False, 7)), Mix((True, 4), (False, 6)), True, "a customer stays on one account"),
    Parameter("seat_cap",         "S/I", Mix((10, 6), (5, 2), (4, 1), (2, 1)), Mix((10, 5), (5, 3), (4, 2)), Mix((5, 5), (4, 4), (3, 1)), Mix((4, 4), (3, 4), (2, 2)), "calls in flight on one account"),
    Parameter("stop_threshold",   "S/I", Mix((1.0, 7), (.95, 3)), Mix((1.0, 4), (.95, 3), (.9, 3)), Mix((.95, 4), (.9, 3), (.8, 3)), Mix((.9, 4), (.8, 6)), "window use at which an account rests; 1 is none"),
    Parameter("cool_jitter",        "A",       0.0,          0.15,         0.3,          0.5, "cool-downs vary by this share either way"),
    Parameter("polls",            "S/A",       0.6,          0.4,          0.3,          0.25, "share of operators who look at the usage of all"),
    Parameter("polls_an_hour",      "A",     (1, 6),       (1, 4),       (1, 2),       (1, 1), "such looks in the operator's waking hours, UTC+8"),
    Parameter("probes",           "S/A",       0.6,          0.35,         0.2,          0.1, "share of operators whose software probes accounts"),
    Parameter("unified_agent",      "A", Mix((True, 1), (False, 9)), Mix((True, 7), (False, 3)), Mix((True, 8), (False, 2)), True, "one client program per account"),
    Parameter("unified_device",     "A", Mix((True, 1), (False, 9)), Mix((True, 7), (False, 3)), True, True, "one device per account"),
    Parameter("masked_session",   "S/A",     False,   Mix((True, 2), (False, 8)), Mix((True, 2), (False, 8)), Mix((True, 1), (False, 9)), "one session id per account for all users, 15 min sliding"),
    Parameter("own_tls",          "S/A",     False,   Mix((True, 4), (False, 6)), True, True, "the ClientHello is that of the client it claims"),
    Parameter("replaces_system",  "S/A", Mix((True, 3), (False, 7)), Mix((True, 3), (False, 7)), Mix((True, 3), (False, 7)), Mix((True, 2), (False, 8)), "the client's own system prompt is replaced"),
    Parameter("sanitised",          "A",     False, Mix((True, 2), (False, 8)), Mix((True, 3), (False, 7)),  True, "bodies say nothing of the user's workspace"),
    Parameter("invents_place",      "A",     False,        False,        Mix((True, 5), (False, 5)),  True, "... but of one that the account's owner might have"),
    Parameter("hands_out_client",   "A",     False,   Mix((True, 3), (False, 7)), Mix((True, 8), (False, 2)), True, "customers install one prepared client, all alike"),
    Parameter("intercepts",         "S",       0.4,          0.4,          0.3,          0.1, "share that answers small auxiliary calls itself"),
    Parameter("leaks_headers",      "A",       0.05,         0.03,         0.0,          0.0, "share that lets headers of another hop through"),
    Parameter("shared_connection",  "S",       0.6,          0.15,         0.0,          0.0, "share with one connection for all accounts of an egress"),
    Parameter("phone_uses",         "A",     (2, 4),       (1, 3),       (1, 2),       (1, 2), "accounts one number verifies"),
    Parameter("phone_block",        "A",         1,            2,            4,            8, "neighbouring blocks of numbers it rents from"),
    Parameter("voip",               "A",       0.5,          0.3,          0.15,         0.1, "share of its numbers that are internet numbers"),
    Parameter("card_uses",          "A",     (3, 6),       (2, 4),       (1, 3),       (1, 2), "accounts one card pays"),
    Parameter("card_bins",          "A",     (1, 2),       (1, 3),       (2, 5),       (3, 7), "issuers its cards come from"),
    Parameter("face_uses",          "A",     (3, 7),       (2, 4),       (1, 3),       (1, 2), "accounts one face verifies"),
    Parameter("synthetic_faces",    "A",       0.4,          0.3,          0.2,          0.1, "share of faces that are generated"),
    Parameter("templates",          "A",     (1, 2),       (1, 3),       (2, 4),       (3, 6), "document templates it prints"),
    Parameter("rooms",              "A",     (1, 3),       (2, 4),       (3, 6),      (5, 10), "backgrounds its faces sit before"),
    Parameter("device_uses",        "A",     (4, 8),       (2, 4),       (1, 3),       (1, 2), "accounts one device opens"),
    Parameter("domain_uses",        "A",    (6, 14),       (3, 7),       (2, 4),       (1, 3), "accounts one mail domain serves"),
    Parameter("egress_uses",      "S/A", Mix(((EVERYBODY, EVERYBODY), 35), ((4, 12), 65)), Mix(((12, 40), 20), ((2, 5), 55), ((1, 1), 25)), (1, 1), (1, 1), "accounts that call from one address"),
    Parameter("egress_quality",     "A",       0.3,          0.6,          0.9,          0.97, "share of residential and mobile addresses"),
    Parameter("signup_egress_uses", "A",     (3, 8),       (1, 4),       (1, 2),       (1, 1), "accounts opened from one address"),
    Parameter("local",              "A",       0.2,          0.5,         0.75,         0.9, "share of egress, number blocks and buyers in a country whose papers it uses"),
    Parameter("keeps_profile",      "A",       0.0,          0.25,         0.7,          0.9, "share of accounts used through the egress and device they were opened with"),
    Parameter("human_mail",         "A",       0.35,         0.6,          0.75,         0.9, "share of addresses as a person would choose"),
    Parameter("buys_ready",         "A",       0.7,          0.6,          0.5,          0.4, "share of pool operators who buy accounts ready-made"),
    Parameter("batch",              "I",   (5, 200),      (5, 60),      (2, 20),       (1, 8), "accounts opened in one go"),
    Parameter("batch_ms",           "I", (10 * MINUTE, 6 * HOUR), (20 * MINUTE, 24 * HOUR), (HOUR, 24 * HOUR), (2 * HOUR, 48 * HOUR), "how long one go takes"),
    Parameter("dormancy_ms",        "I", (MINUTE, 14 * DAY), (MINUTE, 14 * DAY), (MINUTE, 14 * DAY), (MINUTE, 14 * DAY), "from sign-up to first use"),
    Parameter("aged",               "I",       0.2,          0.2,          0.2,          0.2, "share of accounts with an ageing script"),
    Parameter("scripts",            "I",         1,            3,            5,            8, "different ageing scripts"),
    Parameter("credit_share",       "A",       1.0,          0.95,         0.8,          0.6, "part of a grant that is drained before rotation"),
    Parameter("prompt_templates",   "A",         1,            2,            4,            8, "different templates of harvesting prompts"),
    Parameter("public_prompts",     "A", Mix((True, 2), (False, 8)), Mix((True, 4), (False, 6)), Mix((True, 6), (False, 4)), Mix((True, 8), (False, 2)), "harvests with public sets of questions; in their public harness where applications are the trade"),
    Parameter("life_days",          "I",       4.0,          6.0,         10.0,         16.0, "median life of an account until the provider's own team ends it"),
    Parameter("life_sigma",         "A",       1.6,          1.6,          1.6,          1.6, "its spread (log)"),
    Parameter("replace_ms",         "I", (MINUTE, 24 * HOUR), (MINUTE, 24 * HOUR), (MINUTE, 24 * HOUR), (MINUTE, 24 * HOUR), "from a loss to its replacement"),
    Parameter("reserve",            "A",       0.15,         0.15,         0.2,          0.2, "part of its accounts a ring buys only to replace lost ones"),
    Parameter("adapts_at",          "A",       0.3,          0.25,         0.2,          0.15, "share lost within a day that makes it change its ways"),
    Parameter("quits_after_days",   "A",       3.0,          3.0,          3.0,          3.0, "days in the red after which it leaves the market"),
)
# fmt: on

# What an operator who has been hit improves first: the goods he reuses and how he signs up.
ADAPTED: tuple[str, ...] = (
    "phone_uses", "phone_block", "card_uses", "card_bins", "face_uses", "templates", "rooms",
    "device_uses", "domain_uses", "egress_uses", "egress_quality", "signup_egress_uses", "local", "keeps_profile", "batch",
    "batch_ms", "pinned", "sanitised", "invents_place", "unified_agent", "unified_device",
    "own_tls", "shared_connection", "cool_jitter", "stop_threshold",
)  # fmt: skip


def traits(tier: str, dice: Dice) -> Traits:
    """The traits of one ring: of the tier, or of any tier if that is `mixed`."""
    tier = dice.pick(TIER_NAMES) if tier == "mixed" else tier
    relay = dice.weighted(tuple((relay, relay.weight) for relay in RELAYS))
    values = dict(relay.values) | _drawn(tier, dice, (p.name for p in PARAMETERS))
    return Traits(tier=tier, relay=relay.name, **values)


def _drawn(tier: str, dice: Dice, names: Iterable[str]) -> dict[str, Any]:
    wanted = set(names)
    found = {}
    for parameter in PARAMETERS:
        if parameter.name in wanted:
            value = getattr(parameter, tier.lower())
            if value is not AS_IT_COMES:
                found[parameter.name] = dice.weighted(value) if isinstance(value, Mix) else value
    return found


def harder(now: Traits, dice: Dice, fixed: Iterable[str] = ()) -> Traits:
    """One tier's more trouble over what gave the ring away; `fixed` fields stay. T3 cannot."""
    rank = TIER_NAMES.index(now.tier)
    if rank + 1 == len(TIER_NAMES):
        return now
    tier = TIER_NAMES[rank + 1]
    changed = _drawn(tier, dice, set(ADAPTED) - set(fixed))
    return replace(now, tier=tier, **changed)


# The fields that a number can set, and what it becomes.
KNOBS: dict[str, Any] = {
    name: kind for name, kind in get_type_hints(Traits).items() if kind is not str
}


def check_knob(name: str, others: Iterable[str] = ()) -> None:
    """Refuse a knob that is none.

    Args:
        others: names that are right besides the fields of `Traits`.

    Raises:
        ValueError: no such knob; the message names the nearest.
    """
    known = [*KNOBS, *others]
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
        raise ValueError(f"no knob {name!r}; {hint}")


def with_knobs(now: Traits, knobs: Mapping[str, float]) -> Traits:
    """The same traits with some fields set; a number for a range sets both of its ends.

    Raises:
        ValueError: no such field.
    """
    changed: dict[str, Any] = {}
    for name, value in knobs.items():
        check_knob(name)
        kind = KNOBS[name]
        changed[name] = (round(value), round(value)) if kind == Range else kind(value)
    return replace(now, **changed)
