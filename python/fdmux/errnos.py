"""The error numbers of C as Python has them.

Its one rule: a number that comes from C becomes a number of `errno` here. They are the
same but on Windows, where `errno` has the numbers of Winsock for errors of sockets, as
its sockets do.
"""

from __future__ import annotations

import errno
import os
import sys

__all__ = ["IN_PROGRESS", "errno_from_c", "text_of"]

# What connect(2) returns while a non-blocking socket is connecting.
IN_PROGRESS = errno.EWOULDBLOCK if sys.platform == "win32" else errno.EINPROGRESS

# The numbers of Microsoft's errno.h, from 100 on, by the names that Python has.
NAMES_IN_C = {
    100: "EADDRINUSE",
    101: "EADDRNOTAVAIL",
    102: "EAFNOSUPPORT",
    103: "EALREADY",
    106: "ECONNABORTED",
    107: "ECONNREFUSED",
    108: "ECONNRESET",
    109: "EDESTADDRREQ",
    110: "EHOSTUNREACH",
    112: "EINPROGRESS",
    113: "EISCONN",
    114: "ELOOP",
    115: "EMSGSIZE",
    116: "ENETDOWN",
    117: "ENETRESET",
    118: "ENETUNREACH",
    119: "ENOBUFS",
    123: "ENOPROTOOPT",
    126: "ENOTCONN",
    128: "ENOTSOCK",
    130: "EOPNOTSUPP",
    135: "EPROTONOSUPPORT",
    136: "EPROTOTYPE",
    138: "ETIMEDOUT",
}

if sys.platform != "win32":

    def errno_from_c(code: int) -> int:
        """Return ``code``."""
        return code

    def text_of(code: int) -> str:
        """Return what an error of `errno` means, for people."""
        return os.strerror(code)

else:
    import socket

    NUMBERS = {code: getattr(errno, name) for code, name in NAMES_IN_C.items()}
    WINSOCK = range(10000, 12000)  # os.strerror knows none of them

    def errno_from_c(code: int) -> int:
        """Return the number that `errno` has for ``code``."""
        return NUMBERS.get(code, code)

    def text_of(code: int) -> str:
        """Return what an error of `errno` means, for people."""
        if code not in WINSOCK:
            return os.strerror(code)
        return socket.errorTab.get(code, f"Winsock error {code}").rstrip(".")
