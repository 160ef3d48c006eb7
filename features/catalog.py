"""The catalogue: every signal there is, grouped by the story it tells. Nothing else computes one.

Three sorts of evidence run through it. *Sharing*: accounts of different owners on one device, card
or face. *Tenancy*: many people behind one account. *Continuation*: a conversation, or an id the
provider minted for one account, carried on by an account of another owner; that is a sighting in
its own right ("partner"), so a continuation is counted like everything else (second order).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from features.feature import DAY, HOUR, MINUTE, Age, Differ, Feature, Last, Seen, Share, Sum
from features.kind import INDEX

SIGN_UP: tuple[Feature, ...] = (
    Age("known for {n} hours", "sign_up"),
    Last("form_ms", "filled in the sign-up form in {n} ms", "sign_up"),
    Last("disposable_email", "throw-away e-mail: {n}", "sign_up"),
    Seen("account", "email", 90 * DAY, "{n} accounts on one mailbox", "sign_up"),
    Seen("account", "email_domain", 30 * DAY, "{n} accounts of one private e-mail domain signed up in 30 days", "sign_up"),
    Seen("account", "ip_block", DAY, "{n} sign-ups from one IP block in a day", "sign_up", on=("account_signup",)),
    Seen("account", "promo", DAY, "{n} sign-ups with one promotion code in a day", "sign_up"),
    Seen("account", "referrer", 7 * DAY, "{n} sign-ups through one referral code in a week", "sign_up"),
)  # fmt: skip
PHONE: tuple[Feature, ...] = (
    Seen("account", "phone", 90 * DAY, "{n} accounts verified with one phone number", "phone"),
    Seen("account", "phone_block", 7 * DAY, "{n} accounts with numbers of one block of a thousand in a week", "phone"),
    Last("otp_latency_ms", "answered the SMS code after {n} ms", "phone"),
    Last("voip_phone", "internet phone number: {n}", "phone"),
    Differ("phone_country", "country", "phone from another country than the network", "phone"),
)  # fmt: skip
KYC: tuple[Feature, ...] = (
    Seen("account", "document", 365 * DAY, "{n} accounts on one identity document", "kyc"),
    Seen("account", "face", 365 * DAY, "{n} accounts with one face", "kyc"),
    Seen(
        "account", "background", 90 * DAY, "{n} accounts photographed before one background", "kyc"
    ),
    Seen(
        "account",
        "document_template",
        30 * DAY,
        "{n} documents from one image template in 30 days",
        "kyc",
    ),
    Last("liveness", "liveness score {n}", "kyc"),
    Last("kyc_attempts", "{n} attempts at the identity check", "kyc"),
    Differ("document_country", "country", "document from another country than the network", "kyc"),
)
PAYMENT: tuple[Feature, ...] = (
    Seen("account", "card", 90 * DAY, "{n} accounts paid with one card", "payment"),
    Seen(
        "account",
        "bin",
        7 * DAY,
        "{n} accounts with cards of one issuer number in a week",
        "payment",
    ),
    Seen("account", "billing_address", 90 * DAY, "{n} accounts at one billing address", "payment"),
    Seen("card", "account", 30 * DAY, "{n} different cards in 30 days", "payment"),
    Sum("declines", "account", 7 * DAY, "{n} declined or failed payments in a week", "payment"),
    Last("virtual_card", "virtual or prepaid card: {n}", "payment"),
    Differ("card_country", "country", "card from another country than the network", "payment"),
)
INFRASTRUCTURE: tuple[Feature, ...] = (
    Seen("account", "device", 30 * DAY, "{n} accounts on one device", "infrastructure"),
    Seen("account", "ip", DAY, "{n} accounts on one IP address in a day", "infrastructure"),
    Seen(
        "account", "ip_subnet", 7 * DAY, "{n} accounts in one IPv6 /64 in a week", "infrastructure"
    ),
    Seen("account", "connection", DAY, "{n} accounts on one network connection", "infrastructure"),
    Seen("account", "credential", 7 * DAY, "{n} accounts using one credential", "infrastructure"),
    Seen("ip_block", "account", DAY, "seen on {n} IP blocks in a day", "infrastructure"),
    Seen("country", "account", 7 * DAY, "seen in {n} countries in a week", "infrastructure"),
    Seen(
        "header_order",
        "account",
        7 * DAY,
        "{n} different header orders in a week",
        "infrastructure",
    ),
    Seen("ja4", "account", 7 * DAY, "{n} different TLS fingerprints in a week", "infrastructure"),
    Last("datacentre", "last seen on a hosting, VPN or Tor network: {n}", "infrastructure"),
    Last("forwarded", "carries another proxy's headers: {n}", "infrastructure"),
)
USAGE: tuple[Feature, ...] = (
    Sum("requests", "account", HOUR, "{n} requests in an hour", "usage"),
    Sum("requests", "account", 7 * DAY, "{n} requests in a week", "usage"),
    Seen("hour", "account", 7 * DAY, "active in {n} different hours of the day in a week", "usage"),
    Sum("limited", "account", 7 * DAY, "{n} rate-limited requests in a week", "usage"),
    Share("limited_by_account_7d", "requests_by_account_7d", "{n} of requests were rate-limited", "usage"),
    Sum("prompt_tokens", "account", 7 * DAY, "{n} prompt tokens in a week", "usage"),
    Sum("cache_read_tokens", "account", 7 * DAY, "{n} tokens read from cache in a week", "usage"),
    Share("cache_read_tokens_by_account_7d", "prompt_tokens_by_account_7d", "{n} of prompt tokens came from cache", "usage"),
    Sum("auxiliary", "account", 7 * DAY, "{n} title, warm-up and count calls in a week", "usage"),
    Sum("probes", "account", 7 * DAY, "{n} probe requests in a week", "usage"),
    Sum("polls", "account", DAY, "{n} usage and quota look-ups in a day", "usage"),
    Seen("account", "prompt", HOUR, "{n} accounts sent one short prompt in an hour", "usage"),
    Last("window_used", "quota window {n} full", "usage"),
    Last("refresh_lead_s", "refreshed its token {n} s before expiry", "usage"),
)  # fmt: skip
CONVERSATION: tuple[Feature, ...] = (
    Seen("partner", "account", 7 * DAY, "conversations shared with {n} accounts of other owners in a week", "conversation"),
    Seen("continuation", "account", 7 * DAY, "{n} conversations continued across owners in a week", "conversation"),
    Seen("conversation", "account", DAY, "{n} conversations in a day", "conversation"),
    Seen("conversation", "account", 10 * MINUTE, "{n} conversations at once within ten minutes", "conversation"),
    Seen("conversation", "session", DAY, "{n} unrelated conversations in one client session", "conversation"),
    Last("chain_length", "conversation of {n} messages", "conversation"),
)  # fmt: skip
TENANCY: tuple[Feature, ...] = (
    Seen("home", "account", DAY, "{n} people's home folders in a day", "tenancy"),
    Seen("home", "account", 10 * MINUTE, "{n} people's home folders within ten minutes", "tenancy"),
    Seen("repo", "account", 7 * DAY, "{n} repositories in a week", "tenancy"),
    Seen("git_user", "account", 7 * DAY, "{n} git identities in a week", "tenancy"),
    Seen("end_user", "account", 7 * DAY, "{n} end users in a week", "tenancy"),
    Seen("device", "account", 7 * DAY, "{n} devices in a week", "tenancy"),
    Seen("workspace_timezone", "account", 7 * DAY, "{n} time zones in a week", "tenancy"),
    Seen("workspace_os", "account", 7 * DAY, "{n} operating systems in a week", "tenancy"),
    Seen("account", "home", 7 * DAY, "one home folder on {n} accounts in a week", "tenancy"),
    Seen("account", "repo", 7 * DAY, "one repository on {n} accounts in a week", "tenancy"),
    Seen("account", "git_user", 7 * DAY, "one git identity on {n} accounts in a week", "tenancy"),
    Seen("account", "end_user", 7 * DAY, "one end user on {n} accounts in a week", "tenancy"),
    Seen(
        "account",
        "instructions",
        7 * DAY,
        "one instructions file on {n} accounts in a week",
        "tenancy",
    ),
    Differ(
        "client_os",
        "workspace_os",
        "client states another system than the workspace has",
        "tenancy",
    ),
    Last("declared_seats", "organisation of {n} declared seats", "tenancy"),
)
BUILT_IN: tuple[Feature, ...] = (
    *SIGN_UP, *PHONE, *KYC, *PAYMENT, *INFRASTRUCTURE, *USAGE, *CONVERSATION, *TENANCY,
)  # fmt: skip


def custom(kind: str) -> tuple[Feature, ...]:
    """What any identifier that a provider adds through `entities` is worth, with no code change."""
    return (
        Seen("account", kind, DAY, f"{{n}} accounts on one {kind} in a day", "custom"),
        Seen("account", kind, 365 * DAY, f"{{n}} accounts on one {kind} in a year", "custom"),
        Seen(kind, "account", 30 * DAY, f"{{n}} different {kind} in 30 days", "custom"),
    )


@dataclass(frozen=True)
class Catalog:
    """The features in vector order, for the built-in kinds and those a provider adds.

    Args:
        kinds: names of the custom `entities` kinds that have columns of their own. An undeclared
            kind still makes sightings and links; it has no column.
    """

    kinds: tuple[str, ...] = ()

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        return (*BUILT_IN, *(f for kind in self.kinds for f in custom(kind)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.features)

    @cached_property
    def hash(self) -> str:
        """Identifies the list: a model refuses vectors of a catalogue it was not trained on."""
        text = "\n".join(repr(f) for f in self.features)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.kinds)


def with_kinds(kinds: Iterable[str]) -> Catalog:
    """The catalogue with columns for each of these custom kinds, in a fixed order.

    A kind that has the name of a built-in one gets no columns; it makes sightings and links all the same.
    """
    return Catalog(
        tuple(sorted(set(kinds) - set(INDEX) - {"account", "hour", "partner", "continuation"}))
    )
