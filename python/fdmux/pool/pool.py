"""ClientPool: many connections to one server, multiplexed in the calling thread.

Its one rule: every message gets exactly one outcome, a reply or an error, and the
outcomes are in the order of the messages. What happens on a connection is in
connection.py, when a reply is whole in replies.py.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import math
import operator
from typing import TYPE_CHECKING, Literal, overload

from fdmux._native import LoopClosed
from fdmux.loop.event_loop import SelectorEventLoop, delivery_of
from fdmux.pool.connection import PooledConnection, use_address, use_socket
from fdmux.pool.replies import reply_finder
from fdmux.sockets.connect import connect_with_timeout
from fdmux.streams.stream import finish_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Self, TypeAlias

    from fdmux.loop.timers import TimerHandle
    from fdmux.pool.replies import ReplyFinder, ReplyRule
    from fdmux.streams.stream import Stream, StreamHandler

    BytesLike = bytes | bytearray | memoryview
    Outcome: TypeAlias = "bytes | ExchangeError"

REPLY_BYTES_MAX = 64 * 1024 * 1024


class ExchangeError(OSError):
    """A message did not get its reply.

    Attributes:
        index: Which message, counted from 0.
        results: The outcome of every message, in order: the reply, or its error.
    """

    def __init__(self, index: int, text: str) -> None:
        super().__init__(f"message {index}: {text}")
        self.index = index
        self.results: Sequence[Outcome] = ()


class ExchangeTimeoutError(ExchangeError, TimeoutError):
    """The reply was not whole in time."""


class ExchangeConnectionError(ExchangeError, ConnectionError):
    """The connection could not be made, or broke; ``__cause__`` says how."""


class Task:
    """One message on its way to an outcome."""

    __slots__ = ("connection", "index", "is_second_try", "message", "timer")

    def __init__(self, index: int, message: memoryview) -> None:
        self.index = index
        self.message = message
        self.is_second_try = False
        self.connection: PooledConnection | None = None
        self.timer: TimerHandle | None = None


class ClientPool:
    r"""Exchange messages with one server over several connections at once.

    >>> with ClientPool("127.0.0.1", 9200) as pool:
    ...     replies = pool.exchange([b"a\n", b"b\n"], reply=b"\n")

    Connections are opened when there is a message for them, up to ``size``, and kept
    for the next `exchange`. One that broke is replaced. A name is resolved when the
    first connection is made, and again after a connect has failed.

    Args:
        host: As in `connect_with_timeout`.
        port: As in `connect_with_timeout`.
        size: How many connections at most.
        timeout: Seconds for each message, from when a connection takes it up (its
            connect included) to its whole reply; ``None`` or ``inf``: no limit.
        loop: Run on this loop, which stays the caller's; ``None`` makes one.
        reply_bytes_max: A reply longer than this is an error.

    Raises:
        ValueError: ``size`` is less than 1, or ``timeout`` is NaN.
    Threads: One at a time.
    """

    def __init__(
        self,
        host: str,
        port: int,
        size: int = 8,
        timeout: float | None = 5.0,
        *,
        loop: SelectorEventLoop | None = None,
        reply_bytes_max: int = REPLY_BYTES_MAX,
    ) -> None:
        if operator.index(size) < 1:
            raise ValueError(f"size is {size}; a pool needs at least 1 connection")
        self._timeout = math.inf if timeout is None else timeout
        if math.isnan(self._timeout):
            raise ValueError("the timeout of the pool is NaN")
        self._host = host
        self._port = port
        self._size = size
        self._reply_bytes_max = reply_bytes_max
        self._peer: tuple[str, int] | None = None
        self._fault: Exception | None = None  # of the function that finds replies
        self._has_stale_peer = False
        self._loop = SelectorEventLoop() if loop is None else loop
        self._owns_loop = loop is None
        self._idle: list[PooledConnection] = []
        self._busy: dict[PooledConnection, Task] = {}
        self._waiting: collections.deque[Task] = collections.deque()
        self._outcomes: dict[int, Outcome] = {}
        self._finder: ReplyFinder = reply_finder(0)
        self._is_exchanging = False
        self._is_closed = False

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        return len(self._idle) + len(self._busy)

    @overload
    def exchange(
        self, messages: Iterable[BytesLike], reply: ReplyRule
    ) -> list[bytes]: ...
    @overload
    def exchange(
        self,
        messages: Iterable[BytesLike],
        reply: ReplyRule,
        *,
        return_errors: Literal[True],
    ) -> list[bytes | ExchangeError]: ...
    def exchange(
        self,
        messages: Iterable[BytesLike],
        reply: ReplyRule,
        *,
        return_errors: bool = False,
    ) -> list[bytes] | list[bytes | ExchangeError]:
        """Send each message on a free connection; return the replies in order.

        A message whose connection breaks before a byte of the reply came is sent once
        more, on a new connection: the server may therefore see it twice. Every
        message is brought to an outcome, whatever happens to the others.

        Args:
            messages: Bytes-like, each with one reply.
            reply: When one is whole: ``int``, it has exactly so many bytes; ``bytes``,
                it ends with them; a callable, it gets the bytes so far and returns the
                length of the first whole reply, 0 while there is none. Bytes beyond a
                reply are dropped, with the connection.
            return_errors: Return errors in the places of the replies, instead of
                raising the first.

        Raises:
            ExchangeTimeoutError: A `TimeoutError`: no whole reply in time.
            ExchangeConnectionError: A `ConnectionError`: no connection, or it broke.
                Both have ``index`` and ``results``.
            TypeError: A message is not bytes-like.
            RuntimeError: The pool is closed, or in the middle of an exchange.
        """
        if self._is_closed or self._is_exchanging:
            state = "closed" if self._is_closed else "in another exchange"
            raise RuntimeError(f"exchange with {self._server}: the pool is {state}")
        tasks = [Task(i, byte_view(i, message)) for i, message in enumerate(messages)]
        self._finder = reply_finder(reply)
        self._is_exchanging = True
        try:
            self._run(tasks)
            results = [self._outcomes[task.index] for task in tasks]
        finally:
            self._is_exchanging = False
            self._drop_unfinished()
        if return_errors:
            return results
        return replies_or_raise(results)

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self._is_closed = True
        self._drop_unfinished()
        while self._idle:
            self._idle.pop().close()
        if self._owns_loop:
            self._loop.close()
        else:
            with contextlib.suppress(LoopClosed):  # by its owner
                finish_streams(self._loop.native, delivery_of(self._loop))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # What connections report -----------------------------------------------------

    def on_reply(self, connection: PooledConnection, reply: bytes) -> None:
        """Store the reply; the connection is free for another message."""
        task = self._busy.pop(connection)
        if connection.is_open:
            self._idle.append(connection)
        self._settle(task, reply)

    def on_broken(self, connection: PooledConnection, error: OSError) -> None:
        """Try the message once more if that is safe, else store the error."""
        if not connection.is_connected:
            self._has_stale_peer = True
        task = self._busy.pop(connection, None)
        if task is None:
            self._idle.remove(connection)
        elif connection.received or task.is_second_try:
            self._settle(task, self._error(task, error))
        else:
            task.is_second_try = True
            task.connection = None
            self._waiting.appendleft(task)

    def on_faulty_finder(self, error: Exception) -> None:
        """Keep what the caller's own function has raised, to raise it there."""
        self._fault = self._fault or error

    # One exchange ----------------------------------------------------------------

    def _run(self, tasks: list[Task]) -> None:
        self._waiting.extend(tasks)
        if self._has_stale_peer:
            self._peer, self._has_stale_peer = None, False
        if self._idle:
            self._loop.run_once(0)  # meet those that the server has closed since
        while True:
            self._assign()
            if self._fault is not None:
                raise self._fault
            if not self._busy:
                return
            self._loop.run_once(None)  # no longer than to the next deadline

    def _assign(self) -> None:
        """Give waiting messages to idle connections, and to new ones."""
        while self._waiting and len(self._busy) < self._size:
            started = self._loop.time()
            try:
                connection = self._idle.pop() if self._idle else self._connect()
            except OSError as error:
                if not self._busy:  # else those that work take the rest as well
                    self._fail_waiting(error)
                return
            task = self._waiting.popleft()
            task.connection = connection
            if task.timer is None:
                deadline = started + self._timeout
                task.timer = self._loop.call_at(deadline, self._expire, task)
            self._busy[connection] = task
            connection.begin(task.message, self._finder)

    def _connect(self) -> PooledConnection:
        """Open one more connection; only the first is waited for, as it resolves."""
        if self._peer is not None:
            open_stream = functools.partial(use_address, self._loop, self._peer)
            return self._open(open_stream)
        with connect_with_timeout(self._host, self._port, self._timeout) as sock:
            self._peer = sock.getpeername()[:2]
            return self._open(functools.partial(use_socket, self._loop, sock))

    def _open(self, open_stream: Callable[[StreamHandler], Stream]) -> PooledConnection:
        return PooledConnection(
            open_stream, self, reply_bytes_max=self._reply_bytes_max
        )

    def _expire(self, task: Task) -> None:
        if task.connection is None:
            self._waiting.remove(task)  # about to be tried again
        else:
            del self._busy[task.connection]
            task.connection.close()
        timeout = TimeoutError(f"no whole reply within {self._timeout} s")
        self._settle(task, self._error(task, timeout))

    def _fail_waiting(self, error: OSError) -> None:
        while self._waiting:
            task = self._waiting.popleft()
            self._settle(task, self._error(task, error))

    def _settle(self, task: Task, outcome: Outcome) -> None:
        task.connection = None
        if task.timer is not None:
            task.timer.cancel()
        self._outcomes[task.index] = outcome

    def _error(self, task: Task, cause: OSError) -> ExchangeError:
        kind = (
            ExchangeTimeoutError
            if isinstance(cause, TimeoutError)
            else ExchangeConnectionError
        )
        error = kind(task.index, f"exchange with {self._server}: {cause}")
        error.errno, error.__cause__ = cause.errno, cause
        return error

    def _drop_unfinished(self) -> None:
        """Forget the last exchange; close what an exception left in mid-sentence."""
        for connection, task in self._busy.items():
            connection.close()
            if task.timer is not None:
                task.timer.cancel()
        self._busy.clear()
        self._waiting.clear()
        self._outcomes = {}
        self._fault = None

    @property
    def _server(self) -> tuple[str, int]:
        return (self._host, self._port)


def byte_view(index: int, message: BytesLike) -> memoryview:
    """View ``message`` as bytes, whatever bytes-like object it is."""
    try:
        return memoryview(message).cast("B")
    except TypeError:
        raise TypeError(
            f"message {index}: a bytes-like object is required, not {message!r:.60}"
        ) from None


def replies_or_raise(results: list[Outcome]) -> list[bytes]:
    """Return the replies if there is nothing else, or raise the first error."""
    replies: list[bytes] = []
    for outcome in results:
        if isinstance(outcome, ExchangeError):
            outcome.results = results
            raise outcome
        replies.append(outcome)
    return replies
