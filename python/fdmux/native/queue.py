"""NativeQueue: items from native threads, behind a descriptor that any loop can watch.

Native threads put items without the GIL. The descriptor becomes readable, and the
program's loop calls a function of the extension, which takes all items of the batch at
once. Only the extension knows what the items are: this file makes the queue, passes it
to native code, and closes it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fdmux._ffi import ffi, lib
from fdmux._native import MEMORY_NAME, QUEUE_NAME, check, make_capsule, new_capsule
from fdmux.checks import checked_integer

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from fdmux._ffi import CItems, CQueue

CAPACITY_MAX = (1 << 32) - 1
WHY_NOT = {
    errno.ESTALE: "it is closed",
    errno.ECHILD: "it was made before fork(); make a new one in the child",
}


def c_capacity(capacity: int | None) -> int:
    """Turn what users pass into what C takes, where 0 means no bound.

    Raises:
        ValueError: ``capacity`` is not positive, or beyond 32 bits.
        TypeError: It is not an integer.
    """
    if capacity is None:
        return 0
    return checked_integer("capacity", capacity, 1, CAPACITY_MAX)


class NativeQueue:
    """A queue that native threads fill, and that a Python loop watches.

    >>> with NativeQueue() as queue:
    ...     module.start(queue)  # an extension whose threads put
    ...     loop.register_read(queue, module.drain)  # asyncio: add_reader(queue, ...)

    Args:
        capacity: How many items may wait; ``fdmux_queue_put`` refuses more. ``None``
            sets no bound.

    Raises:
        ValueError: ``capacity`` is not positive.
        TypeError: ``capacity`` is not an integer.
        OSError: The kernel has no descriptors to give.

    Order:   The items of one thread are taken in the order in which it put them.
    Threads: Native threads may put at any time, also while the interpreter shuts down.
        After `close`, ``fdmux_queue_put`` refuses.
    Fork:    A forked child cannot use it; the parent's is not affected.
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
        # A capsule closes it with the last reference, as with a NativeLoop.
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
        """Return the queue for native code: a capsule named ``fdmux.queue``.

        The capsule keeps this object, and so the memory of the queue, alive.

        Source:  fdmux_queue_from_object() in fdmux_python.h
        """
        return make_capsule(int(ffi.cast("uintptr_t", self._handle)), QUEUE_NAME, self)

    def fileno(self) -> int:
        """Return the descriptor that is readable while the queue holds items.

        Watch it for reading, level-triggered; never read from it.

        Raises:
            ValueError: The queue is closed, or was made before a fork.
        """
        fd = lib.fdmux_queue_fd(self._c_queue)
        if fd < 0:
            raise ValueError(f"get the fd of a NativeQueue: {WHY_NOT[-fd]}")
        return fd

    def close(self) -> None:
        """Close the queue. Idempotent.

        Unregister it first. Items that are left are freed by the function that native
        code has given for that, which runs without the GIL.
        """
        lib.fdmux_queue_close(self._c_queue)


def take_items(queue: NativeQueue, items: CItems, count_max: int) -> int:
    """Take up to ``count_max`` items out of ``queue`` into ``items``.

    Returns:
        How many were taken; if some are left, the descriptor stays readable.

    Raises:
        LoopClosed: The queue is closed.
    """
    c_queue = queue._c_queue  # noqa: SLF001 - this module's own class
    return check(lib.fdmux_queue_take(c_queue, items, count_max), "take items")
