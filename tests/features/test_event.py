"""The contract, held to what EVENTS.md promises: names, vocabularies, refusals and their words."""

import random
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy

from features.event import (
    CLASS_OF,
    EVENT_TYPES,
    AnyEvent,
    Event,
    InvalidEvent,
    convert,
    decode,
    decode_lines,
    encode,
)

# Written down from the contract, field by field.
COMMON = """event_id occurred_at account_id org_id ip country asn network_type forwarded
    http_version device_id user_agent ja4 connection_id timezone language entities observed_at
    ip_block_id"""
FIELDS = {
    "account_signup": """result email email_class phone channel plan promo_id referrer_id
        referrer_account_id form_ms declared_seats email_domain_id email_shape phone_country
        phone_block_id""",
    "phone_verified": """result phone line_type otp_latency_ms attempts phone_country
        phone_block_id""",
    "kyc_checked": """result vendor document_id document_type document_country document_template_id
        face_id background_id face_sketch document_sketch mrz liveness attempts duration_ms""",
    "ownership_declared": "owners",
    "payment": """kind decline_class ref_event_id plan instrument_id bin funding card_country
        billing_country billing_address_id amount_usd avs""",
    "login": "method result",
    "credential": "kind result credential_id lead_s ttl_s idle_s",
    "request": """credential_id endpoint model stream max_tokens status error duration_ms ttft_ms
        aborted retry_count window_id window_used retry_after_s input_tokens output_tokens
        cache_read_tokens cache_write_tokens cost_usd paid_usd client_name client_version
        client_runtime header_order_id beta_id client_os workspace_os cache_ttl cache_key_id
        attestation kind session_id end_user_id claimed_account prompt_id system_id tools_id
        template_sketch tools_sketch chain chain_root chain_length chain_after minted_refs
        emitted_refs workspace_id home_id repo_id git_user_id instructions_id workspace_timezone
        workspace_language""",
    "management_call": "endpoint status",
    "enforcement": "action source reason",
    "appeal": "outcome",
}
REQUIRED = {
    "kyc_checked": {"result"},
    "payment": {"kind"},
    "credential": {"kind"},
    "request": {"status"},
    "enforcement": {"action"},
    "appeal": {"outcome"},
}
WORDS = {
    ("login", "network_type"): "residential mobile hosting vpn tor education business unknown",
    ("account_signup", "result"): "created refused",
    ("account_signup", "email_class"): "free corporate education disposable custom",
    ("account_signup", "channel"): "web oauth sso invite reseller",
    ("phone_verified", "result"): "succeeded failed",
    ("phone_verified", "line_type"): "mobile fixed voip toll_free unknown",
    ("kyc_checked", "result"): "passed failed review",
    ("kyc_checked", "document_type"): "passport id_card licence permit",
    ("payment", "kind"): """card_added card_declined charge charge_failed refund dispute gift_card
        credit_grant plan_changed""",
    ("payment", "funding"): "credit debit prepaid virtual unknown",
    ("payment", "avs"): "match partial mismatch unavailable",
    ("login", "method"): "password oauth sso magic_link passkey",
    ("login", "result"): "succeeded failed",
    ("credential", "kind"): "key_created key_revoked oauth_granted token_refreshed",
    ("credential", "result"): "succeeded failed",
    ("request", "client_os"): "windows macos linux ios android other",
    ("request", "workspace_os"): "windows macos linux ios android other",
    ("request", "attestation"): "none ok mismatch",
    ("request", "kind"): "main title warmup count probe",
    ("request", "claimed_account"): "none match mismatch",
    ("management_call", "endpoint"): "usage profile models quota billing",
    ("enforcement", "action"): "challenge throttle suspend restore",
    ("enforcement", "source"): "auto human",
    ("appeal", "outcome"): "filed upheld reversed",
}
LEAST: dict[str, dict[str, Any]] = {
    "kyc_checked": {"result": "passed"},
    "payment": {"kind": "charge"},
    "credential": {"kind": "key_created"},
    "request": {"status": 200},
    "enforcement": {"action": "suspend"},
    "appeal": {"outcome": "filed"},
}


def event(type_name: str = "login", **fields: Any) -> dict[str, Any]:
    """The least event of a type, with these fields; a field given as `...` is left out."""
    common = {
        "event_id": "e1",
        "type": type_name,
        "occurred_at": 1_700_000_000_000,
        "account_id": "a1",
    }
    given = common | LEAST.get(type_name, {}) | fields
    return {name: value for name, value in given.items() if value is not ...}


def line(type_name: str = "login", **fields: Any) -> bytes:
    return msgspec.json.encode(event(type_name, **fields))


