"""NativeQueue: items from threads of native code, announced as ordinary readiness.

Its one rule: Python pays per batch. Native threads put without the GIL; the descriptor
becomes readable; the program's loop, whichever it is, calls the function of the
extension that takes everything there is. What the items are is between that function
and those threads: this file hands the queue over and ends it.
"""

from __future__ import annotations

import errno
import operator
from typing import TYPE_CHECKING

from fdmux._ffi import ffi, lib
from fdmux._native import MEMORY_NAME, QUEUE_NAME, check, make_capsule, new_capsule

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from fdmux._ffi import CQueue

CAPACITY_MAX = (1 << 32) - 1
WHY_NOT = {
    errno.ESTALE: "it is closed",
    errno.ECHILD: "it was made before fork(); make a new one in the child",
}


def c_capacity(capacity: int | None) -> int:
    """Turn what users pass into what C takes, where 0 sets no bound.

    Raises:
        ValueError: ``capacity`` is not positive, or beyond 32 bits.
        TypeError: It is not an integer.
    """
    if capacity is None:
        return 0
    count = operator.index(capacity)
    if not 0 < count <= CAPACITY_MAX:
        raise ValueError(f"make a NativeQueue: capacity is {capacity}")
    return count


class NativeQueue:
    """A queue that native threads fill, and that a Python loop watches.

    >>> with NativeQueue() as queue:
    ...     module.start(queue)  # an extension whose threads put
    ...     loop.register_read(queue, module.drain)  # asyncio: add_reader(queue, ...)

    Args:
        capacity: How many items may wait; a thread that puts more is told so. ``None``
            sets no bound.

    Raises:
        ValueError: ``capacity`` is not positive.
        OSError: The kernel has no descriptors to give.

    Order:   Items are taken in the order in which each thread put them.
    Threads: Native threads put at any time, also after `close` and while the
        interpreter shuts down; they are told that it is closed.
    Fork:    A child of fork() cannot use it, and leaves the parent's alone.
    Source:  fdmux_queue_create() in fdmux.h, fdmux_queue_from_object() in
        fdmux_python.h
    """

    __slots__ = ("__weakref__", "_c_queue", "_handle", "_memory")

    def __init__(self, *, capacity: int | None = None) -> None:
        self._c_queue: CQueue = ffi.NULL
        options = ffi.new("struct fdmux_queue_options *")
        options.struct_size = ffi.sizeof("struct fdmux_queue_options")
        options.capacity = c_capacity(capacity)
        created = ffi.new("struct fdmux_queue **")
        check(lib.fdmux_queue_create(options, created), "make a NativeQueue")
        self._c_queue = created[0]
        # Closed when nobody holds it any more, as the memory of a NativeLoop.
        self._memory = new_capsule(
            int(ffi.cast("uintptr_t", self._c_queue)),
            MEMORY_NAME,
            lib.fdmux_py_queue_destructor(),
        )
        self._handle = ffi.new("struct fdmux_queue_handle *")
        self._handle.api = lib.fdmux_get_api()
        self._handle.queue = self._c_queue

    def __repr__(self) -> str:
        if not self._c_queue:
            return "<fdmux.NativeQueue that could not be made>"
        fd = lib.fdmux_queue_fd(self._c_queue)
        return f"<fdmux.NativeQueue {'closed' if fd < 0 else f'fd={fd}'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __fdmux_queue__(self) -> object:
        """Hand out the queue to native code: a capsule named ``fdmux.queue``.

        The capsule keeps this object, and so the memory of the queue, alive.

        Source:  fdmux_queue_from_object() in fdmux_python.h
        """
        return make_capsule(int(ffi.cast("uintptr_t", self._handle)), QUEUE_NAME, self)

    def fileno(self) -> int:
        """Return the descriptor that is readable while the queue holds something.

        Watch it level-triggered, for reading; never read from it.

        Raises:
            ValueError: The queue is closed, or the parent's of a forked child.
        """
        fd = lib.fdmux_queue_fd(self._c_queue)
        if fd < 0:
            raise ValueError(f"get the fd of a NativeQueue: {WHY_NOT[-fd]}")
        return fd

    def close(self) -> None:
        """End the queue: what is left is freed as native code has said. Idempotent.

        Unregister it before. Runs without the GIL.
        """
        lib.fdmux_queue_close(self._c_queue)
