"""A pool of accounts behind one counter: the scheduler of relay software.

Many customers call; a conversation sticks to the account it was given (for a fixed hour from its
first call, or an hour from its last); a refusal cools an account down and sends the next call,
often the same one, elsewhere. Accounts that are suspended or spent are replaced. The prompt cache
is kept as long as a conversation stays, which is most of the time.
"""

from collections.abc import Callable

from synth.account import Account
from synth.agenda import Process
from synth.clients import Relay
from synth.conversation import Conversation, Lane
from synth.geography import Egress
from synth.habits import LEADS_S, login, refresh
from synth.people import HOUR, MINUTE, Device, Rig
from synth.stage import Stage
from synth.traits import Traits
from synth.wire import fragment

_COOL_DOWNS_S = (60, 300, 600, 1800)
_GREETINGS = 12  # first of the short prompts everybody types; probes say one of them


class Seat:
    """One account in the pool and how the pool dresses it."""

    __slots__ = ("account", "agent", "cools_until", "device", "gone", "here", "net",
                 "stated", "tls", "used_at")  # fmt: skip

    def __init__(self, account: Account, net: str, here: str) -> None:
        self.account, self.net = account, net
        self.here = here  # the network and the device from which the operator tends it
        self.agent = self.device = self.stated = self.tls = ""
        self.cools_until = 0
        self.used_at = 0
        self.gone = False


class Pool:
    def __init__(self, stage: Stage, traits: Traits, *, fill_first: bool = False) -> None:
        dice = stage.dice
        self.stage, self.traits = stage, traits
        self.seats: list[Seat] = []
        self.fill_first = fill_first
        self.switches = dice.pick((0, 2, 3, 3))
        self.intercepts = dice.chance(traits.intercepts)
        self.relay: Relay = dice.pick(stage.software.relays)
        self.rig: Rig | None = None  # what probes are sent with
        self.worn = dice.pick(("cli", "cli", "ide", "sdk"))  # what accounts are dressed as
        self.unified = traits.unified and dice.chance(0.65)
        self.shares_connection = dice.chance(traits.shared_connection)
        self.leaks = fragment(forwarded=True) if dice.chance(traits.leaks_headers) else ""
        self.on_loss: Callable[[Seat, int], None] = lambda seat, at: None
        self._links: dict[str, tuple[str, int]] = {}
        self._cool_s = dice.pick(_COOL_DOWNS_S)

    def add(self, account: Account, egress: Egress, device: Device) -> Seat:
        """Take an account into the pool: log in, dress it, give it an egress."""
        stage, dice = self.stage, self.stage.dice
        net = egress.fragment() + self.leaks
        seat = Seat(account, net, net + device.said())
        login(stage, stage.agenda.now, account, seat.here)
        if self.unified:
            program = stage.software.program(self.worn)
            system = dice.pick(("macos", "windows", "linux"))
            order = None if dice.chance(0.6) else self.relay.header_order_id
            seat.agent = program.user_agent(system)
            seat.device = fragment(device_id=dice.token(128)) if self.worn != "sdk" else ""
            seat.stated = program.stated(system, order)
            seat.tls = program.tls() if self.traits.own_tls or dice.chance(0.5) else self.relay.tls
        self.seats.append(seat)
        return seat

    def choose(self, at: int) -> Seat | None:
        """The next account by the scheduler's rule, among those that are not cooling down."""
        best: Seat | None = None
        for seat in self.seats:
            if not seat.gone and seat.cools_until <= at:
                if self.fill_first:
                    return seat
                if best is None or seat.used_at < best.used_at:
                    best = seat
        return best

    def dress(self, at: int, talk: Conversation, seat: Seat) -> Lane:
        """How the calls of this conversation look when they come from this account."""
        dice, rig = self.stage.dice, talk.rig
        if self.unified:
            worn = seat.agent + seat.tls + seat.device
            stated = seat.stated
        else:
            worn = rig.agent + self.relay.tls + rig.device
            stated = rig.stated
            if rig.program.kind in ("cli", "ide"):
                system = stated.rsplit('"client_os":"', 1)[1].split('"')[0]
                stated = rig.program.stated(system, self.relay.header_order_id)
        session = f',"session_id":"{dice.token(96)}"'
        said = (seat.account.head + seat.net + self._connection(at, seat) + worn
                + seat.account.credential + session + talk.fixed)  # fmt: skip
        template = rig.template.said if rig.template else ""
        place = "" if self.traits.sanitised else talk.env
        return Lane(seat.account, said, stated + rig.meta + template + place)

    def _connection(self, at: int, seat: Seat) -> str:
        dice = self.stage.dice
        key = seat.net if self.shares_connection else seat.account.id
        link, until = self._links.get(key, ("", 0))
        if at >= until:
            link = fragment(connection_id=dice.token(80))
            until = at + int(dice.spread(40 * MINUTE))
            self._links[key] = link, until
        return link if dice.chance(0.87) else ""

    def cool_ms(self) -> int:
        """How long an account rests after a fault; the first tier keeps to the second."""
        fixed = self._cool_s * 1000
        return (
            fixed
            if self.traits.tier == "T0"
            else int(fixed * (0.7 + 0.6 * self.stage.dice.random()))
        )

    def lose(self, seat: Seat, at: int) -> None:
        """An account that will serve no more."""
        if not seat.gone:
            seat.gone = True
            self.seats.remove(seat)
            self._links.pop(seat.account.id, None)
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
        note = ',"kind":"probe"' if dice.chance(0.3) else ""
        for seat in list(self.seats):
            if seat.gone:
                continue
            talk = Conversation(dice, self.rig, "")
            talk.chatty = False
            greeting = stage.prompts[int(_GREETINGS * dice.random())]
            caller = OneSeat(self, seat)
            stage.line.call(at, talk, caller, 8, 10, f"{note}{greeting}")
            at += int(dice.spread(2_500))
            yield at


