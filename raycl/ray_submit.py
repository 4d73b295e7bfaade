"""A job sent to a cluster's job API, and its output until it ends."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from raycl.errors import RayclError

_POLL_S = 1.0


def send(
    address: str, folder: Path, command: Sequence[str], submission_id: str, environment: Mapping[str, str]
) -> JobSubmissionClient:
    """Submit ``command``, to be run in a copy of ``folder``.

    Raises RayclError where the cluster does not answer, or refuses the token.
    """
    try:
        client = JobSubmissionClient(address)
        client.submit_job(
            entrypoint=shlex.join(command),
            submission_id=submission_id,
            runtime_env={"working_dir": str(folder), "env_vars": dict(environment)},
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        said = " ".join(str(error).split())
        raise RayclError(f"the cluster at {address} does not take the job: {said}") from error
    return client


def follow(client: JobSubmissionClient, submission_id: str) -> int:
    """Print what the job says until it ends, and return its exit code; 1 where it was stopped or never began."""

    async def tail() -> None:
        async for lines in client.tail_job_logs(submission_id):
            sys.stdout.write(lines)
            sys.stdout.flush()

    asyncio.run(tail())
    while not (status := client.get_job_status(submission_id)).is_terminal():
        time.sleep(_POLL_S)
    info = client.get_job_info(submission_id)
    if status is JobStatus.SUCCEEDED:
        return 0
    sys.stderr.write(f"job {submission_id} {status.lower()}: {info.message}\n")
    return info.driver_exit_code or 1
