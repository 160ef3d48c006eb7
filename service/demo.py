"""`shoal demo`: the whole line on made-up traffic, over HTTP, and what came of it against the truth.

Two worlds are simulated from different seeds: the model learns on one and is judged on the other, so
that no operator, account or identifier of the first is in the second.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.table import Table

from detector import metrics
from detector.ledger import Ledger
from detector.policy import Action
from features.event import AnyEvent, encode
from features.feature import HOUR
from features.reader import read_events
from features.table import Truth, read_truth
from service import offline
from service.scenario import write
from service.serve import ServeProblem

BATCH = 1000
LOOK_EVERY = 6 * HOUR  # event time between two looks at the links while the days fly by
START_SECONDS = 120.0


def run(
    accounts: int,
    days: float,
    seed: int,
    port: int,
    keep: bool,
    err: Console,
    out: Console,
    progress: Any,
) -> None:
    """Run the demo; see the module's docstring."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shoal-demo-") as name:
        folder = Path(name)
        with progress("simulating two worlds", None) as advance:
            for world, s in (("past", seed), ("now", seed + 1000)):
                write("market", folder / world, s, accounts, days, 0.08, "mixed", advance)
        say = err.print
        say("[bold]1. train[/] on the first world, operators held out")
        say("   (what is compiled is compiled on the first run: a minute more)", style="dim")
        model = offline.train(
            [folder / "past" / "events.ndjson.zst"], folder / "past" / "truth.csv", folder / "data", "demo", None,
            lambda words: say(f"   {words}", style="dim"), progress,
        )  # fmt: skip
        told = model.about["held_out_operators"]
        say(
            f"   held-out operators: PR-AUC {told['pr_auc']:.3f}, recall at 1 % FPR {told['recall_at_fpr']['0.01']:.0%}"
        )
        say("[bold]2. serve[/] and [bold]3. stream[/] the second world over HTTP")
        with Served(folder / "data", port) as url:
            found = stream(url, folder / "now" / "events.ndjson.zst", progress)
            show(out, found, folder / "now" / "truth.csv", url)
            say(same(url))
            say(f"done in {time.monotonic() - began:.0f} s")
            if keep:
                say(f"serving until Ctrl-C; console: {url}/")
                ends = {signal.SIGINT, signal.SIGTERM}
                signal.pthread_sigmask(signal.SIG_BLOCK, ends)
                signal.sigwait(ends)
            else:
                say("the service ends here; with --keep it stays, and its console shows the cases")


