"""Backoff: when to try again to reach a server that is away.

Its one rule: no clock. The caller passes the time, so tests need not wait.
"""

from __future__ import annotations

import math
import random

# Seconds: the first delay at most, and the longest. A server that restarts is back
# within some tenths; one that is away longer is asked about once a second.
FIRST = 0.05
LONGEST = 1.0


class Backoff:
    """Delays that double, each shortened at random by up to a half.

    So clients that have lost their server at the same time do not come back at the
    same time.

    Args:
        limit: How long the server may be away before it counts as lost.

    Attributes:
        not_before: When the next attempt may start.

    Units:   seconds, on whatever clock the caller passes as ``now``
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._away_since = math.inf
        self._count = 0
        self.not_before = -math.inf

    def failed(self, now: float) -> bool:
        """Note that an attempt has failed; return whether to try again.

        Attempts that have begun together, and fail together, count as one.
        """
        if now < self.not_before:
            return self.not_before - self._away_since <= self._limit
        self._away_since = min(self._away_since, now)
        longest = min(LONGEST, FIRST * 2 ** min(self._count, 10))
        self._count += 1
        self.not_before = now + longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return self.not_before - self._away_since <= self._limit

    def succeeded(self) -> None:
        """Note that the server is there."""
        self._away_since = math.inf
        self._count = 0
        self.not_before = -math.inf
