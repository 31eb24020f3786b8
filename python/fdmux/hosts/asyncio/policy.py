"""install(): our loop for programs that give no way to pass a loop factory.

Python 3.14 deprecates event loop policies, and 3.16 removes them. Where a program takes
a loop factory, pass `EventLoop` instead.
"""

from __future__ import annotations

import asyncio
import sys
import warnings

from fdmux.hosts.asyncio.loop import EventLoop

ARE_POLICIES_DEPRECATED = sys.version_info >= (3, 14)


class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """The policy of asyncio, whose new loops are `EventLoop`.

    For `asyncio.set_event_loop_policy`; `install` does that. `asyncio.run`,
    `asyncio.Runner` and `asyncio.new_event_loop` ask it for a loop. Which loop belongs
    to which thread, and how child processes are watched, is as in asyncio.
    """

    def new_event_loop(self) -> EventLoop:
        """Return a new `EventLoop`."""
        return EventLoop()


def install() -> None:
    """Make every new loop of asyncio in this process an `EventLoop`.

    Call it before the first loop is made, at the start of the program. Loops that exist
    stay as they are. ``asyncio.set_event_loop_policy(None)`` undoes it.

    Warns:
        DeprecationWarning: On Python 3.14 and later.

    Threads: Any; it changes all of them.
    """
    with warnings.catch_warnings():
        if ARE_POLICIES_DEPRECATED:
            # Ours, below, names the line of the caller; asyncio's would name this one.
            warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(EventLoopPolicy())
    if ARE_POLICIES_DEPRECATED:
        warnings.warn(
            "fdmux.hosts.asyncio.install(): event loop policies are deprecated since "
            "Python 3.14; pass loop_factory=fdmux.hosts.asyncio.EventLoop to "
            "asyncio.run or asyncio.Runner",
            DeprecationWarning,
            stacklevel=2,
        )
