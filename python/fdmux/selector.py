"""Selector: a `selectors.BaseSelector` on the C core.

Its one rule: the semantics are the standard library's, to the exception; the speed
comes from doing per registration what others do per event. Each registration prebuilds
the ``(key, events)`` pairs it can be reported with, in a list by descriptor, four
entries each; a wait is one C call that returns indices into that list.

Other threads register during a wait, so the order of steps matters: a pair is in the
list before the kernel is told of it, and leaves it only when the kernel has forgotten
it. The wait that was under way then sees another epoch, and looks for gaps.
"""

from __future__ import annotations

import errno
import math
import operator
import os
import struct
from collections.abc import Mapping
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from fdmux._ffi import ffi, lib
from fdmux._native import LoopClosed, NativeLoop, check, check_dispatch, timeout_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed import FileDescriptorLike

    from fdmux._ffi import CBatch, CIndices

    Pair = tuple[SelectorKey, int]

__all__ = ["EVENT_READ", "EVENT_WRITE", "Selector", "SelectorKey"]

BOTH = EVENT_READ | EVENT_WRITE
CAPACITY_MIN = 64
PAIRS_MIN_BITS = 8
FORKED = -errno.ECHILD
NO_TOKEN = 0  # no token is 0
NO_PAIRS = (None, None, None)
# What SelectorKey's own constructor does, without its Python frame.
make_key = tuple.__new__
# Bound once: each lookup in `lib` costs as much as a tenth of the call.
io_add = lib.fdmux_py_io_add
io_remove = lib.fdmux_io_remove
io_update = lib.fdmux_io_update
is_fn_error = lib.fdmux_py_is_fn_error
wait = lib.fdmux_py_select
# The array a batch points at must live as long as the batch.
BUFFERS: WeakKeyDictionary[CBatch, CIndices] = WeakKeyDictionary()
# How to read so many indices at once, for the counts that have come so far.
UNPACK: dict[int, Callable[[memoryview], tuple[int, ...]]] = {}
UNPACK_MAX = 4096
# What a closed selector waits with: no loop.
CLOSED = ffi.new("struct fdmux_py_batch *")


def pairs_of(key: SelectorKey) -> tuple[Pair | None, Pair | None, Pair | None]:
    """Build what `select` can report for this key: for READ, for WRITE, for both."""
    if key.events == BOTH:
        return (key, EVENT_READ), (key, EVENT_WRITE), (key, BOTH)
    if key.events == EVENT_READ:
        return (key, EVENT_READ), None, None
    return None, (key, EVENT_WRITE), None


def unpack_of(count: int) -> Callable[[memoryview], tuple[int, ...]]:
    """Make what reads ``count`` indices; keep it, unless there may be too many."""
    unpack = struct.Struct(f"{count}I").unpack_from
    if count <= UNPACK_MAX:
        UNPACK[count] = unpack
    return unpack


class SelectorMapping(Mapping["FileDescriptorLike", SelectorKey]):
    """What `Selector.get_map` returns: keys by file object or descriptor."""

    def __init__(self, selector: Selector) -> None:
        self._selector = selector

    def __len__(self) -> int:
        return len(self._selector._keys)  # noqa: SLF001 - its view

    def __getitem__(self, fileobj: FileDescriptorLike) -> SelectorKey:
        key = self._selector._find(fileobj)  # noqa: SLF001 - its view
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def __iter__(self) -> Iterator[FileDescriptorLike]:
        return iter(self._selector._keys)  # noqa: SLF001 - its view


