"""A few seconds of bench/fuzz.py: no input is a surprise to a reader."""

import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))

import fuzz


def test_the_valid_inputs_are_valid() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for target in fuzz.targets(Path(folder)):
            for body in target.valid:
                target.read(body)


def test_no_input_is_a_surprise() -> None:
    said: Counter[str] = Counter()
    found = [(name, body[:200], repr(e)) for name, body, e in fuzz.findings(10, 7, said)]
    assert not found, found[:3]
    assert len([name for name in said if name.endswith("tried")]) == 12
