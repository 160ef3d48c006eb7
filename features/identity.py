"""Canonical forms and keyed hashes: what replaces an identifier before anything is stored.

`seal(event, secret)` first derives the coarse classes (e-mail class and domain, phone country and
block, /24 or /48), then replaces each identifier with `h:` + 32 hex digits: keyed
BLAKE2b (RFC 7693, a MAC; a third of HMAC-SHA256's cost here), one domain per family of fields that
are compared with each other. A value that is already hashed (`h:…`) stays as it is, so sealing
twice changes nothing. Low-entropy values (phones, IPv4) are safe only while the key is secret.
"""

import hashlib
import ipaddress
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

import phonenumbers
from disposable_email_domains import blocklist
from email_validator import EmailNotValidError, validate_email

from features.event import (
    EVENT_CLASSES,
    AnyEvent,
    Event,
    InvalidEvent,
    KycChecked,
    OwnershipDeclared,
)
from features.kind import KINDS, LINK_FAMILY, NS

# The large free mail hosts; a domain outside these, education and disposable is somebody's own.
_FREE = """
    gmail.com outlook.com hotmail.com live.com msn.com yahoo.com ymail.com icloud.com me.com
    mac.com aol.com proton.me protonmail.com gmx.com gmx.de gmx.net web.de mail.com zoho.com
    yandex.ru yandex.com mail.ru qq.com 163.com 126.com sina.com foxmail.com naver.com daum.net
    orange.fr free.fr laposte.net libero.it t-online.de comcast.net verizon.net att.net
    btinternet.com fastmail.com hey.com tutanota.com hotmail.co.uk yahoo.co.jp yahoo.co.uk
    yahoo.fr hotmail.fr live.com.mx uol.com.br bol.com.br rediffmail.com
"""
FREE_DOMAINS = frozenset(_FREE.split())
_ALIAS_DOMAINS = {
    "googlemail.com": "gmail.com",
    "pm.me": "proton.me",
    "protonmail.com": "proton.me",
}
_EDUCATION = (".edu", ".ac")
FAMILY_CACHE = 1 << 15  # values remembered in each family, some 300 bytes each


class Family(dict[str, str]):
    """The tokens of one family by canonical value; one that is missing is made.

    A lookup that finds its value costs a fraction of a hash, and identifiers recur within days, so
    every family remembers up to FAMILY_CACHE values and then starts afresh.
    """

    __slots__ = ("_state",)

    def __init__(self, key: bytes, name: str) -> None:
        # BLAKE2b's personalisation separates the domains; names longer than 16 bytes are folded
        person = hashlib.blake2b(name.encode(), digest_size=16).digest()
        self._state = hashlib.blake2b(key=key, digest_size=16, person=person)

    def __missing__(self, value: str) -> str:
        if value.startswith("h:"):
            token = value
        else:
            state = self._state.copy()
            state.update(value.encode("utf-8", "surrogatepass"))
            token = "h:" + state.hexdigest()
        if len(self) >= FAMILY_CACHE:
            self.clear()
        self[value] = token
        return token


class Fields(NamedTuple):
    """What `seal` does to one event type: `values` gets the fields `names`, each of its family in
    order; `lists` hold several values; a `contact` type carries a phone or an e-mail."""

    values: Callable[[AnyEvent], tuple[str | None, ...]]
    names: tuple[str, ...]
    families: tuple[Family, ...]
    lists: tuple[tuple[str, Family], ...]
    contact: bool