def fd_of(fileobj: FileDescriptorLike) -> int:
    """Return the descriptor of a file object, as `selectors` does.

    Raises:
        ValueError: There is none, or it is negative.
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


class Selector(BaseSelector):
    """Wait for descriptors, with the semantics of `selectors.EpollSelector`.

    Native watchers, timers and posted calls in the same loop run inside `select`,
    without the GIL. Works as ``asyncio.SelectorEventLoop(fdmux.Selector())``.

    Args:
        backend: A name that ``fdmux info`` lists, such as ``"epoll"``; ``None`` for
            the best there is.

    Attributes:
        native: The `NativeLoop` behind it; closed with the selector.

    Raises:
        ValueError: There is no such backend on this system.
        OSError: The kernel has no descriptors to give.

    Threads: register, modify and unregister from any thread take effect at once, also
        while another thread is in `select`. One thread at a time may `select`.
    """

    def __init__(self, backend: str | None = None) -> None:
        self.native = NativeLoop(backend)
        self._c_loop = self.native._c_loop  # noqa: SLF001 - our own handle
        self._keys: dict[int, SelectorKey] = {}
        self._tokens: dict[int, int] = {}
        self._pairs: list[Pair | None] = []
        self._map: SelectorMapping | None = SelectorMapping(self)
        self._capacity = 0
        self._epoch = 0.0  # changes after pairs were taken out; NaN: at any time
        self._batch: CBatch
        self._indices: memoryview
        self._reserve(1)

    def __fdmux_loop__(self) -> object:
        """Hand out the loop to native code, see `NativeLoop`."""
        return self.native.__fdmux_loop__()

    def fileno(self) -> int:
        """Return the descriptor that stands for the selector, native timers included.

        Raises:
            ValueError: The selector is closed.
            OSError: EOPNOTSUPP on the ``poll`` backend, which has none.
        """
        self._check_open("fileno")
        return self.native.fileno()

    def register(  # noqa: C901 - the hot path stays one frame
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> SelectorKey:
        """Watch ``fileobj`` for ``events``.

        Raises:
            ValueError: ``events`` or ``fileobj`` is invalid, or the selector is closed.
            KeyError: It is registered already.
            OSError: The kernel refused it: EBADF, EPERM for regular files, ENOSPC.
        """
        if not events or events & ~BOTH:
            raise ValueError(f"Invalid events: {events!r}")
        try:
            fd = fileobj if type(fileobj) is int else fileobj.fileno()  # type: ignore[union-attr] # whatever it is
        except (AttributeError, TypeError, ValueError):
            fd = -1
        if type(fd) is not int or fd < 0:
            fd = self._fd_of(fileobj)  # the long way, or why not
        key = make_key(SelectorKey, (fileobj, fd, events, data))
        # Everything is in its place before the kernel is told: the next instant
        # another thread may report it.
        if self._keys.setdefault(fd, key) is not key:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        try:
            # Its other pairs are None: `unregister` left them so.
            self._pairs[(fd << 2) + events] = (key, events)
            if events == BOTH:
                self._set_pairs(fd, pairs_of(key))
        except IndexError:
            self._make_room(key)
        token = io_add(self._c_loop, fd, events)
        if token < 0:
            self._forget(key)
            self._check_open("register")
            check(token, f"watch fd {fd}")
        self._tokens[fd] = token
        if self._keys.get(fd) is not key:
            self._take_back(fd, token)
        if len(self._keys) > self._capacity:
            self._reserve(len(self._keys))
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """Stop watching; never fails for a registered object, closed or not.

        Raises:
            KeyError: It is not registered.
        """
        try:
            fd = fileobj if type(fileobj) is int else fileobj.fileno()  # type: ignore[union-attr] # whatever it is
            key = self._keys[fd]
            token = self._tokens.pop(fd)
        except Exception:  # noqa: BLE001 - whatever fileno() does; ask again slowly
            key, token = self._take(fileobj)
        # Until the kernel has forgotten it, another thread may report it.
        if io_remove(self._c_loop, token) == FORKED:
            self._tokens[key.fd] = token
            check(FORKED, f"unregister fd {key.fd}")
        self._epoch += 1
        if key.events != BOTH:
            self._pairs[(key.fd << 2) + key.events] = None
        else:
            self._set_pairs(key.fd, NO_PAIRS)
        del self._keys[key.fd]
        if token == NO_TOKEN:
            self._take_back(key.fd, self._tokens.get(key.fd, NO_TOKEN))
        return key

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> SelectorKey:
        """Change the events or data of a registered object.

        Raises:
            KeyError: It is not registered.
            ValueError: ``events`` is invalid; the registration stays.
            OSError: The kernel refused it; the object is not registered any more, as
                with the standard library's selectors.
        """
        key = self._find(fileobj)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        if not events or events & ~BOTH:
            raise ValueError(f"Invalid events: {events!r}")
        if events == key.events and data == key.data:
            return key
        fd = key.fd
        changed = make_key(SelectorKey, (key.fileobj, fd, events, data))
        # What is added goes in before the kernel is told, what is dropped leaves after:
        # another thread may report either in between.
        if events == BOTH:
            self._set_pairs(fd, pairs_of(changed))
        else:
            self._pairs[(fd << 2) + events] = (changed, events)
        if events != key.events:
            result = io_update(self._c_loop, self._tokens[fd], events)
            if result < 0:
                self._set_pairs(fd, pairs_of(key))
                self.unregister(fileobj)
                check(result, f"watch fd {fd} for other events")
            if events != BOTH:
                self._pairs[(fd << 2) + (events ^ BOTH)] = None
                self._pairs[(fd << 2) + BOTH] = None
            self._epoch += 1
        self._keys[fd] = changed
        return changed

    def select(self, timeout: float | None = None) -> list[Pair]:
        """Wait until something is ready, ``timeout`` has passed, or somebody woke it.

        Args:
            timeout: Seconds; ``None`` waits, zero and less poll. Rounded up to
                nanoseconds: never early.

        Returns:
            The ready ``(key, events)``; empty after the timeout, a
            ``native.wake()``, or a `close` by another thread.

        Raises:
            ValueError: The selector is closed, or ``timeout`` is NaN.
            RuntimeError: Another thread is in `select`.
            OSError: A function given to the loop returned this error, and the message
                says so; the loop stays usable.
        """
        batch = self._batch
        indices = self._indices
        epoch = self._epoch
        count = wait(
            batch,
            -1 if timeout is None else 0 if timeout <= 0 else timeout_ns(timeout),
        )
        if count < 0:
            count = self._finish(batch, count)
        if not count:
            return []
        pairs = self._pairs
        if count == 1:
            pair = pairs[indices[0]]
            return [] if pair is None else [pair]
        unpack = UNPACK.get(count) or unpack_of(count)
        found = operator.itemgetter(*unpack(indices))(pairs)
        if epoch == self._epoch:
            return [*found]
        return list(filter(None, found))  # unregistered by another thread meanwhile

    def close(self) -> None:
        """Release the kernel objects; end native watchers. Idempotent.

        A thread that is in `select` returns from it.
        """
        self._map = None
        self._batch = CLOSED
        self.native.close()
        self._keys.clear()
        self._tokens.clear()
        # The thread that is in `select` may have collected something before.
        self._epoch += 1
        self._pairs[:] = [None] * len(self._pairs)

    def get_key(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """Return the key of a registered object.

        Raises:
            KeyError: It is not registered.
            RuntimeError: The selector is closed.
        """
        if self._map is None:
            raise RuntimeError("Selector is closed")
        return self._map[fileobj]

    def get_map(self) -> Mapping[FileDescriptorLike, SelectorKey]:
        """Return a live mapping of file objects to keys; ``None`` once closed."""
        return self._map  # type: ignore[return-value] # as in the stdlib

    def _check_open(self, attempted: str) -> None:
        if self._map is None:
            raise ValueError(f"{attempted} on a closed Selector")

    def _find(self, fileobj: FileDescriptorLike) -> SelectorKey | None:
        try:
            return self._keys[
                fileobj if type(fileobj) is int else fileobj.fileno()  # type: ignore[union-attr] # whatever it is
            ]
        except Exception:  # noqa: BLE001 - whatever fileno() does; ask again slowly
            return self._keys.get(self._fd_of(fileobj))

    def _fd_of(self, fileobj: FileDescriptorLike) -> int:
        """Find a descriptor, also of a registered object that was closed meanwhile."""
        try:
            return fd_of(fileobj)
        except ValueError:
            for key in list(self._keys.values()):
                if key.fileobj is fileobj:
                    return key.fd
            raise

    def _take(self, fileobj: FileDescriptorLike) -> tuple[SelectorKey, int]:
        """Find what is to be unregistered the long way, or say why not."""
        key = self._find(fileobj)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        token = self._tokens.pop(key.fd, NO_TOKEN)
        if token == NO_TOKEN:
            # Another thread is registering it, and the kernel may report it for a
            # moment still: from now on every batch is looked through for gaps.
            self._epoch = math.nan
        return key, token

    def _take_back(self, fd: int, token: int) -> None:
        """End a registration that was unregistered before its token was known.

        Both threads come by here, whichever is later with the token in its place.
        """
        if token != NO_TOKEN and self._tokens.pop(fd, NO_TOKEN) == token:
            io_remove(self._c_loop, token)

    def _set_pairs(self, fd: int, pairs: Iterable[Pair | None]) -> None:
        """Replace what `select` can report for ``fd``, at one stroke."""
        first = (fd << 2) + EVENT_READ
        self._pairs[first : first + 3] = pairs

    def _make_room(self, key: SelectorKey) -> None:
        """Lengthen the list of pairs for a higher descriptor than any before.

        Raises:
            OSError: It is not open; a wild number is not to cost a list of its size.
        """
        try:
            os.fstat(key.fd)
            end = 1 << max((key.fd << 2).bit_length(), PAIRS_MIN_BITS)
            self._pairs.extend([None] * (end - len(self._pairs)))
        except OSError as error:
            del self._keys[key.fd]
            check(-(error.errno or errno.EBADF), f"watch fd {key.fd}")
        except BaseException:  # OverflowError, MemoryError
            del self._keys[key.fd]
            raise
        self._set_pairs(key.fd, pairs_of(key))

    def _forget(self, key: SelectorKey) -> None:
        """Take back what was made ready for a registration that failed."""
        self._set_pairs(key.fd, NO_PAIRS)
        self._keys.pop(key.fd, None)

    def _reserve(self, count: int) -> None:
        """Make room to collect ``count`` events; a wait under way keeps the old."""
        capacity = max(CAPACITY_MIN, 1 << (count - 1).bit_length())
        indices = ffi.new("uint32_t[]", capacity)
        batch = ffi.new("struct fdmux_py_batch *")
        batch.loop = self._c_loop
        batch.indices = indices
        batch.capacity = capacity
        BUFFERS[batch] = indices
        self._batch = batch
        self._indices = memoryview(ffi.buffer(indices)).cast("I")
        self._capacity = capacity
        if self._map is None:  # closed meanwhile by another thread
            self._batch = CLOSED

    def _finish(self, batch: CBatch, count: int) -> int:
        """Go on after signals, whose handlers run in between; raise for errors."""
        while count == -errno.EINTR and not is_fn_error(batch.loop, count):
            count = lib.fdmux_py_select_again(batch)
        if batch is CLOSED:
            self._check_open("select")
        if count == -errno.ESTALE and not is_fn_error(batch.loop, count):
            if self._map is None:
                return 0  # closed by another thread during this wait
            raise LoopClosed("wait in a Selector: its native loop was closed")
        return check_dispatch(batch.loop, count, "wait in a Selector")