def refusal(data: bytes | str) -> str:
    with pytest.raises(InvalidEvent) as found:
        decode(data)
    return str(found.value.at(1))


# --- names and vocabularies


def test_the_types_are_those_of_the_contract() -> None:
    assert list(EVENT_TYPES) == list(FIELDS)


@pytest.mark.parametrize("type_name", EVENT_TYPES)
def test_a_type_has_exactly_the_fields_of_the_contract(type_name: str) -> None:
    known = set(CLASS_OF[type_name].__struct_fields__)
    # the /64 is derived from `ip`, so an edge that hashes itself may send it like the /24
    assert known == {*COMMON.split(), *FIELDS[type_name].split(), "ip_subnet_id"}


@pytest.mark.parametrize("type_name", EVENT_TYPES)
def test_only_what_the_contract_requires_is_required(type_name: str) -> None:
    fields = msgspec.structs.fields(CLASS_OF[type_name])
    required = {f.name for f in fields if f.required}
    assert required == {"event_id", "occurred_at", "account_id"} | REQUIRED.get(type_name, set())
    for field in sorted({*required, "type"}):
        assert f"field `{field}`: the required field is missing" in refusal(
            line(type_name, **{field: ...})
        )


@pytest.mark.parametrize(("type_name", "field"), WORDS)
def test_a_closed_vocabulary_is_closed(type_name: str, field: str) -> None:
    words = WORDS[type_name, field].split()
    for word in words:
        assert getattr(decode(line(type_name, **{field: word})), field) == word
    assert f"field `{field}`: invalid enum value" in refusal(line(type_name, **{field: "else"}))


@pytest.mark.parametrize(("type_name", "field"), WORDS)
def test_a_misspelt_word_is_answered_with_the_nearest(type_name: str, field: str) -> None:
    word = WORDS[type_name, field].split()[0]
    assert f"did you mean `{word}`?" in refusal(line(type_name, **{field: word + "x"}))


@pytest.mark.parametrize("type_name", EVENT_TYPES)
def test_null_is_absence(type_name: str) -> None:
    fields = [f.name for f in msgspec.structs.fields(CLASS_OF[type_name]) if not f.required]
    assert decode(line(type_name, **dict.fromkeys(fields))) == decode(line(type_name))


@pytest.mark.parametrize("field", ["event_id", "account_id", "org_id"])
def test_names_of_the_provider_have_up_to_128_characters(field: str) -> None:
    assert getattr(decode(line(**{field: "x" * 128})), field) == "x" * 128
    assert f"field `{field}`" in refusal(line(**{field: "x" * 129}))
    assert "leave a field out when it is unknown" in refusal(line(**{field: ""}))


# --- times


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        (1_700_000_000_123, 1_700_000_000_123),
        ("2023-11-14T22:13:20.123Z", 1_700_000_000_123),
        ("2023-11-14T22:13:20.123999Z", 1_700_000_000_123),
        ("2023-11-15T03:43:20+05:30", 1_700_000_000_000),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_times_become_epoch_milliseconds(written: int | str, ms: int) -> None:
    decoded = decode(line(occurred_at=written, observed_at=written))
    assert (decoded.occurred_at, decoded.observed_at) == (ms, ms)
    assert convert(event(occurred_at=written)).occurred_at == ms


