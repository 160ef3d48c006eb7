"""A pool of accounts behind one counter: the set-up of relay software.

Many customers call; a conversation sticks to the account it was given (for a fixed hour from its
first call, or an hour from its last); a refusal cools an account down and sends the next call,
often the same one, elsewhere. Accounts that are suspended or spent are replaced. The prompt cache
is kept as long as a conversation stays, which is most of the time. The scheduling itself is in
synth/calls.py; here is what an operator sets, and his own traffic.
"""

from collections.abc import Callable
from functools import partial

from synth import calls as c
from synth.account import Account
from synth.agenda import Process
from synth.clients import Relay
from synth.conversation import Conversation
from synth.habits import LEADS_S, USAGE_PAGES, Tempo, hold, login, refresh
from synth.people import DAY, HOUR, MINUTE, Profile, Rig
from synth.stage import Stage
from synth.traits import Traits
from synth.wire import fragment

_GREETINGS = 12  # first of the short prompts everybody types
_QUESTIONS = 100  # of those, what a longer list of probes draws from
_PROBE = Tempo(1, 1.0, 8, 8, 10, spread=0.3)
_LOGS_IN = 0.5  # of the accounts taken in; the rest come with a token
_SWITCHES_MAX = 8  # that one call makes, of however many it may
_RULES = {
    "lru": c.LRU, "round_robin": c.ROUND_ROBIN, "fill_first": c.FILL_FIRST, "random": c.ANY,
}  # fmt: skip
# When operators are awake, UTC: the day of UTC+8 (ADVERSARY.md §4, usage polling).
_WAKES_H, _SLEEPS_H = 1, 16


class Seat:
    """One account in the pool, and from where the operator tends it."""

    __slots__ = ("account", "gone", "here", "n", "net")

    def __init__(self, account: Account, net: str, here: str, n: int) -> None:
        self.account, self.net, self.n = account, net, n
        self.here = here  # the network and the device
        self.gone = False


