"""What an operator takes trouble over, by tier.

T0 runs relay software as it comes. T1 unifies what clients say and renews stickiness on each use,
and buys more goods. T2 adds an egress and a TLS stack for each account. T3 pins users to accounts
and takes the workspace out of the bodies. Ranges are inclusive counts of accounts served by one
good; probabilities are per ring.
"""

from dataclasses import dataclass

from synth.dice import Dice

HOUR = 3_600_000
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Traits:
    tier: str
    phone_uses: Range
    card_uses: Range
    face_uses: Range
    device_uses: Range
    domain_uses: Range
    egress_uses: Range
    signup_egress_uses: Range
    egress_quality: float  # share of residential and mobile egress
    sliding: bool  # stickiness is renewed on each use
    unified: bool  # one device, one client, one system per account
    shared_connection: float  # one connection for all accounts behind an egress
    own_tls: bool
    pinned: bool  # a customer stays on one account
    sanitised: bool  # bodies say nothing of the workspace
    polls: float
    probes: float
    intercepts: float
    leaks_headers: float
    aged: float  # share of accounts with an ageing script
    scripts: int  # different ageing scripts
    human_mail: float  # share of addresses as a person would choose
    sticky_ms: int = HOUR


TIERS: dict[str, Traits] = {
    "T0": Traits(
        "T0", phone_uses=(2, 4), card_uses=(3, 6), face_uses=(3, 7), device_uses=(4, 8),
        domain_uses=(6, 14), egress_uses=(4, 12), signup_egress_uses=(3, 8), egress_quality=0.3,
        sliding=False, unified=False, shared_connection=0.6, own_tls=False, pinned=False,
        sanitised=False, polls=0.7, probes=0.6, intercepts=0.5, leaks_headers=0.1, aged=0.5,
        scripts=1, human_mail=0.35,
    ),
    "T1": Traits(
        "T1", phone_uses=(1, 3), card_uses=(2, 4), face_uses=(2, 4), device_uses=(2, 4),
        domain_uses=(3, 7), egress_uses=(2, 5), signup_egress_uses=(1, 4), egress_quality=0.55,
        sliding=True, unified=True, shared_connection=0.15, own_tls=False, pinned=False,
        sanitised=False, polls=0.5, probes=0.35, intercepts=0.4, leaks_headers=0.04, aged=0.4,
        scripts=3, human_mail=0.6,
    ),
    "T2": Traits(
        "T2", phone_uses=(1, 2), card_uses=(1, 3), face_uses=(1, 3), device_uses=(1, 3),
        domain_uses=(2, 4), egress_uses=(1, 1), signup_egress_uses=(1, 2), egress_quality=0.75,
        sliding=True, unified=True, shared_connection=0.0, own_tls=True, pinned=False,
        sanitised=False, polls=0.4, probes=0.2, intercepts=0.3, leaks_headers=0.0, aged=0.35,
        scripts=5, human_mail=0.75,
    ),
    "T3": Traits(
        "T3", phone_uses=(1, 2), card_uses=(1, 2), face_uses=(1, 2), device_uses=(1, 2),
        domain_uses=(1, 3), egress_uses=(1, 1), signup_egress_uses=(1, 1), egress_quality=0.85,
        sliding=True, unified=True, shared_connection=0.0, own_tls=True, pinned=True,
        sanitised=True, polls=0.3, probes=0.1, intercepts=0.2, leaks_headers=0.0, aged=0.3,
        scripts=8, human_mail=0.85,
    ),
}  # fmt: skip


def traits(tier: str, dice: Dice) -> Traits:
    """The traits of one ring: of the tier, or of any tier if that is `mixed`."""
    return TIERS[dice.pick(tuple(TIERS)) if tier == "mixed" else tier]
