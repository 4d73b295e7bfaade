"""Retrieval quality on public data: the recipes through the real journey, beside peers and published goals."""
