"""The operator of a ring: opens accounts, answers for them, replaces, adapts, gives up.

What he does when the provider acts: a suspended account is replaced within hours from what is held
in reserve; a challenged one is shown a bought face if the account is still worth that; a throttled
one rests. When too many are lost within a day he changes his ways, which costs. When his books have
been in the red for days he leaves.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from synth.account import Account
from synth.agenda import Process
from synth.books import settle
from synth.conversation import Caller
from synth.geography import BY_CODE, Country
from synth.habits import Own, hold, login, routine, talk_of
from synth.honest import appetite
from synth.people import DAY, HOUR, Person, Profile, Rig
from synth.pool import Pool, Seat
from synth.prices import CALLS_A_CALL, STREET_SHARE, USD
from synth.signup import Dossier, charge, check_identity, sign_up
from synth.stage import Stage
from synth.supply import TRADES, Supply, log_uniform, market_of
from synth.traits import harder
from synth.wire import fragment

_ADAPTS_FROM = 3  # losses a day that nobody takes for chance
_CAPITAL = 2.0  # what he can lose, in parts of what his accounts and their plans cost
_ANSWERS_AFTER_MS = 3 * HOUR
_LOGS_IN = 0.7  # share of buyers of one account
_OBJECTS = 0.25  # share of suspensions against which he appeals

_TRIES = 5
# The kind of program with which each trade is plied.
_USED = {"terminal": "cli", "editor": "ide", "application": "sdk", "web": "web"}

Plans = Sequence[tuple[str, float]]


class Tenure:
    """An operator's keeper of one account."""

    __slots__ = ("account", "opened_in", "operator", "profile", "seat", "since")

    def __init__(self, operator: "Operator", account: Account, since: int) -> None:
        self.operator, self.account, self.since = operator, account, since
        self.seat: Seat | None = None
        self.profile: Profile | None = None  # what it is used from, once that is settled
        self.opened_in = ""  # the country, unless it was before the world began

    def suspended(self, at: int) -> None:
        stage = self.operator.stage
        if stage.dice.chance(_OBJECTS):
            when = at + int(stage.dice.spread(9 * HOUR))
            stage.agenda.start(when, stage.provider.appeal(self.account, when))
        self.operator.lose(self, at)

    def restored(self, at: int) -> None:
        """It comes back to nobody: its users are elsewhere by now."""

    def challenged(self, at: int) -> None:
        operator = self.operator
        uses = sum(operator.supply.traits.face_uses) / 2
        if USD["identity"] / uses > operator.worth(self, at):
            operator.lose(self, at)
        else:
            operator.show_face(self, at)

    def throttled(self, at: int) -> None:
        if self.seat is not None:
            operator = self.operator
            assert operator.pool is not None
            operator.pool.rest(self.seat, at + 1000 * operator.supply.traits.cool_fault_s)


