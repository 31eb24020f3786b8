"""Sockets that the program was started with, by systemd or another supervisor.

Its one rule: a call that raises changes nothing, so descriptors and variables are as
they were inherited.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

__all__ = ["InheritedSocket", "inherited_sockets"]

# sd_listen_fds(3): SD_LISTEN_FDS_START.
FIRST_FD = 3
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
# sd_listen_fds_with_names(3): the name where LISTEN_FDNAMES is not set.
UNNAMED = "unknown"


class InheritedSocket(NamedTuple):
    """A socket that the program was started with.

    Attributes:
        name: Of ``FileDescriptorName=`` in the unit of systemd.
        sock: Non-blocking, close-on-exec, and yours to close.
    """

    name: str
    sock: socket.socket


def inherited_sockets(*, unset_environment: bool = True) -> list[InheritedSocket]:
    """Return the sockets that a supervisor has passed, in order.

    Reads ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES``, as sd_listen_fds(3)
    does. Call it once, since each socket has one owner.

    Args:
        unset_environment: Remove the variables, so that children do not see them.

    Returns:
        No sockets if none were passed, or if they were passed to another process.

    Raises:
        ValueError: A variable is malformed; the message names it.
        OSError: A descriptor is not open, or is no socket; the message names it.
    Threads: The main thread, early: the environment belongs to the process.
    Source:  sd_listen_fds(3)
    """
    names = passed_names()
    taken: list[InheritedSocket] = []
    try:
        for fd, name in enumerate(names, FIRST_FD):
            taken.append(InheritedSocket(name, open_socket(fd, name)))
    except BaseException:
        for inherited in taken:
            inherited.sock.detach()
        raise
    for inherited in taken:
        # Non-blocking for every process that has the socket: open(2), O_NONBLOCK
        # belongs to the open file.
        inherited.sock.setblocking(False)
        inherited.sock.set_inheritable(False)
    if unset_environment:
        for variable in VARIABLES:
            os.environ.pop(variable, None)
    return taken


def passed_names() -> list[str]:
    """Return the names of the descriptors that were passed to this process."""
    if "LISTEN_PID" not in os.environ or "LISTEN_FDS" not in os.environ:
        return []
    if number_of("LISTEN_PID") != os.getpid():
        return []
    count = number_of("LISTEN_FDS")
    given = os.environ.get("LISTEN_FDNAMES")
    if given is None:
        return [UNNAMED] * count
    names = given.split(":") if given else []
    if len(names) != count:
        raise ValueError(
            f"inherit sockets: LISTEN_FDNAMES has {len(names)} names, and LISTEN_FDS "
            f"is {count}"
        )
    return names


def number_of(variable: str) -> int:
    """Return the number in a variable of the environment."""
    text = os.environ[variable]
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"inherit sockets: {variable} is {text!r}, which is no number")
    return int(text)


def open_socket(fd: int, name: str) -> socket.socket:
    """Return the socket of ``fd``."""
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        raise OSError(
            error.errno, f"inherit fd {fd} ({name!r}) as a socket: {error.strerror}"
        ) from error
