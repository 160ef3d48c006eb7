"""The command line. Exit codes: 0 done, 1 found wanting, 2 bad input (said with file, line, field)."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from service.folder import DEFAULT

app = typer.Typer(
    help="Shoal finds the accounts that swim together.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(
    help="Model versions: list, show, promote, roll back.", no_args_is_help=True
)
keys_app = typer.Typer(
    help="API keys: create, list, revoke. The identity key: rotate-identity, epochs.",
    no_args_is_help=True,
)
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
audit_app = typer.Typer(help="What was done and by whom: list, verify, head.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 100)

DataOption = Annotated[
    Path,
    typer.Option("--data", envvar="SHOAL_DATA", help="Folder that holds log, models and records."),
]
EventsOption = Annotated[
    list[Path],
    typer.Option("--events", help="NDJSON (plain, gz, zst) or Parquet; several may follow."),
]
PolicyOption = Annotated[
    Path | None, typer.Option("--policy", help="Policy file (TOML); the built-in one if absent.")
]
KnobOption = Annotated[
    list[str] | None,
    typer.Option(
        "--knob",
        help="name=number: what every ring does otherwise than its tier; several may be given. "
        "An unknown name lists them.",
    ),
]
TierOption = Annotated[
    str,
    typer.Option("--tier", help="Adversary's effort: T0, T1, T2, T3; mixed: each ring its own."),
]
AccountsOption = Annotated[
    int,
    typer.Option(
        "--accounts", min=10, max=2_000_000, help="To be opened; some do nothing within the days."
    ),
]
RecordsOption = Annotated[
    str | None,
    typer.Option("--records", help="SQLAlchemy URL; SQLite in the data folder if absent."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DATA = Path(DEFAULT)


@contextmanager
def progress(words: str, total: int | None) -> Iterator[Any]:
    """A bar on stderr; yields `advance(n)`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(words, total=total)
        yield lambda n: bar.advance(task, n)


@app.command()
def simulate(
    scenario: Annotated[
        str, typer.Argument(help="What happens in the world; an unknown name lists them.")
    ],
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder for events.ndjson.zst, truth.csv, ip_plan.csv.")
    ],
    seed: Annotated[int, typer.Option(min=0)] = 1,
    accounts: AccountsOption = 2000,
    days: Annotated[float, typer.Option(min=0.1, max=365)] = 7,
    abusive_share: Annotated[float, typer.Option(min=0, max=0.9)] = 0.05,
    tier: TierOption = "T1",
    knob: KnobOption = None,
) -> None:
    """Write a made-up log with its truth: honest accounts and abusive ones that look alike."""
    from service.scenario import knobs_of, write

    knobs = knobs_of(knob or [])
    with progress("simulating", None) as advance:
        told = write(scenario, out_dir, seed, accounts, days, abusive_share, tier, advance, knobs)
    err.print(f"{told.events:,} events of {told.accounts:,} accounts in {out_dir}")


@app.command()
def train(
    events: EventsOption,
    labels: Annotated[
        Path, typer.Option("--labels", help="Labels or truth: CSV, NDJSON or Parquet.")
    ],
    name: Annotated[
        str | None,
        typer.Option("--as", help="Name of the new version; a date and a number if absent."),
    ] = None,
    data: DataOption = DATA,
    policy: PolicyOption = None,
    json: JsonOption = False,
    promote: Annotated[bool, typer.Option(help="Make it the current model.")] = True,
    records: RecordsOption = None,
) -> None:
    """Learn a model from a log and labels, with operators held out for every figure."""
    from detector.policy import read_policy
    from service import offline
    from service.report import promises

    model = offline.train(events, labels, data, name, policy, err.print, progress, promote)
    if promote:
        with _records(data, records) as kept:
            kept.audit(_actor(), "promote", f"model {model.version}", {"trained": True})
    report = model.about["held_out_operators"]
    if json:
        print(msgspec.json.encode({"model": model.version, **model.about}).decode())
        return
    recall = report["recall_at_fpr"]
    out.print(f"model {model.version}  ({'current' if promote else 'not promoted'})")
    out.print(f"held-out operators: {report['n']:,} accounts, {report['n_abusive']:,} abusive")
    out.print(
        f"  AUC {report['auc']:.3f}   PR-AUC {report['pr_auc']:.3f}   ECE {report['ece']:.3f}"
    )
    out.print(f"  recall at 1 % FPR {recall['0.01']:.3f}   at 0.1 % {recall['0.001']:.3f}")
    out.print(promises(model, read_policy(policy)))
    if promote:
        out.print("a service that runs takes it up when it is started again")


