"""The arguments of a `SelectorEventLoop`: checked at the call that passes them."""

from __future__ import annotations

import math
import operator

# poll(2) and epoll_wait(2) take an int of milliseconds, at most 24.8 days. A longer
# wait ends early, as an iteration with nothing to do, and `run` waits again.
WAIT_MAX = 24 * 24 * 3600.0


def check_callable(given: object, attempted: str, name: str) -> None:
    """Refuse what cannot be called, before anything is registered.

    Raises:
        TypeError: ``given`` is not callable.
    """
    if not callable(given):
        raise TypeError(f"{attempted}: {name} must be callable, not {given!r}")


def normalise_timeout(timeout: float | None) -> float | None:
    """Turn what users pass into what ``select`` takes.

    Negative means 0; ``None``, ``inf`` and anything above `WAIT_MAX` mean no limit.

    Raises:
        ValueError: ``timeout`` is NaN.
        TypeError: ``timeout`` is not a real number.
    """
    if timeout is None:
        return None
    try:
        is_nan = math.isnan(timeout)
    except TypeError:
        raise TypeError(
            "wait for events: timeout must be a number of seconds or None, "
            f"not {timeout!r}"
        ) from None
    if is_nan:
        raise ValueError("wait for events: the timeout is NaN")
    return None if timeout > WAIT_MAX else max(float(timeout), 0.0)


def iteration_limit(max_iterations: int | None) -> float:
    """Return how many iterations `SelectorEventLoop.run` may make.

    Raises:
        ValueError: ``max_iterations`` is negative.
        TypeError: It is not an integer.
    """
    if max_iterations is None:
        return math.inf
    try:
        left = operator.index(max_iterations)
    except TypeError:
        raise TypeError(
            "run the loop: max_iterations must be an integer or None, "
            f"not {max_iterations!r}"
        ) from None
    if left < 0:
        raise ValueError(f"run the loop: max_iterations is {max_iterations}")
    return left
