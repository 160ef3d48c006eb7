"""What cohorts are made of: sizes, groups, one person's second papers, a caller of several accounts,
a tool's look at all of them."""

from collections.abc import Callable
from dataclasses import replace

import msgspec

from synth import calls as c
from synth.account import Account
from synth.conversation import Conversation
from synth.habits import USAGE_PAGES, Own, Tempo, hold
from synth.honest import Consumers
from synth.people import Person, Rig
from synth.signup import Dossier, papers
from synth.stage import Stage
from synth.wire import fragment

Builder = Callable[[Stage, Consumers, int], None]
"""Puts a number of accounts of one cohort on the stage."""

_SAME_MAILBOX = 0.35  # of second accounts: the first one's address with a tag
_SAME_PHONE = 0.6
_SAME_CARD = 0.75


def groups(stage: Stage, count: int, low: int, high: int) -> list[int]:
    """Split `count` into sizes between `low` and `high`; the last takes what is left."""
    sizes: list[int] = []
    while count > 0:
        size = min(stage.dice.randint(low, high), count)
        if 0 < count - size < low:
            size = count
        sizes.append(size)
        count -= size
    return sizes


def group_id(stage: Stage) -> str:
    return f"grp_{stage.dice.token(64)}"


def retold(place: str, **fields: object) -> str:
    """A workspace fragment that says something else of some fields; None takes a field away."""
    known: dict[str, object] = msgspec.json.decode("{" + place[1:] + "}") if place else {}
    return fragment(**{**known, **fields})


def second_papers(stage: Stage, person: Person, first: Dossier, *, paying: bool = True) -> Dossier:
    """What somebody brings who is a customer already: the same face and document, mostly the same
    telephone and card."""
    dice = stage.dice
    dossier = papers(stage, person, paying=paying)
    if dossier.identity and first.identity:
        dossier.identity = first.identity
    if dossier.phone and first.phone and dice.chance(_SAME_PHONE):
        dossier.phone = first.phone
    if dossier.card and first.card and dice.chance(_SAME_CARD):
        dossier.card = first.card
    dossier.billing_address = first.billing_address
    if dice.chance(_SAME_MAILBOX):
        local, domain = first.email.split("@")
        dossier.email = f"{local.split('+')[0]}+{dice.pick(stage.pools.words)}@{domain}"
    return dossier


class Several:
    """One person with several accounts, called by a `rule` of synth/calls.py. By SWAP he stays on
    one until it refuses, then goes on with the next."""

    seat = customer = c.NONE

    def __init__(self, stage: Stage, person: Person, rule: int = c.SWAP, **columns: int) -> None:
        self._stage, self._person = stage, person
        self.pool = stage.exchange.pool(rule, switches=1, **columns)

    def add(self, account: Account) -> None:
        """One more account to call with."""
        exchange = self._stage.exchange
        exchange.join(self.pool, exchange.seat(account.n, self.pool))

    def net(self) -> int:
        return self._stage.exchange.net(self._person.place(self._stage.dice))


_HELLO = Tempo(1, 1.0, 8, 8, 10, spread=0.3)


class Tool:
    """What an honest gateway or pool tool does by itself with its owner's accounts: a tiny call on
    each of them, one after the other (a health check), and a look at the usage of each.

    Args:
        noted: the tool says of its probes what they are.
    """

    def __init__(self, stage: Stage, person: Person, accounts: list[Account], rig: Rig, *,
                 noted: bool) -> None:  # fmt: skip
        self._stage, self._person, self._rig, self._noted = stage, person, rig, noted
        self._callers = [(account, Own(stage, account, person)) for account in accounts]
        self._hello = stage.exchange.prompt(stage.dice.pick(stage.prompts[:12]))

    def probe(self, at: int) -> None:
        dice = self._stage.dice
        for account, caller in self._callers:
            if account.events and not account.suspended:
                talk = Conversation(dice, self._rig, "")
                talk.flags, talk.script = 0, self._hello
                talk.note = "probe" if self._noted else ""
                hold(self._stage, at, talk, caller, _HELLO, 1)
                at += int(dice.spread(900))

    def poll(self, at: int) -> None:
        stage, dice = self._stage, self._stage.dice
        for account, _ in self._callers:
            if account.events and not account.suspended:
                net = self._person.network(dice).fragment()
                stage.record.tell(at, account, "management_call", net,
                                  endpoint=dice.pick(USAGE_PAGES), status=200)  # fmt: skip
                at += int(dice.spread(700))


def through(person: Person, tls: str, order: str) -> None:
    """Put something between a person's programs and the provider that ends their TLS and sets the
    order of their headers."""
    person.rigs = [replace(rig, tls=tls, order=order) for rig in person.rigs]
