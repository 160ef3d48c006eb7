"""What an operator's goods cost: assumptions, stated so that they can be argued with.

Nobody publishes these markets' books. Every figure is in USD, has a class of source (as in
`traits`: S public source code, I users' claims, M measured, A assumed) and a reason. Change one
here and every break-even price follows.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Price:
    good: str
    usd: float
    source: str
    reason: str


TABLE: tuple[Price, ...] = (
    Price("account_free", 0.40, "I", "offers of fresh trial accounts, cents to half a dollar"),
    Price("account_plan", 6.00, "A", "merchant's margin on a plan account, plan money apart"),
    Price("sms_mobile", 0.15, "I", "one-time SMS on a SIM: cents, by country"),
    Price("sms_voip", 0.02, "I", "one-time SMS on an internet number: below a cent to cents"),
    Price("sim", 2.50, "A", "a prepaid SIM over the counter"),
    Price("virtual_card", 1.50, "A", "issue and top-up fee of a virtual card"),
    Price("stolen_card", 9.00, "A", "a tested number with address; untested ones are cheaper"),
    Price("identity", 18.00, "A", "a person with a document before a camera, once"),
    Price("synthetic_face", 1.20, "A", "a generated face on a printed template"),
    Price("egress_residential", 3.00, "I", "static residential address, a month"),
    Price("egress_mobile", 9.00, "A", "a modem's address, a month"),
    Price("egress_datacentre", 0.60, "A", "a data-centre or VPN address, a month"),
    Price("residential_gb", 2.00, "A", "rotating residential traffic, a gigabyte"),
    Price("device", 0.35, "A", "a profile of an anti-detect browser, a month"),
    Price("domain", 4.00, "A", "a domain for a catch-all mailbox, a year"),
    Price("labour_hour", 4.00, "A", "an hour of somebody who clicks"),
    Price("retooling", 60.00, "A", "two days of a developer after a wave of losses"),
)
USD: dict[str, float] = {price.good: price.usd for price in TABLE}

# Share of the list price at which a resold dollar goes for on the street [I: 10-15 % in 2026].
STREET_SHARE = 0.12
