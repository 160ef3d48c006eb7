"""What the command line does with files: train, evaluate, replay. No service, no clock, nothing kept but models."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import httpx
import msgspec
import numpy as np

from detector import evaluate as evaluation
from detector import train as training
from detector.decision import Decision
from detector.engine import Engine
from detector.model import Model, ModelProblem, promote, save, versions
from detector.null import null
from detector.policy import read_policy
from detector.study import study
from features.catalog import Catalog, with_kinds
from features.event import AnyEvent, InvalidEvent, Rejection, encode
from features.identity import canonical
from features.reader import Batch, InputProblem, read_events
from features.table import Label, read_labels, read_truth, unknown_accounts
from service.folder import OFFLINE, Folder
from service.scenario import write
from service.serve import ServeProblem, model_named
from service.shoal import CHUNK, Answer, answers_of

BATCH = 4096  # events
LISTED = 10  # refused lines named in an error
NULL_SEED = 7  # of the permutations: the same log gives the same counts
_json = msgspec.json.Encoder().encode
_answers = msgspec.json.Decoder(list[Answer]).decode


def batches(paths: Sequence[Path]) -> Iterator[list[AnyEvent]]:
    """The events of these files; a figure is never computed on part of a log.

    Batches are of one size however the log is cut into files: sweeps run between them, so that the
    same log gives the same figures.

    Raises:
        InputProblem: a file that cannot be read, or lines that are not events (the first few).
    """
    held: list[AnyEvent] = []
    for batch in read_events(paths):
        if batch.rejected:
            raise _refusal(batch)
        held += batch.events
        while len(held) >= BATCH:
            yield held[:BATCH]
            held = held[BATCH:]
    if held:
        yield held


def _refusal(batch: Batch) -> InputProblem:
    first, *rest = batch.rejected
    more = "".join(f"\n  {r}" for r in rest[: LISTED - 1])
    beyond = (
        f"\n  and {len(rest) - LISTED + 1} more in this part of the file"
        if len(rest) >= LISTED
        else ""
    )
    return InputProblem(
        batch.path,
        first.line,
        first.field,
        first.error + (f" ({first.hint})" if first.hint else "") + more + beyond,
    )


def sealed(paths: Sequence[Path], call: Callable[[Iterator[list[AnyEvent]]], Any]) -> Any:
    """`call` on the files' events; an identifier that cannot be sealed is an InputProblem too."""
    try:
        return call(batches(paths))
    except InvalidEvent as problem:
        raise _where(paths, problem) from None


def _where(paths: Sequence[Path], problem: InvalidEvent) -> InputProblem:
    """The place of the first event that cannot be sealed: read again, since it hardly ever happens."""
    for batch in read_events(paths):
        for event, line in zip(batch.events, batch.lines, strict=True):
            try:
                canonical(event)
            except InvalidEvent as here:
                return InputProblem(batch.path, line, here.field, here.error, here.hint)
    return InputProblem(paths[0], None, problem.field, problem.error, problem.hint)


def kinds_in(paths: Sequence[Path]) -> tuple[int, tuple[str, ...]]:
    """How many events there are, and the custom kinds among them."""
    total, kinds = 0, set[str]()
    for batch in batches(paths):
        total += len(batch)
        for event in batch:
            if event.entities:
                kinds.update(event.entities)
    return total, tuple(sorted(kinds))


def train(
    events: Sequence[Path],
    labels: Path,
    data: Path,
    name: str | None,
    policy: Path | None,
    say: Callable[[str], None],
    progress: Any,
    make_current: bool = True,
) -> Model:
    """Train on files and keep the version in the data folder.

    Raises:
        InputProblem, TrainingProblem, ModelProblem, PolicyProblem: what they say.
    """
    folder, rules = Folder(data).models, read_policy(policy)
    told = _last_words(labels)
    version = name or _next_name(folder)
    if version in versions(folder):  # before hours of training, not after
        raise ModelProblem(f"model {version!r} exists already in {folder}")
    total, kinds = kinds_in(events)
    engine = Engine(rules, OFFLINE, catalog=with_kinds(kinds))
    with progress("replaying", total) as advance:
        history = sealed(events, lambda log: training.replay(engine, log, total, advance))
    labelled = {a: x.label == "abusive" for a, x in told.items()}
    operators = {a: x.group_id for a, x in told.items() if x.group_id}
    with progress("learning and rehearsing", total) as advance:
        model: Model = sealed(
            events,
            lambda log: training.fit(
                history, engine, labelled, operators, version, log, say, advance
            ),
        )
    save(model, folder)
    if make_current:
        promote(folder, version)
    return model


