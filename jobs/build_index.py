"""Stage 4 as a Ray job: the catalogue to a release with the gate's verdict.

ray job submit --working-dir . -- python jobs/build_index.py CONFIG [--set a.b=c] [--force] [--json]
"""

from raycl.cli import job

if __name__ == "__main__":
    job("index")
