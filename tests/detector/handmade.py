"""Logs written by hand, and models that were made and not learned: every score is known beforehand.

A made head reads one column: its margin is that column's value and its score a tenth of it, so an
account is scored .3 for the third account on its card.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import lightgbm
import msgspec
import numpy as np
from hypothesis import strategies as st

from detector.clusters import FEATURES
from detector.engine import Engine
from detector.model import Head, Model
from detector.policy import Policy, read_policy
from detector.sweep import STANDING_COLUMNS, look
from features.catalog import Catalog
from features.event import AnyEvent, convert
from features.feature import DAY, HOUR, MINUTE
from features.identity import Secret
from features.memory import MemoryWindow
from features.rows import Kinds

SECRET = Secret(b"a key of the tests")
START = 20_600 * DAY  # a midnight in UTC

# Shares of honest accounts and the scores that stand for them. By the default policy: suspend above
# .65, review above .45, challenge above .25; a member of a cluster each a step earlier.
THRESHOLDS = {"0.0005": 0.75, "0.001": 0.65, "0.003": 0.45, "0.01": 0.25, "0.03": 0.15}
MEMBERS = {"0.001": 0.45, "0.003": 0.25, "0.01": 0.15}


class Log:
    """Events in the order they are said; times are minutes after START, ids begin with `prefix`."""

    def __init__(self, prefix: str = "e") -> None:
        self.fields: list[dict[str, Any]] = []
        self._prefix = prefix
        self._number: Iterator[int] = count()

    def add(self, type_: str, account: str, minute: float, **fields: Any) -> "Log":
        event_id = fields.pop("event_id", f"{self._prefix}{next(self._number)}")
        at = START + round(minute * MINUTE)
        said = {"type": type_, "event_id": event_id, "account_id": account, "occurred_at": at}
        self.fields.append(said | fields)
        return self

    def request(self, account: str, minute: float, **fields: Any) -> "Log":
        return self.add("request", account, minute, status=200, **fields)

    def card(self, account: str, minute: float, card: str, **fields: Any) -> "Log":
        return self.add("payment", account, minute, kind="card_added", instrument_id=card, **fields)

    def crowd(self, n: int, first: float = 0, last: float = 1440) -> "Log":
        """`n` accounts that share nothing, one sign-up each, evenly spread."""
        for i, minute in enumerate(np.linspace(first, last, n)):
            self.add("account_signup", f"stranger{i}", float(minute), device_id=f"own{i}")
        return self

    @property
    def events(self) -> list[AnyEvent]:
        """The events by the clock, new ones each time."""
        ordered = sorted(self.fields, key=lambda f: f["occurred_at"])
        return events_of(ordered)


def counting_head(name: str, columns: Sequence[str], column: str) -> Head:
    """A head whose score is a tenth of one column, between 0 and 1; unknown counts as 0."""
    values = np.r_[
        np.zeros(2000), np.arange(11.0)
    ]  # so that the mean, from where reasons count, is near 0
    x = np.zeros((len(values), len(columns)))
    x[:, list(columns).index(column)] = values
    shape = {
        "objective": "regression",
        "boost_from_average": False,
        "learning_rate": 1.0,
        "num_leaves": 11,
        "min_data_in_leaf": 1,
        "min_sum_hessian_in_leaf": 0,
        "num_threads": 1,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(x, values, params={"min_data_in_bin": 1, "verbosity": -1})
    text = lightgbm.train(shape, data, 1).model_to_string()
    knots = tuple(map(float, range(11)))
    return Head(name, tuple(columns), text, knots, tuple(k / 10 for k in knots), dict(THRESHOLDS))


def standing_columns(catalog: Catalog) -> tuple[str, ...]:
    """The columns of a sweep, whatever it sees."""
    return look(MemoryWindow(catalog), Kinds(catalog.kinds), None).columns


def made_model(
    event: str = "accounts_by_card_90d",
    standing: str = "accounts_by_device_30d",
    cluster: str = "size",
) -> Model:
    """A model whose heads each read the column named."""
    catalog = Catalog()
    heads = {
        "event": counting_head("event", catalog.names, event),
        "standing": counting_head("standing", standing_columns(catalog), standing),
        "cluster": counting_head("cluster", (*FEATURES, *STANDING_COLUMNS), cluster),
    }
    return Model("made", catalog, heads, {"made": "by hand"}, dict(MEMBERS))


def policy(**changed: Mapping[str, Any] | Any) -> Policy:
    """The default policy with some entries changed: `policy(budget={"suspend": 2})`."""
    whole = msgspec.to_builtins(read_policy())
    for name, value in changed.items():
        whole[name] = whole[name] | value if isinstance(value, Mapping) else value
    return msgspec.convert(whole, Policy)


def engine_of(model: Model | None = None, **changed: Any) -> Engine:
    return Engine(policy(**changed), SECRET, model)


Fields = dict[str, Any]
_ENTITIES = st.fixed_dictionaries(
    {},
    optional={
        "device_id": st.sampled_from(["d0", "d1", "d2"]),
        "ip": st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        "country": st.sampled_from(["DE", "JP"]),
        "entities": st.sampled_from([{"wallet": "w0"}, {"wallet": "w1", "seat": "s0"}]),
    },
)
_SORTS = st.one_of(
    st.just({"type": "account_signup", "promo_id": "p", "form_ms": 900}),
    st.sampled_from(["c0", "c1"]).map(
        lambda c: {"type": "payment", "kind": "card_added", "instrument_id": c}
    ),
    st.sampled_from(["k0", "k1", "k2"]).map(
        lambda k: {
            "type": "request",
            "status": 200,
            "chain_root": k,
            "chain": [k, k + "+"],
            "chain_after": k + "+",
            "cost_usd": 0.5,
        }
    ),
)


@st.composite
def _one(draw: st.DrawFn) -> Fields:
    account = draw(st.integers(0, 9))
    common = {
        "account_id": f"a{account}",
        # mostly forward in time, within three days, late now and then
        "occurred_at": START + draw(st.integers(0, 3 * DAY // HOUR)) * HOUR,
        "event_id": f"e{draw(st.integers(0, 10**6))}",  # now and then the same again
    }
    org = {7: "firm", 8: "firm", 9: "lab"}.get(account)
    if org and draw(st.booleans()):  # some of its events say so, perhaps not the first
        common["org_id"] = org
    return draw(_SORTS) | draw(_ENTITIES) | common


def small_logs(min_size: int = 0, max_size: int = 30) -> st.SearchStrategy[list[Fields]]:
    """Logs in which ten accounts collide on few entities, as fields: `events_of` makes events."""
    return st.lists(_one(), min_size=min_size, max_size=max_size)


def accepted(fields: Sequence[Fields]) -> list[Fields]:
    """The first delivery of each event: what came again under its id counts nowhere."""
    first: dict[str, Fields] = {}
    for f in fields:
        first.setdefault(f["event_id"], f)
    return list(first.values())


def events_of(fields: Sequence[Fields]) -> list[AnyEvent]:
    """New events each time: an engine seals what it is given in place."""
    return [convert(dict(f)) for f in fields]
