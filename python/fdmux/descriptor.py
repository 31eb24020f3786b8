"""The descriptor of a file object; and why the kernel refuses to watch one."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from fdmux._native import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import FileDescriptorLike


# Raises OSError unless a file is open under the number; on Windows, a handle.
check_open: Callable[[int], object] = getattr(os, "get_handle_inheritable", os.fstat)


def check_watchable(result: int, fd: int) -> None:
    """Raise what the kernel answered when it was asked to watch ``fd``.

    Raises:
        OSError: The kernel refused; the message says so if ``fd`` was opened with
            ``O_PATH``, since EBADF alone would say that it is closed.
    """
    if result == -errno.EBADF and is_path_only(fd):
        raise path_only_error(fd)
    check(result, f"watch fd {fd}")


def path_only_error(fd: int) -> OSError:
    """Make the error for a descriptor that was opened with ``O_PATH``."""
    return OSError(
        errno.EBADF,
        f"watch fd {fd}: it was opened with O_PATH, and the kernel cannot wait for "
        "such a descriptor",
    )


def is_path_only(fd: int) -> bool:
    """Whether ``fd`` was opened with ``O_PATH``: a place in the file system, no file.

    Source:  open(2), O_PATH
    """
    try:
        from fcntl import F_GETFL, fcntl  # noqa: PLC0415 - only to explain an error

        return bool(fcntl(fd, F_GETFL) & os.O_PATH)
    except (ImportError, AttributeError, OSError):  # another system, or closed
        return False


def fd_of(fileobj: FileDescriptorLike) -> int:
    """Return the descriptor of a file object, as `selectors` does.

    Raises:
        ValueError: There is none, or it is negative.
        Exception: ``fileobj.fileno()`` raised it.
    """
    if isinstance(fileobj, int):
        fd = fileobj
    else:
        try:
            fd = int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {fileobj!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd
