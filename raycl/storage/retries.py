"""Again after a pause: operations on a store that is overloaded, or out of reach for a while."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from raycl.errors import StoreUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 60.0
"""Seconds after which an operation is not begun again. The libraries below try for some seconds of their own."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
_CODES = "SlowDown|ServiceUnavailable|InternalError|RequestTimeout|Throttling|ConditionalRequestConflict"
_PASSES = re.compile(
    # Arrow has but a message. INTERNAL_FAILURE is a refusal whose text was longer than the bytes that were asked for.
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING|REQUEST_TIMEOUT"
    r"|[A-Z_]+ \(HTTP status (429|5\d\d)\))"
)


def patiently(uri: str, operation: Callable[[], T]) -> T:
    """What ``operation`` returns; where it fails for a reason that passes, it is done again.

    So it must be one that may be done twice. Pauses are drawn evenly between nothing and a bound that doubles, from
    0.05 to 5 s, so that many processes do not come back at once. StoreUnavailable, naming ``uri``, the tries and the
    last cause, where it still fails ``PATIENCE_S`` seconds after the first try; any other error is raised at once.
    """
    began, bound, tries = time.monotonic(), _FIRST_PAUSE_S, 0
    while True:
        tries += 1
        try:
            return operation()
        except OSError as error:
            if not passes(error):
                raise
            waited_s = time.monotonic() - began
            if waited_s >= PATIENCE_S:
                raise unavailable(uri, error, f"in {tries} tries over {waited_s:.0f} s") from error
            log.debug("%s: again after try %d: %s", uri, tries, error)
        time.sleep(random.uniform(0.0, bound))
        bound = min(2 * bound, _LONGEST_PAUSE_S)


def unavailable(uri: str, error: BaseException, tried: str) -> StoreUnavailable:
    """The error of an operation on ``uri`` that ends here for a reason that passes."""
    cause = str(error).partition("\n")[0] or type(error).__name__
    return StoreUnavailable(
        f"{uri} is unavailable: failed {tried} (last: {cause}); see whether the store is overloaded or out of"
        f" reach, and run again; finished work is kept"
    )


def passes(error: OSError) -> bool:
    """Whether the same request may fare better later: the server refused for now, or the connection was lost."""
    from botocore.exceptions import HTTPClientError  # type: ignore[import-untyped]

    if isinstance(error, StoreUnavailable):
        return False
    if isinstance(error, ConnectionError | TimeoutError) or _PASSES.search(str(error)):
        return True
    cause = error.__cause__
    if isinstance(cause, HTTPClientError):
        return True
    response = getattr(cause, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status == 429 or status >= 500 or bool(re.search(_CODES, response.get("Error", {}).get("Code", "")))
