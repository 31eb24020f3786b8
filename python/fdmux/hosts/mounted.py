"""Mounted: a native loop that a loop of Python serves.

Its one rule: it ends for native code as any loop does: every watcher is ended, and its
``destroyed`` called once.
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
        native: The native loop. It is the host's to run: do not close it, `unmount`.
        error_hook: ``None``: the error that a native function returned goes where the
            host takes errors of callbacks (asyncio's exception handler, gevent's
            ``Hub.handle_error``; else the logger ``fdmux.hosts``). A callable: it gets
            ``(error, mounted)``. The loop stays usable in either case.

    Threads: The host's. Native code may use the loop from any thread, as always.
    Fork:    A child of fork() mounts anew; the parent's is left alone there.
    """

    def __init__(self, host: object, native: NativeLoop, *, is_owner: bool) -> None:
        super().__init__(host)
        self.native = native
        self._is_owner = is_owner
        if is_owner:
            # Also while somebody holds `native` itself; and at exit before Python's
            # modules go, for what is called then may be a callback of ctypes or cffi.
            weakref.finalize(self, native.close)

    def __repr__(self) -> str:
        state = "" if self.is_mounted else ", unmounted"
        return f"<fdmux.Mounted {self.native!r} on {self.host!r}{state}>"

    def __fdmux_loop__(self) -> object:
        """Hand out the loop to native code, see `NativeLoop`."""
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
        """Return the descriptor that the host watches."""
        return self.native.fileno()

    def unmount(self) -> None:
        """Leave the host, and close the native loop. Idempotent.

        Every native watcher is ended and its ``destroyed`` called, before this returns
        or, called within a native function, when that has returned. Where the host has
        a native loop of its own (it runs on a `fdmux.Selector`) there is nothing to
        leave, and the loop is the host's to close.
        """
        super().unmount()

    def _serve(self) -> None:
        self.native.dispatch()

    def _close(self) -> None:
        if self._is_owner:
            self.native.close()