class Secret:
    """A key, and the tokens it makes.

    Args:
        key: 16 to 64 bytes. Whoever holds it can test guesses at low-entropy identifiers.
    """

    def __init__(self, key: bytes) -> None:
        if not 16 <= len(key) <= 64:
            raise ValueError(f"an identity key has 16 to 64 bytes, this one has {len(key)}")
        self._key = key
        self._families: dict[str, Family] = {}
        self.fields: dict[type[Event], Fields] = {
            cls: self._fields_of(cls) for cls in EVENT_CLASSES
        }

    def family(self, name: str) -> Family:
        """The tokens of a family: `secret.family("card")[value]`."""
        found = self._families.get(name)
        if found is None:
            found = self._families[name] = Family(self._key, name)
        return found

    def token(self, family: str, value: str) -> str:
        """`h:` + 32 hex digits for a canonical value of this family; `h:…` is returned as is."""
        return self.family(family)[value]

    def _fields_of(self, cls: type[Event]) -> Fields:
        known = cls.__struct_fields__
        present = [
            (f, self.family(name)) for f, name in (*_HASHED_FIELDS, *_LINK_FIELDS) if f in known
        ]
        single = [(f, family) for f, family in present if f not in _LIST_FIELDS]
        return Fields(
            attrgetter(*(f for f, _ in single)),
            tuple(f for f, _ in single),
            tuple(family for _, family in single),
            tuple((f, family) for f, family in present if f in _LIST_FIELDS),
            "phone" in known or "email" in known,
        )


def u64(token: str) -> int:
    """The 64-bit name of a token, an opaque id or a class value: what the windows store.

    Never 0, which means absent. Two of 10^8 names collide with probability 3e-4.
    """
    if len(token) == 34 and token.startswith("h:"):
        try:
            digest = bytes.fromhex(token[2:])
        except ValueError:
            digest = b""  # an edge's own form of token: a name like any other
        if len(digest) == 16:  # fromhex passes over spaces
            return int.from_bytes(digest[:8], "big") or 1
    digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


def canonical_email(address: str) -> tuple[str, str, str] | None:
    """(canonical address, domain, local part as written), or None if it is not an address.

    Sub-addressing (`+tag`) is dropped everywhere and dots in the local part where the host ignores
    them, because both let one mailbox look like many.
    """
    try:
        parts = validate_email(address.strip(), check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return None
    domain = _ALIAS_DOMAINS.get(parts.ascii_domain.lower(), parts.ascii_domain.lower())
    written = unicodedata.normalize("NFKC", parts.local_part).lower()
    local = written.split("+", 1)[0] or written
    if domain == "gmail.com":
        local = local.replace(".", "") or local
    return f"{local}@{domain}", domain, written


def email_class(domain: str) -> str:
    """`free education disposable custom`; which is a company's is the provider's to say."""
    if domain in FREE_DOMAINS:
        return "free"
    if domain in blocklist:
        return "disposable"
    if domain.endswith(_EDUCATION[0]) or any(f"{e}." in domain for e in (*_EDUCATION, ".edu")):
        return "education"
    return "custom"


def email_shape(local: str) -> str:
    """The local part with letters as `a` and digits as `9`: `john.smith92` is `aaaa.aaaaa99`."""
    return "".join("9" if c.isdigit() else "a" if c.isalpha() else c for c in local[:32])


@lru_cache(maxsize=1 << 14)
def canonical_phone(
    number: str, region: str | None = None
) -> tuple[str, str | None, str, str] | None:
    """(E.164, country, block, line type), or None if it is not a possible number.

    The block is the number without its last three digits: carriers assign, and SMS farms rent,
    runs of a thousand.
    """
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed):
        return None
    e164 = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    country = phonenumbers.region_code_for_number(parsed)
    kinds = phonenumbers.PhoneNumberType
    line = {
        kinds.MOBILE: "mobile",
        kinds.FIXED_LINE: "fixed",
        kinds.VOIP: "voip",
        kinds.TOLL_FREE: "toll_free",
    }.get(phonenumbers.number_type(parsed), "unknown")
    return e164, country if country and country != "001" else None, e164[:-3], line


