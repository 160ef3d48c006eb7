"""Client software: what the programs that call the API say about themselves.

A *template* is a program's system prompt and tool set. Everybody who uses the same program shares
it, so most templates are popular and mean nothing; an application of one's own has its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from synth.dice import Dice
from synth.wire import fragment

_BROWSERS = {
    "windows": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/{v}.0.0.0 Safari/537.36",
    "macos": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36"
    " (KHTML, like Gecko) Chrome/{v}.0.0.0 Safari/537.36",
    "linux": "Mozilla/5.0 (X11; Linux x86_64; rv:{v}.0) Gecko/20100101 Firefox/{v}.0",
    "android": "Mozilla/5.0 (Linux; Android 15; K) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/{v}.0.0.0 Mobile Safari/537.36",
    "ios": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
}
_BROWSER_VERSIONS = (("143", 5.0), ("144", 9.0), ("145", 3.0), ("128", 0.6))


def browser(dice: Dice, system: str) -> str:
    version = dice.weighted(_BROWSER_VERSIONS)
    return _BROWSERS.get(system, _BROWSERS["linux"]).format(v=version)


@dataclass(frozen=True, slots=True)
class Template:
    """System prompt and tools, as the edge sees them. `tokens` is what they add to every call."""

    said: str
    system_id: str
    tokens: int

    @classmethod
    def make(cls, dice: Dice, tokens: float, *, tools: bool) -> "Template":
        system_id = dice.token(128)
        said = fragment(
            system_id=system_id,
            template_sketch=[dice.getrandbits(32) for _ in range(8)],
            tools_id=dice.token(128) if tools else None,
            tools_sketch=[dice.getrandbits(32) for _ in range(8)] if tools else None,
        )
        return cls(said, system_id, int(tokens * (0.7 + 0.6 * dice.random())))


@dataclass(frozen=True, slots=True)
class Program:
    """One release of a client program."""

    name: str
    kind: str  # cli, ide, sdk, web or gateway
    version: str
    runtime: str
    agent: str
    http_version: str
    header_order_id: str
    beta_id: str | None
    ja4: str
    template: Template | None

    def user_agent(self, system: str) -> str:
        """The fragment of its user agent on this operating system."""
        return fragment(user_agent=self.agent.format(os=system))

    def tls(self) -> str:
        """What its connection looks like."""
        return fragment(ja4=self.ja4, http_version=self.http_version)

    def stated(self, system: str) -> str:
        """What it says of itself once a conversation."""
        return fragment(
            client_name=self.name,
            client_version=self.version,
            client_runtime=self.runtime,
            beta_id=self.beta_id,
            client_os=system,
        )

    def order(self) -> str:
        """The order of its headers; a relay sends them in one of its own."""
        return fragment(header_order_id=self.header_order_id)


@dataclass(frozen=True, slots=True)
class Relay:
    """What software in the middle leaves on a call: its TLS stack and its order of headers."""

    tls: str
    header_order_id: str

    def order(self) -> str:
        return fragment(header_order_id=self.header_order_id)


def _ja4(dice: Dice, http: str) -> str:
    alpn = "h2" if http == "2" else "h1"
    counts = f"{dice.randrange(10, 20)}{dice.randrange(10, 20)}"
    return f"t13d{counts}{alpn}_{dice.token(48)}_{dice.token(48)}"


class Software:
    """The programs of this world, newest release most used."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        node, bun = _ja4(dice, "1.1"), _ja4(dice, "1.1")
        python, electron = _ja4(dice, "1.1"), _ja4(dice, "2")
        go, go_plain = _ja4(dice, "2"), _ja4(dice, "1.1")  # its library, with HTTP/2 and without
        orders = [dice.token(64) for _ in range(10)]
        self.cli = self._releases(
            "reef-cli", "cli", ("2.4.1", "2.4.0", "2.3.7", "2.2.12"), 14_000,
            "reef-cli/{v} (external, cli)", ((f"node/{n}", node) for n in ("v22.14.0", "v24.3.0")),
            "1.1", orders[0], dice.token(64),
        )  # fmt: skip
        self.cli += self._releases(
            "reef-cli", "cli", ("2.4.1", "2.3.7"), 14_000,
            "reef-cli/{v} (external, cli)", (("bun/1.3.1", bun),), "1.1", orders[1], dice.token(64),
        )  # fmt: skip
        self.ide = self._releases(
            "reef-code", "ide", ("1.19.0", "1.18.2"), 9_000,
            "reef-code/{v} ({{os}})", (("electron/37", electron),), "2", orders[2], dice.token(64),
        )  # fmt: skip
        in_go = self._releases(
            "go-sdk", "sdk", ("1.19.0",), 0, "reef-go/{v}", (("go1.25", go),), "2", orders[8], None
        ) + self._releases(
            "go-sdk", "sdk", ("1.19.0",), 0, "reef-go/{v}", (("go1.25", go_plain),), "1.1",
            orders[8], None,
        )  # fmt: skip
        self.sdk = self._releases(
            "python-sdk", "sdk", ("0.71.0",), 0,
            "reef-python/{v}", (("python/3.12", python), ("python/3.11", python)), "1.1",
            orders[3], None,
        ) + in_go + self._releases(
            "python-sdk", "sdk", ("0.68.1", "0.64.0"), 0,
            "reef-python/{v}", (("python/3.12", python), ("python/3.11", python)), "1.1",
            orders[3], None,
        ) + self._releases(
            "node-sdk", "sdk", ("0.60.0", "0.57.2"), 0,
            "reef-node/{v}", (("node/v22.14.0", node),), "1.1", orders[4], None,
        )  # fmt: skip
        self.gateway = self._releases(
            "litellm", "gateway", ("1.80.5", "1.77.7"), 0,
            "litellm/{v}", (("python/3.12", python),), "1.1", orders[5], None,
        ) + self._releases(
            "bifrost", "gateway", ("1.3.9", "1.2.30"), 0,
            "bifrost/{v}", (("go1.25", go_plain),), "1.1", orders[9], None,
        )  # fmt: skip
        web = Template.make(dice, 2_500, tools=False)
        self.web = [
            Program(
                "web", "web", "2026.09", "browser", "", http, orders[6 + n], None,
                _ja4(dice, "2"), web,
            )
            for n, http in enumerate(("2", "3"))
        ]  # fmt: skip
        # Relay software has a header order of its own; its TLS stack is that of the language it is
        # written in, in which honest gateways and applications are written too.
        self.relays = [
            Relay(fragment(ja4=node, http_version="1.1"), dice.token(64)),
            Relay(fragment(ja4=go, http_version="2"), dice.token(64)),
            Relay(fragment(ja4=go_plain, http_version="1.1"), orders[0]),
            Relay(fragment(ja4=python, http_version="1.1"), orders[3]),
            Relay(fragment(ja4=bun, http_version="1.1"), dice.token(64)),
        ]
        # Starters and tutorials: applications that many unrelated people run unchanged.
        self.starters = [Template.make(dice, 900, tools=dice.chance(0.5)) for _ in range(12)]

    def _releases(
        self, name: str, kind: str, versions: tuple[str, ...], tokens: int, agent: str,
        runtimes: Iterable[tuple[str, str]], http: str, order: str, beta: str | None,
    ) -> list[Program]:  # fmt: skip
        pairs = list(runtimes)
        found = []
        for version in versions:
            template = Template.make(self._dice, tokens, tools=True) if tokens else None
            for runtime, ja4 in pairs:
                said = agent.format(v=version)
                found.append(
                    Program(name, kind, version, runtime, said, http, order, beta, ja4, template)
                )
        return found

    def program(self, kind: str) -> Program:
        return self._dice.zipf(getattr(self, kind))  # type: ignore[no-any-return]

    def application(self) -> Template:
        """The template of an application of one's own; now and then an unchanged starter."""
        if self._dice.chance(0.3):
            return self._dice.zipf(self.starters)
        return Template.make(self._dice, 1_400, tools=self._dice.chance(0.4))
