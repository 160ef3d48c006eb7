"""A pool of accounts behind one counter: the set-up of relay software.

Many customers call; a conversation sticks to the account it was given (for a fixed hour from its
first call, or an hour from its last); a refusal cools an account down and sends the next call,
often the same one, elsewhere. Accounts that are suspended or spent are replaced. The prompt cache
is kept as long as a conversation stays, which is most of the time. The scheduling itself is in
synth/calls.py; here is what an operator sets, and his own traffic.
"""

from collections.abc import Callable

from synth import calls as c
from synth.account import Account
from synth.agenda import Process
from synth.clients import Relay
from synth.conversation import Conversation
from synth.geography import Egress
from synth.habits import LEADS_S, Tempo, hold, login, refresh
from synth.people import HOUR, MINUTE, Device, Rig
from synth.stage import Stage
from synth.traits import Traits
from synth.wire import fragment

_COOL_DOWNS_S = (60, 300, 600, 1800)
_GREETINGS = 12  # first of the short prompts everybody types; probes say one of them
_PROBE = Tempo(1, 1.0, 8, 8, 10, spread=0.3)


class Seat:
    """One account in the pool, and from where the operator tends it."""

    __slots__ = ("account", "gone", "here", "n", "net")

    def __init__(self, account: Account, net: str, here: str, n: int) -> None:
        self.account, self.net, self.n = account, net, n
        self.here = here  # the network and the device
        self.gone = False


class Pool:
    def __init__(self, stage: Stage, traits: Traits, *, fill_first: bool = False) -> None:
        dice = stage.dice
        self.stage, self.traits = stage, traits
        self.seats: list[Seat] = []
        self.relay: Relay = dice.pick(stage.software.relays)
        self.rig: Rig | None = None  # what probes are sent with
        self.worn = dice.pick(("cli", "cli", "ide", "sdk"))  # what accounts are dressed as
        self.unified = traits.unified and dice.chance(0.65)
        self.leaks = fragment(forwarded=True) if dice.chance(traits.leaks_headers) else ""
        self.on_loss: Callable[[Seat, int], None] = lambda seat, at: None
        shared = dice.chance(traits.shared_connection)
        self._links: dict[int, int] = {}  # the connection of each egress, where it is shared
        switches = dice.pick((0, 2, 3, 3))
        self.n = stage.exchange.pool(
            c.FILL_FIRST if fill_first else c.LRU,
            sticky_ms=traits.sticky_ms,
            sliding=traits.sliding,
            pinned=traits.pinned,
            switches=switches,
            cool_ms=dice.pick(_COOL_DOWNS_S) * 1000,
            cool_max_ms=HOUR // 2 if switches == 0 else 5 * HOUR,
            jitter=traits.tier != "T0",
            intercepts=dice.chance(traits.intercepts),
            placeless=traits.sanitised,
            links=c.LINK_SHARED if shared else c.LINK_TALK,
            link_ms=40 * MINUTE,
            relay=True,
        )

    def add(self, account: Account, egress: Egress, device: Device) -> Seat:
        """Take an account into the pool: log in, dress it, give it an egress."""
        stage, dice, exchange = self.stage, self.stage.dice, self.stage.exchange
        net = egress.fragment() + self.leaks
        number = exchange.net(egress, self.leaks)
        if number not in self._links:
            self._links[number] = exchange.link()
        word = exchange.fragment
        dress = {"tls": word(self.relay.tls), "order": word(self.relay.order())}
        if self.unified:
            program = stage.software.program(self.worn)
            system = dice.pick(("macos", "windows", "linux"))
            own = dice.chance(0.6)
            worn = "" if self.worn == "sdk" else fragment(device_id=dice.token(128))
            dress = {
                "agent": word(program.user_agent(system)),
                "device": exchange.ink(worn) if worn else c.NOTHING,
                "stated": word(program.stated(system)),
                "order": word(program.order() if own else self.relay.order()),
                "tls": word(
                    program.tls() if self.traits.own_tls or dice.chance(0.5) else self.relay.tls
                ),
            }
        n = exchange.seat(account.n, self.n, net=number, link=self._links[number], **dress)
        exchange.join(self.n, n)
        seat = Seat(account, net, net + device.said(), n)
        login(stage, stage.agenda.now, account, seat.here)
        stage.seats[n] = (self, seat)
        self.seats.append(seat)
        return seat

    def lose(self, seat: Seat, at: int) -> None:
        """An account that will serve no more."""
        if not seat.gone:
            seat.gone = True
            self.seats.remove(seat)
            self.stage.exchange.leave(self.n, seat.n)
            del self.stage.seats[seat.n]
            self.on_loss(seat, at)

    def tend(self, since: int) -> Process:
        """The operator's own traffic: token refreshes, looks at the usage of all, probes."""
        stage, dice, traits = self.stage, self.stage.dice, self.traits
        polls, probes = dice.chance(traits.polls), dice.chance(traits.probes)
        lead = dice.pick(LEADS_S)
        at = since + int(dice.spread(2 * HOUR))
        while at < stage.end:
            yield at
            if polls and dice.chance(0.12):
                stage.agenda.start(at, self._poll(at))
            if probes and dice.chance(0.05):
                stage.agenda.start(at, self._probe(at))
            for seat in self.seats:
                if dice.chance(0.025):
                    when = at + dice.randrange(20 * MINUTE)
                    stage.agenda.start(when, _refresh(stage, when, seat, lead))
                elif dice.chance(0.02):
                    login(stage, at + dice.randrange(MINUTE), seat.account, seat.here)
            at += int(HOUR * (0.6 + 2 * dice.random()))

    def _poll(self, at: int) -> Process:
        dice = self.stage.dice
        for seat in list(self.seats):
            endpoint = dice.pick(("usage", "usage", "quota"))
            self.stage.record.tell(
                at, seat.account, "management_call", seat.net, endpoint=endpoint, status=200
            )
            at += int(dice.spread(700))
            yield at

    def _probe(self, at: int) -> Process:
        """One tiny call on every account, one after the other."""
        stage, dice = self.stage, self.stage.dice
        if self.rig is None:
            return
        said = dice.chance(0.3)
        for seat in list(self.seats):
            if seat.gone:
                continue
            talk = Conversation(dice, self.rig, "")
            talk.flags = c.HAS_SESSION
            greeting = stage.prompts[int(_GREETINGS * dice.random())]
            talk.note = "probe" if said else ""
            talk.script = stage.exchange.fragment(greeting), 1
            hold(stage, at, talk, OneSeat(self, seat), _PROBE, 1)
            at += int(dice.spread(2_500))
            yield at


def _refresh(stage: Stage, at: int, seat: Seat, lead_s: float) -> Process:
    if not seat.gone:
        refresh(stage, at, seat.account, seat.net, lead_s)
    yield from ()


class OneSeat:
    """Calls one account of the pool, whatever it answers."""

    customer = c.NONE

    def __init__(self, pool: Pool, seat: Seat) -> None:
        self.pool, self.seat = pool.n, seat.n

    def net(self) -> int:
        return c.NONE


class Customer:
    """One end user of the pool, as its caller."""

    seat = c.NONE

    def __init__(self, pool: Pool) -> None:
        self.pool = pool.n
        self.customer = pool.stage.exchange.customer()

    def net(self) -> int:
        return c.NONE
