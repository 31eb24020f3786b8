"""The reading side of a transport: who is told what C has received, and what is held.

Its one rule: who takes the data is decided when something changes, never for each
message. `StreamBatch.tell` calls that taker directly.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, cast

from fdmux._ffi import lib
from fdmux.hosts.asyncio_streams import ignore_data
from fdmux.hosts.asyncio_writing import WritingTransport

if TYPE_CHECKING:
    from fdmux.hosts.asyncio_private import SelectorEventLoop
    from fdmux.hosts.asyncio_streams import DataCallback, StreamBatch

logger = logging.getLogger("asyncio")


class ReadingTransport(WritingTransport):
    """A transport as far as it reads and writes; asyncio_transport.py has the whole.

    A protocol's `data_received` is looked up when the connection is made, and when
    `set_protocol` is called, not for each message.
    """

    __slots__ = (
        "_context",
        "_held",
        "_is_begun",
        "_paused",
        "_protocol",
        "_protocol_connected",
    )

    if TYPE_CHECKING:

        def _fatal_error(self, exc: BaseException, message: str = ...) -> None: ...

    def __init__(
        self,
        loop: SelectorEventLoop,
        streams: StreamBatch,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, object] | None,
    ) -> None:
        super().__init__(loop, streams, extra)
        self._is_begun = False
        self._context = contextvars.copy_context()
        self._paused = False
        # What came while paused; None stands for the end.
        self._held: list[bytes | None] = []
        self.set_protocol(protocol)

    # The protocol ------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol take what comes from now on."""
        self._protocol = protocol
        self._protocol_connected = True
        self._bind()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return whoever takes what comes."""
        return self._protocol

    def _bind(self) -> None:
        """Say who takes the data that C has received, as things stand now."""
        if not self._token:
            return
        self._streams.runs[self._slot] = self._context.run
        self._streams.takers[self._slot] = self._taker()

    def _taker(self) -> DataCallback:
        if self._closing or not self._is_begun:
            return ignore_data
        if self._paused or self._held:
            return self._held.append
        if isinstance(self._protocol, asyncio.BufferedProtocol):
            return self._fill
        return cast("asyncio.Protocol", self._protocol).data_received

    # Data --------------------------------------------------------------------------

    def _fill(self, data: bytes) -> None:
        """Hand data to a `BufferedProtocol`, as much at a time as it has room for."""
        view = memoryview(data)
        while view:
            protocol = self._protocol
            if self._closing:
                return
            if self._paused or not isinstance(protocol, asyncio.BufferedProtocol):
                self._keep(bytes(view))
                return
            count = self._copy(protocol, view)
            if not count:
                return
            view = view[count:]

    def _copy(self, protocol: asyncio.BufferedProtocol, view: memoryview) -> int:
        """Copy into the protocol's buffer; return how much, 0 if that ended it."""
        what = "get_buffer"
        try:
            with memoryview(protocol.get_buffer(-1)).cast("B") as buffer:
                count = min(len(buffer), len(view))
                buffer[:count] = view[:count]
            if not count:
                raise RuntimeError("get_buffer() returned an empty buffer")  # noqa: TRY301 - its own error
            what = "buffer_updated"
            protocol.buffer_updated(count)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - ends this connection
            self._fatal_error(error, f"Fatal error: protocol.{what}() call failed.")
            return 0
        return count

    def _keep(self, data: bytes | None) -> None:
        """Hold what may not be told now; it is when reading goes on."""
        self._held.append(data)
        self._bind()
        if not self._paused:
            self._loop.call_soon(self._tell_held, context=self._context)

    def _tell_held(self) -> None:
        """Tell what was held, in its order, for as long as reading goes on."""
        while self._held and self.is_reading():
            data = self._held.pop(0)
            if data is None:
                self._tell_end()
            elif isinstance(self._protocol, asyncio.BufferedProtocol):
                self._tell_one(self._fill, data)
            else:
                protocol = cast("asyncio.Protocol", self._protocol)
                self._tell_one(protocol.data_received, data)
        self._bind()

    def _tell_one(self, take: DataCallback, data: bytes) -> None:
        try:
            take(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - ends this connection
            self.callback_failed(error)

    def callback_failed(self, error: BaseException) -> None:
        """End the connection as `data_received` raised; called by the batch."""
        self._fatal_error(error, "Fatal error: protocol.data_received() call failed.")

    def _take_end(self) -> None:
        """Tell that the peer has ended its side, when it is its turn."""
        if self._paused or self._held:
            self._keep(None)
        elif not self._closing:
            self._tell_end()

    def _tell_end(self) -> None:
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
        """Whether data may come."""
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        """Let no data come until `resume_reading`. Idempotent."""
        if not self.is_reading():
            return
        self._paused = True
        if self._token:
            lib.fdmux_stream_pause(self._streams.c_loop, self._token)
            self._bind()
        if self._loop.get_debug():
            logger.debug("%r pauses reading", self)

    def resume_reading(self) -> None:
        """Undo `pause_reading`. Idempotent."""
        if self._closing or not self._paused:
            return
        self._paused = False
        # As asyncio does, which makes a new handle here.
        self._context = contextvars.copy_context()
        if self._token:
            lib.fdmux_stream_resume(self._streams.c_loop, self._token)
            self._bind()
        if self._held:
            self._loop.call_soon(self._tell_held)
        if self._loop.get_debug():
            logger.debug("%r resumes reading", self)
