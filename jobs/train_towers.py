"""Stage 2 as a Ray job: pairs to towers.

ray job submit --working-dir . -- python jobs/train_towers.py CONFIG [--set a.b=c] [--force] [--json]
"""

from raycl.cli import job

if __name__ == "__main__":
    job("train")
