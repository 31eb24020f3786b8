"""What `run` and `Guest.start` accept: a coroutine."""

from __future__ import annotations

import asyncio
import inspect


def check_coroutine(attempted: str, main: object) -> None:
    """Check the argument ``main`` of a function.

    Raises:
        TypeError: It is no coroutine; the message starts with ``attempted``.
    """
    if asyncio.iscoroutine(main):
        return
    if inspect.iscoroutinefunction(main):
        hint = "; call the function"
    elif inspect.isasyncgen(main):
        hint = "; an async generator has no result, so iterate over it in a coroutine"
    else:
        hint = ""
    raise TypeError(f"{attempted}: main must be a coroutine, not {main!r}{hint}")
