"""A decision and its reasons: what the policy made of the scores, and why, in words."""

import msgspec
import numpy as np

from detector.model import Head
from detector.policy import Action
from features.catalog import Catalog
from features.feature import sentence
from features.rows import F64

REASONS = 5


class Reason(msgspec.Struct, omit_defaults=True, gc=False):
    """`code` is the feature's name, stable across models; `impact` its share of the score's log-odds."""

    code: str
    impact: float
    text: str
    evidence: list[str] = []


class Decision(msgspec.Struct, omit_defaults=False, gc=False):
    """What to do about an account, as answered to the caller."""

    action: str
    score: float | None
    risk_level: str
    reasons: list[Reason]
    cluster_id: str | None
    model_version: str | None
    policy_version: str


RISK = {
    Action.allow: "low",
    Action.challenge: "medium",
    Action.throttle: "medium",
    Action.review: "high",
    Action.suspend: "critical",
}


def explain(head: Head, vector: F64, catalog: Catalog) -> list[Reason]:
    """The features that raised this score most, each in its own sentence."""
    told = head.contributions(vector)
    sentences = dict(zip(catalog.names, catalog.features, strict=True))
    reasons = []
    for column in np.argsort(-told, kind="stable")[:REASONS]:
        impact = round(float(told[column]), 4)
        if impact <= 0:
            break
        name, value = head.columns[column], float(vector[column])
        feature = sentences.get(name)
        if np.isnan(value):
            text = f"{name.replace('_', ' ')} is unknown"
        elif feature is not None:
            text = sentence(feature, value)
        else:
            text = f"{name.replace('_', ' ')}: {value:,.4g}"
        reasons.append(Reason(name, impact, text))
    return reasons