def _last_words(path: Path) -> dict[str, Label]:
    """The latest label of each account; a later `unsure` takes an earlier word back."""
    told: dict[str, Label] = {}
    for label in sorted(read_labels(path), key=lambda x: -1 if x.at is None else x.at):
        if label.account_id is None:
            raise InputProblem(
                path,
                None,
                "cluster_id",
                "a cluster is a guess of one service and means nothing in a file: label its accounts",
            )
        told[label.account_id] = label
    return {account: x for account, x in told.items() if x.label != "unsure"}


def _next_name(folder: Path) -> str:
    day = datetime.now(UTC).strftime("%Y%m%d")
    n = 1
    while f"{day}-{n}" in versions(folder):
        n += 1
    return f"{day}-{n}"


def evaluate(
    events: Sequence[Path],
    truth: Path,
    data: Path,
    model: str | None,
    policy: Path | None,
    progress: Any,
    full: bool = False,
) -> dict[str, Any]:
    """Evaluate on files; `full`: also what can be learned within the log, and what chance would find.

    A log too small to learn from says why in `not_learned`.

    Raises:
        InputProblem, ModelProblem, PolicyProblem: what they say.
    """
    who = read_truth(truth)
    chosen = model_named(Folder(data), model)
    total, kinds = kinds_in(events)
    engine = Engine(
        read_policy(policy), OFFLINE, chosen, Catalog() if chosen else with_kinds(kinds)
    )
    with progress("evaluating", total) as advance:
        found: dict[str, Any] = sealed(
            events, lambda log: evaluation.evaluate(engine, log, who, advance)
        )
    problem = unknown_accounts(who, engine.ledger)
    if problem is not None:
        raise problem
    if full:
        last = engine.last_sweep
        if last is not None:
            found["null"] = null(engine, last, np.random.default_rng(NULL_SEED))
        within = Engine(read_policy(policy), OFFLINE, catalog=with_kinds(kinds))
        with progress("learning within the log", total) as advance:
            try:
                found |= sealed(events, lambda log: study(within, log, total, who, advance))
            except training.TrainingProblem as problem:  # what was found before stands
                found["not_learned"] = str(problem)
    return found


@contextmanager
def log_of(
    scenario: str | None,
    events: Sequence[Path] | None,
    truth: Path | None,
    seed: int,
    accounts: int,
    days: float,
    abusive_share: float,
    tier: str,
    progress: Any,
    knobs: Mapping[str, float] | None = None,
) -> Iterator[tuple[Sequence[Path], Path]]:
    """The files to evaluate on: those given, or those of a scenario simulated for the occasion."""
    if scenario is None:
        assert events is not None  # the command line checks
        assert truth is not None
        yield events, truth
        return
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder:
        with progress("simulating", None) as advance:
            write(scenario, Path(folder), seed, accounts, days, abusive_share, tier, advance, knobs)
        yield [Path(folder, "events.ndjson.zst")], Path(folder, "truth.csv")


@dataclass
class Replayed:
    """What became of a file: events answered, how many of them refused, and the first of those."""

    path: Path
    answered: int = 0
    refused: int = 0
    first: list[Rejection] = field(default_factory=list)

    def refuse(self, rejection: Rejection) -> None:
        self.refused += 1
        if len(self.first) < LISTED:
            self.first.append(rejection)

    def refusals(self) -> str:
        """The first refusals, each with its line."""
        told = "".join(f"\n  {self.path}: {r}" for r in self.first)
        more = self.refused - len(self.first)
        return (
            f"{self.refused:,} of {self.answered:,} events were refused; they are in the output with "
            f"`status: rejected`{told}" + (f"\n  and {more:,} more" if more else "")
        )


