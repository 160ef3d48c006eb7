"""What people do with an account: the day's conversations, turn by turn.

`converse` is one conversation through any caller; `routine` is the life of one person who starts
conversations on working days. Both are processes for the agenda.
"""

from dataclasses import dataclass

from synth.account import Account
from synth.agenda import Process
from synth.conversation import NOWHERE, SERVED, Caller, Conversation, Lane
from synth.dice import TABLE_BITS, Dice
from synth.people import DAY, HOUR, MINUTE, Person, Rig
from synth.signup import charge
from synth.stage import Stage
from synth.wire import fragment

# How long before its end clients renew a token (s): by program, the same for everybody who uses it.
LEADS_S = (60, 60, 300, 1800, 1800, 14_400)
_UPGRADE = 0.3  # of those whose grant has run out


@dataclass(frozen=True, slots=True)
class Tempo:
    """Turns of a conversation and the gaps between them. Medians; gaps in ms."""

    turns: float
    machine: float  # share of gaps that are a program's, not a person's
    opening_tokens: float
    fresh_tokens: float
    answer_tokens: float

    def gap(self, dice: Dice) -> int:
        luck = dice.random()
        if luck < self.machine:
            return int(dice.spread(7_000))
        if luck < 0.87:
            return int(dice.spread(70_000))
        if luck < 0.972:
            return int(3 * MINUTE + dice.random() * 12 * MINUTE)
        return int(HOUR * (0.6 + 3 * dice.random()))

    def length(self, dice: Dice) -> int:
        return 1 + int(min(dice.lognormal(self.turns, 0.85), 140))


TEMPI: dict[str, Tempo] = {
    "cli": Tempo(5.0, 0.70, 16_000, 3_200, 420),
    "ide": Tempo(4.0, 0.60, 11_000, 2_600, 390),
    "web": Tempo(2.6, 0.0, 600, 260, 600),
    "sdk": Tempo(1.3, 0.55, 2_600, 1_400, 450),
    "gateway": Tempo(3.5, 0.45, 5_000, 1_900, 420),
}


class Own:
    """The honest caller: one person, one account, one place at a time."""

    switches = 0
    intercepts = False

    def __init__(self, stage: Stage, account: Account, person: Person) -> None:
        self._stage, self.account, self._person = stage, account, person

    def lane(self, at: int, talk: Conversation) -> Lane | None:
        lane = talk.lanes.get("")
        if lane is None:
            dice = self._stage.dice
            net = self._person.network(dice).fragment()
            lane = Lane(self.account, always(dice, self.account, net, talk), talk.once)
            talk.lanes[""] = lane
        return lane

    def refused(self, at: int, talk: Conversation, lane: Lane, status: int, wait_s: float) -> None:
        return


def always(dice: Dice, account: Account, net: str, talk: Conversation,
           link: str | None = None) -> str:  # fmt: skip
    """The fragments that every call of this conversation on this account carries."""
    if link is None:
        link = f',"connection_id":"{dice.token(80)}"' if dice.chance(0.87) else ""
    session = (
        f',"session_id":"{talk.session}"' if talk.rig.program.kind in ("cli", "ide", "web") else ""
    )
    return (
        account.head
        + net
        + link
        + talk.rig.always
        + account.credential
        + session
        + talk.user
        + talk.fixed
    )


def short_prompt(stage: Stage) -> str:
    """The fragment of a short user turn: mostly one that many people type."""
    dice = stage.dice
    if dice.chance(0.6):
        return dice.zipf(stage.prompts)
    return f',"prompt_id":"{dice.token()}"'


def converse(stage: Stage, at: int, talk: Conversation, caller: Caller, tempo: Tempo,
             turns: int) -> Process:  # fmt: skip
    """Turn after turn from `at` on, until done, refused for good, or out of patience."""
    dice, call = stage.dice, stage.line.call
    bits, table, chance = dice.getrandbits, dice.table, dice.random
    patience = 4
    note = ',"kind":"main"' if talk.chatty and dice.chance(0.8) else ""
    fresh = tempo.opening_tokens
    title = talk.rig.titles
    while turns > 0:
        said = note
        if chance() < 0.1:
            said = note + short_prompt(stage)
        new_tokens = int(fresh * table[bits(TABLE_BITS)])
        answer_tokens = 1 + int(tempo.answer_tokens * table[bits(TABLE_BITS)])
        ended, outcome, wait = call(at, talk, caller, new_tokens, answer_tokens, said)
        if outcome == SERVED:
            turns -= 1
            fresh = tempo.fresh_tokens
            if title:
                title = False
                stage.agenda.start(ended, _title(stage, ended, talk, caller))
            at = ended + tempo.gap(dice)
        else:
            patience -= 1
            if not patience or (outcome == NOWHERE and dice.chance(0.4)):
                return
            if wait > 150:  # the window is used up: some come back when it opens
                if dice.chance(0.75):
                    return
                at = ended + int(wait * 1000 + dice.spread(20 * MINUTE))
            else:
                at = ended + int(wait * 1000 + dice.spread(3_000) * (5 - patience))
        yield at


def _title(stage: Stage, at: int, talk: Conversation, caller: Caller) -> Process:
    """The small call by which a client names the conversation it has just begun."""
    if caller.intercepts:
        return
    small = Conversation(stage.dice, talk.rig, talk.env, user=talk.user)
    small.session, small.pinned, small.pinned_until = talk.session, talk.pinned, talk.pinned_until
    small.chatty = False
    small.fixed = small.fixed.replace('"stream":true', '"stream":false')
    stage.line.call(at, small, caller, int(stage.dice.spread(300)), 12, ',"kind":"title"')
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
    decides what to do when the grant has run out.
    """
    dice = stage.dice
    polls = account is not None and dice.chance(0.3)
    lead_s = dice.pick(LEADS_S)
    day = (since + person.offset_ms) // DAY * DAY - person.offset_ms
    while day < until:
        for at in person.moments(dice, day, mean * dice.spread(0.75)):
            if at <= since or at >= until:
                continue
            yield at
            if account is not None:
                if account.suspended and dice.chance(0.7):
                    continue
                if (
                    account.on_credit
                    and account.spent_usd >= account.credit_usd
                    and not _upgrade(stage, at, account, person)
                ):
                    return
                tend(stage, at, account, person, polls, lead_s)
            talk, tempo = talk_of(stage, person, user)
            stage.agenda.start(at, converse(stage, at, talk, caller, tempo, tempo.length(dice)))
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
             endpoint=dice.pick(("usage", "usage", "profile", "models")), status=200)  # fmt: skip


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
