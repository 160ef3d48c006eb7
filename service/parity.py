"""Parity: what was served, recomputed from the log by the same fold, and the largest difference.

There is one path from events to vectors, so the difference is 0. It is a number to look at all the
same: it would tell of a log that lost something, of a snapshot that is not what it says, of a fold
that depends on how its input was cut into batches.
"""

import msgspec
import numpy as np

from detector.engine import Engine
from features.rows import F64
from service.shoal import Shoal

ACCOUNTS_MAX = 20_000  # accounts whose vectors as of now are compared, evenly spread


class Parity(msgspec.Struct, frozen=True):
    """`events` were folded again and `vectors` compared; of their values `differing` are not the
    same, by `largest_difference` at most (where both are known), in these `features`."""

    events: int
    vectors: int
    differing: int
    largest_difference: float
    features: list[str]


def parity(shoal: Shoal) -> Parity:
    """Compare the vectors of the last decisions, and those of the accounts as of now.

    Takes as long as a replay of the log; the service goes on meanwhile. Where several instances
    share a window, what the others take in during the comparison counts as a difference.
    """
    with shoal.lock:
        window, served = shoal.engine.window, dict(shoal.served)
        names = window.accounts()[0]
        names = names[:: len(names) // ACCOUNTS_MAX + 1]
        at = window.watermark
        now = window.ask(names, at)
        last = shoal.entries.last
    again = Engine(shoal.policy, shoal.secret, catalog=shoal.engine.catalog)
    pairs: list[tuple[F64, F64]] = []
    events = 0
    for entry in shoal.history.read():
        if entry.kind == "events":
            folded = again.window.fold(again.sealer.read(entry.events).rows)
            if events in served:
                pairs.append((served[events], folded.vectors))
            events += len(entry.events)
        if entry.id == last:
            break
    pairs.append((now, again.window.ask(names, at)))
    there, here = (np.concatenate(side) for side in zip(*pairs, strict=True))
    same = (there == here) | (np.isnan(there) & np.isnan(here))
    apart = np.abs(there - here)[~same]
    where = [
        name
        for name, told in zip(again.catalog.names, same.all(0).tolist(), strict=True)
        if not told
    ]
    return Parity(
        events, len(there), int((~same).sum()), float(np.nanmax(apart, initial=0.0)), where
    )