WORLD_OPTIONS = ("seed", "accounts", "days", "abusive_share", "tier", "data")


@app.command()
def evaluate(
    context: typer.Context,
    events: Annotated[
        list[Path] | None, typer.Option("--events", help="A log to evaluate on.")
    ] = None,
    truth: Annotated[Path | None, typer.Option("--truth", help="Who was who in it.")] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            "--scenario", help="Simulate a log instead of reading one; an unknown name lists them."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Version; the current one if absent; `none`: clusters alone."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated log.")] = 1001,
    accounts: AccountsOption = 2000,
    days: Annotated[float, typer.Option(min=0.1, max=365)] = 7,
    abusive_share: Annotated[float, typer.Option(min=0, max=0.9)] = 0.05,
    tier: TierOption = "T1",
    knob: KnobOption = None,
    matrix: Annotated[
        Path | None,
        typer.Option("--matrix", help="Run the standard matrix of experiments into this folder."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small matrix: minutes instead of an hour or two.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes of the matrix; one a core if absent.")
    ] = None,
    only: Annotated[
        str, typer.Option("--only", help="Of the matrix: the cells whose names begin so.")
    ] = "",
    report: Annotated[
        Path | None, typer.Option("--report", help="Also write a self-contained HTML page.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Also learn within the log: other splits, peers, knock-outs, a permutation null.",
        ),
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with 1 if anything is found wanting (marked ✗).")
    ] = False,
    data: DataOption = DATA,
    policy: PolicyOption = None,
    json: JsonOption = False,
) -> None:
    """Replay a log in time order as the service would, and hold the answers against the truth."""
    from service import offline
    from service.report import html, table, wrong_with
    from service.scenario import knobs_of

    given = _named(("--events", events), ("--truth", truth), ("--scenario", scenario))
    if matrix is not None:
        given += _named(("--model", model), ("--knob", knob))
        given += [f"--{n.replace('_', '-')}" for n in WORLD_OPTIONS if _typed(context, n)]
        if given:
            raise typer.BadParameter(
                f"--matrix makes its own logs and its own model; leave out {', '.join(given)}"
            )
        _matrix(matrix, quick, jobs, only, policy, report, gate, json)
        return
    if quick or only or jobs is not None:
        raise typer.BadParameter("--quick, --only and --jobs belong to --matrix")
    if (events is None) == (scenario is None):
        raise typer.BadParameter("give one of --events with --truth, --scenario, and --matrix")
    if events is not None and truth is None:
        raise typer.BadParameter("--events needs --truth")
    if events is not None and knob:
        raise typer.BadParameter("--knob changes a made-up world: it needs --scenario")
    with offline.log_of(
        scenario,
        events,
        truth,
        seed,
        accounts,
        days,
        abusive_share,
        tier,
        progress,
        knobs_of(knob or []),
    ) as (
        paths,
        truth_path,
    ):
        found = offline.evaluate(paths, truth_path, data, model, policy, progress, full)
    if report is not None:
        report.write_text(html(found, _said()))
        err.print(f"report: {report}")
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        out.print(table(found))
    if gate and wrong_with(found):
        raise typer.Exit(1)


def _named(*options: tuple[str, object]) -> list[str]:
    """The options that were given."""
    return [name for name, value in options if value]


