"""Observing `EventLoop`: what its transports and handles do, and what it accepts.

C measures (csrc/python/aio_observed.c, probe_calls.c). Debug mode is that of asyncio,
whether the loop is observed or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fdmux._native import LoopClosed
from fdmux.hosts.asyncio.private import HAS_ITERATION
from fdmux.observing import INTERVAL, SLOW, Observers

if TYPE_CHECKING:
    from fdmux._delivery import Delivery, LoopBase, Probe
    from fdmux.checks import Seconds
    from fdmux.hosts.asyncio.private import SelectorEventLoop
    from fdmux.observing import Measured, Observation

else:
    SelectorEventLoop = object

# What asyncio tells its exception handler when accept(2) finds no descriptors.
SHORTAGE = "socket.accept() out of system resource"


class MeasuredEventLoop:
    """An `EventLoop`, as its `Observers` need it."""

    def __init__(self, loop: SelectorEventLoop) -> None:
        self._loop = loop

    def attach(self, probe: Probe | None) -> None:
        """Measure from now on, or no longer."""
        cast("LoopBase", self._loop)._observe(probe)  # noqa: SLF001 - ours
        streams = self._loop._delivery  # noqa: SLF001 - ours
        if streams is not None:
            streams.observe(probe)

    @staticmethod
    def refused() -> int:
        """Return 0: servers of asyncio have no limit of connections."""
        return 0


class ObservedLoop(SelectorEventLoop):
    """The methods of `EventLoop` that let a program see inside."""

    _observers: Observers | None = None

    def observe(
        self, observer: object, *, slow: Seconds = SLOW, interval: Seconds = INTERVAL
    ) -> Observation:
        """Measure from now on what the loop does, and tell ``observer``.

        As `fdmux.SelectorEventLoop.observe`. Servers of asyncio refuse no client.

        Raises:
            TypeError, ValueError: An argument is wrong.
            LoopClosed: After `close`.
            NotImplementedError: The loop of this interpreter is asyncio's own.
        Threads: Loop thread only.
        """
        if self.is_closed():
            raise LoopClosed("observe the loop: it is closed")
        if not HAS_ITERATION:
            raise NotImplementedError(
                "observe the loop: asyncio itself runs it in this interpreter, so C "
                "cannot measure it"
            )
        return self._make_observers().observe(observer, slow, interval)

    def call_exception_handler(self, context: dict[str, object]) -> None:
        """Report an error, as in asyncio; count those of `accept`."""
        if self._observers is not None and context.get("message") == SHORTAGE:
            self._observers.probe.shortages += 1
        super().call_exception_handler(context)

    def _make_observers(self) -> Observers:
        if self._observers is None:
            measured: Measured = MeasuredEventLoop(self)
            self._observers = Observers(measured)
        return self._observers

    def _note_accepted(self, server: object) -> None:
        """Count a client, if ``server`` is not None and the loop is observed."""
        if self._observers is not None and server is not None:
            self._observers.probe.accepted += 1


def observe_streams(loop: SelectorEventLoop, streams: Delivery) -> None:
    """Measure the streams of ``loop`` too, if it is observed."""
    observers = loop._observers if isinstance(loop, ObservedLoop) else None  # noqa: SLF001 - ours
    if observers is not None and observers.is_active:
        streams.observe(observers.probe)
