"""Who may ask, and how often: bearer tokens and a rate for each caller."""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from raycl.config_serving import GuardConfig
from raycl.errors import ConfigError

_MOST_CALLERS = 10_000


class Tokens:
    """The tokens that open the service; without any it is open to all."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        # Digests are of one length, so that a comparison does not tell how long a token is.
        self._digests = tuple(_digest(token) for token in tokens)

    @classmethod
    def of(cls, config: GuardConfig, environment: Mapping[str, str]) -> Tokens:
        """Those that the environment holds; ConfigError where ``token_env`` is set and it holds none."""
        if config.token_env is None:
            return cls(())
        tokens = tuple(part.strip() for part in environment.get(config.token_env, "").split(",") if part.strip())
        if not tokens:
            raise ConfigError(
                f"serving.guard.token_env={config.token_env}: that variable holds no token on this replica; set it, or"
                f" set token_env to null to leave the service open"
            )
        return cls(tokens)

    def caller(self, authorization: str | None) -> str | None:
        """A name for the caller whose ``Authorization`` header this is; None for one who may not ask.

        Every token is compared in constant time, and all of them whichever fits. Where all may ask it is empty.
        """
        if not self._digests:
            return ""
        scheme, _, token = (authorization or "").partition(" ")
        given = _digest(token.strip()) if scheme.lower() == "bearer" else b""
        fits = [hmac.compare_digest(given, digest) for digest in self._digests]
        return given.hex() if any(fits) else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


class Rate:
    """A bucket of tokens for each caller: ``burst`` at once, and ``requests_per_s`` from then on."""

    def __init__(self, config: GuardConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = config.requests_per_s, config.burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str) -> float:
        """0 for a request that may pass, and is counted; else how many seconds until one may.

        The callers heard of least recently are forgotten beyond 10,000, and start anew.
        """
        if self._per_s is None:
            return 0.0
        now = self._clock()
        left, then = self._buckets.pop(caller, (float(self._burst), now))
        left = min(left + (now - then) * self._per_s, float(self._burst))
        wait = 0.0 if left >= 1.0 else (1.0 - left) / self._per_s
        self._buckets[caller] = (left - 1.0 if wait == 0.0 else left, now)
        while len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
        return wait


def whole_seconds(wait_s: float) -> str:
    """As ``Retry-After`` has it: at least 1."""
    return str(max(1, math.ceil(wait_s)))
