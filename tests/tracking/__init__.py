"""The curves of a run: what counts after kills, and what other tools read of it."""
