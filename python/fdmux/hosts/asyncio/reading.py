"""The reading side of a transport: which protocol C calls, and in which context.

The function that takes the data is looked up when the protocol or the state of the
transport changes, not for each message.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, cast

from fdmux.hosts.asyncio.writing import WritingTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux._delivery import Delivery
    from fdmux.hosts.asyncio.private import SelectorEventLoop

logger = logging.getLogger("asyncio")


class ReadingTransport(WritingTransport):
    """The reading and writing of a transport; transport.py has the rest.

    A protocol's `data_received` is looked up when the connection is made, and when
    `set_protocol` is called, not for each message.
    """

    __slots__ = (
        "_context",
        "_is_begun",
        "_paused",
        "_protocol",
        "_protocol_connected",
    )

    if TYPE_CHECKING:

        def _fatal_error(self, exc: BaseException, message: str = ...) -> None: ...
        def close(self) -> None:
            """Close the transport; see transport.py."""

    def __init__(
        self,
        loop: SelectorEventLoop,
        streams: Delivery,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, object] | None,
    ) -> None:
        super().__init__(loop, streams, extra)
        self._is_begun = False
        self._context = contextvars.copy_context()
        self._paused = False
        self.set_protocol(protocol)

    # The protocol ------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give data and events to another protocol from now on."""
        self._protocol = protocol
        self._protocol_connected = True
        self._bind()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that gets data and events."""
        return self._protocol

    def _bind(self) -> None:
        """Tell C which function takes the data in the present state."""
        core = self._core
        core._run = self._context.run  # noqa: SLF001 - ours
        core._on_data = None  # noqa: SLF001 - ours
        if self._closing or not self._is_begun:
            return
        protocol = self._protocol
        core._is_buffered = isinstance(protocol, asyncio.BufferedProtocol)  # noqa: SLF001 - ours
        core._on_data = protocol if core._is_buffered else self._taker(protocol)  # noqa: SLF001 - ours

    def _taker(self, protocol: asyncio.BaseProtocol) -> Callable[[bytes], object]:
        take = getattr(protocol, "data_received", None)
        if take is None:
            return lambda data: cast("asyncio.Protocol", protocol).data_received(data)
        if self._loop.get_debug():
            return self._timed(cast("Callable[[bytes], object]", take))
        return cast("Callable[[bytes], object]", take)

    def _timed(self, take: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """Report slow calls, as asyncio does in debug mode."""
        loop = self._loop

        def take_and_time(data: bytes) -> None:
            begun = loop.time()
            take(data)
            duration = loop.time() - begun
            if duration >= loop.slow_callback_duration:
                logger.warning("Executing %r took %.3f seconds", take, duration)

        return take_and_time

    def _callback_failed(self, error: BaseException, what: str) -> None:
        """End the connection because the protocol raised ``error``; called from C."""
        self._fatal_error(error, f"Fatal error: protocol.{what}() call failed.")

    def _take_end(self) -> None:
        """Call ``eof_received``, as the peer has shut down its writing side."""
        if self._closing:
            return
        if self._loop.get_debug():
            logger.debug("%r received EOF", self)
        try:
            keep_open = cast("asyncio.Protocol", self._protocol).eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - ends this connection
            self._fatal_error(
                error, "Fatal error: protocol.eof_received() call failed."
            )
            return
        if not keep_open:
            self.close()

    # Pausing -----------------------------------------------------------------------

    def is_reading(self) -> bool:
        """Whether the transport is receiving: neither paused nor closing."""
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        """Receive nothing until `resume_reading`. Idempotent.

        Data that has not been received stays in the kernel.
        """
        if not self.is_reading():
            return
        self._paused = True
        self._core.pause_reading()
        if self._loop.get_debug():
            logger.debug("%r pauses reading", self)

    def resume_reading(self) -> None:
        """Undo `pause_reading`. Idempotent."""
        if self._closing or not self._paused:
            return
        self._paused = False
        if self._loop.is_closed():
            raise RuntimeError("Event loop is closed")
        # As in asyncio, which makes a new handle here.
        self._context = contextvars.copy_context()
        self._bind()
        self._core.resume_reading()
        if self._loop.get_debug():
            logger.debug("%r resumes reading", self)
