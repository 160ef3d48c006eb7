"""Made-up logs: the one place where the service meets the generator."""

from collections.abc import Callable
from pathlib import Path

from synth.world import UnknownScenario
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
) -> Written:
    """Write a scenario's events, truth and IP plan into a folder.

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
        )
    except UnknownScenario as problem:
        raise ScenarioProblem(str(problem)) from None
    except OSError as problem:
        raise ScenarioProblem(f"cannot write into {out}: {problem.strerror}") from None
