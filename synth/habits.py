"""What people do with an account: the day's conversations, and the small things around them.

`converse` begins one conversation through any caller; `routine` is the life of one person who starts
conversations on working days. Both are processes for the agenda; the exchange plays the turns.
"""

from typing import NamedTuple

from synth import calls as c
from synth.account import Account
from synth.agenda import Process
from synth.conversation import Caller, Conversation
from synth.dice import Dice
from synth.people import DAY, Person, Rig
from synth.signup import charge
from synth.stage import Stage
from synth.wire import fragment

# How long before its end clients renew a token (s): by program, the same for everybody who uses it.
LEADS_S = (60, 60, 300, 1800, 1800, 14_400)
USAGE_PAGES = ("usage", "usage", "usage", "quota", "profile", "models")
_UPGRADE = 0.3  # of those whose grant has run out


class Tempo(NamedTuple):
    """Turns of a conversation and the gaps between them. Medians; gaps in ms. In the order of calls.py."""

    turns: float
    machine: float  # share of gaps that are a program's, not a person's
    opening_tokens: float
    fresh_tokens: float
    answer_tokens: float
    fast_ms: float = 7_000.0
    slow_ms: float = 70_000.0
    sigma: float = 0.85  # of the lognormal number of turns
    spread: float = (
        1.0  # of the message sizes: 0 for always the same, 1 for lognormal with sigma 0.8
    )

    def length(self, dice: Dice) -> int:
        return 1 + int(min(dice.lognormal(self.turns, self.sigma), 140))


TEMPI: dict[str, Tempo] = {
    "cli": Tempo(5.0, 0.70, 16_000, 3_200, 420),
    "ide": Tempo(4.0, 0.60, 11_000, 2_600, 390),
    "web": Tempo(2.6, 0.0, 600, 260, 600),
    "sdk": Tempo(1.3, 0.55, 2_600, 1_400, 450),
    "gateway": Tempo(3.5, 0.45, 5_000, 1_900, 420),
}


class Own:
    """The honest caller: one person, one account, one place at a time."""

    seat = customer = c.NONE

    def __init__(self, stage: Stage, account: Account, person: Person) -> None:
        self._stage, self._person = stage, person
        self.pool = direct(stage, [account], c.OWN)

    def net(self) -> int:
        stage = self._stage
        return stage.exchange.net(self._person.place(stage.dice))


def direct(
    stage: Stage, accounts: list[Account], rule: int, net: int = c.NONE, **columns: int
) -> int:
    """A pool of one's own accounts, called as they are: the client's words arrive unchanged."""
    exchange = stage.exchange
    pool = exchange.pool(rule, **columns)
    for account in accounts:
        exchange.join(pool, exchange.seat(account.n, pool, net=net))
    return pool


def short_prompt(stage: Stage) -> str:
    """The fragment of a short user turn: mostly one that many people type."""
    dice = stage.dice
    if dice.chance(0.6):
        return dice.zipf(stage.prompts)
    return f',"prompt_id":"{dice.token()}"'


def hold(
    stage: Stage, at: int, talk: Conversation, caller: Caller, tempo: Tempo, turns: int = 0
) -> None:
    """Begin a conversation at `at`; 0 turns: as many as the tempo has it."""
    exchange = stage.exchange
    exchange.begin(talk.given(exchange, at, caller, exchange.tempo(tempo), turns))


def converse(stage: Stage, at: int, talk: Conversation, caller: Caller, tempo: Tempo,
             turns: int = 0) -> Process:  # fmt: skip
    """`hold`, as a process."""
    hold(stage, at, talk, caller, tempo, turns)
    yield from ()


def talk_of(stage: Stage, person: Person, user: str = "") -> tuple[Conversation, Tempo]:
    """A new conversation of a person: one of his programs in one of his workspaces."""
    dice = stage.dice
    rig: Rig = dice.pick(person.rigs)
    kind = rig.program.kind
    env = dice.zipf(person.workspaces) if person.workspaces and kind in ("cli", "ide") else ""
    return Conversation(dice, rig, env, user=user), TEMPI[kind]


