"""Streams that connect: to an address, or to a name, which is resolved first.

Its one rule: a stream that is not connected in time is aborted with a `TimeoutError`,
whatever it is waiting for.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import threading
from math import inf
from typing import TYPE_CHECKING, cast

from fdmux.checks import check_tls_context
from fdmux.loop.event_loop import delivery_of, iteration_of
from fdmux.streams.checks import check_threads
from fdmux.streams.seek import Seek
from fdmux.streams.stream import CLOSED, CONNECTED, Stream, taker_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from ssl import SSLContext

    from fdmux._delivery import Buffer
    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.loop.timers import TimerHandle
    from fdmux.streams.limits import StreamLimits
    from fdmux.streams.stream import StreamHandler
    from fdmux.streams.tls import StreamTls, TlsOptions

# Of `Stream._keep`.
TIMER = "timer"  # what ends an attempt to connect
PENDING = "pending"  # what a stream without a socket keeps


@dataclasses.dataclass
class Pending:
    """What a stream keeps until it has a socket.

    Attributes:
        if_tls: How it is encrypted from the beginning, or None.
        seek: Finds the socket.
        calls: What the program has asked for, in order.
        size: Bytes to be written.
        is_shut: `shutdown` was called.
        is_over: There will be no socket.
        is_finished: `on_close` was called.
    """

    loop: SelectorEventLoop
    limits: StreamLimits
    if_tls: tuple[StreamTls, TlsOptions] | None
    seek: Seek | None = None
    calls: list[Callable[[], object]] = dataclasses.field(default_factory=list)
    size: int = 0
    is_shut: bool = False
    is_over: bool = False
    is_finished: bool = False


class ConnectingStream(Stream):
    """A stream that connects, with a timer that ends the attempt.

    Args:
        sock: Connects already.
        attempt: What is attempted, for messages: ``"connect to ('10.0.0.1', 80)"``.
        seconds: The longest time until it is connected; ``inf``: no limit.
    """

    __slots__ = ()

    def __init__(
        self,
        loop: SelectorEventLoop,
        handler: StreamHandler,
        sock: socket.socket,
        limits: StreamLimits,
        attempt: str,
        seconds: float,
    ) -> None:
        self._attach(delivery_of(loop), handler, taker_of(handler))
        self._keep("attempt", attempt)
        self._take_over("connect", sock, limits)
        self._limit_time(loop, seconds)

    @property
    def _failures(self) -> str:
        """What has failed so far, for a message."""
        return ""

    def _limit_time(self, loop: SelectorEventLoop, seconds: float) -> None:
        if seconds != inf:
            self._keep(TIMER, loop.call_later(seconds, self._expire, seconds))

    def begin_with(self, tls: StreamTls, options: TlsOptions) -> None:
        """Start TLS once connected; `on_close` gets the error if that cannot be."""
        try:
            self._begin_tls(tls, options)
        except (OSError, MemoryError) as error:
            self.abort(error)
        except BaseException:  # what stays open would be plaintext
            self.abort()
            raise

    def _expire(self, seconds: float) -> None:
        text = f"{self._kept('attempt')} timed out after {seconds:g} s{self._failures}"
        self.abort(TimeoutError(errno.ETIMEDOUT, text))

    def _event(self, kind: int, detail: int) -> None:
        timer = self._kept(TIMER)
        if timer is not None and kind in (CONNECTED, CLOSED):
            cast("TimerHandle", timer).cancel()
            self._keep(TIMER, None)
        super()._event(kind, detail)


class SeekingStream(ConnectingStream):
    """A stream that connects to a name; until it has a socket, it keeps its calls.

    Then it becomes a `ConnectingStream`, so its methods are those of C.

    Args:
        seconds: The longest time until it is connected; ``inf``: no limit.
        if_tls: How it is encrypted, or None.
    """

    __slots__ = ()

    def __init__(
        self,
        loop: SelectorEventLoop,
        handler: StreamHandler,
        target: tuple[str, int],
        limits: StreamLimits,
        seconds: float,
        if_tls: tuple[StreamTls, TlsOptions] | None,
    ) -> None:
        check_threads(f"connect to {target!r}")
        self._attach(delivery_of(loop), handler, taker_of(handler))
        self._keep("attempt", f"connect to {target!r}")
        self._keep(PENDING, Pending(loop, limits, if_tls))
        at_close = iteration_of(loop).at_close
        at_close.add(self._loop_closed)
        try:
            self._pending.seek = Seek(loop, target, self._won, self._lost)
        except BaseException:
            at_close.discard(self._loop_closed)
            raise
        self._is_open = True
        self._limit_time(loop, seconds)

    @property
    def buffered(self) -> int:
        """How many bytes wait for the connection."""
        return self._pending.size

    @property
    def _failures(self) -> str:
        seek = self._pending.seek
        return "" if seek is None else seek.listed()

    @property
    def _pending(self) -> Pending:
        return cast("Pending", self._kept(PENDING))

    # What the program asks for ------------------------------------------------------

    def write(self, data: Buffer, /) -> None:
        """Keep a copy of ``data``, to be sent first."""
        pending = self._check("write to")
        copy = memoryview(data).tobytes()
        if not self._is_open:
            return
        if pending.is_shut:
            text = f"write to {self!r}: it was shut down"
            raise BrokenPipeError(errno.EPIPE, text)
        pending.size += len(copy)
        if pending.size > pending.limits.queue_max:
            text = f"{self._kept('attempt')}: {pending.size} bytes wait for it"
            self.abort(OSError(errno.ENOBUFS, text))
            return
        pending.calls.append(functools.partial(Stream.write, self, copy))

    def writelines(self, lines: Iterable[Buffer], /) -> None:
        """Keep a copy of all lines."""
        self.write(b"".join(lines))

    def shutdown(self) -> None:
        """End the sending, after what was written."""
        pending = self._check("shut down")
        if self._is_open and not pending.is_shut:
            pending.is_shut = True
            pending.calls.append(functools.partial(Stream.shutdown, self))

    def close(self, error: Exception | None = None) -> None:
        """Close, after what was written is sent; at once if nothing was."""
        pending = self._check("close")
        if not self._is_open:
            return
        if not pending.size:
            self.abort(error)
            return
        if error is not None:
            self._keep_error(error)
        self._is_open = False
        pending.calls.append(functools.partial(Stream.close, self))

    def abort(self, error: Exception | None = None) -> None:
        """Give up; `on_close` is called in the next iteration."""
        pending = self._check("abort")
        if pending.is_over:
            return
        if error is not None:
            self._keep_error(error)
        self._give_up(pending)
        pending.loop.call_soon_threadsafe(self._finish_unopened)

    def pause_reading(self) -> None:
        """Do not read from the beginning."""
        self._check("pause").calls.append(functools.partial(Stream.pause_reading, self))

    def resume_reading(self) -> None:
        """Read after all."""
        self._check("resume").calls.append(
            functools.partial(Stream.resume_reading, self)
        )

    def start_tls(self, context: SSLContext, **options: object) -> None:
        """Encrypt as soon as it is connected; an error then ends the stream."""
        pending = self._check("start TLS on")
        check_tls_context(context)
        if pending.if_tls is not None:
            raise RuntimeError(f"start TLS on {self!r}: it has TLS already")
        start = functools.partial(Stream.start_tls, self, context)
        pending.calls.append(functools.partial(start, **options))

    def _check(self, attempted: str) -> Pending:
        if self._delivery.thread not in (0, threading.get_ident()):
            raise RuntimeError(
                f"{attempted} a stream in another thread than that of its loop; use "
                "call_soon_threadsafe() of the loop or the server"
            )
        return self._pending

    # How it ends ----------------------------------------------------------------------

    def _won(self, sock: socket.socket) -> None:
        """Become a stream of ``sock``, and do what was asked for meanwhile."""
        pending = self._pending
        self._is_open = False
        try:
            self._take_over("connect", sock, pending.limits)
        except OSError as error:
            self._lost(error)
            return
        iteration_of(pending.loop).at_close.discard(self._loop_closed)
        self._keep(PENDING, None)
        self.__class__ = ConnectingStream  # type: ignore[assignment] # the same layout
        if pending.if_tls is not None:
            self.begin_with(*pending.if_tls)
        try:
            for call in pending.calls:
                call()
        except Exception as error:  # noqa: BLE001 - on_close gets it
            self.abort(error)

    def _lost(self, error: Exception) -> None:
        pending = self._pending
        self._keep_error(error)
        self._give_up(pending)
        self._finish_unopened()

    def _loop_closed(self) -> None:
        self._give_up(self._pending)
        self._finish_unopened()

    def _give_up(self, pending: Pending) -> None:
        pending.is_over = True
        pending.calls.clear()
        pending.size = 0
        self._is_open = False
        timer = self._kept(TIMER)
        self._keep(TIMER, None)
        if timer is not None:
            cast("TimerHandle", timer).cancel()
        if pending.seek is not None:
            pending.seek.stop()

    def _finish_unopened(self) -> None:
        """Call `on_close`, once; an exception of it is logged, as C does it."""
        pending = self._pending
        if pending.is_finished:
            return
        pending.is_finished = True
        iteration_of(pending.loop).at_close.discard(self._loop_closed)
        try:
            self._finish(0)
        except Exception as error:  # noqa: BLE001 - logged there
            self._callback_failed(error, "on_close")
