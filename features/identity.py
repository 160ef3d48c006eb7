"""Canonical forms and keyed hashes: what replaces an identifier before anything is stored.

`canonical(event)` derives the coarse classes (e-mail class and domain, phone country and block, /24 or
/48) and writes each identifier in the one form it is compared in; features/seal.py then replaces it with
`h:` + 32 hex digits: keyed BLAKE2b (RFC 7693, a MAC; a third of HMAC-SHA256's cost here), one domain per
family of fields that are compared with each other. A value that is already hashed (`h:…`) stays as it
is, so sealing twice changes nothing. Low-entropy values (phones, IPv4) are safe only while the key is
secret.
"""

import hashlib
import ipaddress
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import phonenumbers
from disposable_email_domains import blocklist
from email_validator import EmailNotValidError, validate_email

from features import blake2b
from features.blake2b import U64
from features.event import (
    AccountSignup,
    AnyEvent,
    InvalidEvent,
    KycChecked,
    OwnershipDeclared,
    PhoneVerified,
    Request,
)
from features.kind import FAMILY_OF, NS

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


class Secret:
    """A key, and the tokens it makes.

    Args:
        key: 16 to 64 bytes. Whoever holds it can test guesses at low-entropy identifiers.
    """

    def __init__(self, key: bytes) -> None:
        if not 16 <= len(key) <= 64:
            raise ValueError(f"an identity key has 16 to 64 bytes, this one has {len(key)}")
        self._key = key
        self._begun = cache(
            lambda family: hashlib.blake2b(key=key, digest_size=16, person=_person(family))
        )

    def token(self, family: str, value: str) -> str:
        """`h:` + 32 hex digits for a canonical value of this family; `h:…` is returned as is."""
        return value if value.startswith("h:") else "h:" + self.digest(family, value).hex()

    def digest(self, family: str, value: str) -> bytes:
        """The 16 bytes of a token, of a value that is not one."""
        state = self._begun(family).copy()
        state.update(value.encode())
        return state.digest()

    def start(self, family: str) -> U64:
        """Where a compiled hash of this family begins (features/blake2b.py)."""
        return blake2b.start(16, self._key, _person(family))


def _person(family: str) -> bytes:
    """BLAKE2b's personalisation, which separates the domains; names longer than 16 bytes are folded."""
    return hashlib.blake2b(family.encode(), digest_size=16).digest()


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
    digest = hashlib.blake2b(token.encode(), digest_size=8).digest()
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


def canonical(event: AnyEvent) -> None:
    """Derive the clear classes, and bring identifiers into the form they are compared in.

    Raises:
        InvalidEvent: an e-mail, phone or IP that cannot be read as one.
    """
    ip = event.ip
    if ip is not None and not ip.startswith("h:"):
        forms = canonical_ip(ip)
        if forms is None:
            raise InvalidEvent("ip", "not an IP address")
        event.ip, block, subnet = forms
        event.ip_block_id = event.ip_block_id or block
        event.ip_subnet_id = event.ip_subnet_id or subnet
    if type(event) is Request:  # nearly all
        return
    if type(event) is AccountSignup or type(event) is PhoneVerified:
        _canonical_contact(event)
    elif type(event) is KycChecked:
        mrz = event.mrz
        if mrz is not None and not mrz.startswith("h:"):
            event.mrz = "".join(mrz.split()).upper()


def _canonical_contact(event: AccountSignup | PhoneVerified) -> None:
    phone = event.phone
    if phone is not None and not phone.startswith("h:"):
        forms = canonical_phone(phone, event.country)
        if forms is None:
            raise InvalidEvent(
                "phone", "not a possible phone number", "E.164, for example +4930123456"
            )
        event.phone, country, block, line = forms
        event.phone_country = event.phone_country or country
        event.phone_block_id = event.phone_block_id or block
        if type(event) is PhoneVerified and event.line_type is None and line != "unknown":
            event.line_type = line  # type: ignore[assignment]
    if type(event) is not AccountSignup:
        return
    email = event.email
    if email is not None and not email.startswith("h:"):
        parts = canonical_email(email)
        if parts is None:
            raise InvalidEvent("email", "not an e-mail address")
        event.email, domain, local = parts
        event.email_class = event.email_class or email_class(domain)  # type: ignore[assignment]
        event.email_domain_id = event.email_domain_id or domain
        event.email_shape = event.email_shape or email_shape(local)


def identifiers(event: AnyEvent) -> list[tuple[str, str]]:
    """(family, value) of every identifier of an event, hashed or canonical.

    What the walk of features/seal.py hashes and what this and `replace_identifiers` meet is the same;
    the tests hold them together.
    """
    of = _identifiers(type(event))
    found = []
    for family, value in zip(of.families, of.values(event), strict=True):
        if type(value) is str:
            found.append((family, value))
        elif value is not None:
            found += [(family, v) for v in value]
    if event.entities:
        found += [(NS, value) for value in event.entities.values()]
    if type(event) is OwnershipDeclared:
        for owner in event.owners or ():
            found.append((FAMILY_OF["owner"], owner.owner))
            if owner.of != "self":
                found.append((FAMILY_OF["of"], owner.of))
    return found


def replace_identifiers(event: AnyEvent, change: Callable[[str], str]) -> None:
    """Put `change(value)` in the place of every identifier of an event."""
    for field in _identifiers(type(event)).fields:
        value = getattr(event, field)
        if value is not None:
            told = change(value) if type(value) is str else [change(v) for v in value]
            setattr(event, field, told)
    if event.entities:
        event.entities = {kind: change(value) for kind, value in event.entities.items()}
    if type(event) is OwnershipDeclared:
        for owner in event.owners or ():
            owner.owner = change(owner.owner)
            if owner.of != "self":
                owner.of = change(owner.of)


class _Identifiers(NamedTuple):
    """The fields of an event type that hold identifiers, their families, and what reads them."""

    fields: tuple[str, ...]
    families: tuple[str, ...]
    values: Callable[[AnyEvent], tuple[Any, ...]]


@cache
def _identifiers(cls: type[AnyEvent]) -> _Identifiers:
    fields = tuple(f for f in cls.__struct_fields__ if f in FAMILY_OF)
    return _Identifiers(fields, tuple(FAMILY_OF[f] for f in fields), attrgetter(*fields))
