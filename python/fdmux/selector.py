"""Selector: a `selectors.BaseSelector` on the C core.

Its one rule: it behaves as the standard library's selectors do, down to the exceptions.
It is faster since it does at registration what they do at each event. `register`
builds the ``(key, events)`` pairs that `select` can report, and keeps them in a list
with four entries for each descriptor. `select` is one C call, which returns indices
into the list.

Other threads may register during a wait, so the order of steps matters. A pair is put
into the list before the kernel gets the descriptor, and is taken out only after the
kernel has removed it. Taking one out changes the epoch; a `select` that was under way
sees that, and leaves out the pairs that are gone.
"""

from __future__ import annotations

import errno
import math
import operator
import struct
from collections.abc import Mapping
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from fdmux._ffi import ffi, lib
from fdmux._native import (
    LoopClosed,
    NativeLoop,
    c_loop_of,
    check,
    check_dispatch,
    timeout_ns,
)
from fdmux.debug_selector import debug_class
from fdmux.debugging import is_debug
from fdmux.descriptor import check_open, check_watchable, fd_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed import FileDescriptorLike

    from fdmux._ffi import CBatch, CIndices
    from fdmux.debug_selector import DebugSelector

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
# Looked up once: a lookup in `lib` costs a tenth of the call.
io_add = lib.fdmux_py_io_add
io_remove = lib.fdmux_io_remove
io_update = lib.fdmux_io_update
is_fn_error = lib.fdmux_py_is_fn_error
wait = lib.fdmux_py_select
# The array a batch points at must live as long as the batch.
BUFFERS: WeakKeyDictionary[CBatch, CIndices] = WeakKeyDictionary()
# By count: what reads that many indices at once. For the counts seen so far.
UNPACK: dict[int, Callable[[memoryview], tuple[int, ...]]] = {}
UNPACK_MAX = 4096
# The batch of a closed selector; it has no loop.
CLOSED = ffi.new("struct fdmux_py_batch *")


def pairs_of(key: SelectorKey) -> tuple[Pair | None, Pair | None, Pair | None]:
    """Build the pairs `select` can report for this key: for READ, WRITE, and both."""
    if key.events == BOTH:
        return (key, EVENT_READ), (key, EVENT_WRITE), (key, BOTH)
    if key.events == EVENT_READ:
        return (key, EVENT_READ), None, None
    return None, (key, EVENT_WRITE), None


def unpack_of(count: int) -> Callable[[memoryview], tuple[int, ...]]:
    """Make the function that reads ``count`` indices; keep it for small counts."""
    unpack = struct.Struct(f"{count}I").unpack_from
    if count <= UNPACK_MAX:
        UNPACK[count] = unpack
    return unpack


class SelectorMapping(Mapping["FileDescriptorLike", SelectorKey]):
    """What `Selector.get_map` returns: keys by file object or descriptor."""

    def __init__(
        self,
        keys: Mapping[int, SelectorKey],
        find: Callable[[FileDescriptorLike], SelectorKey | None],
    ) -> None:
        self._keys = keys
        self._find = find

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, fileobj: FileDescriptorLike) -> SelectorKey:
        key = self._find(fileobj)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def __iter__(self) -> Iterator[FileDescriptorLike]:
        return iter(self._keys)