@pytest.mark.parametrize("written", ["1960-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
def test_a_time_before_1970_is_refused(written: str) -> None:
    assert "field `occurred_at`: lies before 1970" in refusal(line(occurred_at=written))


# --- refusals

REFUSED: list[tuple[str, bytes | str]] = [
    ("unknown field", line(devise_id="x")),
    ("unknown field, nothing near", line(zzz="x")),
    ("misplaced field", line("payment", chain=["x"])),
    ("misplaced field of several types", line("login", status=200)),
    ("no type", line(type=...)),
    ("unknown type", line(type="payments")),
    ("type is no text", line(type=["login"])),
    ("no event_id", line(event_id=...)),
    ("no time", line(occurred_at=...)),
    ("null time", line(occurred_at=None)),
    ("time without zone", line(occurred_at="2023-11-14T22:13:20")),
    ("time in words", line(occurred_at="yesterday")),
    ("time as a fraction", line(occurred_at=1.5)),
    ("negative time", line(occurred_at=-1)),
    ("date only", line(occurred_at="2023-11-14")),
    ("observed_at without zone", line(observed_at="2023-11-14T22:13:20")),
    ("empty text", line(device_id="")),
    ("long text", line(device_id="x" * 513)),
    ("number for text", line(ip=16843009)),
    ("text for number", line(asn="7018")),
    ("fraction for a whole number", line(asn=1.5)),
    ("number for a truth value", line(forwarded=1)),
    ("small country", line(country="de")),
    ("unknown word", line(network_type="residental")),
    ("number for a word", line(http_version=2)),
    ("entities as a list", line(entities=["x"])),
    ("entity without value", line(entities={"funding_address": None})),
    ("entity with a bad name", line(entities={"funding address": "x"})),
    ("missing field of a type", line("payment", kind=...)),
    ("status out of range", line("request", status=20)),
    ("share above one", line("request", window_used=1.01)),
    ("negative count", line("request", input_tokens=-1)),
    ("five links", line("request", chain=["a", "b", "c", "d", "e"])),
    ("empty link", line("request", chain=["a", ""])),
    ("seventeen refs", line("request", minted_refs=[str(i) for i in range(17)])),
    ("sketch of seven", line("request", tools_sketch=[1] * 7)),
    ("sketch beyond 32 bits", line("request", tools_sketch=[2**32] * 8)),
    ("bin of five", line("payment", bin="12345")),
    ("owner with an unknown field", line("ownership_declared", owners=[{"owners": "x"}])),
    (
        "owner with too much",
        line("ownership_declared", owners=[{"owner": "x", "share": 2, "of": "self"}]),
    ),
    ("owner without of", line("ownership_declared", owners=[{"owner": "x", "share": 1}])),
    ("an array", b"[]"),
    ("a number", b"1"),
    ("a text", b'"login"'),
    ("null", b"null"),
    ("not JSON", b"{'type': 'login'}"),
    ("cut off", line()[:-8]),
    ("two objects", line() + line()),
    ("not UTF-8", line(device_id="x").replace(b'"x"', b'"\xff"')),
    ("half a surrogate pair", line(device_id="x").replace(b'"x"', b'"\\ud800"')),
    ("deeper than anybody writes", line()[:-1] + b',"x":' + b"[" * 100_000),
]


def test_the_words_of_every_refusal(golden: Any) -> None:
    told = [f"{name}\n    {refusal(data)}\n" for name, data in REFUSED]
    golden("event_errors.txt", "".join(told))


def test_a_mapping_is_refused_in_the_same_words() -> None:
    compared = 0
    for _, data in REFUSED:
        try:
            fields = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(fields, dict):
            with pytest.raises(InvalidEvent) as found:
                convert(fields)
            assert str(found.value.at(1)) == refusal(data)
            compared += 1
    assert compared > 30


def test_one_bad_line_costs_only_itself() -> None:
    data = b"\n".join([line(), b"", line(zzz=1, event_id="bad"), b"  ", line("appeal"), b"{", b""])
    events, lines, rejected = decode_lines(data, first_line=10)
    assert [type(e).__name__ for e in events] == ["Login", "Appeal"]
    assert lines == [10, 14]
    assert [(r.line, r.field, r.event_id) for r in rejected] == [
        (12, "zzz", "bad"),
        (15, None, None),
    ]


# --- properties


@given(data=st.data())
def test_an_event_survives_being_written(
    one_type: SearchStrategy[AnyEvent], data: DataObject
) -> None:
    drawn = data.draw(one_type)
    assert decode(encode(drawn)) == drawn
    assert convert(msgspec.json.decode(encode(drawn))) == drawn


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    refusal(data)


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_lines_are_refused_or_accepted_and_never_break(
    any_event: SearchStrategy[AnyEvent], data: DataObject
) -> None:
    good = bytearray(encode(data.draw(any_event)))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(good))
        match rng.randrange(4):
            case 0:
                good[at] = rng.randrange(256)
            case 1:
                del good[at : at + rng.randrange(1, 20)]
            case 2:
                good[at:at] = bytes(rng.choices(b'{}[]",:0-eE.\\u\x00\xff', k=rng.randrange(1, 4)))
            case _:
                good = good[:at] + good[rng.randrange(len(good)) :]
        if not good:
            break
    accepted_or_refused(bytes(good))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(data=st.data())
def test_values_of_any_kind_are_refused_or_accepted_and_never_break(
    any_event: SearchStrategy[AnyEvent], data: DataObject
) -> None:
    fields = msgspec.json.decode(encode(data.draw(any_event)))
    known = sorted({"type", *Event.__struct_fields__, *CLASS_OF[fields["type"]].__struct_fields__})
    name = data.draw(st.sampled_from(known) | st.text(max_size=6))
    fields[name] = data.draw(_JSON)
    accepted_or_refused(msgspec.json.encode(fields))
    with suppress(InvalidEvent):
        convert(fields)


def accepted_or_refused(data: bytes) -> None:
    with suppress(InvalidEvent):
        decoded = decode(data)
        assert decode(encode(decoded)) == decoded
