"""What wine does and Windows does not, shown by the standard library alone.

Run by the Python for Windows; it imports nothing of fdmux. tests/windows_known.txt
names these functions where a test fails for such a reason. Each returns what it has
seen if wine still does so, and an empty text otherwise: then the tests may be run.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time

HOST = "127.0.0.1"
NOT_OURS = "192.0.2.1"  # of RFC 5737, for documents
NO_LINGER = struct.pack("HH", 1, 0)


def reset_is_an_end() -> str:
    """A connection that the peer has reset ends like one that it has closed."""
    left, right = socket.socketpair()
    with left, right:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        left.close()
        time.sleep(0.1)
        with contextlib.suppress(ConnectionResetError):
            return f"recv returned {right.recv(1)!r} after a reset"
    return ""


def errors_have_no_text() -> str:
    """The text of an error of Winsock is its number."""
    with socket.socket() as sock:
        try:
            sock.getpeername()
        except OSError as error:
            text = str(error.strerror)
            return text if text.startswith("Windows Error") else ""
    return ""


def refused_datagrams_are_silent() -> str:
    """A connected socket is not told that nobody has the port of its peer."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind((HOST, 0))
            address = other.getsockname()
        sock.connect(address)
        sock.send(b"x")
        sock.settimeout(0.5)
        try:
            sock.recv(1)
        except TimeoutError:
            return "recv waited in vain for WSAECONNRESET"
        except ConnectionResetError:
            return ""
    return ""


def foreign_addresses_can_be_bound() -> str:
    """A socket is bound to an address that this machine does not have."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sock,
        contextlib.suppress(OSError),
    ):
        sock.bind((NOT_OURS, 0))
        return f"bound to {sock.getsockname()}"
    return ""


PROOFS = (
    reset_is_an_end,
    errors_have_no_text,
    refused_datagrams_are_silent,
    foreign_addresses_can_be_bound,
)


def main() -> int:
    """Show all; 1 if wine does not do one of them any more."""
    seen = {proof.__name__: proof() for proof in PROOFS}
    for name, text in seen.items():
        print(f"{name}: {text or 'not any more'}")
    return 0 if all(seen.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
