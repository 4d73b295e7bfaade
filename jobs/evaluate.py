"""Stage 3 as a Ray job: metrics of the towers on the full catalogue.

ray job submit --working-dir . -- python jobs/evaluate.py CONFIG [--set a.b=c] [--force] [--json]
"""

from raycl.cli import job

if __name__ == "__main__":
    job("evaluate")
