"""The event contract: one event is one fact about one account.

Each type is a msgspec struct, so that a line is decoded, checked and typed in one pass
(2-4 microseconds; pydantic needs 12-14 for the same work, see docs/decisions/0002).
Validation is strict: an unknown or misplaced field refuses that event, and the error names the
field and the nearest known name. Absent means *unknown*, never 0.

Times are integer epoch milliseconds once decoded, whatever form they came in.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(min_length=1, max_length=512)]
LongText = Annotated[str, Meta(min_length=1, max_length=2048)]
Country = Annotated[str, Meta(pattern=r"^[A-Z]{2}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[float, Meta(ge=0, le=1e12)]
Number = Annotated[float, Meta(ge=-1e12, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]
Sketch = Annotated[list[Annotated[int, Meta(ge=0, le=2**32 - 1)]], Meta(min_length=8, max_length=8)]
BandSketch = Annotated[list[Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]], Meta(max_length=8)]
Time = (
    Annotated[int, Meta(ge=0, le=2**53)] | Annotated[datetime, Meta(tz=True)]
)  # int milliseconds after decoding
Entities = Annotated[
    dict[Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")], Text],
    Meta(max_length=32),
]

NetworkType = Literal[
    "residential", "mobile", "hosting", "vpn", "tor", "education", "business", "unknown"
]
EmailClass = Literal["free", "corporate", "education", "disposable", "custom"]
System = Literal["windows", "macos", "linux", "ios", "android", "other"]


class Event(
    Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", gc=False
):
    """What every type carries. `ip_subnet_id` (an IPv6 /64) and the other coarse classes are
    derived from the raw value when it is present, and accepted from an edge that hashes itself."""

    event_id: Id
    occurred_at: Time
    account_id: Id
    observed_at: Time | None = None
    org_id: Id | None = None
    ip: Text | None = None
    ip_block_id: Text | None = None
    ip_subnet_id: Text | None = None
    country: Country | None = None
    asn: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    network_type: NetworkType | None = None
    forwarded: bool | None = None
    http_version: Literal["1.0", "1.1", "2", "3"] | None = None
    device_id: Text | None = None
    user_agent: LongText | None = None
    ja4: Text | None = None
    connection_id: Text | None = None
    timezone: Text | None = None
    language: Text | None = None
    entities: Entities | None = None


class AccountSignup(Event, tag="account_signup"):
    result: Literal["created", "refused"] | None = None
    email: Text | None = None
    email_class: EmailClass | None = None
    email_domain_id: Text | None = None
    email_shape: Text | None = None
    phone: Text | None = None
    phone_country: Country | None = None
    phone_block_id: Text | None = None
    channel: Literal["web", "oauth", "sso", "invite", "reseller"] | None = None
    plan: Text | None = None
    promo_id: Text | None = None
    referrer_id: Text | None = None
    referrer_account_id: Id | None = None
    form_ms: Count | None = None
    declared_seats: Count | None = None


class PhoneVerified(Event, tag="phone_verified"):
    result: Literal["succeeded", "failed"] | None = None
    phone: Text | None = None
    phone_country: Country | None = None
    phone_block_id: Text | None = None
    line_type: Literal["mobile", "fixed", "voip", "toll_free", "unknown"] | None = None
    otp_latency_ms: Count | None = None
    attempts: Count | None = None


class KycChecked(Event, tag="kyc_checked"):
    result: Literal["passed", "failed", "review"]
    vendor: Text | None = None
    document_id: Text | None = None
    document_type: Literal["passport", "id_card", "licence", "permit"] | None = None
    document_country: Country | None = None
    document_template_id: Text | None = None
    face_id: Text | None = None
    background_id: Text | None = None
    face_sketch: BandSketch | None = None
    document_sketch: BandSketch | None = None
    mrz: Text | None = None
    liveness: Share | None = None
    attempts: Count | None = None
    duration_ms: Count | None = None


class Owner(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """`owner` holds `share` of `of`; the account's own organisation is `of: "self"`."""

    owner: Text
    share: Share
    of: Text
    country: Country | None = None


