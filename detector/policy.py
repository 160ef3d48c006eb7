"""The policy: thresholds, cluster verdicts and daily budgets. Scores propose, the policy disposes."""

import tomllib
from enum import IntEnum
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from features.event import nearest
from features.feature import DAY, SECOND


class Action(IntEnum):
    """What is done about an account, in order of severity."""

    allow = 0
    challenge = 1
    throttle = 2
    review = 3
    suspend = 4


class PolicyProblem(ValueError):
    """A policy file that cannot be used; names the entry."""


Share = Annotated[float, Meta(gt=0, le=1)]
Score = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]


class _Accounts(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    challenge: Share | None = None
    throttle: Share | None = None
    review: Share | None = None
    suspend: Share | None = None


class _Clusters(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    review: Score = 0.5
    suspend: Score = 0.95
    smallest: Positive = 3


class _Budget(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    challenge: Count | None = None
    throttle: Count | None = None
    suspend: Count | None = None


class _Sweep(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    every_s: Positive = 900
    after_share: Annotated[float, Meta(ge=0)] = 0.02
    active_h: Positive = 336


class Policy(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """See policy.toml beside this file, which is the default and says what each entry means."""

    version: str
    shadow: bool = False
    accounts: _Accounts = _Accounts()
    clusters: _Clusters = _Clusters()
    budget: _Budget = _Budget()
    sweep: _Sweep = _Sweep()

    @property
    def granted(self) -> list[tuple[Action, float]]:
        """The share of honest accounts that each action may hurt, from the most severe down."""
        shares = ((action, getattr(self.accounts, action.name, None)) for action in Action)
        return [(action, share) for action, share in shares if share is not None][::-1]

    @property
    def sweep_ms(self) -> int:
        return self.sweep.every_s * SECOND


def read_policy(path: Path | None = None) -> Policy:
    """The policy of a file, or the default one.

    Raises:
        PolicyProblem: no such file, not TOML, an unknown entry, a wrong type, or a value out of range.
    """
    name = str(path or "policy.toml")
    try:
        text = (path or resources.files("detector").joinpath("policy.toml")).read_text("utf-8")
        return msgspec.convert(tomllib.loads(text), Policy)
    except OSError as problem:
        raise PolicyProblem(f"{name}: cannot be read: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise PolicyProblem(f"{name}: not TOML: {problem}") from None
    except msgspec.ValidationError as problem:
        words = str(problem)
        unknown = (
            words.split("unknown field `")[1].split("`")[0] if "unknown field `" in words else None
        )
        known = [
            f for s in (Policy, _Accounts, _Clusters, _Budget, _Sweep) for f in s.__struct_fields__
        ]
        hint = nearest(unknown, known) if unknown else None
        raise PolicyProblem(f"{name}: {words}" + (f" ({hint})" if hint else "")) from None


class Budget:
    """How many accounts each action has reached today (UTC day of event time).

    An account counts once a day for an action; past the budget a more severe wish becomes `review`,
    so that a bad model or a bad day cannot suspend everybody.
    """

    def __init__(self, policy: Policy) -> None:
        self._limit = {a: getattr(policy.budget, a.name, None) for a in Action}
        self._day = -1
        self._spent: dict[Action, set[str]] = {a: set() for a in Action}

    def grant(self, action: Action, account: str, t: int) -> Action:
        """The action this account gets when this one is proposed at `t` (epoch ms)."""
        day = t // DAY
        if day > self._day:
            self._day = day
            for spent in self._spent.values():
                spent.clear()
        limit, spent = self._limit[action], self._spent[action]
        if limit is None or account in spent:
            return action
        if len(spent) >= limit:
            return Action.review
        spent.add(account)
        return action
