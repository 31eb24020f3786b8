"""Watched: something with a descriptor that a loop of Python watches for us.

Its one rule: what the host calls is held by the host alone, and keeps the `Watched`
alive. So a host that goes away takes it along, and is not held back. How one watches a
descriptor in a certain host is in that host's own file.
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
    """How a host lets go, takes errors, and has ended unnoticed."""

    detach: Callable[[], object]
    report: ErrorHook
    has_ended: Callable[[], bool] = bool  # no


class HostModule(Protocol):
    """What each file of this folder that knows a host has."""

    def running(self) -> object | None:
        """Return the host that runs in this thread, if there is one."""

    def accepts(self, host: object) -> bool:
        """Whether ``host`` is one of this library."""

    def loop_of(self, host: object) -> object:
        """Return what a loop is mounted on once: ``host``, or what it belongs to."""

    def native_of(self, host: object) -> NativeLoop | None:
        """Return the native loop that the host has anyway."""

    def attach(self, host: object, served: Watched) -> Attachment:
        """Have the host watch ``served.fileno()`` and call ``served.watcher()``."""


def no_native(_host: object) -> None:
    """Say as `HostModule.native_of` that this kind of host never has one."""


def same_loop(host: object) -> object:
    """Say as `HostModule.loop_of` that the host is the loop."""
    return host


def log_error(error: Exception, source: object) -> None:
    """Report an error where the host has no place for it."""
    logger.error("error in %r", source, exc_info=error)


def unmount_if_there(reference: weakref.ref[Watched]) -> None:
    """Unmount, if there is still something that is mounted."""
    served = reference()
    if served is not None:
        served.unmount()


class Watched(abc.ABC):
    """What a host serves, from `attach` to `unmount`.

    Attributes:
        error_hook: ``None``: an error goes where the host takes those of callbacks. A
            callable: it gets ``(error, served)``.
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

    @abc.abstractmethod
    def _serve(self) -> object:
        """Do what there is to do, without waiting."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Release what is ours; the host has let go."""

    @property
    def host(self) -> object | None:
        """What it is mounted on; ``None`` when that is gone."""
        return self._host()

    @property
    def is_mounted(self) -> bool:
        """Whether the host serves it: before `unmount`, in the process it is of."""
        return self._is_mounted and self._pid == os.getpid()

    @property
    def has_ended(self) -> bool:
        """Whether the host was closed without letting go."""
        return self._attachment is not None and self._attachment.has_ended()

    def attach(self, host_module: HostModule, host: object) -> None:
        """Begin to be served; what fails has no effect."""
        try:
            self._attachment = host_module.attach(host, self)
        except BaseException:
            self.unmount()
            raise

    def watcher(self) -> functools.partial[None]:
        """Return what the host shall call; when it drops that, the mount ends."""
        watcher = functools.partial(self.dispatch)
        at_end = weakref.finalize(watcher, unmount_if_there, weakref.ref(self))
        at_end.atexit = False
        return watcher

    def dispatch(self, *_event: object) -> None:
        """Serve, without waiting. For the host; others need not call it."""
        try:
            self._serve()
        except ForkedLoop as error:
            self._report(error)
        except LoopClosed:
            self.unmount()  # closed by what was called, or behind our back
        except Exception as error:  # noqa: BLE001 - whatever a native function returned
            self._report(error)

    def unmount(self) -> None:
        """Leave the host, and release what is ours. Idempotent."""
        if not self._is_mounted:
            return
        is_ours = self.is_mounted  # a child must not touch what it shares with another
        self._is_mounted = False
        attachment, self._attachment = self._attachment, None
        try:
            if attachment is not None and is_ours:
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
