"""The TLS handshake of a connected socket, until a deadline.

Its one rule: whatever happens, the socket is closed, or it is the one that is returned.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from fdmux.sockets.wait import wait_readable, wait_writable

if TYPE_CHECKING:
    import socket
    import ssl


def wrap_with_deadline(
    sock: socket.socket,
    context: ssl.SSLContext,
    server_hostname: str | None,
    deadline: float,
) -> ssl.SSLSocket:
    """Encrypt ``sock`` as a client, which this takes over.

    Returns:
        A socket in blocking mode, after the handshake.

    Raises:
        TimeoutError: The deadline is over; without a message.
        ssl.SSLError: The handshake failed.
        OSError: The connection broke.
    """
    try:
        sock.setblocking(False)
        tls = context.wrap_socket(
            sock, server_hostname=server_hostname, do_handshake_on_connect=False
        )
    except BaseException:
        sock.close()
        raise
    try:
        shake_hands(tls, deadline)
        tls.setblocking(True)
    except BaseException:
        tls.close()
        raise
    return tls


def shake_hands(tls: ssl.SSLSocket, deadline: float) -> None:
    """Do the handshake of a non-blocking socket.

    Raises:
        TimeoutError: The deadline is over.
    """
    import ssl  # noqa: PLC0415 - whoever has a context has imported it

    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            wait = wait_readable
        except ssl.SSLWantWriteError:
            wait = wait_writable
        else:
            return
        left = deadline - monotonic()
        # The object's pending bytes do not help: the descriptor is what to wait for.
        if left <= 0 or not wait([tls.fileno()], left):
            raise TimeoutError
