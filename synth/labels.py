"""What people and processors say of accounts: late, not of all, and sometimes wrong.

Apart from the truth. Between a tenth and a third of the rings' accounts is never labelled, one honest account
in a hundred is called abusive, and most of those mistakes are taken back on appeal (ADVERSARY.md §4, label
noise [A]). The good standing of long-time customers comes as an import.
"""

import math
from dataclasses import dataclass
from random import Random

from synth.account import Account
from synth.people import DAY
from synth.stage import Stage

_FOUND = (0.7, 0.9)  # of a ring's accounts, in the end
_DELAY_DAYS, _DELAY_SIGMA = 2.5, 0.9
_MISCALLED = 0.012
_TAKEN_BACK = 0.7
_IN_GOOD_STANDING = 0.6
_SOURCES = ("analyst",) * 6 + ("import",) * 2 + ("canary",)


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of labels.csv (EVENTS.md); `at` is epoch ms."""

    account_id: str
    label: str
    typology: str
    source: str
    at: int
    note: str = ""


def labels(stage: Stage) -> list[LabelRow]:
    """The labels given until now, in the order in which they were."""
    now = min(stage.agenda.now, stage.end)
    told = [row for account in stage.roster if account.observed for row in _of(stage, account)]
    return sorted((row for row in told if row.at <= now), key=lambda row: (row.at, row.account_id))


def _of(stage: Stage, account: Account) -> list[LabelRow]:
    # a stream of its own for each account, so that asking changes nothing and asking again gives the same
    dice = Random(f"{stage.seed}|{account.id}")
    truth = account.truth
    since = account.born or stage.start
    at = since + _days(dice, _DELAY_DAYS, _DELAY_SIGMA)
    if truth.ring_id:
        low, high = _FOUND
        if dice.random() > low + (high - low) * Random(f"{stage.seed}|{truth.ring_id}").random():
            return []
        named = truth.typology if dice.random() < 0.8 else ""
        source = dice.choice(_SOURCES)
        if truth.typology == "carded" and dice.random() < 0.5:
            source = "dispute"
        return [LabelRow(account.id, "abusive", named, source, at)]
    luck = dice.random()
    if luck < _MISCALLED:
        wrong = LabelRow(account.id, "abusive", "", "analyst", at)
        if dice.random() > _TAKEN_BACK:
            return [wrong]
        back = at + _days(dice, 1.0, 0.7)
        return [wrong, LabelRow(account.id, "honest", "", "appeal", back, "taken back on appeal")]
    if luck < _MISCALLED + _IN_GOOD_STANDING:
        return [LabelRow(account.id, "honest", "", "import", at, "customer in good standing")]
    return []


def _days(dice: Random, median: float, sigma: float) -> int:
    return int(dice.lognormvariate(math.log(median), sigma) * DAY)
