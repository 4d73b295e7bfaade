"""USERS ITEMS DIM K CORES: what anybody would write, a matrix product and ``torch.topk`` for a block of users.

A block is as many users as have their scores in 256 MB.
"""

from __future__ import annotations

import sys
import time

import torch

from benchmarks.evaluate import job

_CELLS = 1 << 26


def main() -> None:
    """Answer all users."""
    size = job.Size.from_arguments()
    torch.set_num_threads(int(sys.argv[5]))
    users, items = size.vectors()
    began = time.perf_counter()
    step = max(1, min(job.USERS_PER_BLOCK, _CELLS // size.items))
    parts = []
    for start in range(0, size.users, step):
        scores, rows = (users[start : start + step] @ items.T).topk(size.k, dim=1)
        parts.append(job.checksum(start, rows, scores))
    job.say(began, parts)


if __name__ == "__main__":
    main()
