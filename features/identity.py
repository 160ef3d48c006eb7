"""Canonical forms and keyed hashes: what replaces an identifier before anything is stored.

`seal(event, secret)` first derives the coarse classes that stay clear (e-mail domain class, phone
country and block, /24 and /48), then replaces each identifier with `h:` + 32 hex digits: keyed
BLAKE2b (RFC 7693, a MAC; a third of HMAC-SHA256's cost here), one domain per family of fields that
are compared with each other. A value that is already hashed (`h:…`) stays as it is, so sealing
twice changes nothing. Low-entropy values (phones, IPv4) are safe only while the key is secret.
"""

import hashlib
import ipaddress
import unicodedata
from functools import lru_cache

import phonenumbers
from disposable_email_domains import blocklist
from email_validator import EmailNotValidError, validate_email

from features.event import AnyEvent, InvalidEvent, Owner
from features.kind import KINDS, LINK_FAMILY, NS

# The large free mail hosts; a domain outside these, education and disposable is somebody's own.
FREE_DOMAINS = frozenset(
    "gmail.com outlook.com hotmail.com live.com msn.com yahoo.com ymail.com icloud.com me.com mac.com aol.com "
    "proton.me protonmail.com gmx.com gmx.de gmx.net web.de mail.com zoho.com yandex.ru yandex.com mail.ru qq.com "
    "163.com 126.com sina.com foxmail.com naver.com daum.net orange.fr free.fr laposte.net libero.it t-online.de "
    "comcast.net verizon.net att.net btinternet.com fastmail.com hey.com tutanota.com hotmail.co.uk yahoo.co.jp "
    "yahoo.co.uk yahoo.fr hotmail.fr live.com.mx uol.com.br bol.com.br rediffmail.com".split()
)
_ALIAS_DOMAINS = {"googlemail.com": "gmail.com", "pm.me": "proton.me", "protonmail.com": "proton.me"}
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
        self._domains: dict[str, hashlib.blake2b] = {}
        self._tokens: dict[tuple[str, str], str] = {}

    def token(self, family: str, value: str) -> str:
        """`h:` + 32 hex digits for a canonical value of this family; an `h:…` value is returned as is."""
        if value.startswith("h:"):
            return value
        known = self._tokens.get((family, value))
        if known is not None:
            return known
        domain = self._domains.get(family)
        if domain is None:
            # BLAKE2b's personalisation separates the domains; names longer than 16 bytes are folded
            person = hashlib.blake2b(family.encode(), digest_size=16).digest()
            domain = hashlib.blake2b(key=self._key, digest_size=16, person=person)
            self._domains[family] = domain
        state = domain.copy()
        state.update(value.encode("utf-8", "surrogatepass"))
        token = "h:" + state.hexdigest()
        if len(self._tokens) >= 1 << 18:  # identifiers recur within days; a bound, not an LRU, is enough
            self._tokens.clear()
        self._tokens[family, value] = token
        return token


def u64(token: str) -> int:
    """The 64-bit name of a token, an opaque id or a class value: what the windows store.

    Never 0, which means absent. Two of 10^8 names collide with probability 3e-4.
    """
    if len(token) == 34 and token.startswith("h:"):
        try:
            return int(token[2:18], 16) or 1
        except ValueError:
            pass
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
    """`free education disposable custom`; whether a domain is a company's is the provider's to say."""
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
def canonical_phone(number: str, region: str | None = None) -> tuple[str, str | None, str, str] | None:
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


def seal(event: AnyEvent, secret: Secret) -> None:
    """Derive the clear classes, then replace every identifier of the event with its keyed hash.

    Raises:
        InvalidEvent: an e-mail, phone or IP that cannot be read as one.
    """
    token = secret.token
    _seal_ip(event, secret)
    fields = event.__struct_fields__
    if "phone" in fields or "email" in fields:
        _seal_contact(event, secret)
    mrz = getattr(event, "mrz", None)
    if mrz is not None:
        event.mrz = token("mrz", "".join(mrz.split()).upper())  # type: ignore[union-attr]
    for field, family in _fields_of(type(event)):
        value = getattr(event, field)
        if value is not None:
            if type(value) is list:
                setattr(event, field, [token(family, v) for v in value])
            else:
                setattr(event, field, token(family, value))
    if event.entities:
        event.entities = {kind: token(NS, value) for kind, value in event.entities.items()}
    owners: list[Owner] | None = getattr(event, "owners", None)
    for owner in owners or ():
        owner.owner = token("party", owner.owner)
        if owner.of != "self":
            owner.of = token("party", owner.of)


@lru_cache(maxsize=32)
def _fields_of(cls: type) -> tuple[tuple[str, str], ...]:
    names = set(cls.__struct_fields__)  # type: ignore[attr-defined]
    return tuple((f, family) for f, family in (*_HASHED_FIELDS, *_LINK_FIELDS) if f in names)


def _seal_ip(event: AnyEvent, secret: Secret) -> None:
    ip = event.ip
    if ip is not None and not ip.startswith("h:"):
        forms = canonical_ip(ip)
        if forms is None:
            raise InvalidEvent("ip", f"{ip!r} is not an IP address")
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
            raise InvalidEvent("phone", "not a possible phone number", "E.164, for example +4930123456")
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