class OwnershipDeclared(Event, tag="ownership_declared"):
    owners: Annotated[list[Owner], Meta(max_length=256)] | None = None


class Payment(Event, tag="payment"):
    kind: Literal[
        "card_added",
        "card_declined",
        "charge",
        "charge_failed",
        "refund",
        "dispute",
        "gift_card",
        "credit_grant",
        "plan_changed",
    ]
    decline_class: Text | None = None
    ref_event_id: Id | None = None
    plan: Text | None = None
    instrument_id: Text | None = None
    bin: Annotated[str, Meta(pattern=r"^[0-9]{6,8}\Z")] | None = None
    funding: Literal["credit", "debit", "prepaid", "virtual", "unknown"] | None = None
    card_country: Country | None = None
    billing_country: Country | None = None
    billing_address_id: Text | None = None
    amount_usd: Amount | None = None
    avs: Literal["match", "partial", "mismatch", "unavailable"] | None = None


class Login(Event, tag="login"):
    method: Literal["password", "oauth", "sso", "magic_link", "passkey"] | None = None
    result: Literal["succeeded", "failed"] | None = None


class Credential(Event, tag="credential"):
    kind: Literal["key_created", "key_revoked", "oauth_granted", "token_refreshed"]
    result: Literal["succeeded", "failed"] | None = None
    credential_id: Text | None = None
    lead_s: Number | None = None
    ttl_s: Number | None = None
    idle_s: Number | None = None


class Request(Event, tag="request"):
    """One inference call, sent when it has ended."""

    status: Annotated[int, Meta(ge=100, le=999)]
    error: Text | None = None
    credential_id: Text | None = None
    endpoint: Text | None = None
    model: Text | None = None
    stream: bool | None = None
    max_tokens: Count | None = None
    duration_ms: Count | None = None
    ttft_ms: Count | None = None
    aborted: bool | None = None
    retry_count: Count | None = None
    window_id: Text | None = None
    window_used: Share | None = None
    retry_after_s: Amount | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cost_usd: Amount | None = None
    paid_usd: Amount | None = None
    client_name: Text | None = None
    client_version: Text | None = None
    client_runtime: Text | None = None
    header_order_id: Text | None = None
    beta_id: Text | None = None
    client_os: System | None = None
    workspace_os: System | None = None
    cache_ttl: Text | None = None
    cache_key_id: Text | None = None
    attestation: Literal["none", "ok", "mismatch"] | None = None
    kind: Literal["main", "title", "warmup", "count", "probe"] | None = None
    session_id: Text | None = None
    end_user_id: Text | None = None
    claimed_account: Literal["none", "match", "mismatch"] | None = None
    prompt_id: Text | None = None
    system_id: Text | None = None
    tools_id: Text | None = None
    template_sketch: Sketch | None = None
    tools_sketch: Sketch | None = None
    chain: Annotated[list[Text], Meta(max_length=4)] | None = None
    chain_root: Text | None = None
    chain_length: Count | None = None
    chain_after: Text | None = None
    minted_refs: Annotated[list[Text], Meta(max_length=16)] | None = None
    emitted_refs: Annotated[list[Text], Meta(max_length=16)] | None = None
    workspace_id: Text | None = None
    home_id: Text | None = None
    repo_id: Text | None = None
    git_user_id: Text | None = None
    instructions_id: Text | None = None
    workspace_timezone: Text | None = None
    workspace_language: Text | None = None


class ManagementCall(Event, tag="management_call"):
    endpoint: Literal["usage", "profile", "models", "quota", "billing"] | None = None
    status: Annotated[int, Meta(ge=100, le=999)] | None = None


class Enforcement(Event, tag="enforcement"):
    action: Literal["challenge", "throttle", "suspend", "restore"]
    source: Literal["auto", "human"] | None = None
    reason: Text | None = None


class Appeal(Event, tag="appeal"):
    outcome: Literal["filed", "upheld", "reversed"]