class Pool:
    def __init__(self, stage: Stage, traits: Traits) -> None:
        dice = stage.dice
        self.stage = stage
        self.seats: list[Seat] = []
        self.relay: Relay = dice.pick(stage.software.relays)
        self.rig: Rig | None = None  # what probes are sent with
        self.worn = "cli"  # what accounts are dressed as, where clients are dressed alike
        self.replaced = stage.software.program("cli").template
        self.leaks = fragment(forwarded=True) if dice.chance(traits.leaks_headers) else ""
        self.shared = dice.chance(traits.shared_connection)
        self.intercepts = dice.chance(traits.intercepts)
        self.on_loss: Callable[[Seat, int], None] = lambda seat, at: None
        self._links: dict[int, int] = {}  # the connection of each egress, where it is shared
        self.n = stage.exchange.pool(_RULES[traits.scheduler], relay=True, link_ms=40 * MINUTE)
        self.traits = traits

    @property
    def traits(self) -> Traits:
        return self._traits

    @traits.setter
    def traits(self, now: Traits) -> None:
        """The operator sets up his software (anew): from now on it goes by these."""
        self._traits = now
        links = c.LINK_SHARED if self.shared else c.LINK_CALL if now.new_tls else c.LINK_TALK
        self.stage.exchange.set_pool(
            self.n,
            rule=_RULES[now.scheduler],
            sticky_ms=now.sticky_ms,
            sliding=now.sliding,
            pinned=now.pinned,
            switches=min(now.switches, _SWITCHES_MAX),
            again=now.retries_403,
            again_ms=now.retry_403_ms,
            cool_ms=now.cool_fault_s * 1000,
            overload_ms=now.cool_overload_s * 1000,
            limit_ms=now.cool_limit_s * 1000,
            obeys=now.obeys_reset,
            jitter=round(now.cool_jitter * 1000),
            seat_calls=min(now.seat_cap, c.BUSY_MAX),
            stop=round(now.stop_threshold * 10_000),
            intercepts=self.intercepts,
            placeless=now.sanitised and not now.invents_place,
            masked=now.masked_session,
            links=links,
        )

    def add(self, account: Account, profile: Profile, *, kept: bool) -> Seat:
        """Take an account into the pool: log in, dress it, give it an egress.

        Where accounts are dressed each as one device, it is the profile's if the account was opened in
        that (`kept`), or one that the relay makes up.
        """
        stage, exchange = self.stage, self.stage.exchange
        egress, device = profile.egress, profile.device
        net = egress.fragment() + self.leaks
        number = exchange.net(egress, self.leaks)
        if number not in self._links:
            self._links[number] = exchange.link()
        if not kept:
            profile = profile._replace(device=stage.people.device())
        dress = self._dress(profile)
        n = exchange.seat(account.n, self.n, net=number, link=self._links[number], **dress)
        exchange.join(self.n, n)
        seat = Seat(account, net, net + device.said(), n)
        if stage.dice.chance(_LOGS_IN):
            login(stage, stage.agenda.now, account, seat.here)
        stage.on_loss[n] = partial(self.lose, seat)
        self.seats.append(seat)
        return seat

    def _dress(self, profile: Profile) -> dict[str, int]:
        """How the calls of one account look, where that is not as the customer's client has them: as
        from this profile, if the operator takes that trouble."""
        stage, dice, traits = self.stage, self.stage.dice, self._traits
        word, device = stage.exchange.fragment, profile.device
        # its own TLS and headers, unless it takes the trouble to look like the client it serves
        dress = {"tls": word(self.relay.tls), "order": word(self.relay.order())}
        if traits.own_tls:
            dress = {}
        if self.worn == "web":  # browsers keep their own headers
            if traits.unified_device:
                dress["device"] = stage.exchange.ink(fragment(device_id=device.device_id))
                dress["agent"] = word(fragment(user_agent=device.browser))
                dress["page"] = word(fragment(timezone=profile.zone, language=profile.language))
            return dress
        program = stage.software.program(self.worn)
        if traits.unified_agent:
            system = device.system
            if traits.own_tls:
                dress = {"tls": word(program.tls()), "order": word(program.order())}
            dress["agent"] = word(program.user_agent(system))
            dress["stated"] = word(program.stated(system))
        if traits.unified_device:
            worn = "" if self.worn == "sdk" else fragment(device_id=device.device_id)
            dress["device"] = stage.exchange.ink(worn) if worn else c.NOTHING
        if traits.sanitised and traits.invents_place:
            dress["place"] = word(dice.pick(stage.people.make(mode="terminal").workspaces))
        if traits.replaces_system and self.replaced:
            dress["template"] = word(self.replaced.said)
        return dress

    def rest(self, seat: Seat, until: int) -> None:
        """No call goes to this seat before `until`."""
        row = self.stage.exchange.t.seat[seat.n]
        row[c.T_COOLS] = max(row[c.T_COOLS], until)

    def lose(self, seat: Seat, at: int) -> None:
        """An account that will serve no more."""
        if not seat.gone:
            seat.gone = True
            self.seats.remove(seat)
            self.stage.exchange.leave(self.n, seat.n)
            del self.stage.on_loss[seat.n]
            self.on_loss(seat, at)

    def tend(self, since: int) -> Process:
        """The operator's own traffic: token refreshes, looks at the usage of all, probes."""
        stage, dice, traits = self.stage, self.stage.dice, self._traits
        polls, probes = dice.chance(traits.polls), dice.chance(traits.probes)
        if probes and traits.probe_every_s:
            stage.agenda.start(since, self._probes(since))
        at = since + int(dice.spread(2 * HOUR))
        while at < stage.end:
            yield at
            if polls and _WAKES_H <= at % DAY / HOUR < _SLEEPS_H and dice.chance(0.12):
                for _ in range(dice.randint(*traits.polls_an_hour)):
                    when = at + int(dice.random() * HOUR)
                    stage.agenda.start(when, self._poll(when))
            for seat in self.seats:
                if dice.chance(0.025):
                    when = at + dice.randrange(20 * MINUTE)
                    if traits.refresh_grid_s:  # on the ticks of its clock
                        when -= when % (1000 * traits.refresh_grid_s)
                    # from T1 on a token is renewed as the client would that the account is dressed as
                    lead = traits.refresh_lead_s if traits.tier == "T0" else dice.pick(LEADS_S)
                    stage.agenda.start(when, _refresh(stage, when, seat, lead))
                elif dice.chance(0.02):
                    login(stage, at + dice.randrange(MINUTE), seat.account, seat.here)
            at += int(HOUR * (0.6 + 2 * dice.random()))

    def _poll(self, at: int) -> Process:
        """The usage of every account, one after the other; an answer is kept for minutes."""
        dice = self.stage.dice
        for seat in list(self.seats):
            endpoint = dice.pick(USAGE_PAGES)
            self.stage.record.tell(
                at, seat.account, "management_call", seat.net, endpoint=endpoint, status=200
            )
            at += int(dice.spread(700))
            yield at

    def _probes(self, at: int) -> Process:
        """Rounds of probes at the software's times."""
        stage, traits = self.stage, self._traits
        every, offset = 1000 * traits.probe_every_s, 1000 * traits.probe_offset_s
        loose = 0.0 if traits.tier == "T0" else 0.2 * every
        while (at := at - at % every + every + offset) < stage.end:
            at += int(loose * stage.dice.random())
            yield at
            stage.agenda.start(at, self._probe(at))

    def _probe(self, at: int) -> Process:
        """One tiny call on every account, or on those that are cooling, a few at a time."""
        stage, dice, traits = self.stage, self.stage.dice, self._traits
        if self.rig is None:
            return
        cools = stage.exchange.t.seat[:, c.T_COOLS]
        wanted = [s for s in self.seats if not traits.probe_failing_only or cools[s.n] > at - HOUR]
        said = traits.tier == "T0" and dice.chance(0.5)  # the edge knows the plain ones
        prompts = _QUESTIONS if traits.probe_text == "questions" else _GREETINGS
        for number, seat in enumerate(wanted):
            if seat.gone:
                continue
            talk = Conversation(dice, self.rig, "")
            talk.flags = c.HAS_SESSION
            talk.note = "probe" if said else ""
            greeting = stage.prompts[int(prompts * dice.random())]
            talk.script = stage.exchange.prompt(greeting)
            hold(stage, at, talk, OneSeat(self, seat), _PROBE, 1)
            if number % traits.probe_parallel == traits.probe_parallel - 1:
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
