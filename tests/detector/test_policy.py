"""The policy file's errors, and budgets that are fired at."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.policy import Action, Budget, PolicyProblem, read_policy
from features.feature import DAY
from tests.detector.handmade import START, policy


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_default_policy_says_every_entry(tmp_path: Path) -> None:
    """What is left out of a file has the value the commented default shows."""
    default, bare = read_policy(), read_policy(written(tmp_path, 'version = "1"\n'))
    assert (default.clusters, default.sweep, default.shadow) == (
        bare.clusters,
        bare.sweep,
        bare.shadow,
    )
    assert default.accounts.suspend is not None
    assert bare.accounts.suspend is None  # no threshold, no action


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[accounts]\nsuspnd = 0.001", r"suspnd.*\$\.accounts.*did you mean `suspend`\?"),
        ("[sweep]\nevery = 60", r"did you mean `every_s`\?"),
        ("shadows = true", r"did you mean `shadow`\?"),
        ("[budgets]\nsuspend = 1", r"did you mean `budget`\?"),
        ("[clusters]\nsuspend = 'often'", r"`str`.*\$\.clusters\.suspend"),
        ("shadow = 1", r"bool.*\$\.shadow"),
        ("[budget]\nsuspend = 1.5", r"int.*\$\.budget\.suspend"),
        ("[accounts]\nsuspend = 1.5", r"<= 1.*\$\.accounts\.suspend"),
        ("[accounts]\nsuspend = 0.0", r"> 0.*\$\.accounts\.suspend"),
        ("[accounts]\nchallenge = nan", r"\$\.accounts\.challenge"),
        ("[clusters]\nreview = nan", r"\$\.clusters\.review"),
        ("[clusters]\nreview = -0.1", r"\$\.clusters\.review"),
        ("[clusters]\nsmallest = 0", r"\$\.clusters\.smallest"),
        ("[budget]\nsuspend = -1", r"\$\.budget\.suspend"),
        ("[sweep]\nevery_s = 0", r">= 1.*\$\.sweep\.every_s"),
        ("[sweep]\nactive_h = -1", r"\$\.sweep\.active_h"),
        ("[accounts", "not TOML"),
    ],
)
def test_a_wrong_entry_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, f'version = "1"\n{text}\n')
    with pytest.raises(PolicyProblem, match=said) as problem:
        read_policy(path)
    assert str(problem.value).startswith(f"{path}: ")


def test_files_that_are_no_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyProblem, match=r"absent\.toml: .*No such file"):
        read_policy(tmp_path / "absent.toml")
    with pytest.raises(PolicyProblem, match="version"):
        read_policy(written(tmp_path, ""))
    (tmp_path / "policy.toml").write_bytes(b'version = "\xff"')
    with pytest.raises(PolicyProblem, match="not TOML"):
        read_policy(tmp_path / "policy.toml")


@pytest.mark.parametrize("action", [Action.challenge, Action.throttle, Action.suspend])
def test_twice_the_quota_acts_on_the_quota(action: Action) -> None:
    budget = Budget(policy(budget={action.name: 7}))
    given_ = Counter(budget.grant(action, f"a{i}", START + i) for i in range(14))
    assert given_ == {action: 7, Action.review: 7}
    assert budget.grant(action, "a3", START + 99) is action, "an account counts once a day"
    assert budget.grant(action, "a13", START + 99) is Action.review


def test_budgets_of_actions_are_apart_and_review_has_none() -> None:
    budget = Budget(policy(budget={"suspend": 0, "throttle": 1, "challenge": 1}))
    assert budget.grant(Action.suspend, "a", START) is Action.review
    assert budget.grant(Action.throttle, "a", START) is Action.throttle
    assert budget.grant(Action.challenge, "b", START) is Action.challenge
    for i in range(2000):
        assert budget.grant(Action.review, f"r{i}", START) is Action.review


def test_the_day_is_that_of_the_events_in_utc() -> None:
    budget = Budget(policy(budget={"suspend": 1}))
    assert budget.grant(Action.suspend, "a", START) is Action.suspend
    assert budget.grant(Action.suspend, "b", START + DAY - 1) is Action.review
    assert budget.grant(Action.suspend, "b", START + DAY) is Action.suspend
    # late events of yesterday spend today's budget and do not give yesterday's back
    assert budget.grant(Action.suspend, "a", START + DAY - 1) is Action.review
    assert budget.grant(Action.suspend, "c", START + DAY) is Action.review
    assert budget.grant(Action.suspend, "b", START) is Action.suspend


@given(
    wishes=st.lists(
        st.tuples(st.sampled_from(list(Action)), st.integers(0, 5), st.integers(0, 3 * DAY)),
        max_size=80,
    ),
    quota=st.integers(0, 3),
)
def test_no_day_sees_more_accounts_than_its_budget(
    wishes: list[tuple[Action, int, int]], quota: int
) -> None:
    budget = Budget(policy(budget=dict.fromkeys(("challenge", "throttle", "suspend"), quota)))
    granted: dict[tuple[Action, int], set[int]] = {}
    latest = 0
    for action, account, t in wishes:
        latest = max(latest, t // DAY)
        told = budget.grant(action, f"a{account}", t)
        assert told in (action, Action.review)
        assert action not in (Action.allow, Action.review) or told is action
        granted.setdefault((told, latest), set()).add(account)
    for (action, _), accounts in granted.items():
        assert action in (Action.allow, Action.review) or len(accounts) <= quota
