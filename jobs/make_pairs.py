"""Stage 1 as a Ray job: logs to contrastive pairs.

ray job submit --working-dir . -- python jobs/make_pairs.py CONFIG [--set a.b=c] [--force] [--json]
"""

from raycl.cli import job

if __name__ == "__main__":
    job("pairs")