class Operator(ABC):
    """One ring. A typology says how an account is opened and used (`open`)."""

    plans: Plans = (("free", 1.0),)
    veterans = 0.38  # share of accounts that signed up before the world began
    kyc = 0.5  # probability that an account opened by the ring is verified
    declines = 0.09
    disputes = 0.04

    def __init__(self, stage: Stage, supply: Supply, size: int) -> None:
        self.stage, self.supply, self.size = stage, supply, size
        self.pool: Pool | None = None
        self.market = market_of(stage.dice)
        self.trade = stage.dice.weighted(TRADES)
        self._client: Rig | None = None  # what it hands out, and for which system
        self._system = stage.dice.pick(("windows", "windows", "macos", "linux"))
        self.closed = False
        self.accounts: list[Account] = []
        self.reserve: list[Account] = []
        self._lost: set[str] = set()
        self._recent: list[int] = []
        self._adapted = stage.start - DAY
        self._tenures: dict[str, Tenure] = {}

    def start(self) -> int:
        """Open what the ring has, but for a reserve; returns when the first account comes."""
        stage, dice = self.stage, self.stage.dice
        held = round(self.size * self.supply.traits.reserve) if self.size > 5 else 0
        self.accounts = accounts = [
            stage.account(dice.weighted(self.plans), self.supply.truth) for _ in range(self.size)
        ]
        self.reserve += accounts[:held]
        first = stage.end
        for at, account in zip(self.supply.batches(self.size - held), accounts[held:], strict=True):
            veteran = dice.chance(self.veterans)
            begin = stage.start + int(dice.random() * 2 * DAY) if veteran else at
            first = min(first, begin)
            stage.agenda.start(begin, self._recruit(begin, account, veteran=veteran))
        stage.agenda.start(first, self._count(first))
        return first

    def dossier_for(self, keeper: Tenure) -> Dossier:
        """What the ring brings to the sign-up of an account: through what it will be used from, or not."""
        dice, plan = self.stage.dice, keeper.account.plan
        kept = dice.chance(self.supply.traits.keeps_profile)
        paying = plan.price_usd > 0 or plan.metered or dice.chance(0.2)
        return self.supply.dossier(
            kyc=self.kyc, paying=paying, declines=self.declines, disputes=self.disputes,
            profile=self.profile_of(keeper) if kept else None,
        )  # fmt: skip

    def profile_of(self, keeper: Tenure) -> Profile:
        """What an account is used from; bought when it is first asked for."""
        keeper.profile = keeper.profile or self.supply.profile()
        return keeper.profile

    def _recruit(self, at: int, account: Account, *, veteran: bool = False) -> Process:
        """Get an account, let it lie, put it to use."""
        stage = self.stage
        if self.closed:
            return
        self.supply.pay_for(account)
        keeper = Tenure(self, account, at)
        account.keeper = self._tenures[account.id] = keeper
        if veteran:
            self._renew(at, account)
        else:
            dossier = self.dossier_for(keeper)
            keeper.opened_in = dossier.egress.country
            at = sign_up(stage, at, account, dossier)
            yield at
            yield from self.opened(at, account, dossier)
            at = max(stage.agenda.now, at) + self.supply.dormancy(at)
            yield at
            if self._shut():  # while the account lay
                return
        life = self.supply.traits.life_days
        stage.provider.watch(account, at, stage.end, mean_life_days=life, wrong=0,
                             sigma=self.supply.traits.life_sigma)  # fmt: skip
        yield from self.use(at, account, keeper)

    def _shut(self) -> bool:
        return self.closed

    def _renew(self, at: int, account: Account) -> None:
        """An account bought with a plan on it pays for the next month at some time."""
        stage, dice = self.stage, self.stage.dice
        if account.plan.price_usd and dice.chance((stage.end - stage.start) / (30 * DAY)):
            due = at + int(dice.random() * (stage.end - at))
            stage.agenda.start(due, self._pay(due, account))

    def _pay(self, at: int, account: Account) -> Process:
        if not account.suspended:
            said, country = self.card_said(account)
            charge(self.stage, at, account, said, country, self.disputes)
        yield from ()

    def card_said(self, account: Account) -> tuple[str, str]:
        """The fragment of a card off the shelf, and where it is billed."""
        card = self.supply.card()
        said = fragment(instrument_id=card.instrument_id, bin=card.bin, funding=card.funding,
                        card_country=card.country)  # fmt: skip
        return said, card.country

    def opened(self, at: int, account: Account, dossier: Dossier) -> Process:
        """What is done with a fresh account before it lies."""
        yield from ()

    @abstractmethod
    def use(self, at: int, account: Account, keeper: Tenure) -> Process:
        """Put the account to use from `at` on."""

    def add(self, pool: Pool, account: Account, keeper: Tenure) -> Seat:
        """Into the pool, on an egress and a device of its own or shared."""
        kept = keeper.profile is not None
        keeper.seat = seat = pool.add(account, self.profile_of(keeper), kept=kept)
        return seat

    def sell(
        self, at: int, keeper: Tenure, *, market: float, doors: float, load: float = 1.0
    ) -> None:
        """One buyer takes the account over and uses it as his own: in the profile that comes with it,
        or on his machines at home.

        Args:
            market: probability that he lives where this ring sells; `local` comes first, because
                a buyer in the country of the papers stands out least.
            doors: probability that an egress is sold with an account without a profile.
            load: his appetite, in parts of an honest one.
        """
        stage, dice, account, profile = self.stage, self.stage.dice, keeper.account, keeper.profile
        if keeper.opened_in and dice.chance(self.supply.traits.local):
            buyer = stage.people.make(BY_CODE[keeper.opened_in])
        else:
            buyer = stage.people.make(self.market if dice.chance(market) else None)
        if profile:
            buyer.networks, buyer.devices = [(profile.egress, 1.0)], [profile.device]
            buyer.zone, buyer.language = profile.zone, profile.language
            stage.people.equip(buyer)
        elif dice.chance(doors):
            buyer.networks = [(self.supply.door(), 0.8), (buyer.home, 1.0)]
        if dice.chance(_LOGS_IN):
            login(stage, at, account, buyer.home.fragment() + dice.pick(buyer.devices).said())
        buyer.workspaces = self.supply.places(buyer.workspaces)
        mean = appetite(stage, buyer.mode) * load
        self.serve(at, buyer, Own(stage, account, buyer), mean, stage.end, account)

    def serve(self, since: int, person: Person, caller: Caller, mean: float, until: int,
              account: Account | None = None, *, tries: bool = True) -> None:  # fmt: skip
        """Somebody uses it from `since` on, `mean` times a day; who has just paid tries at once."""
        stage = self.stage
        if since >= until:
            return
        if tries:
            stage.agenda.start(since, self._try(since, person, caller))
        stage.agenda.start(since, routine(stage, person, caller, since, until, mean, account))

    def _try(self, at: int, person: Person, caller: Caller) -> Process:
        talk, tempo = talk_of(self.stage, person)
        hold(self.stage, at, talk, caller, tempo)
        yield from ()

    def pooled(self) -> Pool:
        """The pool of this ring, dressed as what its customers use."""
        traits = self.supply.traits
        self.pool = pool = Pool(self.stage, traits)
        pool.worn = _USED[self.trade]
        pool.on_loss = self._seat_lost
        return pool

    def customer(self, country: Country | None = None) -> Person:
        """Somebody whom the ring serves, through the one way in that it sells."""
        people, handed = self.stage.people, self.supply.traits.hands_out_client
        person = people.make(country, self.trade)
        for _ in range(_TRIES if handed else 0):  # the installer is for one system
            if person.devices[0].system == self._system:
                break
            person = people.make(country, self.trade)
        person.rigs = [rig for rig in person.rigs if rig.program.kind == _USED[self.trade]]
        if handed:
            self._client = self._client or person.rigs[0]
            person.rigs = [
                replace(self._client, device=rig.device, page=rig.page) for rig in person.rigs
            ]
        person.workspaces = self.supply.places(person.workspaces)
        return person

    # The provider acts.

    def _seat_lost(self, seat: Seat, at: int) -> None:
        keeper = seat.account.keeper
        if isinstance(keeper, Tenure):
            self.lose(keeper, at)

    def lose(self, keeper: Tenure, at: int) -> None:
        """An account is gone: count it, replace it, and think."""
        account, seat = keeper.account, keeper.seat
        if account.id in self._lost:
            return
        self._lost.add(account.id)
        if self.pool is not None and seat is not None and not seat.gone:
            self.pool.lose(seat, at)
        if self.closed:
            return
        self.supply.book.lost += 1
        self._recent = [t for t in self._recent if t > at - DAY] + [at]
        alive = len(self._tenures) - len(self._lost)
        share = len(self._recent) / max(1, alive + len(self._recent))
        calm = at - self._adapted >= DAY
        if calm and len(self._recent) >= _ADAPTS_FROM and share >= self.supply.traits.adapts_at:
            self._adapted = at
            self._adapt()
        if self.reserve:
            begin = at + int(log_uniform(self.stage, self.supply.traits.replace_ms))
            if begin < self.stage.end:
                self.stage.agenda.start(begin, self._recruit(begin, self.reserve.pop()))

    def _adapt(self) -> None:
        """Take one tier's more trouble from now on."""
        supply = self.supply
        changed = harder(supply.traits, self.stage.dice, supply.fixed)
        self._recent.clear()
        if changed is supply.traits:
            return
        supply.traits = changed
        supply.book.buy("retooling")
        supply.restock()
        if self.pool is not None:
            self.pool.traits = changed

    def worth(self, keeper: Tenure, at: int) -> float:
        """What an account will still bring (USD): its rate so far, for another median life."""
        days = max(0.25, (at - keeper.since) / DAY)
        rate = CALLS_A_CALL * keeper.account.spent_usd * STREET_SHARE / days
        return max(rate * self.supply.traits.life_days, USD["account_free"])

    def show_face(self, keeper: Tenure, at: int) -> None:
        """Answer a challenge with a verified identity within hours."""
        stage, supply = self.stage, self.supply
        dossier = supply.dossier(kyc=1.0, paying=False)
        here = self.profile_of(keeper).said()
        at += int(stage.dice.spread(_ANSWERS_AFTER_MS))
        check_identity(stage, at, keeper.account, here, dossier)

    def _count(self, at: int) -> Process:
        """Look at the books once a day; leave when they have been red for too long."""
        stage, book = self.stage, self.supply.book
        red, patience = 0, self.supply.traits.quits_after_days
        capital = USD["retooling"]
        for account in self.accounts:
            capital += _CAPITAL * (USD["account_plan"] + account.plan.price_usd)
        at += DAY
        while at < stage.end:
            yield at
            settle([book], (keeper.account for keeper in self._tenures.values()))
            red = red + 1 if book.outlay_usd - book.income_usd > capital else 0
            if red >= patience:
                self.leave(at)
                return
            at += DAY

    def leave(self, at: int) -> None:
        """Close the shop: nothing more is bought, and the pool answers nobody."""
        self.closed = True
        self.reserve.clear()
        if self.pool is not None:
            for seat in list(self.pool.seats):
                self.pool.lose(seat, at)
