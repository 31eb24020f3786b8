"""Socket pairs with a byte waiting: descriptors that stay ready while we measure."""

from __future__ import annotations

import contextlib
import resource
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def ready_sockets(count: int) -> Iterator[list[socket.socket]]:
    """Yield ``count`` sockets that are readable and writable, and stay so."""
    allow_descriptors(2 * count + 64)
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        for _ in range(count):
            near, far = socket.socketpair()
            stack.enter_context(near)
            stack.enter_context(far)
            far.send(b"x")
            near.setblocking(False)
            sockets.append(near)
        yield sockets


def allow_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
