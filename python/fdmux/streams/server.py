"""StreamServer: a TCP or Unix server whose clients are streams of one handler.

Its one rule: a run ends everything it began. Who connects is listener.py, what happens
on a connection stream.py and the handler, how much clients may do limits.py; this file
is the server's life: start, run, stop.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, ParamSpec

from fdmux._ffi import lib
from fdmux._native import LoopClosed, check
from fdmux.loop.event_loop import SelectorEventLoop, delivery_of
from fdmux.streams.limits import SERVER_LIMITS
from fdmux.streams.listener import Listener, ServerStats

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from fdmux._native import NativeLoop
    from fdmux.loop.timers import Handle
    from fdmux.streams.limits import ServerLimits
    from fdmux.streams.stream import StreamHandler

Parameters = ParamSpec("Parameters")

logger = logging.getLogger(__name__)


class StreamServer:
    """Serve any number of clients, up to a bound, with the callbacks of one handler.

    >>> class Upper(StreamHandler):
    ...     def on_data(self, stream, data):
    ...         return data.upper()
    >>> with StreamServer("127.0.0.1", 0, Upper()) as server:
    ...     server.run_in_thread()
    ...     sock = connect_with_timeout(*server.address[:2])

    A client that sends without reading is read no further than ``limits`` allow, and
    gets every byte when it does read. Idle and stalled clients are closed. Out of
    descriptors, the server waits until some become free.

    Args:
        host: An address or name of this machine; the first that it resolves to is
            bound. Every interface only if asked by name: "0.0.0.0" or "::".
        port: 0 lets the kernel choose, see `address`; ``None``: ``host`` is the path of
            a Unix socket, made by `start` and removed at the end.
        handler: What happens to the clients.
        limits: What they may take.
        loop: Serve on this loop, beside whatever else it does. It stays the caller's;
            ``None`` makes one.
        backlog: Connections that the kernel completes in advance.
        reuse_port: Let several servers, of one user, share the port.

    Raises:
        ValueError: ``host`` is empty or None, or ``backlog`` is less than 1.
        OverflowError: ``port`` is not in 0 to 65535.
    Threads: `stop`, `stats` and `address` from any, except that on a given loop that
        somebody else runs `stop` is for the loop's thread; the rest from the thread
        that runs.
    """

    def __init__(  # noqa: PLR0913 - what servers are made with; most by keyword
        self,
        host: str,
        port: int | None,
        handler: StreamHandler,
        *,
        limits: ServerLimits = SERVER_LIMITS,
        loop: SelectorEventLoop | None = None,
        backlog: int = 128,
        reuse_port: bool = False,
    ) -> None:
        check_address(host, port)
        if operator.index(backlog) < 1:
            raise ValueError(f"backlog is {backlog}; it must be >= 1")
        self._host = host
        self._port = port
        self._handler = handler
        self._limits = limits
        self._given_loop = loop
        self._backlog = backlog
        self._reuse_port = reuse_port
        self._loop: SelectorEventLoop | None = None
        self._listener: Listener | None = None
        self._address: tuple[str, int] | None = None
        self._made_path: os.stat_result | None = None
        # Re-entrant: a signal handler may call `stop` while this thread holds it.
        self._lock = threading.RLock()
        self._is_running = False
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server is, or last was, bound to.

        A Unix socket has its path, and port 0.

        Raises:
            RuntimeError: The server has not been started.
        """
        if self._address is None:
            raise RuntimeError("the server has no address before start()")
        return self._address

    @property
    def stats(self) -> ServerStats:
        """A snapshot of what happened since `start`."""
        return ServerStats() if self._listener is None else self._listener.stats

    # The server's life -----------------------------------------------------------

    def start(self) -> None:
        """Bind and listen; clients can connect from now on, and wait for `run`.

        Raises:
            OSError: The address cannot be bound; the message names it.
            RuntimeError: The server was started already.
        """
        with self._lock:
            if self._loop is not None:
                raise RuntimeError(f"start the server: it is at {self._address}")
            sock = self._bind()
            try:
                self._listen_on(sock)
            except BaseException:
                sock.close()
                self._remove_path()
                raise

    def run(self, max_iters: int | None = None) -> None:
        """Serve until `stop`, or for ``max_iters`` iterations of the loop.

        Starts the server if that was not done. After `stop` everything is closed;
        after ``max_iters`` the server goes on to listen, and can be run again.

        Raises:
            OSError: The address cannot be bound, or the listening socket broke (then
                the clients it had are served to their end first).
            RuntimeError: The server is running already.
        """
        self._claim()
        self._serve(max_iters)

    def run_in_thread(self, max_iters: int | None = None) -> threading.Thread:
        """Start the server here, then `run` it in a daemon thread.

        Returns only when clients can connect; what `start` raises, this raises.

        Raises:
            RuntimeError: Also: gevent has made threads greenlets.
        """
        check_threads()
        self._claim()
        thread = threading.Thread(
            target=self._serve, args=(max_iters,), name="fdmux-server", daemon=True
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
        """Call ``callback(*args, **kwargs)`` once, in the thread that serves, and soon.

        The way to use a stream from another thread:
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

    def stop(self) -> None:
        """Make `run` return at once, and close every socket of the server.

        Every stream is aborted and gets its `on_close`. Does not wait for `run`. If
        nothing runs, closes everything itself. Idempotent; the server can be started
        again when `run` has returned.

        Threads: Any, also a signal handler; see above for a given loop.
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
        """Start if needed and become the one run; `stop` then only signals it."""
        with self._lock:
            if self._is_running:
                raise RuntimeError("run the server: it is running already")
            if self._loop is None:
                self.start()
            self._is_running = True

    def _serve(self, max_iters: int | None) -> None:
        try:
            if self._loop is not None and not self._is_stopping:
                # Nothing but I/O, timers and `stop` has to end a wait, so it needs no
                # limit; but somebody who counts iterations expects them to end.
                self._loop.run(None if max_iters is None else 1.0, max_iters)
            if self._listener is not None and self._listener.is_spent:
                self._is_stopping = True
                failure = self._listener.failure
                raise failure or RuntimeError  # it has one, being spent
        finally:
            self._release()

    def _release(self) -> None:
        with self._lock:
            self._is_running = False
            if self._is_stopping:
                self._close()

    def _bind(self) -> socket.socket:
        if self._port is not None:
            return listen(
                self._host, self._port, self._backlog, reuse_port=self._reuse_port
            )
        sock = listen_at_path(self._host, self._backlog)
        self._made_path = os.stat(self._host)  # noqa: PTH116 - a path as sockets take it
        return sock

    def _listen_on(self, sock: socket.socket) -> None:
        name = sock.getsockname()
        loop = self._given_loop or SelectorEventLoop(error_hook=log_unexpected)
        try:
            native, streams = loop.native, delivery_of(loop)
            bound_queues(native, self._limits.total_max)
            self._listener = Listener(
                native, streams, sock, self._handler, self._limits, self._on_change
            )
        except BaseException:
            if loop is not self._given_loop:
                loop.close()
            raise
        self._loop = loop
        self._address = (self._host, 0) if self._port is None else name[:2]

    def _close(self) -> None:
        """Close listener, connections and an own loop. Idempotent."""
        self._is_stopping = False
        loop, self._loop = self._loop, None
        if loop is None:
            return
        if self._listener is not None:
            self._listener.close()
        if loop is not self._given_loop:
            loop.close()
        self._remove_path()

    def _remove_path(self) -> None:
        """Unlink the Unix socket, unless another has taken its place."""
        made, self._made_path = self._made_path, None
        if made is None:
            return
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._host), made):  # noqa: PTH116 - as above
                os.unlink(self._host)  # noqa: PTH108 - as above

    def _on_change(self) -> None:
        """After a client has left or the listener has broken."""
        if self._loop is not None and self._listener is not None:  # noqa: SIM102 - rare
            if self._listener.is_spent:
                self._loop.stop()


