"""The end of stage 4 as a Ray job: make the release current, if the gate let it pass.

ray job submit --working-dir . -- python jobs/publish.py CONFIG [--set a.b=c] [--force] [--json]
"""

from raycl.cli import job

if __name__ == "__main__":
    job("publish")
