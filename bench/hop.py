"""Real accounts: 43,052 of hop_sybil, 14,195 of them farmed, through the product's own line.

    uv run python bench/hop.py [--data ../shared/data/hop_sybil] [--only clusters,held-out,community,http]

Each edge is a sighting: `dst` was seen with entity `src` (kind funded_by) at dst's first use, `src` with
`dst` (paid_to) at src's, and each account with itself (address). Written as NDJSON and read, folded,
linked, clustered, trained and evaluated by what `shoal train`, `evaluate` and `serve` call.

    clusters    no model, no labels: the clusters the policy would act on
    held-out    LightGBM, rings held out (the report of `shoal train`)
    community   trained on the protocol's own rings, tested on those that outsiders reported
    http        streamed to a service in order of arrival; what stood at the end
"""

import argparse
import csv
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from detector import metrics
from service import offline
from service.demo import Served, acted_on, stream

POLICY = """
version = "hop"
[accounts]
challenge = 0.01
review = 0.003
suspend = 0.001
[clusters]
review = 0.5
smallest = 3
[sweep]
every_s = 86400
after_share = 0.1
active_h = 2160
"""
STEPS = ("clusters", "held-out", "community", "http")


def read(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        yield from csv.DictReader(file)


def write_events(data: Path, accounts: list[dict[str, str]], to: Path) -> int:
    """The edges as events in order of time; returns how many."""
    first = [int(row["first_use_ts"]) * 1000 for row in accounts]
    n = len(accounts)
    seen: list[tuple[int, int, str, str]] = [(first[a], a, "address", str(a)) for a in range(n)]
    for row in read(data / "edges.csv.gz"):
        src, dst = int(row["src"]), int(row["dst"])
        if dst < n:
            seen.append((first[dst], dst, "funded_by", row["src"]))
        if src < n:
            seen.append((first[src], src, "paid_to", row["dst"]))
    seen.sort()
    with gzip.open(to, "wt", compresslevel=1) as file:
        for i, (t, account, kind, entity) in enumerate(seen):
            event = {
                "event_id": f"e{i}",
                "type": "login",
                "occurred_at": t,
                "account_id": f"a{account}",
                "entities": {kind: entity},
            }
            file.write(json.dumps(event) + "\n")
    return len(seen)


def write_truth(rows: Iterable[dict[str, str]], to: Path) -> None:
    with to.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["account_id", "ring_id", "typology", "cohort", "tier", "group_id"])
        for row in rows:
            ring = row["group"] or (f"alone{row['account']}" if row["label"] == "1" else "")
            cohort = (
                "" if ring else "unresolved" if row["in_unresolved_component"] == "1" else "user"
            )
            out.writerow([f"a{row['account']}", ring, "", cohort, "", ring])


@contextmanager
def silent(words: str, total: int | None) -> Iterator[Any]:
    yield lambda _: None


def say(title: str, **figures: float | None) -> None:
    told = "  ".join(f"{k} {v:.3f}" if v is not None else f"{k} –" for k, v in figures.items())
    print(f"{title:<44}{told}", flush=True)


def account_figures(title: str, found: dict[str, Any]) -> None:
    a = found["account"]
    recall = a["recall_at_fpr"]
    say(
        title,
        auc=a["auc"],
        pr_auc=a["pr_auc"],
        r_at_1pct=recall["0.01"],
        r_at_01pct=recall["0.001"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hop_sybil"))
    parser.add_argument("--only", default=",".join(STEPS))
    args = parser.parse_args()
    steps = args.only.split(",")
    if unknown := set(steps) - set(STEPS):
        sys.exit(f"--only: {', '.join(unknown)}: one of {', '.join(STEPS)}")
    if not (args.data / "accounts.csv.gz").is_file():
        sys.exit(f"skipped: hop_sybil is not in {args.data}")
    accounts = list(read(args.data / "accounts.csv.gz"))
    source = {f"a{r['account']}": r["label_source"] for r in accounts}
    with tempfile.TemporaryDirectory(prefix="shoal-hop-") as name:
        folder = Path(name)
        events, policy, everyone = (
            folder / "events.ndjson.gz",
            folder / "policy.toml",
            folder / "truth.csv",
        )
        policy.write_text(POLICY)
        n = write_events(args.data, accounts, events)
        write_truth(accounts, everyone)
        print(f"{len(accounts):,} accounts, {n:,} events")

        if "clusters" in steps:
            began = time.monotonic()
            found = offline.evaluate([events], everyone, folder, "none", policy, silent)
            c = found["cluster"]
            say(
                "clusters, no labels, no hub lists", **c["flagged"], pairwise_f1=c["pairwise"]["f1"]
            )
            flagged = found["flagged_accounts"]
            for who in ("team", "community"):
                mine = [a for a, s in source.items() if s == who]
                say(f"  recall on {who} rings", recall=sum(a in flagged for a in mine) / len(mine))
            print(f"  {c['n']} clusters, {time.monotonic() - began:.0f} s", flush=True)
        if "held-out" in steps:
            began = time.monotonic()
            model = offline.train(
                [events], everyone, folder / "data", "hop", policy, lambda _: None, silent
            )
            r = model.about["held_out_operators"]
            recall = r["recall_at_fpr"]
            say(
                "LightGBM, rings held out", auc=r["auc"], pr_auc=r["pr_auc"],
                r_at_1pct=recall["0.01"], r_at_01pct=recall["0.001"], ece=r["ece"],
            )  # fmt: skip
            print(f"  {time.monotonic() - began:.0f} s", flush=True)
        if "community" in steps:
            half = np.random.default_rng(0).random(len(accounts)) < 0.5
            learn = [
                r
                for r, h in zip(accounts, half, strict=True)
                if r["label_source"] == "team" or (r["label"] == "0" and h)
            ]
            test = [
                r
                for r, h in zip(accounts, half, strict=True)
                if r["label_source"] == "community" or (r["label"] == "0" and not h)
            ]
            write_truth(learn, folder / "team.csv")
            write_truth(test, folder / "community.csv")
            offline.train(
                [events],
                folder / "team.csv",
                folder / "data",
                "team",
                policy,
                lambda _: None,
                silent,
            )
            found = offline.evaluate(
                [events], folder / "community.csv", folder / "data", "team", policy, silent
            )
            account_figures("trained on team, tested on community rings", found)
        if "http" in steps:
            over_http(folder, events, policy, accounts)


def over_http(folder: Path, events: Path, policy: Path, accounts: list[dict[str, str]]) -> None:
    """Arrival order over HTTP, clusters alone; an account is flagged when the service says review."""
    with Served(folder / "served", 0, "--policy", str(policy), "--model", "none") as url:
        found = stream(url, events, silent, look_every=20 * 24 * 3600 * 1000)
        with httpx.Client(base_url=url, timeout=60) as client:
            standing = {row["account_id"] for row in acted_on(client, "review")}
    y = np.array([row["label"] == "1" for row in accounts])
    for title, flagged in (("at the end", standing), ("ever, as it streamed", set(found.alert_ms))):
        f = np.array([f"a{row['account']}" in flagged for row in accounts], float)
        rates = metrics.rates_at(y, f, 0.5)
        say(
            f"over HTTP, {title}",
            precision=rates["precision"],
            recall=rates["recall"],
            fpr=rates["fpr"],
        )
    print(f"  {found.events / found.seconds:,.0f} events/s answered", flush=True)


if __name__ == "__main__":
    main()