def _refresh(stage: Stage, at: int, seat: Seat, lead_s: float) -> Process:
    if not seat.gone:
        refresh(stage, at, seat.account, seat.net, lead_s)
    yield from ()


class OneSeat:
    """Calls one account of the pool, whatever it answers."""

    switches = 0
    intercepts = True

    def __init__(self, pool: Pool, seat: Seat) -> None:
        self._pool, self._seat = pool, seat

    def lane(self, at: int, talk: Conversation) -> Lane | None:
        return self._pool.dress(at, talk, self._seat)

    def refused(self, at: int, talk: Conversation, lane: Lane, status: int, wait_s: float) -> None:
        if status in (402, 403):
            self._pool.lose(self._seat, at)


class Customer:
    """One end user of the pool, as its caller."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._own: Seat | None = None  # where pinned customers stay
        self.switches = pool.switches
        self.intercepts = pool.intercepts

    def lane(self, at: int, talk: Conversation) -> Lane | None:
        pool = self._pool
        seat = self._own if pool.traits.pinned else talk.pinned
        if (
            not isinstance(seat, Seat)
            or seat.gone
            or seat.cools_until > at
            or (not pool.traits.pinned and at >= talk.pinned_until)
        ):
            seat = pool.choose(at)
            if seat is None:
                return None
            self._own = talk.pinned = seat
            talk.pinned_until = at + pool.traits.sticky_ms
        elif pool.traits.sliding:
            talk.pinned_until = at + pool.traits.sticky_ms
        seat.used_at = at
        lane = talk.lanes.get(seat.account.id)
        if lane is None:
            lane = talk.lanes[seat.account.id] = pool.dress(at, talk, seat)
        return lane

    def refused(self, at: int, talk: Conversation, lane: Lane, status: int, wait_s: float) -> None:
        pool = self._pool
        seat = talk.pinned
        if not isinstance(seat, Seat):
            return
        if status in (402, 403):
            pool.lose(seat, at)
        elif status == 429:
            seat.cools_until = at + int(
                1000 * min(wait_s or 60, 1800 if pool.switches == 0 else 1e9)
            )
        elif status != 400:
            seat.cools_until = at + pool.cool_ms()
        talk.pinned = None
