"""A study of one log: what can be learned within it, how else it could be split, and what others make of it.

One replay gives everything: the rows a model would learn from, the peers' aggregates, and when each
account was first seen. No model from outside has a say, so that the figures are of the log alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from detector.ablate import Silence, ablate
from detector.engine import Engine
from detector.evaluate import clean
from detector.peers import Aggregates, peers
from detector.splits import splits
from detector.sweep import Sweep
from detector.train import Lesson, deal, lesson, replay
from features.event import AnyEvent, decode
from features.table import Truth


def study(
    engine: Engine,
    batches: Iterable[Sequence[AnyEvent]],
    total: int,
    truth: Truth,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """`splits`, `peers` and `knockouts` of a log of `total` events; `engine` is a new one without a model.

    Raises:
        InvalidEvent: an identifier that cannot be read as one.
        TrainingProblem: too few accounts, or groups of them, to learn from and hold operators out.
    """
    seen, silence = Aggregates(), Silence(engine)
    history = replay(
        engine, batches, total, progress, lambda sealed: seen.add(map(decode, sealed.bodies)),
        silence.see,
    )  # fmt: skip
    rows = {str(a): i for a, i in truth.row.items()}
    abusive = {a: bool(truth.abusive[i]) for a, i in rows.items()}
    # an operator is a ring where the truth has one, else the unit it names
    operator = {a: str(truth.ring_id[i] or truth.group_id[i]) for a, i in rows.items()}
    told = lesson(history, engine, abusive, operator)
    ring = [str(truth.ring_id[rows[a]]) for a in told.accounts]
    typology = {a: str(truth.typology[rows[a]]) for a in told.accounts}
    names, _, first, _ = engine.window.accounts()
    first_ms = {engine.names[a]: t for a, t in zip(names.tolist(), first.tolist(), strict=True)}
    say("splitting otherwise")
    found: dict[str, Any] = {"splits": splits(told, first_ms, typology)}
    say("asking peers")
    found["peers"] = peers(seen, told.accounts, told.y, ring, deal(told.y, told.group))
    say("knocking signals out")

    def few(sweeps: list[Sweep]) -> Lesson:
        return lesson(replace(history, sweeps=sweeps), engine, abusive, operator)

    silent = {
        family: few(
            [replace(s, vectors=v) for s, v in zip(silence.sweeps, vectors, strict=True)]
        ).table
        for family, vectors in silence.without.items()
    }
    found["knockouts"] = ablate(few(silence.sweeps), engine.catalog, silent)
    return dict(clean(found))
