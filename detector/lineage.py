"""Lineage: the same cluster keeps its name from sweep to sweep.

A cluster's members change as accounts join, are replaced, or fall silent. A new cluster inherits the
name of the earlier one that most of its members came from, unless a larger heir takes it; what is
left is a birth. A merge keeps the larger name, a split leaves it with the larger part.
"""

from detector.clusters import Clusters
from features.rows import U64


class Lineage:
    """Names of clusters across sweeps; `past` is each owner's last cluster name."""

    def __init__(self) -> None:
        self.past: dict[int, str] = {}

    def follow(self, owners: U64, clusters: Clusters) -> list[str]:
        """The names of this sweep's clusters, in their order; remembers them for the next."""
        claims: list[tuple[int, int, str]] = []
        for c in range(len(clusters)):
            came: dict[str, int] = {}
            for owner in owners[clusters.members(c)].tolist():
                name = self.past.get(owner)
                if name is not None:
                    came[name] = came.get(name, 0) + 1
            claims += [(-n, c, name) for name, n in came.items()]
        names: dict[int, str] = {}
        taken: set[str] = set()
        for _, c, name in sorted(claims):
            if c not in names and name not in taken:
                names[c] = name
                taken.add(name)
        told = []
        for c in range(len(clusters)):
            name = names.get(c) or f"c{int(clusters.id[c]):016x}"
            # the same members may have been named once before, and others carry that name now
            while name in taken and c not in names:
                name += "x"
            taken.add(name)
            told.append(name)
            for owner in owners[clusters.members(c)].tolist():
                self.past[owner] = name
        return told
