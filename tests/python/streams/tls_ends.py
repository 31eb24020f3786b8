"""The other end of a stream with TLS, which does only what a test says."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

from tests.python.streams.recorder import run_until

if TYPE_CHECKING:
    import socket

    from fdmux.loop.event_loop import SelectorEventLoop

CHUNK = 65536


class TlsEnd:
    """TLS by hand on a socket: `turn` sends and receives what is there, and no more.

    Attributes:
        received: Every byte of the socket, as it came.
        data: The plaintext of these.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        self.is_connected = False
        self.is_ended = False  # the socket
        self.is_closed = False  # close_notify has arrived
        self.received = b""
        self.data = b""

    def turn(self) -> None:
        """Receive, let OpenSSL work, send."""
        self.receive()
        if self.is_connected or self.shake_hands():
            self.read()
        self.send()

    def shake_hands(self) -> bool:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
            self.is_connected = True
        return self.is_connected

    def read(self) -> None:
        try:
            while chunk := self.tls.read(CHUNK):
                self.data += chunk
            self.is_closed = True
        except ssl.SSLZeroReturnError:  # after a close_notify of our own
            self.is_closed = True
        except ssl.SSLWantReadError:
            pass

    def receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while not self.is_ended:
                chunk = self.sock.recv(CHUNK)
                self.is_ended = not chunk
                self.received += chunk
                self.incoming.write(chunk)

    def send(self) -> None:
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def write(self, data: bytes) -> None:
        self.tls.write(data)
        self.send()

    def connect(self, loop: SelectorEventLoop) -> None:
        """Do the handshake with a stream of ``loop``."""

        def step() -> bool:
            self.turn()
            loop.run_once(0)
            return self.is_connected

        run_until(loop, step, timeout=0)
        self.turn()
