"""What cohorts are made of: sizes, groups, one person's second papers, a caller of several accounts."""

from collections.abc import Callable
from dataclasses import replace

import msgspec

from synth import calls as c
from synth.account import Account
from synth.honest import Consumers
from synth.people import Person
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


def through(person: Person, tls: str, order: str) -> None:
    """Put something between a person's programs and the provider that ends their TLS and sets the
    order of their headers."""
    person.rigs = [replace(rig, tls=tls, order=order) for rig in person.rigs]
