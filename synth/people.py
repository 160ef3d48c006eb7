"""People: where they live, what they work with, when they are awake.

A station's customers are people like any other, so everybody comes from here. A person has a home
network, perhaps a carrier and an office, one to three devices, a few repositories and working
hours. A *rig* is one program installed on one device.
"""

from dataclasses import dataclass, field, replace
from struct import Struct
from typing import NamedTuple

from synth import calls as c
from synth.clients import Program, Software, Template, browser
from synth.dice import Dice
from synth.exchange import Exchange
from synth.geography import AddressPlan, Country, Egress, any_country, offset_ms
from synth.pools import FREE_MAIL, Pools
from synth.wire import fragment

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_SYSTEMS = (("windows", 50.0), ("macos", 34.0), ("linux", 16.0))
_HOMES = {"windows": "C:\\Users\\{}", "macos": "/Users/{}", "linux": "/home/{}"}
_CONTAINERS = (("/root", 5.0), ("/workspace", 3.0), ("/home/vscode", 2.0), ("/app", 1.0))
# What somebody mostly uses: a terminal or editor, an application of his own, the web page.
MODES = (("terminal", 42.0), ("editor", 16.0), ("application", 14.0), ("web", 28.0))

_CACHE_TTL_MS = {None: 0, "5m": 300_000, "1h": 3_600_000}
_program = Struct(f"{c.GIVEN - c.K_PROGRAM}q").pack  # a talk's columns from the program on
_LARGEST = "lagoon-max-4"
# What each kind of client asks for, as often as it stands here.
MODELS: dict[str, tuple[str, ...]] = {
    kind: ("lagoon-4",) * mid + ("lagoon-max-4",) * large + ("lagoon-mini-2",) * small
    for kind, mid, large, small in (
        ("cli", 11, 7, 1), ("ide", 7, 2, 1), ("web", 6, 2, 2), ("sdk", 5, 1, 4),
        ("gateway", 6, 2, 2),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Device:
    device_id: str
    system: str
    browser: str

    def said(self) -> str:
        """A web page opened on this device."""
        return fragment(device_id=self.device_id, user_agent=self.browser)


class Profile(NamedTuple):
    """From where one account is opened or used, as an anti-detect browser keeps it."""

    egress: Egress
    device: Device
    zone: str
    language: str

    def said(self) -> str:
        return self.egress.fragment() + self.device.said()


@dataclass(slots=True)
class Rig:
    """One program on one device, as fragments by who could rewrite them on the way. The client's own
    statement, its template and what is said of the account's use go out once a conversation."""

    program: Program
    template: Template | None
    agent: str
    tls: str
    device: str
    page: str
    stated: str
    order: str
    meta: str
    fixed: str  # endpoint, stream, max_tokens
    models: tuple[str, ...]
    cache_ttl: str | None  # None: this program caches nothing
    titles: bool  # asks for a title of each conversation
    flags: int = field(init=False)
    row: bytes = field(default=b"", init=False, repr=False)  # `inked`, once it has been

    def __post_init__(self) -> None:
        chatty = self.program.kind in ("cli", "ide")  # calls tools: machine tempo, minted ids
        self.flags = (
            (c.CHATTY | c.AUXILIARY) * chatty
            | c.HAS_SESSION * (self.program.kind in ("cli", "ide", "web"))
            | c.TITLES * self.titles
        )

    def inked(self, exchange: Exchange) -> bytes:
        """The columns of a talk that follow from the program alone, as synth/calls.py lists them."""
        word, template = exchange.fragment, self.template
        said = word(template.said) if template else c.NONE
        self.row = _program(
            template.tokens if template else 0, said + 1, _CACHE_TTL_MS[self.cache_ttl],
            word(self.agent), word(self.tls), word(self.device), word(self.page), word(self.stated),
            word(self.order), word(self.meta), said, word(self.fixed),
        )  # fmt: skip
        return self.row


@dataclass(slots=True)
class Person:
    first: str
    last: str
    user: str
    country: Country
    zone: str
    offset_ms: int
    language: str
    networks: list[tuple[Egress, float]]
    devices: list[Device]
    starts_h: float
    awake_h: float
    weekend: float
    mode: str
    dear: bool  # takes the largest model for everything
    rigs: list[Rig] = field(default_factory=list)
    workspaces: list[str] = field(default_factory=list)

    @property
    def home(self) -> Egress:
        return self.networks[0][0]

    def place(self, dice: Dice) -> Egress:
        """Where the person is just now."""
        if len(self.networks) == 1 or dice.random() < self.networks[0][1]:
            return self.networks[0][0]
        return dice.weighted(self.networks[1:])

    def network(self, dice: Dice) -> Egress:
        """The address of one of the person's machines, where the person is just now."""
        return self.place(dice).neighbour(dice)

    def moments(self, dice: Dice, midnight: int, mean: float) -> list[int]:
        """When conversations begin on the local day that starts at `midnight` (UTC epoch ms)."""
        weekday = (midnight + self.offset_ms) // DAY % 7  # the epoch was a Thursday: 2 and 3
        rate = mean * self.weekend if weekday in (2, 3) else mean
        first = midnight + self.starts_h * HOUR
        width = self.awake_h * HOUR
        round_the_clock = self.awake_h >= 24
        return sorted(
            int(first + width * (dice.random() if round_the_clock else dice.triangular()))
            for _ in range(dice.poisson(rate))
        )


class People:
    """Makes people. One office a few dozen of them; public repositories that many work on."""

    def __init__(
        self, dice: Dice, plan: AddressPlan, pools: Pools, software: Software, start: int, size: int
    ) -> None:
        self.dice, self.plan, self.pools, self.software = dice, plan, pools, software
        self._start = start
        self._offices: dict[str, list[Egress]] = {}
        self._office_size = 30
        self._made = 0
        self.public = [
            (f"github.com/{dice.pick(pools.words)}/{dice.pick(pools.words)}", dice.token(128))
            for _ in range(max(12, size // 60))
        ]

    def make(
        self, country: Country | None = None, mode: str | None = None, *, dear: float = 0.2
    ) -> Person:
        """A person; of any country and habit unless they are given. `dear` is the probability of
        a taste for the largest model."""
        dice = self.dice
        country = country or any_country(dice)
        zone = dice.pick(country.zones)
        first, last = dice.pick(self.pools.first_names), dice.pick(self.pools.last_names)
        user = self._user_name(first, last)
        networks = [(self.plan.egress("residential", country.code), 0.72)]
        if dice.chance(0.35):
            networks.append((self.plan.mobile(country.code), 0.4))
        if dice.chance(0.25):
            networks.append((self._office(country.code), 0.6))
        if dice.chance(0.08):
            networks.append((self.plan.egress("vpn"), 0.4))
        devices = [self.device() for _ in range(dice.weighted(((1, 5.0), (2, 4.0), (3, 1.0))))]
        language = country.language if dice.chance(0.8) else "en-US"
        person = Person(
            first, last, user, country, zone, offset_ms(zone, self._start), language, networks,
            devices, dice.gauss(9.0, 1.8), min(max(dice.gauss(13, 2.6), 6), 18),
            min(dice.spread(0.45), 1.3), mode or dice.weighted(MODES), dice.chance(dear),
        )  # fmt: skip
        if person.mode == "application" and dice.chance(
            0.6
        ):  # it runs by itself, often on a server
            person.starts_h, person.awake_h, person.weekend = 0.0, 24.0, 0.9
            if dice.chance(0.5):
                person.networks.insert(0, (self.plan.egress("hosting"), 0.9))
        self.equip(person)
        return person

    def device(self, system: str | None = None) -> Device:
        system = system or self.dice.weighted(_SYSTEMS)
        return Device(self.dice.token(128), system, browser(self.dice, system))

    def _user_name(self, first: str, last: str) -> str:
        f, s = first.lower(), last.lower()
        shape = self.dice.randrange(5)
        return (f, f"{f}{s[0]}", f"{f[0]}{s}", f"{f}.{s}", s)[shape]

    def _office(self, country: str) -> Egress:
        offices = self._offices.setdefault(country, [])
        self._made += 1
        if not offices or self.dice.chance(1 / self._office_size):
            offices.append(self.plan.egress("business", country))
        return self.dice.pick(offices)

    def equip(self, person: Person) -> None:
        """Install what the person works with on the devices there are now."""
        dice, software = self.dice, self.software
        person.rigs.clear()
        for device in person.devices:
            if person.mode == "terminal":
                person.rigs.append(self.rig(person, device, software.program("cli")))
            elif person.mode == "editor":
                person.rigs.append(self.rig(person, device, software.program("ide")))
            elif person.mode == "web":
                person.rigs.append(self.rig(person, device, software.program("web")))
        if person.mode == "application":
            device = person.devices[0]
            for _ in range(1 + dice.chance(0.3)):
                program = software.program("sdk")
                person.rigs.append(self.rig(person, device, program, software.application()))
        elif person.mode != "web" and dice.chance(0.35):
            person.rigs.append(self.rig(person, person.devices[0], software.program("web")))
        if person.mode in ("terminal", "editor"):
            person.workspaces = self._workspaces(person)

    def rig(
        self, person: Person, device: Device, program: Program, template: Template | None = None
    ) -> Rig:
        """Install a program on a person's device."""
        dice = self.dice
        kind = program.kind
        web = kind == "web"
        cache_ttl = dice.weighted((("5m", 7.0), ("1h", 3.0)))
        if kind in ("sdk", "gateway") and dice.chance(0.5):
            cache_ttl = ""
        meta = fragment(
            attestation=("ok" if dice.chance(0.94) else "none") if kind == "cli" else None,
            claimed_account=("match" if dice.chance(0.93) else "none") if kind == "cli" else None,
            cache_ttl=cache_ttl if cache_ttl == "1h" else None,
        )
        limits = (4096, 8192, 16384, 32000) if kind != "sdk" else (256, 512, 1024, 2048, 4096)
        return Rig(
            program,
            template or program.template,
            fragment(user_agent=device.browser) if web else program.user_agent(device.system),
            program.tls(),
            fragment(device_id=device.device_id) if kind in ("cli", "ide", "web") else "",
            fragment(timezone=person.zone, language=person.language) if web else "",
            program.stated(device.system),
            program.order(),
            meta,
            fragment(
                endpoint="/v1/chat" if web else "/v1/messages",
                stream=kind != "sdk" or dice.chance(0.4),
                max_tokens=None if web else dice.pick(limits),
            ),
            models=(_LARGEST,) if person.dear and kind != "sdk" else MODELS[kind],
            cache_ttl=cache_ttl or None,
            titles=kind in ("cli", "ide") and dice.chance(0.75),
        )

    def moved(self, person: Person, profile: Profile) -> Person:
        """The same person at work in a profile only: the same programs and repositories."""
        device = profile.device
        moved = replace(person, devices=[device], zone=profile.zone, language=profile.language)
        moved.rigs = [self.rig(moved, device, rig.program, rig.template) for rig in person.rigs]
        return moved

    def _workspaces(self, person: Person) -> list[str]:
        """Two or three repositories: what the client tells of the place it works in."""
        dice = self.dice
        system = person.devices[0].system
        contained = dice.chance(0.1)
        home = dice.weighted(_CONTAINERS) if contained else _HOMES[system].format(person.user)
        if not contained and system == "windows" and dice.chance(0.25):  # WSL
            system, home = "linux", f"/home/{person.user}"
        domain = dice.weighted(FREE_MAIL) if dice.chance(0.6) else self.pools.domain(dice)
        mail = f"{self.pools.local_part(dice, person.first, person.last)}@{domain}"
        git_user = mail if dice.chance(0.8) else None
        owner = person.user if dice.chance(0.6) else dice.pick(self.pools.words)
        language = person.language if dice.chance(0.6) else None
        places = []
        for _ in range(dice.weighted(((1, 4.0), (2, 4.0), (3, 2.0)))):
            if dice.chance(0.1):
                repo, instructions = dice.zipf(self.public)
                name = repo.rsplit("/", 1)[1]
            else:
                name = f"{dice.pick(self.pools.words)}-{dice.pick(self.pools.words)}"
                repo = f"github.com/{owner}/{name}"
                instructions = dice.token(128)
            folder = dice.pick(("code", "src", "dev", "projects"))
            slash = "\\" if "\\" in home else "/"
            places.append(
                fragment(
                    workspace_id=slash.join((home, folder, name)),
                    home_id=home,
                    repo_id=repo if dice.chance(0.9) else None,
                    git_user_id=git_user,
                    instructions_id=instructions if dice.chance(0.55) else None,
                    workspace_os="linux" if contained else system,
                    workspace_timezone="Etc/UTC" if contained else person.zone,
                    workspace_language=language,
                )
            )
        return places
