"""The README's source tour is the architecture: complete, in order, and inside the borders."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("features", "synth", "detector", "service")
MAY_IMPORT = {
    "features": {"features"},
    "synth": {"synth", "features.event"},
    "detector": {"detector", "features"},
    "service": {"service", "detector", "synth", "features"},
}
TOUR = re.findall(
    r"^\| `((?:features|synth|detector|service)/[\w/]+\.py)` \| (.+) \|$",
    (ROOT / "README.md").read_text(),
    re.M,
)
FILES = [path for path, _ in TOUR]


def module(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    ours = {module(f) for f in FILES}
    return {
        name
        for name in found
        if name in ours
        or (name.split(".")[0] in FOLDERS and (ROOT / (name.replace(".", "/") + ".py")).is_file())
    }


def test_every_file_is_in_the_tour_once() -> None:
    there = {
        str(p.relative_to(ROOT))
        for f in FOLDERS
        for p in (ROOT / f).rglob("*.py")
        if p.name != "__init__.py"
    }
    assert sorted(FILES) == sorted(there)


@pytest.mark.parametrize("path", FILES)
def test_a_file_imports_only_files_above_it(path: str) -> None:
    above = {module(f) for f in FILES[: FILES.index(path)]}
    assert imported(ROOT / path) - {module(path)} <= above


@pytest.mark.parametrize("path", FILES)
def test_borders(path: str) -> None:
    allowed = MAY_IMPORT[path.split("/")[0]]
    for name in imported(ROOT / path):
        assert name.split(".")[0] in allowed or name in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f != "service"])
def test_no_clock_and_no_global_randomness_below_service(folder: str) -> None:
    calls = re.compile(
        r"\b(datetime\.now|utcnow|time\.time|time_ns|random\.(random|choice|randint|seed)|np\.random\.(seed|rand|randn))\("
    )
    for path in (ROOT / folder).rglob("*.py"):
        assert not calls.search(path.read_text()), path
