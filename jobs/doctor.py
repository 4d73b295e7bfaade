"""Whether the cluster is fit for a run, as a Ray job: versions, store, GPUs, memory, disk, token.

ray job submit --working-dir . -- python jobs/doctor.py CONFIG [--set a.b=c] [--json]
"""

from raycl.cli import job

if __name__ == "__main__":
    job("doctor")