class Served:
    """A `shoal serve` of our own in a child process; gives its URL, ends with the block."""

    def __init__(self, data: Path, port: int, *more: str) -> None:
        if port == 0:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable,
            "-m",
            "service.cli",
            "serve",
            "--port",
            str(port),
            "--data",
            str(data),
            *more,
        ]

    def __enter__(self) -> str:
        self.said = tempfile.TemporaryFile()  # a pipe that nobody reads would fill up
        self.process = subprocess.Popen(
            self._command, stderr=self.said, stdout=subprocess.DEVNULL, env=os.environ
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self.process.poll() is not None:
                self.said.seek(0)
                words = self.said.read().decode(errors="replace")
                raise ServeProblem(f"the service ended at once: {words[-2000:]}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    return self.url
            except httpx.HTTPError:
                pass
            if time.monotonic() > deadline:
                self.process.terminate()
                raise ServeProblem(f"the service was not ready after {START_SECONDS:.0f} s")
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()


class Found:
    """What the answers said: each account's first alert, and the money until then."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.first_ms: dict[str, int] = {}
        self.hurt: dict[str, Action] = {}
        self.alert_ms: dict[str, int] = {}
        self.leaked_at_alert: dict[str, float] = {}
        self.events = 0
        self.seconds = 0.0
        self.last_ms = 0

    def answered(self, event: AnyEvent, action: Action) -> None:
        t = event.occurred_at
        assert isinstance(t, int)  # decoded
        self.ledger.record(event)
        self.first_ms.setdefault(event.account_id, t)
        self.last_ms = max(self.last_ms, t)
        self.acted(event.account_id, action, t)

    def acted(self, account: str, action: Action, t: int) -> None:
        if action > Action.allow:
            self.hurt[account] = max(action, self.hurt.get(account, Action.allow))
        if action >= Action.review and account not in self.alert_ms and account in self.ledger:
            self.alert_ms[account] = t
            self.leaked_at_alert[account] = self.ledger[account].leaked


class _Decision(msgspec.Struct):
    action: str


class _Answer(msgspec.Struct):
    status: str
    decision: _Decision | None = None


def stream(url: str, path: Path, progress: Any, look_every: int = LOOK_EVERY) -> Found:
    """Post a log in batches; look at the links every few hours of its time."""
    found, decode = Found(), msgspec.json.Decoder(list[_Answer]).decode
    next_look = None
    with httpx.Client(base_url=url, timeout=120) as client, progress("streaming", None) as advance:
        for batch in read_events([path], batch=BATCH):
            began = time.monotonic()
            body = b"\n".join(map(encode, batch.events))
            response = client.post(
                "/v1/events", content=body, headers={"content-type": "application/x-ndjson"}
            )
            if response.status_code != 200:
                raise ServeProblem(
                    f"the service answered {response.status_code}: {response.text[:500]}"
                )
            found.seconds += time.monotonic() - began
            found.events += len(batch.events)
            for event, answer in zip(batch.events, decode(response.content), strict=True):
                if answer.status in ("new", "late"):
                    found.answered(
                        event, Action[answer.decision.action] if answer.decision else Action.allow
                    )
            advance(len(batch.events))
            if next_look is None or found.last_ms >= next_look:
                next_look = found.last_ms + look_every
                look(client, found)
        look(client, found)
    return found


def look(client: httpx.Client, found: Found) -> None:
    client.post("/v1/sweep").raise_for_status()
    for row in acted_on(client, "challenge"):
        found.acted(row["account_id"], Action[row["action"]], found.last_ms)


def acted_on(client: httpx.Client, action: str) -> Iterator[dict[str, Any]]:
    """Every account about which the service has done this or more, page by page."""
    cursor: dict[str, str] = {}
    while True:
        asked = {"action": action, "limit": "10000", **cursor}
        told = client.get("/v1/accounts", params=asked).raise_for_status().json()
        yield from told["accounts"]
        if told["next"] is None:
            return
        cursor = {"cursor": told["next"]}


def show(out: Console, found: Found, truth_path: Path, url: str) -> None:
    """The table of what was found, and one cluster as an analyst would read it."""
    truth = read_truth(truth_path)
    rings: dict[str, list[str]] = {}
    for account, ring in zip(truth.row, truth.ring_id.tolist(), strict=True):
        if ring and account in found.ledger:
            rings.setdefault(ring, []).append(account)
    out.print(
        f"\n{found.events:,} events over HTTP in {found.seconds:.1f} s: "
        f"{found.events / found.seconds:,.0f} events/s answered\n"
    )
    out.print(_verdict(found, truth, rings))
    out.print(_rings(found, truth, rings))
    out.print(_cohorts(found, truth))
    clusters = httpx.get(f"{url}/v1/clusters", timeout=60).json()["clusters"]
    acted = [c for c in clusters if c["proposed_action"] != "allow"]
    worst = max(acted, key=lambda c: c["size"], default=None)
    if worst is not None:
        case = httpx.get(f"{url}/v1/clusters/{worst['cluster_id']}", timeout=60).json()
        out.print(_case(case, _truly(case["members"], truth)))


def same(url: str) -> str:
    """A line on whether the vectors that were served can be had again from the log."""
    told = httpx.get(f"{url}/v1/parity", timeout=600).raise_for_status().json()
    return (
        f"parity: largest difference {told['largest_difference']:g} in {told['vectors']:,} served "
        f"vectors recomputed from a log of {told['events']:,} events, {told['differing']} values differ"
    )


def _verdict(found: Found, truth: Truth, rings: Mapping[str, list[str]]) -> str:
    """What came of it, in one sentence."""
    members = [m for ring in rings.values() for m in ring]
    caught = sum(m in found.alert_ms for m in members)
    alerted = sum(any(m in found.alert_ms for m in ring) for ring in rings.values())
    honest = _honest(found, truth)
    hurt = sum(a in found.hurt for a in honest)
    return (
        f"{caught:,} of {len(members):,} abusive accounts and {alerted} of {len(rings)} rings were put to review, "
        f"{hurt:,} of {len(honest):,} honest accounts were hurt ({hurt / max(len(honest), 1):.1%}).\n"
    )


def _honest(found: Found, truth: Truth) -> list[str]:
    """The honest accounts that were seen."""
    return [a for a, i in truth.row.items() if not truth.abusive[i] and a in found.ledger]


def _truly(members: Sequence[str], truth: Truth) -> str:
    """What the members of a cluster are, by the truth."""
    rings: Counter[str] = Counter()
    for member in members:
        at = truth.row.get(member)
        ring = str(truth.ring_id[at]) if at is not None else ""
        rings[f"ring {ring} ({truth.typology[at]})" if ring else "the honest"] += 1
    return ", ".join(f"{n} of {name}" for name, n in rings.most_common(4))


def _rings(found: Found, truth: Truth, rings: Mapping[str, list[str]]) -> Table:
    table = Table(
        title="what was found, against the truth", title_justify="left", box=None, padding=(0, 1)
    )
    for column in (
        "typology",
        "rings",
        "alerted",
        "accounts",
        "caught",
        "h to alert",
        "$ to alert",
        "$ leaked",
        "$ in all",
    ):
        table.add_column(column, justify="left" if column == "typology" else "right")
    by_typology: dict[str, list[str]] = {}
    for ring, members in rings.items():
        by_typology.setdefault(str(truth.typology[truth.row[members[0]]]) or "unknown", []).append(
            ring
        )
    for typology, names in sorted(by_typology.items()):
        hours, dollars = [], []
        for ring in names:
            alerts = sorted(found.alert_ms[m] for m in rings[ring] if m in found.alert_ms)
            if alerts:
                first = min(found.first_ms[m] for m in rings[ring])
                hours.append(max(0, alerts[0] - first) / HOUR)
                dollars.append(
                    sum(
                        found.leaked_at_alert[m]
                        for m in rings[ring]
                        if found.alert_ms.get(m) == alerts[0]
                    )
                )
        accounts = [m for ring in names for m in rings[ring]]
        caught = [m for m in accounts if m in found.alert_ms]
        leaked = sum(found.leaked_at_alert.get(m, found.ledger[m].leaked) for m in accounts)
        table.add_row(
            typology, str(len(names)), str(len(hours)), str(len(accounts)), f"{len(caught) / len(accounts):.0%}",
            f"{sorted(hours)[len(hours) // 2]:.1f}" if hours else "–",
            f"{sorted(dollars)[len(dollars) // 2]:,.0f}" if dollars else "–",
            f"{leaked:,.0f}", f"{sum(found.ledger[m].leaked for m in accounts):,.0f}",
        )  # fmt: skip
    return table


def _cohorts(found: Found, truth: Truth) -> Table:
    honest = _honest(found, truth)
    rates = metrics.cohort_fpr(
        truth.cohort[[truth.row[a] for a in honest]],
        [False] * len(honest),
        [a in found.hurt for a in honest],
    )
    table = Table(
        title="\nlookalikes hurt (anything done about an honest account)",
        title_justify="left",
        box=None,
        padding=(0, 2),
    )
    for column in ("cohort", "accounts", "hurt", "95 %"):
        table.add_column(column, justify="left" if column == "cohort" else "right")
    for name, row in rates.items():
        table.add_row(
            name, str(row["n"]), f"{row['fpr']:.1%}", f"{row['low']:.1%} – {row['high']:.1%}"
        )
    return table


def _case(case: Mapping[str, Any], truly: str) -> str:
    def day(ms: int) -> str:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%d %b %H:%M")

    lines = [
        f"\n[bold]cluster {case['cluster_id']}[/]: "
        f"{case['size']} accounts of different owners, score {case['score']:.3f}",
        f"  proposed: {case['proposed_action']}   seen {day(case['first_ms'])} to {day(case['last_ms'])}",
        f"  they consumed ${case['cost_usd']:,.2f} at list price and paid ${case['paid_usd']:,.2f}",
        f"  what binds them: {', '.join(case['kinds'])}",
        *(f"    {e['text']}, last {day(e['last_ms'])}" for e in case["evidence"][:6]),
        "  how it grew:",
        *(f"    {day(m['at_ms'])}  {m['text']}" for m in case["timeline"]),
        f"  who would be hurt: {len(case['bystanders'])} members look honest on their own",
        f"  in truth: {truly}\n",
    ]
    return "\n".join(lines)
