"""Session: a running host and native code on it, for one case.

Its one rule: a case always ends. `run` raises the exceptions of its callbacks, in
Python or native code, and a TimeoutError at the time limit.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import fdmux
from fdmux.testing.native import NativeCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.testing.host import Callback, Host

TIME_LIMIT = 10.0


class Session:
    """A host that runs, with native code on it.

    Attributes:
        mounted: The result of `fdmux.mount`.
        code: Native code that uses the mounted loop.
        reported: Errors of native functions: those that the error hook got, and those
            that `run` of a host with its own native loop raised.
    """

    mounted: fdmux.Mounted
    code: NativeCode

    def __init__(self, host: Host) -> None:
        self.host = host
        self.reported: list[BaseException] = []
        self._error: BaseException | None = None
        self._run = 0
        self._is_stopping = False
        self._is_mounted = False

    def run(self, main: Callback) -> None:
        """Mount, call ``main()`` in the loop, and return after `stop`.

        Raises:
            BaseException: A callback raised it.
            TimeoutError: `stop` was not called within `TIME_LIMIT` seconds.
        """
        self._run += 1
        self._is_stopping = False
        number, deadline = self._run, time.monotonic() + TIME_LIMIT

        def expire() -> None:
            if number == self._run and time.monotonic() >= deadline:
                raise TimeoutError(f"not done after {TIME_LIMIT} s")

        def begin() -> None:
            self.mounted = fdmux.mount(self.host.target())
            self.mounted.error_hook = lambda error, _source: self.reported.append(error)
            self.code = NativeCode(self.mounted)
            self._is_mounted = True
            main()

        def guarded() -> None:
            self.call_later(TIME_LIMIT, expire)
            self.guard(begin)()

        self.host.run(guarded)
        self._run += 1
        self.check()

    def close(self) -> None:
        """Unmount if the host does not, and close the host, as applications do."""
        if self._is_mounted and not self.host.ends_mount:
            self.mounted.unmount()
        self.host.close()

    def check(self) -> None:
        """Raise the first exception of a callback."""
        if self._error is not None:
            raise self._error
        for error in self.code.errors:
            raise error

    def stop(self) -> None:
        """End the run. Callable in a native function too. Idempotent."""
        if not self._is_stopping:
            self._is_stopping = True
            self.host.stop()
        if self._is_mounted:
            with contextlib.suppress(fdmux.LoopClosed):
                self.mounted.native.wake()  # ends a dispatch under way

    def guard(self, callback: Callback) -> Callable[[], None]:
        """Wrap a Python callback so that its exception ends the run."""

        def guarded() -> None:
            try:
                callback()
            except BaseException as error:  # noqa: BLE001 - `run` raises it
                self._error = self._error or error
                self.stop()

        return guarded

    def call_later(self, delay: float, callback: Callback) -> None:
        """Call ``callback()`` after ``delay`` seconds."""
        self.host.call_later(delay, self.guard(callback))


def contains(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether ``error`` is of that kind, or a group that contains such an error."""
    parts = getattr(error, "exceptions", ())
    return isinstance(error, kind) or any(contains(part, kind) for part in parts)
