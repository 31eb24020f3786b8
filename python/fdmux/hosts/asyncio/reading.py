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

    from fdmux.hosts.asyncio.private import SelectorEventLoop

logger = logging.getLogger("asyncio")


class ReadingTransport(WritingTransport):
    """The reading and writing of a transport; transport.py has the rest.

    A protocol's `data_received` is looked up when the connection is made, and when
    `set_protocol` is called, not for each message.
    """

    __slots__ = ("_is_begun", "_protocol_connected")

    if TYPE_CHECKING:

        def _fatal_error(self, exc: BaseException, message: str = ...) -> None: ...
        def close(self) -> None:
            """Close the transport; see transport.py."""

    def __init__(
        self,
        loop: SelectorEventLoop,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, object] | None,
    ) -> None:
        super().__init__(loop, extra)
        self._is_begun = False
        self._context = contextvars.copy_context()
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
        self._on_data = None
        if self._closing or not self._is_begun:
            return
        protocol = self._protocol
        is_buffered = isinstance(protocol, asyncio.BufferedProtocol)
        if is_buffered is not self._is_buffered:
            self._is_buffered = is_buffered
        self._on_data = protocol if is_buffered else self._taker(protocol)

    def _taker(self, protocol: asyncio.BaseProtocol) -> Callable[[bytes], object]:
        take: Callable[[bytes], object] | None
        take = getattr(protocol, "data_received", None)
        if take is None:
            return lambda data: cast("asyncio.Protocol", protocol).data_received(data)
        return self._timed(take) if self._loop.get_debug() else take

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

    def _log_debug(self, text: str) -> None:
        """Log that reading was paused or resumed, for C."""
        logger.debug(text, self)
