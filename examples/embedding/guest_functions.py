"""The functions of guest.h, in Python. The library runs this when it is first called.

Its one rule: `keep_error` gets each exception, so C gets -1 and the text, and nothing
is printed.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from guest_library import ffi
from service import Service

if TYPE_CHECKING:
    from types import TracebackType


class State:
    """What the library keeps between two calls."""

    service: Service | None = None
    error_text = b""


def running_service() -> Service:
    """Return the service; raise if there is none."""
    if State.service is None:
        raise RuntimeError("there is no service: call guest_start first")
    return State.service


def keep_error(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Keep the text for `guest_error`; C gets the function's value for errors."""
    State.error_text = "".join(traceback.format_exception(kind, error, trace)).encode()


@ffi.def_extern(error=-1, onerror=keep_error)
def guest_start(socket_fd: int) -> int:
    """Start a service, and end the one before."""
    stop()
    State.service = Service(socket_fd)
    return 1


@ffi.def_extern(error=-1, onerror=keep_error)
def guest_fd() -> int:
    """Return the one descriptor of the loop."""
    return running_service().fileno()


@ffi.def_extern(error=-1, onerror=keep_error)
def guest_dispatch() -> int:
    """Do one iteration of the loop."""
    return running_service().dispatch()


@ffi.def_extern(error=-1, onerror=keep_error)
def guest_error(ret_text: object, size: int) -> int:
    """Copy the text of the last exception."""
    if size > 0:
        text = State.error_text[: size - 1] + b"\0"
        ffi.memmove(ret_text, text, len(text))
    return len(State.error_text)


@ffi.def_extern(onerror=keep_error)
def guest_stop() -> None:
    """End the service."""
    stop()


def stop() -> None:
    """End the service, if there is one."""
    service, State.service = State.service, None
    if service is not None:
        service.close()
