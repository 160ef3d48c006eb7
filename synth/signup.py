"""How an account comes to be: form, phone, identity check, card, first key.

A *dossier* is what somebody brings to the sign-up. `sign_up` writes the events that follow from it
and says when the account can be used. Honest or bought, the order and the fields are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from synth.account import Account
from synth.geography import BY_CODE, Egress
from synth.goods import Card, Identity, Phone
from synth.people import DAY, HOUR, Device, Person
from synth.pools import FREE_MAIL
from synth.stage import Stage
from synth.wire import fragment

_VENDORS = (("verifio", 6.0), ("idproof", 3.0), ("facecheck", 1.0))
_DECLINES = (
    ("insufficient_funds", 4.0),
    ("do_not_honor", 3.0),
    ("incorrect_cvc", 2.0),
    ("fraudulent", 0.6),
)
PROMO_SHARE = 0.06  # of sign-ups, with a code that everybody knows
_AVS = (("match", 8.0), ("partial", 1.2), ("mismatch", 0.6), ("unavailable", 1.6))


@dataclass(slots=True)
class Dossier:
    """Who signs up, from where and with what. Times are in ms."""

    email: str
    egress: Egress
    device: Device
    zone: str
    language: str
    phone: Phone | None = None
    identity: Identity | None = None
    card: Card | None = None
    billing_country: str | None = None
    billing_address: str | None = None
    channel: str = "web"
    promo_id: str | None = None
    referrer_id: str | None = None
    seats: int | None = None
    form_ms: int = 40_000
    otp_ms: int = 11_000
    kyc_after_ms: int = 5 * 60_000
    declines: float = 0.07
    disputes: float = 0.004
    avs: tuple[tuple[str, float], ...] = _AVS


def papers(stage: Stage, person: Person, *, kyc: float = 0.72, paying: bool = True) -> Dossier:
    """What an honest person brings; `kyc` is the probability of an identity check."""
    dice, market, country = stage.dice, stage.market, person.country.code
    domain = dice.weighted(FREE_MAIL)
    if dice.chance(0.14):
        domain = stage.pools.domain(dice)
    elif dice.chance(0.02):
        domain = "mailinator.com"
    away = dice.chance(0.06)
    return Dossier(
        email=f"{stage.pools.local_part(dice, person.first, person.last)}@{domain}",
        egress=person.network(dice),
        device=dice.pick(person.devices),
        zone=person.zone,
        language=person.language,
        phone=market.phone(country) if dice.chance(0.9) else None,
        identity=market.identity(country, person.last) if dice.chance(kyc) else None,
        card=market.card(country) if paying else None,
        billing_country=country if not away else None,
        billing_address=f"{dice.pick(stage.pools.streets)}, {dice.randrange(10_000, 99_999)}",
        channel=dice.weighted((("web", 7.0), ("oauth", 2.5), ("invite", 0.5))),
        promo_id=dice.zipf(market.promos) if dice.chance(PROMO_SHARE) else None,
        referrer_id=f"ref_{dice.token(40)}" if dice.chance(0.06) else None,
        form_ms=int(dice.spread(38_000)),
        otp_ms=int(dice.spread(11_000)),
        kyc_after_ms=int(dice.spread(8 * 60_000) if dice.chance(0.6) else dice.random() * 4 * DAY),
    )


def sign_up(stage: Stage, at: int, account: Account, dossier: Dossier) -> int:
    """Write the sign-up of `account` from `at` (epoch ms) on; returns when it is ready for use.

    Everything up to the first key follows within minutes. An identity check asked for later is
    written at its own time. Nothing is written after the end of the world.
    """
    dice, tell = stage.dice, stage.record.tell
    here = dossier.egress.fragment() + dossier.device.said()
    page = here + fragment(timezone=dossier.zone, language=dossier.language)
    phone = dossier.phone.number if dossier.phone else None
    if dice.chance(0.03):
        tell(at, account, "account_signup", page, result="refused", email=dossier.email,
             channel=dossier.channel, form_ms=int(dice.spread(38_000)))  # fmt: skip
        at += dice.randint(20_000, 300_000)
    account.born = at
    tell(
        at, account, "account_signup", page,
        email=dossier.email, phone=phone, channel=dossier.channel, plan=account.plan.name,
        promo_id=dossier.promo_id, referrer_id=dossier.referrer_id, form_ms=dossier.form_ms,
        declared_seats=dossier.seats,
    )  # fmt: skip
    now = at + int(dice.spread(9_000))
    if dossier.phone:
        now = _verify_phone(stage, now, account, here, dossier)
    if dossier.identity:
        check_identity(stage, now + dossier.kyc_after_ms, account, here, dossier)
    if account.plan.granted_usd:
        now += int(dice.spread(2_000))
        tell(now, account, "payment", kind="credit_grant", amount_usd=account.plan.granted_usd)
    if dossier.card:
        now = _pay(stage, now, account, here, dossier, dossier.card)
    now += int(dice.spread(40_000))
    if dice.chance(0.6):
        tell(now, account, "login", here, method=_method(dossier), result="succeeded")
        now += int(dice.spread(15_000))
    kind = "oauth_granted" if dice.chance(0.6) else "key_created"
    tell(now, account, "credential", here + account.credential, kind=kind,
         ttl_s=28_800 if kind == "oauth_granted" else None)  # fmt: skip
    return now + 1_000


def _method(dossier: Dossier) -> str:
    return {"oauth": "oauth", "sso": "sso"}.get(dossier.channel, "password")


def _verify_phone(stage: Stage, now: int, account: Account, here: str, dossier: Dossier) -> int:
    dice, phone = stage.dice, dossier.phone
    assert phone is not None
    line = phone.line_type if dice.chance(0.85) else None
    attempts = 1
    if dice.chance(0.08):
        now += int(dice.spread(35_000))
        stage.record.tell(now, account, "phone_verified", here, result="failed",
                          phone=phone.number, line_type=line, attempts=attempts)  # fmt: skip
        attempts += 1
    now += dossier.otp_ms
    stage.record.tell(
        now, account, "phone_verified", here, result="succeeded", phone=phone.number,
        line_type=line, otp_latency_ms=dossier.otp_ms, attempts=attempts,
    )  # fmt: skip
    return now + int(dice.spread(6_000))


def check_identity(stage: Stage, at: int, account: Account, here: str, dossier: Dossier,
                   result: str | None = None) -> None:  # fmt: skip
    """An identity check with what the dossier brings, at `at` (epoch ms)."""
    dice, who = stage.dice, dossier.identity
    assert who is not None
    attempts = dice.weighted(((1, 7.0), (2, 2.0), (3, 0.8)))
    live = min(0.999, max(0.3, dice.gauss(0.88, 0.08)))
    result = result or dice.weighted((("passed", 94.0), ("review", 4.0), ("failed", 2.0)))
    sketched = dice.chance(0.7)
    said = here + fragment(
        result=result,
        vendor=dice.weighted(_VENDORS),
        document_id=who.document_id,
        document_type=who.document_type,
        document_country=who.document_country,
        document_template_id=who.template_id if dice.chance(0.9) else None,
        face_id=who.face_id if dice.chance(0.95) else None,
        background_id=who.background_id if dice.chance(0.85) else None,
        face_sketch=who.face_sketch if sketched else None,
        document_sketch=who.document_sketch if sketched else None,
        mrz=who.mrz,
        liveness=round(live, 3),
        attempts=attempts,
        duration_ms=int(dice.spread(75_000)) * attempts,
    )
    if at < stage.end:
        stage.agenda.start(at, _later(stage, at, account, "kyc_checked", said))


def _later(stage: Stage, at: int, account: Account, kind: str, said: str) -> Iterator[int]:
    if not account.suspended:
        stage.record.tell(at, account, kind, said)
    yield from ()


def _pay(stage: Stage, now: int, account: Account, here: str, dossier: Dossier, card: Card) -> int:
    dice, tell = stage.dice, stage.record.tell
    said = here + fragment(
        instrument_id=card.instrument_id,
        bin=card.bin,
        funding=card.funding if dice.chance(0.9) else "unknown",
        card_country=card.country,
        billing_country=dossier.billing_country or card.country,
        billing_address_id=dossier.billing_address if dice.chance(0.8) else None,
        avs=dice.weighted(dossier.avs) if dice.chance(0.8) else None,
    )
    now += int(dice.spread(60_000))
    if dice.chance(dossier.declines):
        tell(
            now,
            account,
            "payment",
            said,
            kind="card_declined",
            decline_class=dice.weighted(_DECLINES),
        )
        now += int(dice.spread(50_000))
    tell(now, account, "payment", said, kind="card_added")
    now += int(dice.spread(3_000))
    if account.plan.price_usd:
        charge(stage, now, account, said, dossier.billing_country or card.country, dossier.disputes)
    return now


def charge(
    stage: Stage, at: int, account: Account, card_said: str, country: str, disputes: float
) -> None:
    """Bill the plan at the price of `country`; with probability `disputes` the card's owner takes
    the money back later."""
    dice, tell = stage.dice, stage.record.tell
    price = local_price(account, country)
    bill = tell(
        at, account, "payment", card_said, kind="charge", plan=account.plan.name, amount_usd=price
    )
    account.charged_usd += price
    back = at + int(dice.spread(50 * HOUR))
    if dice.chance(disputes) and back < stage.end:
        kind = "dispute" if dice.chance(0.75) else "refund"
        stage.agenda.start(back, _take_back(stage, back, account, card_said, kind, bill, price))


def local_price(account: Account, country: str) -> float:
    """What the account's plan costs in a country, in USD."""
    return round(account.plan.price_usd * BY_CODE[country].price, 2)


def _take_back(
    stage: Stage, at: int, account: Account, said: str, kind: str, bill: str, price: float
) -> Iterator[int]:
    account.charged_usd -= price
    stage.record.tell(at, account, "payment", said, kind=kind, ref_event_id=bill, amount_usd=price)
    yield from ()