def _typed(context: typer.Context, name: str) -> bool:
    """Whether an option that has a default was given all the same."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _said() -> str:
    """The command as it was given, to be printed under what it made."""
    return shlex.join(["shoal", *sys.argv[1:]])


def _matrix(
    folder: Path,
    quick: bool,
    jobs: int | None,
    only: str,
    policy: Path | None,
    report: Path | None,
    gate: bool,
    json: bool,
) -> None:
    from detector.policy import read_policy
    from service.cells import Place
    from service.experiments import html_of_matrix, table_of_matrix, wrong_in
    from service.matrix import chosen, default_jobs, matrix, results, standard

    read_policy(policy)  # said before an hour of work, not in each cell
    try:
        cells = chosen(standard("quick" if quick else "full"), only)
    except ValueError as problem:
        raise typer.BadParameter(f"--only: {problem}") from None
    place = Place(folder, policy)
    try:
        with progress("matrix", len(cells)) as advance:
            ran = matrix(cells, place, jobs or default_jobs(), err.print, advance)
    except KeyboardInterrupt:
        there = len(results(cells, place))
        err.print(f"interrupted: {there} of {len(cells)} cells are done; the same command goes on")
        raise typer.Exit(130) from None
    err.print(f"{ran.done} cells run, {ran.kept} were there, {len(ran.failed)} failed")
    told = results(cells, place)
    if report is not None:
        report.write_text(html_of_matrix(told, ran.failed, _said()))
        err.print(f"report: {report}")
    if json:
        print(msgspec.json.encode({"cells": told, "failed": ran.failed}).decode())
    else:
        out.print(table_of_matrix(told, ran.failed))
    if ran.failed or (gate and wrong_in(told, ran.failed)):
        raise typer.Exit(1)


@app.command()
def replay(
    path: Annotated[Path, typer.Argument(help="A log: NDJSON (plain, gz, zst) or Parquet.")],
    url: Annotated[
        str | None, typer.Option("--url", help="A running service; in process if absent.")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option("--speed", min=0.001, help="Times real time; as fast as possible if absent."),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", envvar="SHOAL_KEY", help="API key of the service.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model")] = None,
    data: DataOption = DATA,
    policy: PolicyOption = None,
) -> None:
    """Stream a file and print each answer as a line of JSON."""
    from service import offline

    with progress("replaying", None) as advance:
        told = offline.replay(
            path, url, speed, key, model, data, policy, sys.stdout.buffer, advance
        )
    if told.refused:
        err.print(f"shoal: {told.refusals()}", markup=False)
        raise typer.Exit(2)
    err.print(f"{told.answered:,} events answered")


@app.command()
def serve(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8080,
    state: Annotated[
        str, typer.Option(help="`memory`, or the URL of a Redis ≥ 7.0 or Valkey ≥ 7.2.")
    ] = "memory",
    records: RecordsOption = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Version; the current one if absent; `none`: clusters alone."),
    ] = None,
    fsync: Annotated[
        str, typer.Option(help="When the log reaches the disk: everysec, always, no.")
    ] = "everysec",
    standby: Annotated[
        bool,
        typer.Option(help="Follow the service that runs on --data; take over when it is gone."),
    ] = False,
    rate: Annotated[
        float, typer.Option(min=0.1, help="Events a second that one API key may send.")
    ] = 50_000,
    data: DataOption = DATA,
    policy: PolicyOption = None,
    webhook_allow: Annotated[
        list[str] | None,
        typer.Option(
            "--webhook-allow",
            help="A network (CIDR) that is not public and may have webhooks; several may be given.",
        ),
    ] = None,
) -> None:
    """Run the service: events in, decisions, clusters and cases out."""
    from service.serve import run

    run(host, port, state, records, model, fsync, data, policy, standby, rate, webhook_allow or ())


@app.command()
def archive(data: DataOption = DATA) -> None:
    """Copy the whole log to Parquet (DATA/cold) while no service runs; a running one does it as it goes."""
    from service.cold import archive_all
    from service.folder import Folder

    err.print(f"{archive_all(Folder(data)):,} events archived")


@app.command()
def demo(
    accounts: Annotated[int, typer.Option(min=200, max=20_000)] = 1200,
    days: Annotated[float, typer.Option(min=1, max=30)] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
    keep: Annotated[
        bool, typer.Option(help="Keep the service running at the end, until Ctrl-C.")
    ] = False,
) -> None:
    """Simulate, train, serve, stream over HTTP, and show what was found."""
    from service.demo import run

    run(accounts, days, seed, port, keep, err, out, progress)


@app.command()
def bench(
    events: Annotated[
        int, typer.Option(min=1000, max=5_000_000, help="Events in the measured log.")
    ] = 40_000,
    json: JsonOption = False,
) -> None:
    """Measure the floors of this machine and our figures as ratios to them, in one run."""
    from service.bench import run

    run(events, json, err, out, progress)


@models_app.command("list")
def models_list(data: DataOption = DATA) -> None:
    """Versions, oldest first; the current one is marked."""
    from detector.model import current, load, versions
    from service.folder import Folder

    folder = Folder(data).models
    now = current(folder)
    for version in versions(folder):
        report = load(folder, version).about["held_out_operators"]
        out.print(
            f"{'*' if version == now else ' '} {version}  PR-AUC {report['pr_auc']:.3f} on held-out operators"
        )


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument()] = "current", data: DataOption = DATA
) -> None:
    """The manifest of a version, as JSON."""
    from detector.model import load
    from service.folder import Folder

    model = load(Folder(data).models, name)
    heads = {
        n: {"columns": len(h.columns), "thresholds": h.thresholds} for n, h in model.heads.items()
    }
    told = {
        "model": model.version,
        "feature_hash": model.catalog.hash,
        "kinds": model.catalog.kinds,
        "heads": heads,
    }
    print(msgspec.json.format(msgspec.json.encode({**told, **model.about})).decode())


@models_app.command("promote")
def models_promote(name: str, data: DataOption = DATA, records: RecordsOption = None) -> None:
    """Make a version the current one."""
    from detector.model import current, promote
    from service.folder import Folder

    folder = Folder(data).models
    promote(folder, name)
    with _records(data, records) as kept:
        kept.audit(_actor(), "promote", f"model {current(folder)}", {})
    err.print(f"{name} is current; a running service takes it up when restarted")


@models_app.command("rollback")
def models_rollback(data: DataOption = DATA, records: RecordsOption = None) -> None:
    """Return to the version before the last promotion."""
    from detector.model import rollback
    from service.folder import Folder

    version = rollback(Folder(data).models)
    with _records(data, records) as kept:
        kept.audit(_actor(), "roll back", f"model {version}", {})
    err.print(f"{version} is current again")


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="ingest, read, act, admin; several may be given.")
    ],
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Events a second that it may send; what `serve --rate` says if absent."
        ),
    ] = None,
    data: DataOption = DATA,
    records: RecordsOption = None,
) -> None:
    """Make an API key; its secret is shown once. With the first key, the service asks everybody for one."""
    with _records(data, records) as kept:
        first = not kept.list_keys()
        try:
            print(kept.create_key(name, scope, rate=rate, by=_actor()))
            if first:
                err.print("the first key: from now on the service refuses whoever sends none")
        except ValueError as problem:
            raise typer.BadParameter(str(problem)) from None


@keys_app.command("list")
def keys_list(data: DataOption = DATA, records: RecordsOption = None) -> None:
    """Keys, without their secrets."""
    with _records(data, records) as kept:
        for key in kept.list_keys():
            state = "revoked" if key.revoked_at else "active"
            rate = f"  {key.rate:g}/s" if key.rate is not None else ""
            out.print(f"{key.id}  {key.name}  {','.join(sorted(key.scopes))}  {state}{rate}")


@keys_app.command("revoke")
def keys_revoke(
    id: Annotated[str, typer.Argument(help="The key's id, as `shoal keys list` shows it.")],
    data: DataOption = DATA,
    records: RecordsOption = None,
) -> None:
    """End a key; a running service refuses it within a second."""
    with _records(data, records) as kept:
        kept.revoke_key(id, by=_actor())
    err.print(f"key {id} is revoked")


@keys_app.command("rotate-identity")
def keys_rotate_identity(
    finish: Annotated[
        bool, typer.Option("--finish", help="Switch to the new key; goes on where it was killed.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="With --finish: before the overlap is over.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Give the rotation up, before the switch.")
    ] = False,
    data: DataOption = DATA,
    records: RecordsOption = None,
) -> None:
    """Change the key of identifiers' hashes, in two steps, each while no service runs on DATA."""
    from service import rotation
    from service.folder import Folder, now_ms

    if finish and cancel:
        raise typer.BadParameter("--finish and --cancel are two ends of a rotation: give one")
    if now and not finish:
        raise typer.BadParameter("--now belongs to --finish")
    folder = Folder(data)
    rotation.refuse_misuse(folder, opened=finish or cancel, records_url=records)
    with _records(data, records) as kept:
        if cancel:
            given_up = rotation.cancel(folder, kept, _actor())
            err.print(f"the key of epoch {given_up.epoch} is destroyed; the one before it stays")
        elif finish:
            with err.status("renaming"):
                told = rotation.finish(folder, kept, now_ms(), _actor(), early=now)
            err.print(
                f"renamed: {told.archived:,} events in the archive, {told.logged:,} in the hot log, "
                f"{sum(told.records.values()):,} rows of the records; the old key is destroyed"
            )
            for id in told.dead_canaries:
                err.print(f"canary {id} was not met in the overlap: plant it again")
        else:
            opened = rotation.begin(folder, kept, now_ms(), _actor())
            err.print(
                f"the key of epoch {opened.epoch} is made. Start the service: until the switch it "
                f"notes how the two keys' hashes go together. `shoal keys epochs` says until when"
            )


