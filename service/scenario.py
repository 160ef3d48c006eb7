"""Made-up logs: the one place where the service meets the generator."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from synth.world import UnknownScenario, simulate
from synth.write import Written
from synth.write import write as write_world


class ScenarioProblem(ValueError):
    """A scenario that cannot be simulated, and what can."""


def write(
    scenario: str,
    out: Path,
    seed: int,
    accounts: int,
    days: float,
    abusive_share: float,
    tier: str,
    progress: Callable[[int], None] | None = None,
    knobs: Mapping[str, float] | None = None,
    **more: Any,
) -> Written:
    """Write a scenario's files (synth/write.py) into a folder.

    Args:
        knobs: what every ring does otherwise than its tier would, by name.
        more: further arguments of `simulate`.

    Raises:
        ScenarioProblem: an unknown name, an impossible size, or a folder that cannot be written.
    """
    told = 0

    def so_far(events: int) -> None:
        nonlocal told
        if progress is not None:
            progress(events - told)
        told = events

    try:
        return write_world(
            out,
            scenario,
            seed=seed,
            accounts=accounts,
            days=days,
            abusive_share=abusive_share,
            tier=tier,
            progress=so_far,
            **turned(knobs),
            **more,
        )
    except UnknownScenario as problem:
        raise ScenarioProblem(str(problem)) from None
    except OSError as problem:
        raise ScenarioProblem(f"cannot write into {out}: {problem.strerror}") from None


def turned(knobs: Mapping[str, float] | None) -> dict[str, Any]:
    """Knobs as an argument of `simulate`; none where nothing is turned."""
    return {"knobs": dict(knobs)} if knobs else {}


def stage(scenario: str, knobs: Mapping[str, float] | None = None, **options: Any) -> Any:
    """A world to be acted in (service/loop.py `Playable`).

    Raises:
        ScenarioProblem: an unknown name or knob, or an impossible size.
    """
    try:
        return simulate(scenario, **options, **turned(knobs))
    except UnknownScenario as problem:
        raise ScenarioProblem(str(problem)) from None


def knobs_of(words: list[str]) -> dict[str, float]:
    """`name=value` pairs from the command line.

    Raises:
        ScenarioProblem: a word that is no such pair.
    """
    found: dict[str, float] = {}
    for word in words:
        name, sign, value = word.partition("=")
        try:
            if not (name and sign):
                raise ValueError
            found[name] = float(value)
            if not 0 <= found[name] < math.inf:
                raise ValueError
        except ValueError:
            raise ScenarioProblem(
                f"--knob {word}: write name=number, a number that is not negative, "
                f"for example {name or 'face_uses'}=1"
            ) from None
    return found