def replay(
    path: Path,
    url: str | None,
    speed: float | None,
    key: str | None,
    model: str | None,
    data: Path,
    policy: Path | None,
    to: IO[bytes],
    progress: Callable[[int], None],
) -> Replayed:
    """Stream a file to a service, or through an engine of our own; answers as NDJSON.

    Raises:
        InputProblem: the file cannot be read.
        ServeProblem: the service cannot be reached or refuses us.
    """
    if url is None:
        return _stream(path, speed, _here(model, data, policy), to, progress)
    with _client(url, key) as client:
        return _stream(path, speed, lambda events: _post(client, events), to, progress)


def _stream(
    path: Path,
    speed: float | None,
    answer: Callable[[list[AnyEvent]], list[Answer]],
    to: IO[bytes],
    progress: Callable[[int], None],
) -> Replayed:
    found, start = Replayed(path), None
    began = time.monotonic()
    size = CHUNK if speed is None else 1
    for batch in read_events([path]):
        for r in batch.rejected:
            bad = Answer(r.event_id, "rejected", error=r.error, field=r.field, hint=r.hint)
            bad.line = r.line
            to.write(_json(bad) + b"\n")
            found.refuse(r)
        found.answered += len(batch.rejected) + len(batch.events)
        for at in range(0, len(batch.events), size):
            part = batch.events[at : at + size]
            if speed is not None:
                t = part[0].occurred_at
                assert isinstance(t, int)  # decoded
                start = t if start is None else start
                time.sleep(max(0.0, (t - start) / 1000 / speed - (time.monotonic() - began)))
            answers = answer(part)
            for told, line in zip(answers, batch.lines[at : at + size], strict=True):
                if told.status == "rejected":
                    told.line = line
                    found.refuse(
                        Rejection(line, told.field, told.error or "", told.hint, told.event_id)
                    )
            to.write(b"\n".join(map(_json, answers)) + b"\n")
            progress(len(part))
    to.flush()
    return found


def _here(
    model: str | None, data: Path, policy: Path | None
) -> Callable[[list[AnyEvent]], list[Answer]]:
    """What answers as a service would, without one."""
    chosen = model_named(Folder(data), model)
    engine = Engine(read_policy(policy), OFFLINE, chosen, Catalog())
    given: list[Decision] = []  # by ordinal: what a duplicate is answered with

    def answer(events: list[AnyEvent]) -> list[Answer]:
        if engine.due():
            engine.sweep()
        answered, refused = engine.ingest(events)
        given.extend(d for d in answered.decisions if d is not None)
        answers, earlier = answers_of(events, answered, refused)
        for duplicate, ordinal in earlier:
            duplicate.decision = given[ordinal]
        return answers

    return answer


def _client(url: str, key: str | None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return httpx.Client(base_url=url, timeout=60, headers=headers)
    except httpx.InvalidURL as problem:
        raise ServeProblem(f"--url {url}: {problem}") from None


def _post(client: httpx.Client, events: list[AnyEvent]) -> list[Answer]:
    where = str(client.base_url).rstrip("/")
    body, kind = b"\n".join(map(encode, events)), {"content-type": "application/x-ndjson"}
    try:
        response = client.post("/v1/events", content=body, headers=kind)
    except httpx.UnsupportedProtocol:
        raise ServeProblem(f"--url {where}: begin it with http:// or https://") from None
    except httpx.HTTPError as problem:
        raise ServeProblem(f"{where}: the service cannot be reached: {problem}") from None
    if response.status_code != 200:
        told = f"the service answered {response.status_code}: {response.text[:500]}"
        if response.status_code in (401, 403):
            told += " (the key is given by --key or SHOAL_KEY)"
        raise ServeProblem(f"{where}: {told}")
    return _answers(response.content)
