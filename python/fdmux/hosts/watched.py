"""Watched: an object with a descriptor that a loop of Python, its host, watches.

Its one rule: only the host holds the function that it calls (`Watched.watcher`), and
that function holds the `Watched`. So the end of the host ends the `Watched`, and the
`Watched` never keeps its host alive. The file of each host says how that host watches a
descriptor.
"""

from __future__ import annotations

import abc
import functools
import logging
import os
import weakref
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fdmux._native import ForkedLoop, LoopClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux._native import NativeLoop

    ErrorHook = Callable[[Exception, object], object]

logger = logging.getLogger("fdmux.hosts")


class Attachment(NamedTuple):
    """What `HostModule.attach` returns.

    Attributes:
        detach: Stops the host from watching. Called once, by `Watched.unmount`.
        report: Gives an error to the host; called with ``(error, watched)``.
        has_ended: Whether the host was closed without a call of `Watched.unmount`.
    """

    detach: Callable[[], object]
    report: ErrorHook
    has_ended: Callable[[], bool] = bool  # False


class HostModule(Protocol):
    """The functions of each file of this folder that mounts on a host."""

    def running(self) -> object | None:
        """Return the host that runs in this thread, or ``None``."""

    def accepts(self, host: object) -> bool:
        """Whether ``host`` is a host of this library."""

    def loop_of(self, host: object) -> object:
        """Return the loop that ``host`` is or belongs to; one loop is mounted once."""

    def native_of(self, host: object) -> NativeLoop | None:
        """Return the native loop that the host has already, or ``None``."""

    def attach(self, host: object, watched: Watched) -> Attachment:
        """Have the host watch ``watched.fileno()`` and call ``watched.watcher()``."""


def no_native(_host: object) -> None:
    """Implement `HostModule.native_of` for hosts that never have a native loop."""


def same_loop(host: object) -> object:
    """Implement `HostModule.loop_of` for hosts that are the loop."""
    return host


def log_error(error: Exception, source: object) -> None:
    """Log an error; for hosts that do not take errors of callbacks."""
    logger.error("error in %r", source, exc_info=error)


def unmount_if_there(reference: weakref.ref[Watched]) -> None:
    """Unmount the object, if it still exists."""
    watched = reference()
    if watched is not None:
        watched.unmount()


class Watched(abc.ABC):
    """An object that a host watches, from `attach` to `unmount`.

    Attributes:
        error_hook: Called with ``(error, watched)`` when dispatching fails. While it is
            ``None``, the host gets the error as one of a callback.
    """

    def __init__(self, host: object) -> None:
        self.error_hook: ErrorHook | None = None
        self._host = weakref.ref(host)
        self._pid = os.getpid()
        self._attachment: Attachment | None = None
        self._is_mounted = True

    @abc.abstractmethod
    def fileno(self) -> int:
        """Return the descriptor that the host watches for reading."""

    def handle(self) -> int:
        """Return the handle of Windows that stands for the descriptor.

        Raises:
            NotImplementedError: There is none.
        """
        raise NotImplementedError(f"{self!r} has no handle of Windows")

    @abc.abstractmethod
    def _serve(self) -> object:
        """Do the work that is ready, without waiting."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Release the object's resources; the host no longer watches."""

    @property
    def host(self) -> object | None:
        """The host it is mounted on; ``None`` when that no longer exists."""
        return self._host()

    @property
    def is_mounted(self) -> bool:
        """Whether it is mounted: before `unmount`, and not in a forked child."""
        return self._is_mounted and self._pid == os.getpid()

    @property
    def has_ended(self) -> bool:
        """Whether the host was closed without a call of `unmount`."""
        return self._attachment is not None and self._attachment.has_ended()

    def attach(self, host_module: HostModule, host: object) -> None:
        """Have the host watch this; if that fails, unmount and raise the error."""
        try:
            self._attachment = host_module.attach(host, self)
        except BaseException:
            self.unmount()
            raise

    def watcher(self) -> functools.partial[None]:
        """Return the function for the host to call; dropping it unmounts."""
        watcher = functools.partial(self.dispatch)
        at_end = weakref.finalize(watcher, unmount_if_there, weakref.ref(self))
        at_end.atexit = False
        return watcher

    def dispatch(self, *_event: object) -> None:
        """Do the work that is ready, without waiting. Called by the host."""
        try:
            self._serve()
        except ForkedLoop as error:
            self._report(error)
        except LoopClosed:
            self.unmount()  # a function of the loop has closed it, or the program
        except Exception as error:  # noqa: BLE001 - any error of a native function
            self._report(error)

    def unmount(self) -> None:
        """Stop the host from watching, and release the resources. Idempotent."""
        if not self._is_mounted:
            return
        is_own_process = (
            self.is_mounted
        )  # a forked child must not touch the parent's host
        self._is_mounted = False
        attachment, self._attachment = self._attachment, None
        try:
            if attachment is not None and is_own_process:
                attachment.detach()
        finally:
            self._close()

    def _report(self, error: Exception) -> None:
        if self.error_hook is not None:
            self.error_hook(error, self)
        elif self._attachment is not None:
            self._attachment.report(error, self)
        else:
            log_error(error, self)