def bound_queues(native: NativeLoop, bytes_max: int) -> None:
    """Bound what all streams of the loop queue together."""
    result = lib.fdmux_stream_total_max(native._c_loop, bytes_max)  # noqa: SLF001 - ours
    check(result, "bound what streams queue")


def check_threads() -> None:
    """Refuse a thread that would be none.

    Raises:
        RuntimeError: gevent has replaced threads by greenlets, and a loop that waits
            in C would stop all of them.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise RuntimeError(
            "run the server in a thread: gevent has patched threading, so the thread "
            "would be a greenlet, and the server would block all others; patch with "
            "thread=False, or mount() our loop on gevent's hub"
        )


def check_address(host: str, port: int | None) -> None:
    """Refuse what `bind` would take for "every interface", and what is no port."""
    if not host:
        raise ValueError(
            f"host is {host!r}, which would mean every interface; "
            'if you want that, say "0.0.0.0" or "::"'
        )
    if port is not None and not 0 <= operator.index(port) <= 65535:
        raise OverflowError(f"port is {port}; it must be in 0..65535")


def listen(
    host: str, port: int, backlog: int, *, reuse_port: bool = False
) -> socket.socket:
    """Return a non-blocking listening socket; errors name the address."""
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as on_failure:
            sock = on_failure.enter_context(socket.socket(family, kind, protocol))
            # Take the port over from connections that linger in TIME_WAIT.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setblocking(False)
            sock.bind(address)
            sock.listen(backlog)
            on_failure.pop_all()
    except OSError as error:
        # One class is kept: OSError picks it by number, gaierror does not.
        kind_of_error = type(error) if isinstance(error, socket.gaierror) else OSError
        raise kind_of_error(
            error.errno, f"listen on {(host, port)}: {error.strerror}"
        ) from error
    return sock


def listen_at_path(path: str, backlog: int) -> socket.socket:
    """Return a non-blocking socket that listens at ``path``; errors name it."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        sock.bind(path)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        text = error.strerror or str(error)  # "AF_UNIX path too long" has no number
        raise OSError(error.errno, f"listen on {path!r}: {text}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def log_unexpected(error: Exception, source: object) -> None:
    """Log what no connection and no listener has handled, and go on."""
    logger.error("unexpected error in a callback of %r", source, exc_info=error)