def routine(stage: Stage, person: Person, caller: Caller, since: int, until: int, mean: float,
            account: Account | None = None, user: str = "") -> Process:  # fmt: skip
    """Conversations of one person between two times: `mean` of them a working day.

    With `account`, the person also tends it: logs in, refreshes the token, looks at the usage, and
    decides what to do when the grant has run out. A day is planned as it begins.
    """
    dice = stage.dice
    polls = account is not None and dice.chance(0.4)
    lead_s = dice.pick(LEADS_S)
    day = (since + person.offset_ms) // DAY * DAY - person.offset_ms
    while day < until:
        barred = account is not None and account.suspended
        for at in person.moments(dice, day, mean * dice.spread(0.75)):
            if at <= since or at >= until:
                continue
            if account is not None:
                if barred and dice.chance(0.7):
                    continue
                if account.drained and not _upgrade(stage, at, account, person):
                    return
                tend(stage, at, account, person, polls, lead_s)
            talk, tempo = talk_of(stage, person, user)
            hold(stage, at, talk, caller, tempo)
        day += DAY
        if day > since:
            yield day


def tend(stage: Stage, at: int, account: Account, person: Person, polls: bool,
         lead_s: int) -> None:  # fmt: skip
    """The small things around a conversation: a login, a token refresh, a look at the usage."""
    dice, tell = stage.dice, stage.record.tell
    luck = dice.random()
    if luck < 0.16:
        login(
            stage, at, account, person.network(dice).fragment() + dice.pick(person.devices).said()
        )
    elif luck < 0.34 and person.mode in ("terminal", "editor"):
        refresh(stage, at, account, person.network(dice).fragment(), lead_s)
    if polls and dice.chance(0.6):
        tell(at, account, "management_call", person.network(dice).fragment(),
             endpoint=dice.pick(USAGE_PAGES), status=200)  # fmt: skip


def login(stage: Stage, at: int, account: Account, here: str) -> None:
    """Log in, with a slip now and then; `here` is the network and the device."""
    dice = stage.dice
    if dice.chance(0.07):
        stage.record.tell(at, account, "login", here, method="password", result="failed")
        at += int(dice.spread(9_000))
    method = dice.weighted(
        (("password", 5.0), ("oauth", 3.0), ("magic_link", 1.5), ("passkey", 0.5))
    )
    stage.record.tell(at, account, "login", here, method=method, result="succeeded")


def refresh(stage: Stage, at: int, account: Account, net: str, lead_s: float) -> None:
    """A new token for an old one, about `lead_s` seconds before that expires, or too late."""
    dice = stage.dice
    lead_s = -dice.spread(900) if dice.chance(0.12) else lead_s + dice.random() * min(lead_s, 600)
    stage.record.tell(at, account, "credential", net + account.credential, kind="token_refreshed",
                      result="failed" if dice.chance(0.02) else "succeeded",
                      lead_s=round(lead_s, 1), ttl_s=28_800,
                      idle_s=round(dice.spread(1_200), 1))  # fmt: skip


def _upgrade(stage: Stage, at: int, account: Account, person: Person) -> bool:
    """The grant has run out: buy a plan, or leave."""
    dice = stage.dice
    if not dice.chance(_UPGRADE):
        return False
    account.upgrade("pro")
    card = stage.market.card(person.country.code)
    said = fragment(instrument_id=card.instrument_id, bin=card.bin, funding=card.funding,
                    card_country=card.country)  # fmt: skip
    net = person.network(dice).fragment()
    stage.record.tell(at, account, "payment", net, kind="plan_changed", plan="pro")
    stage.record.tell(at + 1_500, account, "payment", net + said, kind="card_added")
    charge(stage, at + 4_000, account, net + said, person.country.code, 0.004)
    return True
