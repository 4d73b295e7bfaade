"""``raycl train`` as a program: CASE LOG WORKSPACE CORES. Pairs/s are what it reports: reading and saving count."""

from __future__ import annotations

import json
import sys

from benchmarks.train import case
from raycl import environment, journey


def main() -> None:
    """Train, and print pairs/s of each epoch and the mean losses."""
    environment.prepare()
    _, config = case.arguments()
    journey.pairs(config)
    facts = journey.train(config, lambda _: None, force=True).version.manifest.facts
    sys.stdout.write(json.dumps({name: facts[name] for name in ("pairs_per_s", "losses")}) + "\n")


if __name__ == "__main__":
    main()
