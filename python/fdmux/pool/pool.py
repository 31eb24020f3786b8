"""ClientPool: several connections to one server, used from the calling thread.

This file assigns messages to connections and keeps deadlines. connection.py is one
connection, replies.py tells when a reply is whole.

Its one rule: every message has exactly one outcome, a reply or an error, and the
outcomes are in the order of the messages.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import math
from typing import TYPE_CHECKING, Literal, overload

from fdmux._native import LoopClosed, finish_streams
from fdmux.checks import (
    check_host,
    checked_integer,
    checked_port,
    checked_seconds,
    checked_timeout,
)
from fdmux.loop.event_loop import SelectorEventLoop, check_loop, delivery_of
from fdmux.pool.backoff import Backoff
from fdmux.pool.connection import (
    LIMITS,
    Callbacks,
    PooledConnection,
    PoolTls,
    use_address,
)
from fdmux.pool.outcome import (
    ExchangeConnectionError,
    ExchangeError,
    ExchangeTimeoutError,
    replies_or_raise,
)
from fdmux.pool.replies import reply_finder
from fdmux.streams.tls import client_options

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ssl import SSLContext
    from types import TracebackType
    from typing import Self

    from fdmux.checks import Seconds
    from fdmux.loop.timers import TimerHandle
    from fdmux.pool.outcome import Outcome
    from fdmux.pool.replies import ReplyFinder, ReplyRule

    BytesLike = bytes | bytearray | memoryview

REPLY_BYTES_MAX = 64 * 1024 * 1024


class Task:
    """One message that has no outcome yet."""

    __slots__ = ("connection", "index", "is_second_try", "message", "timer")

    def __init__(self, index: int, message: memoryview) -> None:
        self.index = index
        self.message = message
        self.is_second_try = False
        self.connection: PooledConnection | None = None
        self.timer: TimerHandle | None = None


class ClientPool:
    r"""Exchange messages with one server over several connections at once.

    >>> with ClientPool("127.0.0.1", port) as pool:
    ...     pool.exchange([b"a\n", b"b\n"], reply=b"\n")
    [b'a\n', b'b\n']

    The pool opens a connection when a message needs one, up to ``size``, and keeps it
    for the next `exchange`. It replaces a connection that broke. It resolves a name, in
    a thread, for the first connections, and again after a connect has failed.

    Args:
        host: As in `connect_with_timeout`.
        port: As in `connect_with_timeout`.
        size: The number of connections at most.
        timeout: For each message: from its assignment to a connection, which may have
            to connect first, to the end of its reply. Any real number; None or ``inf``:
            no limit.
        away_timeout: While the server cannot be reached, messages wait for so long, and
            the pool tries again, with delays that grow from 50 ms to 1 s. After that,
            all messages that wait fail. 0: a message fails after two attempts. Each
            message keeps its ``timeout``, too.
        loop: Run on this loop; the caller closes it. None makes one.
        reply_bytes_max: A reply longer than this is an error.
        ssl: Encrypt with this context.
        server_hostname: The name of the server, which its certificate must have; by
            default ``host``. "" is no name, for a context that does not check it.

    Units:   seconds
    Raises:
        TypeError: An argument has a wrong type; the message names it.
        ValueError: ``host`` can be no name, ``size`` or ``reply_bytes_max`` is less
            than 1, ``timeout`` is NaN, or ``server_hostname`` is given without
            ``ssl``, or "" for a context that checks it.
        OverflowError: ``port`` is not in 0 to 65535.
    Threads: One at a time.
    """

    def __init__(  # noqa: PLR0913 - what pools are made with; most by keyword
        self,
        host: str,
        port: int,
        size: int = 8,
        timeout: Seconds | None = 5.0,
        *,
        away_timeout: Seconds = 0.0,
        loop: SelectorEventLoop | None = None,
        reply_bytes_max: int = REPLY_BYTES_MAX,
        ssl: SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> None:
        check_host(host)
        checked_port(port)
        checked_integer("size", size, 1)
        checked_integer("reply_bytes_max", reply_bytes_max, 1)
        self._timeout = checked_timeout(timeout)
        self._away_timeout = checked_seconds(away_timeout, "away_timeout")
        self._backoff = Backoff(self._away_timeout)
        self._wake: TimerHandle | None = None
        if loop is not None:
            check_loop(loop)
        self._host = host
        self._port = port
        self._size = size
        self._reply_bytes_max = reply_bytes_max
        self._tls = tls_of(ssl, host if server_hostname is None else server_hostname)
        if ssl is None and server_hostname is not None:
            raise ValueError("server_hostname is for TLS; pass ssl")
        self._peer: tuple[str, int] | None = None
        self._fault: Exception | None = None  # an exception of the reply function
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

        If a connection breaks before the first byte of a reply, its message is sent
        once more, on a new connection; so the server may get it twice. Every message
        has an outcome, whatever happens to the others.

        Args:
            messages: Bytes-like objects; each has one reply.
            reply: Tells when a reply is whole. An int: it has this many bytes. Bytes:
                it ends with them. A callable: it gets the bytes so far, and returns
                the length of the first whole reply, or 0 if there is none yet. If bytes
                follow a reply, they are dropped and the connection is closed.
            return_errors: Return each error in the place of its reply, instead of
                raising the first one.

        Raises:
            ExchangeTimeoutError: A `TimeoutError`; ``timeout`` is over.
            ExchangeConnectionError: A `ConnectionError`; connecting failed, or the
                connection broke. Both have ``index`` and ``results``.
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
            with contextlib.suppress(LoopClosed):  # its owner has closed it
                if not delivery_of(
                    self._loop
                ).depth:  # else the end of the batch does it
                    finish_streams(self._loop.native)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Called by connections -------------------------------------------------------

    def _on_connected(self, peername: object) -> None:
        """Keep the address, so that further connections need no resolver."""
        self._backoff.succeeded()
        if isinstance(peername, tuple):
            self._peer = peername[:2]

    def _on_reply(self, connection: PooledConnection, reply: bytes) -> None:
        """Store the reply; the connection can take another message."""
        task = self._busy.pop(connection)
        if connection.is_open:
            self._idle.append(connection)
        self._settle(task, reply)

    def _on_broken(self, connection: PooledConnection, error: OSError) -> None:
        """Send the message again if no byte of a reply came; else store the error."""
        if not connection.is_connected:
            self._has_stale_peer = True
        task = self._busy.pop(connection, None)
        if task is None:
            self._idle.remove(connection)
        elif not connection.is_connected and self._is_worth_waiting():
            task.connection = None
            self._waiting.appendleft(task)
        elif not connection.is_connected and self._away_timeout > 0:
            self._settle(task, self._error(task, error))
            if not self._busy:
                self._fail_waiting(error)
        elif connection.received or task.is_second_try:
            self._settle(task, self._error(task, error))
        else:
            task.is_second_try = True
            task.connection = None
            self._waiting.appendleft(task)

    def _on_finder_failed(self, error: Exception) -> None:
        """Keep an exception of the reply function; `exchange` raises it."""
        self._fault = self._fault or error

    # One exchange ----------------------------------------------------------------

    def _run(self, tasks: list[Task]) -> None:
        self._waiting.extend(tasks)
        if self._has_stale_peer:
            self._peer, self._has_stale_peer = None, False
        if self._idle:
            self._loop.run_once(0)  # drop those that the server has closed since
        while True:
            self._assign()
            if self._fault is not None:
                raise self._fault
            if not self._busy and not self._waiting:
                return
            self._loop.run_once(None)  # until the next deadline at most

    def _assign(self) -> None:
        """Assign waiting messages to idle connections, and to new ones."""
        while self._waiting and len(self._busy) < self._size:
            started = self._loop.time()
            if not self._idle and started < self._backoff.not_before:
                self._wake_at(self._backoff.not_before)
                return
            try:
                connection = self._idle.pop() if self._idle else self._connect()
            except OSError as error:
                if self._is_worth_waiting():
                    continue
                if not self._busy:  # else the busy connections take the rest
                    self._fail_waiting(error)
                return
            task = self._waiting.popleft()
            task.connection = connection
            if task.timer is None:
                deadline = started + self._timeout
                task.timer = self._loop.call_at(deadline, self._expire, task)
            self._busy[connection] = task
            connection.begin(task.message, self._finder)

    def _is_worth_waiting(self) -> bool:
        """Note that a connect has failed; return whether to try again, later."""
        is_worth = self._backoff.failed(self._loop.time())
        if not is_worth:
            self._backoff.not_before = -math.inf  # who asks now gets an answer now
        return is_worth

    def _wake_at(self, when: float) -> None:
        """End the wait of `_run` at ``when``, so that it assigns again."""
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self._loop.call_at(when, int)

    def _connect(self) -> PooledConnection:
        """Open a connection, by name until the address of the server is known."""
        address = self._server if self._peer is None else self._peer
        callbacks = Callbacks(
            self._on_connected, self._on_reply, self._on_broken, self._on_finder_failed
        )
        return PooledConnection(
            functools.partial(use_address, self._loop, address, self._tls),
            callbacks,
            reply_bytes_max=self._reply_bytes_max,
        )

    def _expire(self, task: Task) -> None:
        if task.connection is None:
            self._waiting.remove(task)  # about to be tried again
        else:
            del self._busy[task.connection]
            task.connection.close()
        timeout = TimeoutError(f"no whole reply within {self._timeout:g} s")
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
        """Forget the exchange; close connections that an exception has left busy."""
        if self._wake is not None:
            self._wake.cancel()
        for task in self._waiting:
            if task.timer is not None:
                task.timer.cancel()
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


def tls_of(context: SSLContext | None, server_hostname: str) -> PoolTls | None:
    """Return how connections are encrypted, after the checks of streams."""
    if context is None:
        return None
    client_options(context, LIMITS, server_hostname or None, None)
    return PoolTls(context, server_hostname)


def byte_view(index: int, message: BytesLike) -> memoryview:
    """Return a view of the bytes of ``message``, whatever its items are."""
    try:
        return memoryview(message).cast("B")
    except TypeError:
        raise TypeError(
            f"message {index}: a bytes-like object is required, not {message!r:.60}"
        ) from None
