"""Score, decide, link, cluster, explain, train, evaluate."""
