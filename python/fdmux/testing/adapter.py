"""Adapter: what the kit needs from an extension that uses an adapter of a C library.

Its one rule: the peer is the kit's, the protocol is yours. To test an adapter, write
such a class, of about twenty lines, and run the cases of `ADAPTER_CASES`.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    Done = Callable[[], object]


class Adapter(abc.ABC):
    """One client of the library, from `open` to `close`. Takes no arguments."""

    @abc.abstractmethod
    def open(self, loop: object, port: int) -> None:
        """Make a client in ``loop``, and begin to connect to ``port`` of 127.0.0.1.

        ``loop`` is what `fdmux_from_object` takes.
        """

    @abc.abstractmethod
    def request(self, done: Done) -> None:
        """Ask the peer for something; call ``done()`` in the loop when it answers.

        The kit calls this while the client connects, and when it is connected. Requests
        of a connection that was lost or closed are dropped.
        """

    @abc.abstractmethod
    def reconnect(self) -> None:
        """Connect to the same port again, from a connection that stands or is lost."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free the client.

        Called once: in ``done()``, outside of it, or after the loop was closed.
        """

    @abc.abstractmethod
    def answer(self, connection: socket.socket) -> bool:
        """Be the peer: receive from ``connection`` once, and answer what has arrived.

        Runs in a thread of the kit. Returns whether there may be more: ``False`` at the
        end of the stream.
        """