@lru_cache(maxsize=1 << 16)
def canonical_ip(address: str) -> tuple[str, str, str | None] | None:
    """(address, block, /64 or None): the block is the /24 of IPv4 and the /48 of IPv6."""
    try:
        ip = ipaddress.ip_address(address.strip().split("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            bits = int(ip)
            return (
                ip.compressed,
                f"{ipaddress.IPv6Address(bits >> 80 << 80)}/48",
                f"{ipaddress.IPv6Address(bits >> 64 << 64)}/64",
            )
        ip = ip.ipv4_mapped
    text = str(ip)
    return text, text.rsplit(".", 1)[0] + ".0/24", None


_HASHED_FIELDS = tuple(
    (k.field, k.family)
    for k in KINDS
    if not k.clear and k.field not in ("ip", "email", "phone", "mrz", "ip_block_id", "ip_subnet_id")
)
_LINK_FIELDS = tuple(LINK_FAMILY.items())
_LIST_FIELDS = ("chain", "minted_refs", "emitted_refs")


def seal(event: AnyEvent, secret: Secret) -> None:
    """Derive the clear classes, then replace every identifier of the event with its keyed hash.

    Raises:
        InvalidEvent: an e-mail, phone or IP that cannot be read as one.
    """
    cls = type(event)
    fields = secret.fields[cls]
    _seal_ip(event, secret)
    if fields.contact:
        _seal_contact(event, secret)
    for field, family, value in zip(
        fields.names, fields.families, fields.values(event), strict=True
    ):
        if value is not None:
            setattr(event, field, family[value])
    for field, family in fields.lists:
        values = getattr(event, field)
        if values:
            setattr(event, field, list(map(family.__getitem__, values)))
    if event.entities:
        family = secret.family(NS)
        event.entities = {kind: family[value] for kind, value in event.entities.items()}
    if cls is KycChecked:
        _seal_document(event, secret)  # type: ignore[arg-type]
    elif cls is OwnershipDeclared:
        _seal_owners(event, secret)  # type: ignore[arg-type]


def _seal_document(event: KycChecked, secret: Secret) -> None:
    mrz = event.mrz
    if mrz is not None and not mrz.startswith("h:"):
        event.mrz = secret.token("mrz", "".join(mrz.split()).upper())


def _seal_owners(event: OwnershipDeclared, secret: Secret) -> None:
    for owner in event.owners or ():
        owner.owner = secret.token("party", owner.owner)
        if owner.of != "self":
            owner.of = secret.token("party", owner.of)


def _seal_ip(event: AnyEvent, secret: Secret) -> None:
    ip = event.ip
    if ip is not None and not ip.startswith("h:"):
        forms = canonical_ip(ip)
        if forms is None:
            raise InvalidEvent("ip", "not an IP address")
        address, block, subnet = forms
        event.ip = secret.token("ip", address)
        event.ip_block_id = event.ip_block_id or block
        event.ip_subnet_id = event.ip_subnet_id or subnet
    if event.ip_block_id is not None:
        event.ip_block_id = secret.token("ip_block", event.ip_block_id)
    if event.ip_subnet_id is not None:
        event.ip_subnet_id = secret.token("ip_subnet", event.ip_subnet_id)


def _seal_contact(event: AnyEvent, secret: Secret) -> None:
    phone: str | None = getattr(event, "phone", None)
    if phone is not None and not phone.startswith("h:"):
        forms = canonical_phone(phone, event.country)
        if forms is None:
            raise InvalidEvent(
                "phone", "not a possible phone number", "E.164, for example +4930123456"
            )
        e164, country, block, line = forms
        event.phone = secret.token("phone", e164)  # type: ignore[union-attr]
        event.phone_country = event.phone_country or country  # type: ignore[union-attr]
        event.phone_block_id = event.phone_block_id or block  # type: ignore[union-attr]
        if getattr(event, "line_type", "") is None and line != "unknown":
            event.line_type = line  # type: ignore[union-attr]
    email: str | None = getattr(event, "email", None)
    if email is not None and not email.startswith("h:"):
        parts = canonical_email(email)
        if parts is None:
            raise InvalidEvent("email", "not an e-mail address")
        address, domain, local = parts
        event.email = secret.token("email", address)  # type: ignore[union-attr]
        event.email_class = event.email_class or email_class(domain)  # type: ignore[union-attr]
        event.email_domain_id = event.email_domain_id or domain  # type: ignore[union-attr]
        event.email_shape = event.email_shape or email_shape(local)  # type: ignore[union-attr]
