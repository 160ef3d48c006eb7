"""Entity kinds: what accounts can share, and which fields carry it.

A *kind* is the name of a sort of entity ("device", "card", "face"). A *family* is a set of kinds
whose values are compared with each other and therefore hashed under one domain: an account found
on the same value under two kinds of one family is found on the same entity.

Everything a provider puts into `entities` is a kind of its own and all such kinds form one family,
so that `{"funded_by": x}` and `{"paid_to": x}` are two ways of meeting the same x.
"""

from dataclasses import dataclass

NS = "entities"  # the family of every kind that a provider adds


@dataclass(frozen=True, slots=True)
class Kind:
    """`field` on the wire, the hash `family`, and how a person would name it.

    `clear` values (country, operating system) are classes, not identifiers: they stay readable.
    `carried` values come from the client's environment block, which an exporter may send once per
    conversation; whoever reads carries them forward along the same account and conversation.
    """

    name: str
    field: str
    family: str
    noun: str
    clear: bool = False
    carried: bool = False


KINDS: tuple[Kind, ...] = (
    Kind("device", "device_id", "device", "device", carried=True),
    Kind("ip", "ip", "ip", "IP address"),
    Kind("ip_subnet", "ip_subnet_id", "ip_subnet", "IPv6 /64"),
    Kind("ip_block", "ip_block_id", "ip_block", "IP block"),
    Kind("connection", "connection_id", "connection", "network connection"),
    Kind("ja4", "ja4", "ja4", "TLS fingerprint", clear=True),
    Kind("country", "country", "country", "country", clear=True),
    Kind("network_type", "network_type", "network_type", "network type", clear=True),
    Kind("timezone", "timezone", "timezone", "client time zone", clear=True, carried=True),
    Kind("email", "email", "email", "e-mail address"),
    Kind("email_domain", "email_domain_id", "email_domain", "e-mail domain"),
    Kind("email_class", "email_class", "email_class", "e-mail class", clear=True),
    Kind("email_shape", "email_shape", "email_shape", "e-mail pattern", clear=True),
    Kind("phone", "phone", "phone", "phone number"),
    Kind("phone_block", "phone_block_id", "phone_block", "phone number block"),
    Kind("phone_country", "phone_country", "country", "phone country", clear=True),
    Kind("line_type", "line_type", "line_type", "phone line type", clear=True),
    Kind("promo", "promo_id", "promo", "promotion code"),
    Kind("referrer", "referrer_id", "referrer", "referral code"),
    Kind("document", "document_id", "document", "identity document"),
    Kind(
        "document_template", "document_template_id", "document_template", "document image template"
    ),
    Kind("document_country", "document_country", "country", "document country", clear=True),
    Kind("face", "face_id", "face", "face"),
    Kind("background", "background_id", "background", "photo background"),
    Kind("mrz", "mrz", "mrz", "document code line"),
    Kind("card", "instrument_id", "card", "payment card"),
    Kind("bin", "bin", "bin", "card issuer number", clear=True),
    Kind("card_country", "card_country", "country", "card country", clear=True),
    Kind("billing_country", "billing_country", "country", "billing country", clear=True),
    Kind("billing_address", "billing_address_id", "billing_address", "billing address"),
    Kind("credential", "credential_id", "credential", "credential"),
    Kind("session", "session_id", "session", "client session"),
    Kind("end_user", "end_user_id", "end_user", "end user", carried=True),
    Kind("home", "home_id", "home", "home folder", carried=True),
    Kind("workspace", "workspace_id", "workspace", "workspace", carried=True),
    Kind("repo", "repo_id", "repo", "repository", carried=True),
    Kind("git_user", "git_user_id", "git_user", "git identity", carried=True),
    Kind("instructions", "instructions_id", "instructions", "instructions file", carried=True),
    Kind(
        "workspace_timezone",
        "workspace_timezone",
        "timezone",
        "workspace time zone",
        clear=True,
        carried=True,
    ),
    Kind(
        "workspace_language",
        "workspace_language",
        "language",
        "workspace language",
        clear=True,
        carried=True,
    ),
    Kind("client_os", "client_os", "os", "client system", clear=True),
    Kind("workspace_os", "workspace_os", "os", "workspace system", clear=True, carried=True),
    Kind(
        "client_version",
        "client_version",
        "client_version",
        "client version",
        clear=True,
        carried=True,
    ),
    Kind("header_order", "header_order_id", "header_order", "header order"),
    Kind("model", "model", "model", "model", clear=True),
    Kind("system", "system_id", "system", "system prompt", carried=True),
    Kind("tools", "tools_id", "tools", "tool set", carried=True),
    Kind("prompt", "prompt_id", "prompt", "short prompt"),
    Kind("conversation", "chain_root", "chain", "conversation opening"),
)
KIND: dict[str, Kind] = {k.name: k for k in KINDS}
INDEX: dict[str, int] = {k.name: i for i, k in enumerate(KINDS)}
OF_FIELD: dict[str, Kind] = {k.field: k for k in KINDS}

# Fields that are identifiers without being an entity of their own: hashed, not counted.
# The rolling prefix chain and the provider-made ids feed the claims (see features/catalog.py).
LINK_FAMILY: dict[str, str] = {
    "chain": "chain",
    "chain_after": "chain",
    "minted_refs": "minted",
    "emitted_refs": "minted",
    "window_id": "window",
    "beta_id": "beta",
    "cache_key_id": "cache_key",
}

# Every field that holds an identifier, and the family it is hashed in; an owner is somebody's party.
FAMILY_OF: dict[str, str] = (
    {k.field: k.family for k in KINDS if not k.clear}
    | LINK_FAMILY
    | {"owner": "party", "of": "party"}
)