class Selector(BaseSelector):
    """Wait for descriptors, with the semantics of `selectors.EpollSelector`.

    >>> with Selector() as selector:
    ...     _ = selector.register(sock, EVENT_READ, data="a client")
    ...     for key, events in selector.select(timeout=1.0):
    ...         print(key.data, events == EVENT_READ)
    a client True

    `select` runs the native watchers, timers and posted calls of its core loop, without
    the GIL. Works as ``asyncio.SelectorEventLoop(fdmux.Selector())``.

    Args:
        backend: A name that ``fdmux info`` lists, such as ``"epoll"``; ``None`` for
            the best there is.

    Attributes:
        native: Its core loop, a `NativeLoop`; `close` closes it.

    Raises:
        ValueError: There is no such backend on this system.
        TypeError: ``backend`` is not a string.
        OSError: The kernel has no descriptors to give.

    Threads: Any thread may register, modify and unregister; it takes effect at once,
        also while another thread is in `select`. One thread at a time may `select`.
    """

    def __init__(self, backend: str | None = None) -> None:
        self.native: NativeLoop = NativeLoop(backend)
        self._c_loop = c_loop_of(self.native)
        self._keys: dict[int, SelectorKey] = {}
        self._tokens: dict[int, int] = {}
        self._pairs: list[Pair | None] = []
        self._map: SelectorMapping | None = SelectorMapping(self._keys, self._find)
        self._capacity = 0
        self._epoch = 0.0  # grows when pairs are taken out; NaN: always differs
        self._batch: CBatch
        self._indices: memoryview
        self._reserve(1)
        # A subclass stays as it is: it may compare its type, or override __del__.
        if type(self) is Selector and is_debug():
            self.__class__ = debug_class(Selector)
            cast("DebugSelector", self).begin_debug()

    def __fdmux_loop__(self) -> object:
        """Return the core loop for native code, see `NativeLoop`."""
        return self.native.__fdmux_loop__()

    def fileno(self) -> int:
        """Return the one descriptor that stands for the selector, timers included.

        It polls readable when `select` has something to report, or a native function
        is due.

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
            OSError: The kernel refused it: EBADF (it is closed, or was opened with
                ``O_PATH``), EPERM for regular files, ENOSPC.
            Exception: ``fileobj.fileno()`` raised it.
        """
        if not events or events & ~BOTH:
            raise ValueError(f"Invalid events: {events!r}")
        try:
            fd = fileobj if type(fileobj) is int else fileobj.fileno()  # type: ignore[union-attr] # whatever it is
        except Exception:  # noqa: BLE001 - `_fd_of` asks again, and raises it
            fd = -1
        if type(fd) is not int or fd < 0:
            fd = self._fd_of(fileobj)  # the slow way, or the error
        key = make_key(SelectorKey, (fileobj, fd, events, data))
        # The tables are complete before the kernel gets the descriptor: from then on
        # another thread may report it.
        if self._keys.setdefault(fd, key) is not key:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        try:
            # Its other pairs are None: `unregister` has cleared them.
            self._pairs[(fd << 2) + events] = (key, events)
            if events == BOTH:
                self._set_pairs(fd, pairs_of(key))
        except IndexError:
            self._make_room(key)
        token = io_add(self._c_loop, fd, events)
        if token < 0:
            self._forget(key)
            self._check_open("register")
            check_watchable(token, fd)
        self._tokens[fd] = token
        if self._keys.get(fd) is not key:
            self._take_back(fd, token)
        if len(self._keys) > self._capacity:
            self._reserve(len(self._keys))
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """Stop watching; works for every registered object, closed or not.

        An object whose ``fileno()`` fails or returns -1 is found by identity, in O(n).

        Raises:
            KeyError: It is not registered.
            ValueError: It is not registered, and has no descriptor.
            Exception: It is not registered, and its ``fileno()`` raised this.
        """
        try:
            fd = fileobj if type(fileobj) is int else fileobj.fileno()  # type: ignore[union-attr] # whatever it is
            key = self._keys[fd]
            token = self._tokens.pop(fd)
        except Exception:  # noqa: BLE001 - fileno() may raise anything; the slow way
            key, token = self._take(fileobj)
        # Until the kernel has removed it, another thread may report it.
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
            OSError: The kernel refused it; the object is not registered any more. The
                standard library's selectors do the same.
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
        # New pairs are put in before the kernel changes, old ones are taken out after:
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
        """Wait until something is ready, ``timeout`` has passed, or a thread woke it.

        Args:
            timeout: Seconds; ``None`` waits without limit, zero and less do not wait.
                Rounded up to nanoseconds, so it never returns early.

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
        """Release the kernel objects, and remove native watchers. Idempotent.

        A thread that is in `select` returns from it.
        """
        self._map = None
        self._batch = CLOSED
        self.native.close()
        self._keys.clear()
        self._tokens.clear()
        # The thread that is in `select` may have collected something already.
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
        except Exception:  # noqa: BLE001 - fileno() may raise anything; the slow way
            return self._keys.get(self._fd_of(fileobj))

    def _fd_of(self, fileobj: FileDescriptorLike) -> int:
        """Return the descriptor of ``fileobj``, which may be closed if registered.

        Raises:
            Exception: As `fd_of`, if it is not registered.
        """
        try:
            return fd_of(fileobj)
        except Exception:
            for key in list(self._keys.values()):
                if key.fileobj is fileobj:
                    return key.fd
            raise

    def _take(self, fileobj: FileDescriptorLike) -> tuple[SelectorKey, int]:
        """Take the token of ``fileobj`` out; the slow way of `unregister`.

        Raises:
            KeyError: It is not registered.
        """
        key = self._find(fileobj)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        token = self._tokens.pop(key.fd, NO_TOKEN)
        if token == NO_TOKEN:
            # Another thread is registering it, and the kernel may report it once more
            # at any time: from now on every `select` looks for pairs that are gone.
            self._epoch = math.nan
        return key, token

    def _take_back(self, fd: int, token: int) -> None:
        """Remove from the kernel what was unregistered before its token was known.

        The registering and the unregistering thread both call this; the later one
        finds the token.
        """
        if token != NO_TOKEN and self._tokens.pop(fd, NO_TOKEN) == token:
            io_remove(self._c_loop, token)

    def _set_pairs(self, fd: int, pairs: Iterable[Pair | None]) -> None:
        """Replace the pairs of ``fd`` in one step, which no thread sees half done."""
        first = (fd << 2) + EVENT_READ
        self._pairs[first : first + 3] = pairs

    def _make_room(self, key: SelectorKey) -> None:
        """Lengthen the list of pairs for a higher descriptor than any before.

        Raises:
            OSError: It is not open. Checked first, so that a number out of nowhere does
                not cost a list of its size.
        """
        try:
            check_open(key.fd)
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
        """Undo the tables of a registration that failed."""
        self._set_pairs(key.fd, NO_PAIRS)
        self._keys.pop(key.fd, None)

    def _reserve(self, count: int) -> None:
        """Make room to collect ``count`` events; a wait under way keeps its own."""
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
        """Wait again after signals, whose handlers have run by then; raise errors."""
        while count == -errno.EINTR and not is_fn_error(batch.loop, count):
            count = lib.fdmux_py_select_again(batch)
        if batch is CLOSED:
            self._check_open("select")
        if count == -errno.ESTALE and not is_fn_error(batch.loop, count):
            if self._map is None:
                return 0  # closed by another thread during this wait
            raise LoopClosed("wait in a Selector: its native loop was closed")
        return check_dispatch(batch.loop, count, "wait in a Selector")
