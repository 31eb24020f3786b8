"""Mounted: a native loop that is mounted on a loop of Python.

Its one rule: unmounting ends the native loop as closing it does: every watcher ends,
and its ``destroyed`` is called once.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from fdmux.hosts.watched import Watched

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from fdmux._native import NativeLoop


class Mounted(Watched):
    """A `NativeLoop` on a loop of Python; made by `fdmux.mount`.

    Attributes:
        native: The native loop. The host runs it; to end it call `unmount`, not its
            `close`.
        error_hook: Called with ``(error, mounted)`` when a native function returns an
            error. While it is ``None``, the host gets the error: asyncio's exception
            handler, gevent's ``Hub.handle_error``, the nursery or task group that was
            passed, the caller of a selector's ``key.data()``; otherwise the logger
            ``fdmux.hosts``. The loop stays usable in every case.

    Threads: The host's. Native code may use the native loop from any thread.
    Fork: A forked child calls `mount` again; the parent's `Mounted` does nothing there.
    """

    def __init__(self, host: object, native: NativeLoop, *, is_owner: bool) -> None:
        super().__init__(host)
        self.native = native
        self._is_owner = is_owner
        if is_owner:
            # This closes the loop even if the program keeps `native`. At exit it runs
            # before Python clears its modules: `destroyed` may be a callback of ctypes
            # or cffi.
            weakref.finalize(self, native.close)

    def __repr__(self) -> str:
        state = "" if self.is_mounted else ", unmounted"
        return f"<fdmux.Mounted {self.native!r} on {self.host!r}{state}>"

    def __fdmux_loop__(self) -> object:
        """Return the capsule of the native loop for native code; see `NativeLoop`."""
        return self.native.__fdmux_loop__()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.unmount()

    def fileno(self) -> int:
        """Return the descriptor that the host watches for reading."""
        return self.native.fileno()

    def handle(self) -> int:
        """Return the handle of Windows that a Proactor loop waits for."""
        return self.native.handle()

    def unmount(self) -> None:
        """Stop the host from watching, and close the native loop. Idempotent.

        Every native watcher ends and its ``destroyed`` is called before this returns;
        called inside a native function, after that function has returned. If the host
        has a native loop of its own (it runs on a `fdmux.Selector`), this changes
        nothing: the host closes that loop.
        """
        super().unmount()

    def _serve(self) -> None:
        self.native.dispatch()

    def _close(self) -> None:
        if self._is_owner:
            self.native.close()
