"""Session: one run of one host, in which a case does its work.

Its one rule: a case ends by itself, and with the error that explains it: what its
callbacks raise, in Python or in "C", comes out of `run`, and so does its time limit.
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
        mounted: What `fdmux.mount` gave.
        code: Native code that has got hold of the loop.
        reported: Errors of native functions that reached Python: by the error hook, or
            out of the host's own run where it has a native loop itself.
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
        """Mount, call ``main()`` in the loop, and return when `stop` was called."""
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
        """Close the host as an application does."""
        if self._is_mounted and not self.host.ends_mount:
            self.mounted.unmount()
        self.host.close()

    def check(self) -> None:
        """Raise what a callback has raised."""
        if self._error is not None:
            raise self._error
        for error in self.code.errors:
            raise error

    def stop(self) -> None:
        """End the run; in a native function as well, and as often as one likes."""
        if not self._is_stopping:
            self._is_stopping = True
            self.host.stop()
        if self._is_mounted:
            with contextlib.suppress(fdmux.LoopClosed):
                self.mounted.native.wake()  # whose dispatch would go on meanwhile

    def guard(self, callback: Callback) -> Callable[[], None]:
        """Wrap a callback of Python so that its error ends the run."""

        def guarded() -> None:
            try:
                callback()
            except BaseException as error:  # noqa: BLE001 - `run` raises it
                self._error = self._error or error
                self.stop()

        return guarded

    def call_later(self, delay: float, callback: Callback) -> None:
        """Call ``callback()`` after so many seconds."""
        self.host.call_later(delay, self.guard(callback))


def contains(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether it is of that kind, or a group with such a one, as trio makes them."""
    parts = getattr(error, "exceptions", ())
    return isinstance(error, kind) or any(contains(part, kind) for part in parts)
