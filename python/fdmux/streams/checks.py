"""Checks of what servers, `connect_stream` and `add_stream` are given.

Its one rule: each refuses at the call and opens nothing. The checks of numbers and
names are in fdmux/checks.py, the one of loops is in loop/event_loop.py.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, get_origin

from fdmux.checks import refusal
from fdmux.streams.frame_handler import FrameHandler
from fdmux.streams.stream import StreamHandler

if TYPE_CHECKING:
    from fdmux.streams.limits import StreamLimits

CALLBACKS = (
    "on_connect",
    "on_data",
    "on_end",
    "on_writable",
    "on_drain",
    "on_stopping",
    "on_close",
    "on_tls",
    "on_tls_failed",
)


def check_handler(handler: object) -> None:
    """Refuse what lacks a callback of `StreamHandler`.

    Raises:
        TypeError: The message says what is missing.
    """
    if isinstance(handler, type) or get_origin(handler) is not None:
        name = getattr(handler, "__name__", "")
        raise TypeError(f"handler is the class {name}; pass an object: {name}()")
    if isinstance(handler, FrameHandler) and not hasattr(handler, "framing"):
        raise TypeError(
            f"handler is a {type(handler).__name__} without framing; "
            "set framing in the class"
        )
    if isinstance(handler, StreamHandler):
        return
    for name in CALLBACKS:
        if not callable(getattr(handler, name, None)):
            wanted = f"a fdmux.StreamHandler; it has no {name}()"
            raise TypeError(refusal("handler", handler, wanted))


def check_limits(limits: object, kind: type[StreamLimits]) -> None:
    """Refuse limits of another kind.

    Raises:
        TypeError: ``limits`` is not a ``kind``.
    """
    if not isinstance(limits, kind):
        raise TypeError(refusal("limits", limits, f"a fdmux.{kind.__name__}"))


def check_stream_socket(sock: object, attempt: str) -> None:
    """Refuse what is no open stream socket, or carries TLS.

    Args:
        attempt: For the message: ``"make a stream of"``.

    Raises:
        TypeError: ``sock`` is not a socket, or carries TLS.
        ValueError: It is closed, or of another type.
    """
    # Not imported here: in CPython 3.12.1 that ends programs that start Python twice.
    ssl = sys.modules.get("ssl")
    if ssl is not None and isinstance(sock, ssl.SSLSocket):
        raise TypeError(
            f"{attempt} {sock!r}: it carries TLS, and a stream would send plain bytes "
            "into it"
        )
    if not isinstance(sock, socket.socket):
        raise TypeError(f"{attempt} {sock!r}: it must be a socket.socket")
    if sock.fileno() < 0:
        raise ValueError(f"{attempt} fd {sock.fileno()}: the socket is closed")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(
            f"{attempt} fd {sock.fileno()}: it is a {sock.type!r}, not a stream socket"
        )


def check_listening(sock: socket.socket) -> None:
    """Refuse what a server cannot accept from.

    Raises:
        TypeError: ``sock`` is not a socket, or carries TLS.
        ValueError: It is not a listening stream socket.
    """
    check_stream_socket(sock, "serve on")
    if not is_listening(sock):
        raise ValueError(f"serve on fd {sock.fileno()}: it is not listening")


def is_listening(sock: socket.socket) -> bool:
    """Whether `listen` was called on a stream socket."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def check_threads(attempt: str) -> None:
    """Refuse to start a thread where gevent has replaced threads by greenlets.

    Args:
        attempt: For the message: ``"run the server in a thread"``.

    Raises:
        RuntimeError: A loop that waits in C would stop every greenlet.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise RuntimeError(
            f"{attempt}: gevent has patched threading, so the thread would be a "
            "greenlet, and our loop would block all others; patch with thread=False, "
            "or mount() our loop on gevent's hub"
        )
