"""Identifiers: their canonical forms, their families, and that none of them is ever left clear."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy

from features.catalog import Catalog
from features.event import (
    CLASS_OF,
    EVENT_TYPES,
    AccountSignup,
    AnyEvent,
    InvalidEvent,
    KycChecked,
    Login,
    Owner,
    OwnershipDeclared,
    Payment,
    PhoneVerified,
    Request,
    convert,
    decode,
    encode,
)
from features.identity import (
    Secret,
    canonical_email,
    canonical_ip,
    canonical_phone,
    email_class,
    email_shape,
    u64,
)
from features.kind import KINDS, LINK_FAMILY
from features.memory import MemoryWindow
from features.rows import (
    CHAIN_AFTER,
    CHAIN_LINK,
    EMITTED,
    MINTED,
    Kinds,
    Names,
    Rows,
)
from features.seal import Sealer

KEY = bytes(range(32))
CLEAR = {"event_id", "account_id", "org_id", "referrer_account_id", "ref_event_id"}
TOKEN = re.compile("h:[0-9a-f]{32}")
T = 1_700_000_000_000


def sealed(event: AnyEvent, key: bytes = KEY) -> Any:
    """The event as it is kept, decoded."""
    told, refused = Sealer(Secret(key), Kinds(), Names()).seal([event])
    if refused:
        raise refused[0][1]
    return decode(told.bodies[0])


def signup(**fields: Any) -> AccountSignup:
    return AccountSignup(event_id="e", occurred_at=T, account_id="a", **fields)


def request(account: str = "a", t: int = T, **fields: Any) -> Request:
    return Request(
        event_id=f"{account}-{t}", occurred_at=t, account_id=account, status=200, **fields
    )


# --- canonical forms


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("ada@corp.example", "ada@corp.example"),
        ("Ada.Love@Corp.Example", "ada.love@corp.example"),
        (" ada@corp.example ", "ada@corp.example"),
        ("ada+claude@corp.example", "ada@corp.example"),
        ("a.d.a@gmail.com", "ada@gmail.com"),
        ("A.D.A+x+y@GoogleMail.com", "ada@gmail.com"),
        ("a.d.a@outlook.com", "a.d.a@outlook.com"),
        ("ada@pm.me", "ada@proton.me"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"),
        ("+only@corp.example", "+only@corp.example"),
        ("no address", None),
        ("ada@", None),
        ("ada@@corp.example", None),
    ],
)
def test_one_mailbox_has_one_address(written: str, canonical: str | None) -> None:
    found = canonical_email(written)
    assert (found[0] if found else None) == canonical


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("gmail.com", "free"),
        ("mailinator.com", "disposable"),
        ("mit.edu", "education"),
        ("cam.ac.uk", "education"),
        ("unam.edu.mx", "education"),
        ("corp.example", "custom"),
    ],
)
def test_domain_classes(domain: str, name: str) -> None:
    assert email_class(domain) == name


def test_the_shape_of_an_address_keeps_no_letter_and_no_digit() -> None:
    assert email_shape("john.smith92") == "aaaa.aaaaa99"
    assert email_shape("жора_7") == "aaaa_9"


@pytest.mark.parametrize(
    ("written", "region", "e164", "country", "block"),
    [
        ("+4930123456", None, "+4930123456", "DE", "+4930123"),
        ("+49 30 / 123-456", None, "+4930123456", "DE", "+4930123"),
        ("tel:+49-30-123456", None, "+4930123456", "DE", "+4930123"),
        ("030 123456", "DE", "+4930123456", "DE", "+4930123"),
        ("0049 30 123456", "FR", "+4930123456", "DE", "+4930123"),
        ("(650) 253-0000", "US", "+16502530000", "US", "+16502530"),
    ],
)
def test_one_phone_has_one_number(
    written: str, region: str | None, e164: str, country: str, block: str
) -> None:
    found = canonical_phone(written, region)
    assert found is not None
    assert found[:3] == (e164, country, block)


@pytest.mark.parametrize("written", ["030 123456", "12", "phone", "+49"])
def test_what_cannot_be_called_is_no_phone(written: str) -> None:
    assert canonical_phone(written, None) is None


@pytest.mark.parametrize(
    ("written", "address", "block", "subnet"),
    [
        ("203.0.113.77", "203.0.113.77", "203.0.113.0/24", None),
        (" 203.0.113.77 ", "203.0.113.77", "203.0.113.0/24", None),
        ("::ffff:203.0.113.77", "203.0.113.77", "203.0.113.0/24", None),
        ("::ffff:cb00:714d", "203.0.113.77", "203.0.113.0/24", None),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1::/48", "2001:db8:1:2::/64"),
        ("2001:0DB8:0001::0:0006", "2001:db8:1::6", "2001:db8:1::/48", "2001:db8:1::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/48", "fe80::/64"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.0/24", None),
    ],
)  # fmt: skip
def test_one_address_has_one_form(
    written: str, address: str, block: str, subnet: str | None
) -> None:
    assert canonical_ip(written) == (address, block, subnet)


@pytest.mark.parametrize(
    "written", ["1.2.3", "1.2.3.4.5", "01.2.3.4", "example.com", "", "1.2.3.4/24"]
)
def test_what_is_no_address_is_refused(written: str) -> None:
    assert canonical_ip(written) is None


def test_unreadable_contacts_refuse_the_event() -> None:
    for event, field in (
        (signup(email="nobody"), "email"),
        (signup(phone="12"), "phone"),
        (signup(ip="example.com"), "ip"),
    ):
        with pytest.raises(InvalidEvent) as found:
            sealed(event)
        assert found.value.field == field


# --- tokens


@given(st.text(max_size=40), st.sampled_from(["card", "chain", "a family with a long name"]))
def test_a_token_is_a_keyed_hash_in_the_domain_of_its_family(value: str, family: str) -> None:
    person = hashlib.blake2b(family.encode(), digest_size=16).digest()
    digest = hashlib.blake2b(value.encode(), key=KEY, digest_size=16, person=person)
    expected = value if value.startswith("h:") else "h:" + digest.hexdigest()
    assert Secret(KEY).token(family, value) == expected
    assert u64(expected) == (int(expected[2:18], 16) if len(expected) == 34 else u64(value))


def test_another_key_makes_other_tokens() -> None:
    assert Secret(KEY).token("card", "x") != Secret(KEY[::-1]).token("card", "x")
    for length in (15, 65):
        with pytest.raises(ValueError, match="16 to 64 bytes"):
            Secret(bytes(length))


@pytest.mark.parametrize(
    "token",
    [
        "h:-fffffffffffffffffffffffffffffff",
        "h:+0000000000000001" + "0" * 15,
        "h: 000000000000001 " + "0" * 15 + " ",
        "h:0x00000000000001" + "0" * 16,
        "h:1_1_1_1_1_1_1_1_" + "0" * 16,
        "h:" + "٣" * 32,
        "h:" + "g" * 32,
        "h:" + "0" * 32,
        "h:",
        "",
        "h:an-edge-of-its-own",
    ],
)
def test_any_name_fits_64_bits_and_is_not_0(token: str) -> None:
    assert 1 <= u64(token) < 2**64
    event = Login(event_id="e", occurred_at=T, account_id="a", device_id=token or None)
    rows = Sealer(Secret(KEY), Kinds(), Names()).read([encode(event)]).rows
    assert rows.id.tolist() == ([u64(token)] if token else [])


def test_upper_and_lower_case_tokens_are_one() -> None:
    token = Secret(KEY).token("card", "x")
    assert u64("h:" + token[2:].upper()) == u64(token)


# --- families


def test_one_value_is_one_token_within_a_family() -> None:
    event = sealed(
        request(
            chain=["x", "y"], chain_root="x", chain_after="y", minted_refs=["m"], emitted_refs=["m"]
        )
    )
    assert event.chain == [event.chain_root, event.chain_after]
    assert event.minted_refs == event.emitted_refs
    assert event.minted_refs != event.chain


def test_one_value_is_another_token_in_another_family() -> None:
    fields = {k.field: k.family for k in KINDS if not k.clear} | LINK_FAMILY
    secret = Secret(KEY)
    tokens = {family: secret.token(family, "x") for family in fields.values()}
    assert len(set(tokens.values())) == len(tokens)
    card = sealed(
        Payment(event_id="e", occurred_at=T, account_id="a", kind="charge", instrument_id="x")
    )
    document = sealed(
        KycChecked(event_id="e", occurred_at=T, account_id="a", result="passed", document_id="x")
    )
    assert card.instrument_id != document.document_id


def test_entities_are_one_family_and_keep_their_kinds() -> None:
    event = sealed(signup(entities={"funded_by": "0xabc", "paid_to": "0xabc", "other": "0xdef"}))
    assert list(event.entities) == ["funded_by", "paid_to", "other"]
    assert event.entities["funded_by"] == event.entities["paid_to"] != event.entities["other"]


def test_a_block_sent_by_the_edge_meets_the_one_derived_here() -> None:
    derived = sealed(signup(ip="203.0.113.77", phone="+4930123456"))
    sent = sealed(signup(ip_block_id="203.0.113.0/24", phone_block_id="+4930123"))
    assert derived.ip_block_id == sent.ip_block_id
    assert derived.phone_block_id == sent.phone_block_id


def test_names_of_owners_are_one_family() -> None:
    event = sealed(
        OwnershipDeclared(
            event_id="e",
            occurred_at=T,
            account_id="a",
            owners=[
                Owner(owner="Holding Ltd", share=0.6, of="self", country="CY"),
                Owner(owner="A. Person", share=1.0, of="Holding Ltd"),
            ],
        )
    )
    first, second = event.owners
    assert first.of == "self"
    assert second.of == first.owner != second.owner
    assert (first.country, first.share) == ("CY", 0.6)


# --- classes derived


def test_coarse_classes_are_derived_and_stay_clear() -> None:
    event = sealed(
        signup(email="John.Smith+x@gmail.com", phone="+1 650 253 0000", ip="2001:db8:1:2::3")
    )
    assert (event.email_class, event.email_shape) == ("free", "aaaa.aaaaa+a")
    assert event.phone_country == "US"
    tokens = (event.email, event.email_domain_id, event.phone, event.phone_block_id)
    assert all(
        t.startswith("h:") for t in (*tokens, event.ip, event.ip_block_id, event.ip_subnet_id)
    )


def test_what_the_edge_says_wins() -> None:
    event = sealed(
        signup(
            email="a@gmail.com",
            email_class="corporate",
            email_shape="a",
            phone="+4930123456",
            phone_country="FR",
        )
    )
    assert (event.email_class, event.email_shape, event.phone_country) == ("corporate", "a", "FR")


def test_a_national_number_is_read_in_the_country_of_the_event() -> None:
    home = sealed(signup(phone="030 123456", country="DE"))
    assert home.phone == sealed(signup(phone="+4930123456")).phone


def test_the_line_type_is_looked_up_if_absent() -> None:
    def verified(**fields: Any) -> Any:
        return sealed(PhoneVerified(event_id="e", occurred_at=T, account_id="a", **fields))

    assert verified(phone="+4915112345678").line_type == "mobile"
    assert verified(phone="+4915112345678", line_type="voip").line_type == "voip"


def test_the_code_line_of_a_document_is_one_however_it_is_broken() -> None:
    def code(mrz: str) -> Any:
        return sealed(
            KycChecked(event_id="e", occurred_at=T, account_id="a", result="passed", mrz=mrz)
        ).mrz

    assert code("P<UTOERIKSSON<<ANNA\nL898902C36UTO") == code("p<utoeriksson<<annaL898902C36UTO ")


# --- what holds for every event


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, str):
        yield value


def is_identifier(field: str) -> bool:
    """By the words of the contract, not by our tables."""
    named = field.endswith(("_id", "_refs")) or field in ("email", "phone", "ip", "mrz", "entities")
    return (named or field.startswith("chain")) and field not in (*CLEAR, "chain_length")


RAW = {
    "email": "Raw.Mail@raw-domain.example",
    "phone": "+4930777123",
    "ip": "203.0.113.77",
    "entities": {"kind": "raw:entity"},
    "chain": ["raw:1", "raw:2"],
    "minted_refs": ["raw:3"],
    "emitted_refs": ["raw:4"],
    "owners": [{"owner": "raw:owner", "share": 0.5, "of": "raw:of"}],
}
LEAST: dict[str, dict[str, Any]] = {
    "kyc_checked": {"result": "passed"},
    "payment": {"kind": "charge"},
    "credential": {"kind": "key_created"},
    "request": {"status": 200},
    "enforcement": {"action": "suspend"},
    "appeal": {"outcome": "filed"},
}


@pytest.mark.parametrize("type_name", EVENT_TYPES)
@given(text=st.text(max_size=30))
def test_no_identifier_is_left_clear(type_name: str, text: str) -> None:
    fields = [f for f in CLASS_OF[type_name].__struct_fields__ if is_identifier(f) or f == "owners"]
    raw = {f: RAW.get(f, f"raw:{f}:{text}") for f in fields}
    names = dict.fromkeys(("event_id", "account_id", "org_id"), "clear")
    common = {"type": type_name, "occurred_at": T} | names | LEAST.get(type_name, {})
    fields_now = msgspec.json.decode(encode(sealed(convert(common | raw))))
    for leaf in leaves(fields_now):
        if not TOKEN.fullmatch(leaf):
            assert not any(r in leaf.lower() for r in ("raw", "mail", "777", "203.0")), leaf
    for field in fields:
        assert all(TOKEN.fullmatch(value) for value in leaves(fields_now[field]))
    assert fields_now["account_id"] == fields_now["org_id"] == "clear"


def test_clear_names_stay_clear() -> None:
    assert sealed(signup(org_id="o", referrer_account_id="b")).referrer_account_id == "b"
    refund = Payment(event_id="e", occurred_at=T, account_id="a", kind="refund", ref_event_id="e0")
    assert sealed(refund).ref_event_id == "e0"


@given(data=st.data())
def test_sealing_twice_is_sealing_once(
    any_event: SearchStrategy[AnyEvent], data: DataObject
) -> None:
    once = sealed(data.draw(any_event))
    assert sealed(decode(encode(once))) == once
    # another service's key does not touch what is hashed
    assert sealed(decode(encode(once)), KEY[::-1]) == once


# --- rows of sealed events


def read(events: list[Any], kinds: Kinds | None = None, names: Names | None = None) -> Rows:
    sealer = Sealer(Secret(KEY), kinds or Kinds(), Names() if names is None else names)
    return sealer.read([encode(e) for e in events]).rows


@given(data=st.data())
def test_rows_hold_every_entity_in_order(
    any_event: SearchStrategy[AnyEvent], data: DataObject
) -> None:
    events = [sealed(event) for event in data.draw(st.lists(any_event, max_size=4))]
    kinds, names = Kinds(), Names()
    rows = read(events, kinds, names)
    assert len(rows) == len(events)
    for i, event in enumerate(events):
        expected = [
            (number, u64(value))
            for number, k in enumerate(KINDS)
            if (value := getattr(event, k.field, None)) is not None
        ]
        expected += [(kinds.number(k), u64(v)) for k, v in (event.entities or {}).items()]
        if isinstance(event, Request):
            expected += [(CHAIN_LINK, u64(v)) for v in (event.chain or [])[:-1]]
            expected += [(MINTED, u64(v)) for v in event.minted_refs or []]
            expected += [(CHAIN_AFTER, u64(event.chain_after))] if event.chain_after else []
            expected += [(EMITTED, u64(v)) for v in event.emitted_refs or []]
        here = slice(rows.start[i], rows.start[i + 1])
        assert list(zip(rows.kind[here].tolist(), rows.id[here].tolist(), strict=True)) == expected
        assert names[int(rows.account[i])] == event.account_id
        assert (names[int(rows.org[i])] if rows.org[i] else None) == event.org_id
        assert rows.t[i] == event.occurred_at
    assert len({*rows.event_id.tolist()}) == len({e.event_id for e in events})


def test_a_second_body_under_one_event_id_is_told_apart() -> None:
    one, same, other = request(country="DE"), request(country="DE"), request(country="FR")
    rows = read([one, same, other])
    assert len(set(rows.event_id.tolist())) == 1
    assert rows.body[0] == rows.body[1] != rows.body[2]


def fold(*events: AnyEvent) -> Any:
    """Vectors by feature name, each event sealed and folded in a batch of its own."""
    sealer, window = Sealer(Secret(KEY), Kinds(), Names()), MemoryWindow(Catalog())
    told = []
    for event in events:
        vectors = window.fold(sealer.seal([event])[0].rows).vectors
        told.append(dict(zip(window.plan.catalog.names, vectors[0].tolist(), strict=True)))
    return told


def test_a_continuation_is_found_after_hashing() -> None:
    first = request("a", chain=["l0", "l1"], chain_root="l1", chain_after="l2")
    own = request("a", T + 1000, chain=["l1", "l2", "l3"], chain_root="l1", chain_after="l4")
    other = request("b", T + 2000, chain=["l3", "l4", "l5"], chain_root="l1", chain_after="l6")
    one, two, three = fold(first, own, other)
    assert [v["partners_by_account_7d"] for v in (one, two, three)] == [0, 0, 1]
    assert three["continuations_by_account_7d"] == 1


def test_a_minted_id_is_found_after_hashing() -> None:
    first = request("a", emitted_refs=["toolu_1", "toolu_2"])
    other = request("b", T + 1000, minted_refs=["toolu_0", "toolu_2"])
    one, two = fold(first, other)
    assert [v["partners_by_account_7d"] for v in (one, two)] == [0, 1]


def test_accounts_of_one_organisation_continue_each_other_freely() -> None:
    first = request("a", org_id="o", chain=["l1"], chain_after="l2")
    other = request("b", T + 1000, org_id="o", chain=["l1", "l2", "l3"])
    assert [v["partners_by_account_7d"] for v in fold(first, other)] == [0, 0]


def test_unknown_numbers_are_nan_and_known_ones_are_kept() -> None:
    rows = read([request(window_used=0.5), signup(form_ms=7, forwarded=True, network_type="tor")])
    assert np.count_nonzero(~np.isnan(rows.number)) == 4
    assert rows.amount.tolist() == [[1, 0, 0, 0, 0, 0, 0, 0], [0] * 8]
