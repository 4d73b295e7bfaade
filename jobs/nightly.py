"""The whole night as one Ray job: pairs, towers, evaluation, index, gate, publication, and a page of what changed.

ray job submit --working-dir . -- python jobs/nightly.py CONFIG [--set a.b=c] [--force] [--dry-run] [--json]
"""

from raycl.cli import job

if __name__ == "__main__":
    job("nightly")
