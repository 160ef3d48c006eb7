"""What the README tells people to type, typed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
from typer.main import get_command

from features.event import CLASS_OF
from service.cli import app, spread

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh[^\n]*\n(.*?)```", README, re.S)
    for line in block.splitlines()
]


def test_commands_marked_run_do_run(tmp_path: Path) -> None:
    (block,) = re.findall(r"```sh run\n(.*?)```", README, re.S)
    lines = [line for line in block.splitlines() if line.startswith("shoal ")]
    assert len(lines) >= 5
    for line in lines:
        words, _, to = line.partition(" > ")
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", *shlex.split(words)[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if to:
            (tmp_path / to.strip()).write_text(done.stdout)
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    answers = (tmp_path / "answers.ndjson").read_text().splitlines()
    assert len(answers) > 1000
    assert all('"status":' in a for a in answers)


def test_every_shoal_command_and_option_in_the_readme_exists() -> None:
    cli = get_command(app)
    for line in COMMANDS:
        if not line.startswith("shoal "):
            continue
        words = spread([w for w in shlex.split(line.split(" > ")[0].rstrip("& ")) if w != "shoal"])
        command = cli
        while hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {o for p in command.params for o in p.opts}
        assert {w for w in words if w.startswith("--")} <= known, line


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    targets = {t for line in COMMANDS for t in re.findall(r"\bmake (\w+)", line)}
    assert targets
    assert all(re.search(rf"^{t}:", makefile, re.M) for t in targets)


def test_the_page_on_events_names_every_field() -> None:
    page = (Path(__file__).parent.parent / "docs" / "events.md").read_text()
    for name, cls in CLASS_OF.items():
        common, own = (
            page.split("## Common to all types")[1].split("\n## ")[0],
            page.split(f"## `{name}`")[1].split("\n## ")[0],
        )
        for field in msgspec.structs.fields(cls):
            shown = f"| `{field.name}`{' *required*' if field.required else ''} |"
            assert shown in common or shown in own, f"{name}.{field.name}"