AnyEvent = (
    AccountSignup
    | PhoneVerified
    | KycChecked
    | OwnershipDeclared
    | Payment
    | Login
    | Credential
    | Request
    | ManagementCall
    | Enforcement
    | Appeal
)
EVENT_CLASSES: tuple[type[Event], ...] = get_args(AnyEvent)
EVENT_TYPES: tuple[str, ...] = tuple(str(c.__struct_config__.tag) for c in EVENT_CLASSES)
CLASS_OF: dict[str, type[Event]] = dict(zip(EVENT_TYPES, EVENT_CLASSES, strict=True))
TYPE_INDEX: dict[type[Event], int] = {c: i for i, c in enumerate(EVENT_CLASSES)}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one event was refused. `line` counts from 1 within its file or batch."""

    line: int
    field: str | None
    error: str
    hint: str | None = None
    event_id: str | None = None

    def __str__(self) -> str:
        place = f"line {self.line}" + (f", field `{self.field}`" if self.field else "")
        return f"{place}: {self.error}" + (f" ({self.hint})" if self.hint else "")


class InvalidEvent(ValueError):
    """One event breaks the contract."""

    def __init__(self, field: str | None, error: str, hint: str | None = None) -> None:
        super().__init__(error)
        self.field, self.error, self.hint = field, error, hint

    def at(self, line: int, event_id: str | None = None) -> Rejection:
        return Rejection(line, self.field, self.error, self.hint, event_id)


def too_long(most: int) -> InvalidEvent:
    return InvalidEvent(None, f"an event has at most {most} bytes of JSON")


def milliseconds(value: int | datetime) -> int:
    """Epoch milliseconds of a decoded time."""
    return value if isinstance(value, int) else (value - _EPOCH) // _MS


_decode = msgspec.json.Decoder(AnyEvent).decode
_decode_any = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


def decode(line: bytes | str) -> AnyEvent:
    """Decode and check one event.

    Raises:
        InvalidEvent: it breaks the contract; the error names the field.
    """
    try:
        event: AnyEvent = _decode(line)
    except msgspec.DecodeError as problem:
        raise _explain(line, problem) from None
    except (RecursionError, UnicodeError):
        raise InvalidEvent(None, "not a JSON object this service can read") from None
    return _settle(event)


def convert(fields: dict[str, Any]) -> AnyEvent:
    """The same check for an event that is already a mapping (an archive's row, a JSON array).

    Raises:
        InvalidEvent: it breaks the contract; the error names the field.
    """
    try:
        event: AnyEvent = msgspec.convert(fields, AnyEvent, str_keys=True)
    except msgspec.ValidationError as problem:
        raise _reason(fields, str(problem)) from None
    return _settle(event)


def _settle(event: AnyEvent) -> AnyEvent:
    """Times as milliseconds; those that come as a number are checked already."""
    if type(event.occurred_at) is not int:
        event.occurred_at = _time("occurred_at", event.occurred_at)
    if event.observed_at is not None and type(event.observed_at) is not int:
        event.observed_at = _time("observed_at", event.observed_at)
    return event


def _time(field: str, value: int | datetime) -> int:
    told = milliseconds(value)
    if told < 0:
        raise InvalidEvent(field, "lies before 1970")
    return told


_PATTERN = re.compile(r"matching regex '(.*)'$")
_FORMS = {  # as the decoder writes them
    r"^[A-Z]{2}\\Z": "two capital letters (ISO 3166), for example DE",
    r"^[0-9]{6,8}\\Z": "the first 6 to 8 digits of the card",
    r"^[A-Za-z][A-Za-z0-9_.-]{0,63}\\Z": "a letter, then up to 63 letters, digits, `_`, `.` or `-`",
}
_AT = re.compile(r" - at (?:`key` in )?`([^`]+)`$")
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
_MISSING = re.compile(r"missing required field `([^`]+)`")


def _explain(line: bytes | str, problem: msgspec.DecodeError) -> InvalidEvent:
    """Turn the decoder's words into ours, naming the nearest right name."""
    try:
        fields = _decode_any(line)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return InvalidEvent(None, f"not valid JSON: {problem}")
    if not isinstance(fields, dict):
        return InvalidEvent(None, f"an event is a JSON object, this is {_kind(fields)}")
    return _reason(fields, str(problem))


def _reason(fields: dict[str, Any], message: str) -> InvalidEvent:
    type_name = fields.get("type")
    if type_name is None:
        return InvalidEvent(
            "type", "the required field is missing", f"one of {', '.join(EVENT_TYPES)}"
        )
    if not isinstance(type_name, str) or type_name not in CLASS_OF:
        return InvalidEvent(
            "type", f"unknown event type {type_name!r}", nearest(str(type_name), EVENT_TYPES)
        )
    if unknown := _UNKNOWN.search(message):
        if " - at `$." in message:  # inside owners[]
            return InvalidEvent("owners", f"unknown field `{unknown[1]}` in an owner")
        return _unknown_field(unknown[1], type_name)
    if missing := _MISSING.search(message):
        return InvalidEvent(missing[1], "the required field is missing")
    place = _AT.search(message)
    field = place[1].removeprefix("$.").removeprefix("$") if place else None
    error = _AT.sub("", message)
    name = re.split(r"[.\[]", field)[0] if field else ""
    value = fields.get(name)
    hint = None
    pattern = _PATTERN.search(error)
    if pattern is not None:
        error, hint = "malformed", _FORMS.get(pattern[1])
    elif value == "":
        hint = "leave a field out when it is unknown"
    elif "enum value" in error and isinstance(value, str):
        hint = nearest(value, _choices(type_name, name))
    elif name in ("occurred_at", "observed_at"):
        hint = "RFC 3339 with an offset, or integer epoch milliseconds"
    return InvalidEvent(field or None, error[0].lower() + error[1:], hint)


def _unknown_field(name: str, type_name: str) -> InvalidEvent:
    homes = [t for t in EVENT_TYPES if name in CLASS_OF[t].__struct_fields__]
    if homes:
        return InvalidEvent(
            name, f"misplaced: `{type_name}` has no such field", f"it belongs to {', '.join(homes)}"
        )
    return InvalidEvent(
        name,
        f"unknown field for `{type_name}`",
        nearest(name, CLASS_OF[type_name].__struct_fields__)
        or "identifiers of your own go into `entities`",
    )


def _choices(type_name: str, field: str) -> tuple[str, ...]:
    for info in msgspec.structs.fields(CLASS_OF[type_name]):
        if info.name == field:
            words = (
                *get_args(info.type),
                *(v for part in get_args(info.type) for v in get_args(part)),
            )
            return tuple(v for v in words if isinstance(v, str))
    return ()


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A hint with the known name closest to `name`, or the choices when there are few."""
    choices = list(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"one of {', '.join(choices)}" if 0 < len(choices) <= 12 else None


def _kind(value: object) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )


def decode_lines(
    data: bytes, first_line: int = 1, line_max: int | None = None
) -> tuple[list[AnyEvent], list[int], list[Rejection]]:
    """Decode NDJSON: the good events, the line each stood on, and the lines refused with reasons.

    Blank lines are passed over. One bad line never costs its neighbours; one of more than `line_max`
    bytes is refused unread.
    """
    events: list[AnyEvent] = []
    lines: list[int] = []
    rejected: list[Rejection] = []
    for number, line in enumerate(data.split(b"\n"), first_line):
        if not line or line.isspace():
            continue
        if line_max is not None and len(line) > line_max:
            rejected.append(too_long(line_max).at(number))
            continue
        try:
            events.append(decode(line))
            lines.append(number)
        except InvalidEvent as problem:
            rejected.append(problem.at(number, event_id_of(line)))
    return events, lines, rejected


def event_id_of(line: bytes | str) -> str | None:
    """The `event_id` of a refused line, if one can still be read."""
    try:
        fields = _decode_any(line)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    name = fields.get("event_id") if isinstance(fields, dict) else None
    return name[:128] if isinstance(name, str) else None