@keys_app.command("epochs")
def keys_epochs(data: DataOption = DATA) -> None:
    """Epochs of the identity key, oldest first, and what is to be done next."""
    from service import rotation
    from service.folder import Folder

    for line in rotation.epochs(Folder(data)):
        out.print(line, soft_wrap=True)


@audit_app.command("list")
def audit_list(
    after: Annotated[int, typer.Option(min=0, help="Rows after this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 100,
    data: DataOption = DATA,
    records: RecordsOption = None,
) -> None:
    """What was done and by whom, a row of JSON each, in order."""
    with _records(data, records) as kept:
        for row in kept.list_audit(after, limit):
            print(msgspec.json.encode(row).decode())


@audit_app.command("head")
def audit_head(data: DataOption = DATA, records: RecordsOption = None) -> None:
    """Where the audit ends now; keep it where nobody can write both."""
    with _records(data, records) as kept:
        print(kept.audit_head())


@audit_app.command("verify")
def audit_verify(
    head: Annotated[
        str | None, typer.Option("--head", help="What `shoal audit head` once printed.")
    ] = None,
    data: DataOption = DATA,
    records: RecordsOption = None,
) -> None:
    """Whether the audit is what was written; names the first row that is not (exit code 1)."""
    from service.audit import AuditBroken, parse_head

    try:
        known = None if head is None else parse_head(head)
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--head") from None
    with _records(data, records) as kept:
        try:
            rows = kept.verify_audit(known)
        except AuditBroken as problem:
            err.print(f"shoal: {problem}", markup=False)
            raise typer.Exit(1) from None
    err.print(f"{rows:,} rows are what was written")


def _actor() -> str:
    """Whoever runs this command, by the system's word."""
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user id without a name
        return f"cli:{os.getuid()}"


@contextmanager
def _records(data: Path, url: str | None) -> Iterator[Any]:
    from service.folder import Folder, now_ms
    from service.records import Records

    folder = Folder(data)
    folder.secret()  # makes the folder
    address = url or folder.records_url
    with Records(address, clock=now_ms, anchors=folder.anchors) as kept:
        yield kept


def spread(argv: Sequence[str]) -> list[str]:
    """`--events a b` as `--events a --events b`."""
    told: list[str] = []
    events = False
    for word in argv:
        if events and not word.startswith("-"):
            if told[-1] != "--events":
                told.append("--events")
        else:
            events = word == "--events"
        told.append(word)
    return told


def main() -> None:
    """Run the command line; bad input ends it with a sentence and exit code 2, never a traceback."""
    try:
        app(spread(sys.argv[1:]), prog_name="shoal")
    except OSError as problem:
        what = f"{problem.filename}: " if problem.filename else ""
        err.print(f"shoal: {what}{problem.strerror or problem}", markup=False)
        sys.exit(2)
    except (ValueError, RuntimeError) as problem:
        if not isinstance(problem, _said_plainly()):
            raise
        err.print(f"shoal: {problem}", markup=False)
        sys.exit(2)


def _said_plainly() -> tuple[type[Exception], ...]:
    """The errors whose words are meant for users. Importing them takes seconds, so not before."""
    from detector.model import ModelProblem
    from detector.policy import PolicyProblem
    from detector.train import TrainingProblem
    from features.reader import InputProblem
    from service.database import RecordsError
    from service.folder import FolderProblem
    from service.log import LogError
    from service.rotation import RotationProblem
    from service.scenario import ScenarioProblem
    from service.serve import ServeProblem
    from service.shoal import Unavailable
    from service.snapshot import SnapshotDamaged
    from service.valkey import ValkeyError

    return (
        InputProblem, ModelProblem, PolicyProblem, TrainingProblem, ScenarioProblem, ServeProblem,
        FolderProblem, RecordsError, ValkeyError, LogError, SnapshotDamaged, Unavailable,
        RotationProblem,
    )  # fmt: skip


if __name__ == "__main__":
    main()
