"""StreamServer: a TCP or Unix server whose clients are streams of one handler.

This file is the server's life: start, run, stop. binding.py has the listening socket,
listener.py accepts, stream.py and the handler are one connection, limits.py has the
bounds, drain.py lets clients finish.

Its one rule: when `run` returns after `stop`, everything that `start` opened is closed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, ParamSpec, cast, overload

from fdmux._native import LoopClosed
from fdmux.checks import check_callable, checked_integer, checked_timeout
from fdmux.loop.event_loop import SelectorEventLoop, check_loop, delivery_of
from fdmux.streams.address import address_of
from fdmux.streams.binding import Binding
from fdmux.streams.checks import check_handler, check_limits, check_threads
from fdmux.streams.drain import Drain
from fdmux.streams.limits import SERVER_LIMITS, ServerLimits
from fdmux.streams.listener import Listener, ServerStats
from fdmux.streams.tls import server_options

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from ssl import SSLContext
    from types import TracebackType
    from typing import Self

    from fdmux.checks import Seconds
    from fdmux.loop.timers import Handle
    from fdmux.streams.stream import StreamHandler

Parameters = ParamSpec("Parameters")

logger = logging.getLogger(__name__)

# Less than the 10 s that `docker stop` waits, and the 30 s of Kubernetes.
DRAIN_TIMEOUT = 5.0


class StreamServer:
    """A server whose clients are streams with one handler.

    >>> class Upper(StreamHandler):
    ...     def on_data(self, stream, data):
    ...         return data.upper()
    >>> with StreamServer("127.0.0.1", 0, Upper()) as server:
    ...     thread = server.run_in_thread()
    ...     with connect_with_timeout(*server.address, timeout=5.0) as sock:
    ...         sock.sendall(b"hello")
    ...         read_with_timeout(sock, 5)
    b'HELLO'

    A client that sends without reading is not read beyond ``limits``, and gets every
    byte when it reads. Idle and stalled clients are closed. When the process is out of
    descriptors, the server accepts again as soon as some become free.

    Args:
        host: An address or name of this machine; the first address that a name resolves
            to is bound. "0.0.0.0" or "::" is every interface.
        port: 0 lets the kernel choose, see `address`. None makes ``host`` the path of a
            Unix socket: `start` creates it, and the end of the server removes it. A
            path that begins with a NUL is abstract, and no file.
        handler: Its callbacks are called for every client.
        sock: Instead of ``host`` and ``port``: a listening stream socket, such as one
            of `inherited_sockets`. `start` takes it over: it makes it non-blocking, for
            all processes that have it, and the end of the server closes it. Pass
            ``sock.dup()`` to keep it. The file of a Unix socket stays.
        limits: Bounds of the clients.
        loop: Serve on this loop, beside everything else in it; the caller closes it.
            None makes a loop of the server's own.
        backlog: Connections that the kernel completes before they are accepted.
        reuse_port: Let several servers of one user share the port.
        ssl: Encrypt with this context; `on_connect` is called after the handshake.

    Raises:
        TypeError: An argument has a wrong type; the message names it.
        ValueError: ``host`` is empty or None, ``backlog`` is less than 1, or ``sock``
            is not a listening stream socket, or is given beside another address; or
            ``ssl`` is a context for clients.
        OverflowError: ``port`` is not in 0 to 65535.
    Threads: `stop`, `drain`, `stats`, `address` and `call_soon_threadsafe`: any; but if
        the caller runs ``loop``, `stop` is for that thread. Everything else: the thread
        that runs the server.
    """

    @overload
    def __init__(
        self,
        host: str,
        port: int | None,
        handler: StreamHandler,
        *,
        limits: ServerLimits = ...,
        loop: SelectorEventLoop | None = None,
        backlog: int = ...,
        reuse_port: bool = False,
        ssl: SSLContext | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        *,
        handler: StreamHandler,
        sock: socket.socket,
        limits: ServerLimits = ...,
        loop: SelectorEventLoop | None = None,
        ssl: SSLContext | None = None,
    ) -> None: ...
    def __init__(  # noqa: PLR0913 - what servers are made with; most by keyword
        self,
        host: str | None = None,
        port: int | None = None,
        handler: StreamHandler | None = None,
        *,
        sock: socket.socket | None = None,
        limits: ServerLimits = SERVER_LIMITS,
        loop: SelectorEventLoop | None = None,
        backlog: int = 128,
        reuse_port: bool = False,
        ssl: SSLContext | None = None,
    ) -> None:
        self._binding = Binding(
            host, port, sock, backlog=backlog, reuse_port=reuse_port
        )
        check_handler(handler)
        check_limits(limits, ServerLimits)
        if loop is not None:
            check_loop(loop)
        self._tls = None if ssl is None else server_options(ssl, limits)
        self._handler = cast("StreamHandler", handler)  # checked above
        self._limits = limits
        self._given_loop = loop
        self._loop: SelectorEventLoop | None = None
        self._listener: Listener | None = None
        self._drain: Drain | None = None
        self._on_drained: list[Callable[[int], object]] = []
        self._address: tuple[str, int] | None = None
        # Re-entrant: a signal handler may call `stop` while this thread holds it.
        self._lock = threading.RLock()
        self._is_running = False
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The host and port to which the server is bound, or was bound last.

        For a Unix socket: its path, and 0.

        Raises:
            RuntimeError: The server has not been started.
        """
        if self._address is None:
            raise RuntimeError("the server has no address before start()")
        return self._address

    @property
    def stats(self) -> ServerStats:
        """The counters since `start`, as of now."""
        return ServerStats() if self._listener is None else self._listener.stats

    # The server's life -----------------------------------------------------------

    def start(self) -> None:
        """Bind and listen. Clients can connect from now on; `run` serves them.

        Raises:
            OSError: The address cannot be bound; the message names it.
            RuntimeError: The server was started already.
            ValueError: The ``sock`` that the server was made with is closed, as after
                the end of its server.
        """
        with self._lock:
            if self._loop is not None:
                raise RuntimeError(f"start the server: it is at {self._address}")
            with self._binding.opening() as sock:
                self._listen_on(sock)

    def run(self, max_iterations: int | None = None) -> None:
        """Serve until `stop`, or for ``max_iterations`` iterations of the loop.

        Starts the server if needed. After `stop` everything is closed. After
        ``max_iterations`` the server still listens, and can be run again.

        Raises:
            OSError: The address cannot be bound, or accepting has failed for good; then
                the clients are served until the last one has left.
            RuntimeError: The server is running already.
            TypeError: ``max_iterations`` is not an integer.
            ValueError: ``max_iterations`` is negative.
        """
        check_iterations(max_iterations)
        self._claim()
        self._serve(max_iterations)

    def run_in_thread(self, max_iterations: int | None = None) -> threading.Thread:
        """Start the server, then `run` it in a daemon thread.

        Returns when clients can connect.

        Returns:
            The thread; it ends after `stop`.

        Raises:
            OSError: The address cannot be bound; the message names it.
            RuntimeError: The server is running already, or gevent has replaced threads
                by greenlets.
        """
        check_threads("run the server in a thread")
        check_iterations(max_iterations)
        self._claim()
        thread = threading.Thread(
            target=self._serve, args=(max_iterations,), name="fdmux-server", daemon=True
        )
        try:
            thread.start()
        except BaseException:
            self._release()
            raise
        self._thread = thread
        return thread

    def call_soon_threadsafe(
        self,
        callback: Callable[Parameters, object],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Handle:
        """Call ``callback(*args, **kwargs)`` once, soon, in the thread that serves.

        This is how another thread uses a stream:
        ``server.call_soon_threadsafe(stream.write, data)``.

        Returns:
            A handle with ``cancel()``.

        Raises:
            LoopClosed: The server is not started, or has stopped.
        Threads: Any.
        """
        loop = self._loop
        if loop is None:
            raise LoopClosed("call in the server's thread: it is not started")
        return loop.call_soon_threadsafe(callback, *args, **kwargs)

    def reload_tls(self, context: SSLContext) -> None:
        """Encrypt new connections with ``context``; live ones go on as they are.

        So a renewed certificate is used without a restart.

        Raises:
            RuntimeError: The server was made without ``ssl``.
            TypeError: ``context`` is not an `ssl.SSLContext`.
            ValueError: ``context`` is one for clients.
        Threads: Any.
        """
        if self._tls is None:
            raise RuntimeError("reload TLS: the server was made without ssl")
        with self._lock:
            self._tls = server_options(context, self._limits)
            if self._listener is not None:
                self._listener.tls = self._tls

    def drain(
        self,
        timeout: Seconds | None = DRAIN_TIMEOUT,
        *,
        on_done: Callable[[int], object] | None = None,
    ) -> None:
        """Accept no more, let the clients finish, then `stop`.

        `on_stopping` of the handler is called for each client, also for those that the
        kernel has accepted already. When the last client has left, or at the deadline,
        the server stops; what is left then is aborted, and counted by
        `ServerStats.unfinished`. Does not wait: `run` returns when it is over.

        A second call can make the deadline earlier. `stop` ends it at once. A server
        that is not started ignores the call.

        Args:
            timeout: From now to the deadline. 0 or less: as soon as the loop runs. None
                or ``inf``: no deadline.
            on_done: Called in the loop's thread when no client is left, with the number
                of those that had to be aborted. Not called after `stop`.

        Units:   seconds, never early
        Raises:
            TypeError: ``timeout`` is not a real number, or ``on_done`` not callable.
            ValueError: ``timeout`` is NaN.
        Threads: Any, also a signal handler.
        """
        seconds = checked_timeout(timeout)
        if on_done is not None:
            check_callable("on_done", on_done)
        loop = self._loop
        if loop is None:
            return
        deadline = loop.time() + seconds
        with contextlib.suppress(LoopClosed):  # stopped meanwhile
            loop.call_soon_threadsafe(self._begin_drain, loop, deadline, on_done)

    def stop(self) -> None:
        """Make `run` return, and close every socket of the server.

        Every stream is aborted, and its `on_close` is called. Does not wait for `run`;
        if the server does not run, closes everything itself. Idempotent. The server can
        be started again when `run` has returned.

        Threads: Any, also a signal handler; if the caller runs ``loop``, that thread.
        """
        with self._lock:
            if not self._is_running:
                self._close()
                return
            self._is_stopping = True
            if self._loop is not None:
                self._loop.stop()

    def __enter__(self) -> Self:
        if self._loop is None:
            self.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop, and wait for the thread of `run_in_thread`."""
        self.stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # Running ---------------------------------------------------------------------

    def _claim(self) -> None:
        """Start if needed, and become the only run. From now on `stop` wakes it."""
        with self._lock:
            if self._is_running:
                raise RuntimeError("run the server: it is running already")
            if self._loop is None:
                self.start()
            self._is_running = True

    def _serve(self, max_iterations: int | None) -> None:
        try:
            if self._loop is not None and not self._is_stopping:
                # I/O, timers and `stop` end a wait, so it needs no limit. But a caller
                # that counts iterations expects each of them to end.
                self._loop.run(None if max_iterations is None else 1.0, max_iterations)
            if self._listener is not None and self._listener.is_spent:
                self._is_stopping = True
                failure = self._listener.failure
                raise failure or RuntimeError  # a listener that is spent has one
        finally:
            self._release()

    def _release(self) -> None:
        with self._lock:
            self._is_running = False
            if self._is_stopping:
                self._close()

    def _begin_drain(
        self,
        loop: SelectorEventLoop,
        deadline: float,
        on_done: Callable[[int], object] | None,
    ) -> None:
        """Begin to drain, or make the drain that has begun end sooner."""
        listener = self._listener
        if listener is None or self._loop is not loop:
            return  # stopped, and perhaps started again

        if on_done is not None:
            self._on_drained.append(on_done)
        if self._drain is None:
            self._drain = Drain(loop, listener, self._binding.backlog, self._end_drain)
        self._drain.begin(deadline)

    def _end_drain(self) -> None:
        if self._drain is None:  # `stop` was faster
            return
        on_drained, self._on_drained = self._on_drained, []
        self.stop()
        for on_done in on_drained:
            on_done(self.stats.unfinished)

    def _listen_on(self, sock: socket.socket) -> None:
        name = sock.getsockname()
        loop = self._given_loop
        if loop is None:
            loop = SelectorEventLoop(error_hook=log_unexpected)
        try:
            self._listener = Listener(
                loop.native,
                delivery_of(loop),
                sock,
                self._handler,
                self._limits,
                self._on_change,
            )
        except BaseException:
            if loop is not self._given_loop:
                loop.close()
            raise
        self._listener.tls = self._tls
        self._loop = loop
        self._address = address_of(name)

    def _close(self) -> None:
        """Close listener, connections and a loop of the server's own. Idempotent."""
        self._is_stopping = False
        self._drain = None
        self._on_drained.clear()
        loop, self._loop = self._loop, None
        if loop is None:
            return
        with contextlib.ExitStack() as ends:  # each also if another one raises
            ends.callback(self._binding.remove_file)
            if loop is not self._given_loop:
                ends.callback(loop.close)
            if self._listener is not None:
                self._listener.end()

    def _on_change(self) -> None:
        """Stop a run that has nothing left to do; called when a client has left."""
        if self._drain is not None:
            self._drain.check()
        if self._loop is not None and self._listener is not None:  # noqa: SIM102 - rare
            if self._listener.is_spent:
                self._loop.stop()


def check_iterations(max_iterations: int | None) -> None:
    """Refuse an argument that is no number of iterations."""
    if max_iterations is not None:
        checked_integer("max_iterations", max_iterations, 0)


def log_unexpected(error: Exception, source: object) -> None:
    """Log an exception that no stream and no listener has handled."""
    logger.error("unexpected error in a callback of %r", source, exc_info=error)
