"""InterestTable: the callbacks of each watched descriptor, on any selector.

Its one rule: an `Interest` is never used again. The selector returns it with each event
as ``key.data``. It loses its callbacks when it is taken out of the table, so an event
that was collected earlier calls nobody, whatever file has the same number by now. This
file calls no callback and reads no clock.
"""

from __future__ import annotations

import contextlib
import functools
import selectors
import socket
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING

from fdmux.checks import check_callable
from fdmux.descriptor import check_open, fd_of, is_path_only, path_only_error

# The only selector whose entries outlive a close; not on every system.
EPOLL: type[selectors.BaseSelector] | None = getattr(selectors, "EpollSelector", None)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from _typeshed import FileDescriptorLike, HasFileno

    ReadyCallback = Callable[[FileDescriptorLike], object]

    class WatchedKey(Protocol):
        """What a `selectors.SelectorKey` of ours is."""

        @property
        def fd(self) -> int:
            """The number that was registered."""

        @property
        def events(self) -> int:
            """What the selector watches for."""

        @property
        def data(self) -> Interest:
            """The callbacks of the descriptor."""


BOTH = EVENT_READ | EVENT_WRITE


def read_fileno(fileobj: HasFileno) -> int:
    """Return ``fileobj.fileno()``, or -1 if it raises, as closed objects do.

    A closed file raises ValueError; other objects raise what they like: a serial port
    of pyserial an OSError, a closed `NativeLoop` LoopClosed.
    """
    try:
        return fileobj.fileno()
    except Exception:  # noqa: BLE001 - see above
        return -1


class Interest:
    """The callbacks of one descriptor; the selector carries it as ``key.data``."""

    __slots__ = ("fd", "fileno", "on_read", "on_write", "place", "reader", "writer")
    place: str | None  # where it was registered; set in debug mode alone

    def __init__(self, fd: int, fileobj: FileDescriptorLike) -> None:
        self.fd = fd
        # Called at each event: does the object still have the same descriptor? None
        # for a plain number, which cannot be asked; that saves 40 ns.
        self.fileno: Callable[[], int] | None = None
        if isinstance(fileobj, int):
            pass
        elif type(fileobj) is socket.socket:  # its fileno() does not raise
            self.fileno = fileobj.fileno
        else:
            self.fileno = functools.partial(read_fileno, fileobj)
        self.on_read: ReadyCallback | None = None
        self.on_write: ReadyCallback | None = None
        self.reader = self.writer = fileobj

    @property
    def events(self) -> int:
        """What the selector has to watch for."""
        return (EVENT_READ if self.on_read is not None else 0) | (
            EVENT_WRITE if self.on_write is not None else 0
        )

    def is_stale(self) -> bool:
        """Whether the object has another descriptor by now, or none."""
        return self.fileno is not None and self.fileno() != self.fd

    def is_closed(self) -> bool:
        """Whether the descriptor is closed, or not the object's; a system call."""
        try:
            check_open(self.fd)
        except OSError:
            return True
        return self.is_stale()

    def source_of(self, events: int) -> FileDescriptorLike:
        """Return the object that was registered for ``events``; for both: to read."""
        return self.reader if events & EVENT_READ else self.writer

    def give(
        self, event: int, fileobj: FileDescriptorLike, callback: ReadyCallback
    ) -> None:
        """Set the callback of one direction."""
        if event == EVENT_READ:
            self.reader, self.on_read = fileobj, callback
        else:
            self.writer, self.on_write = fileobj, callback

    def take(self, events: int) -> None:
        """Remove the callbacks of ``events``; events already collected call nobody."""
        if events & EVENT_READ:
            self.on_read = None
        if events & EVENT_WRITE:
            self.on_write = None


class InterestTable:
    """Every interest of one loop, and the selector that watches the descriptors.

    The selector gets plain numbers: a number can be removed from it after its object
    was closed, without a search.

    Attributes:
        has_ghosts: Whether the selector may report descriptors that are not registered
            any more, so that `replace_selector` has to be called before the next wait.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.selector = selector
        self._by_fd: dict[int, Interest] = {}
        self.has_ghosts = False

    def __len__(self) -> int:
        """How many descriptors are watched."""
        return len(self._by_fd)

    def add(
        self, fileobj: FileDescriptorLike, event: int, callback: ReadyCallback
    ) -> None:
        """Set the callback of one direction; replaces an earlier one."""
        check_callable("callback", callback)
        fd = fd_of(fileobj)
        interest = self._by_fd.get(fd)
        if interest is not None and interest.is_stale():
            self._forget(interest)  # its object was closed without `discard`
            interest = None
        if interest is None:
            interest = Interest(fd, fileobj)
            self._register(interest, event)
        else:
            interest = self._extend(interest, fileobj, event)
        interest.give(event, fileobj, callback)

    def discard(self, fileobj: FileDescriptorLike, events: int = BOTH) -> None:
        """Remove the callbacks of ``events``; does nothing if there are none."""
        interest = self._find(fileobj)
        if interest is None:
            return
        events_left = interest.events & ~events
        if events_left == 0 or interest.is_stale():
            self._forget(interest)
        elif events_left != interest.events:
            interest.take(events)
            self._modify(interest, events_left)

    def drop_closed(self) -> bool:
        """Remove each interest whose file is closed; returns if there was any. O(n)."""
        closed = [entry for entry in self._by_fd.values() if entry.is_closed()]
        for interest in closed:
            self._forget(interest)
        return bool(closed)

    def drop(self, interest: Interest) -> None:
        """Remove an interest whose file turned out to be closed."""
        if self._by_fd.get(interest.fd) is interest:
            self._forget(interest)

    def abandon(self) -> None:
        """Remove all callbacks, without a system call."""
        for interest in self._by_fd.values():
            interest.take(BOTH)
        self._by_fd.clear()

    def _find(self, fileobj: FileDescriptorLike) -> Interest | None:
        """Find by number, or a closed object by identity: O(n), as `selectors`."""
        try:
            return self._by_fd.get(fd_of(fileobj))
        except Exception:  # noqa: BLE001 - fileno() of a closed object may raise any
            for interest in self._by_fd.values():
                if interest.reader is fileobj or interest.writer is fileobj:
                    return interest
            return None

    def _extend(
        self, interest: Interest, fileobj: FileDescriptorLike, event: int
    ) -> Interest:
        """Watch one more direction, or register the same one again.

        The second means to unregister it first: the number may belong to another file
        by now (a plain int, or an object that has connected again), which the kernel
        does not watch yet.
        """
        if interest.events & event:
            events = interest.events
            with contextlib.suppress(KeyError):
                self.selector.unregister(interest.fd)
            self._register(interest, events)
            return interest
        try:
            self.selector.modify(interest.fd, interest.events | event, interest)
        except OSError:
            # epoll_ctl(2) ENOENT: the number belongs to another file by now, and only
            # the new callback is for that file. A closed number fails again here.
            self._forget(interest)
            interest = Interest(interest.fd, fileobj)
            self._register(interest, event)
        return interest

    def _register(self, interest: Interest, events: int) -> None:
        try:
            self.selector.register(interest.fd, events, interest)
        except BaseException as error:
            interest.take(BOTH)
            self._by_fd.pop(interest.fd, None)
            if isinstance(error, OSError) and is_path_only(interest.fd):
                raise path_only_error(interest.fd) from None
            raise
        self._by_fd[interest.fd] = interest

    def _modify(self, interest: Interest, events: int) -> None:
        try:
            self.selector.modify(interest.fd, events, interest)
        except OSError:  # the number belongs to another file by now, or to none
            self._forget(interest)

    def _forget(self, interest: Interest) -> None:
        interest.take(BOTH)
        del self._by_fd[interest.fd]
        with contextlib.suppress(KeyError):
            self.selector.unregister(interest.fd)
        if interest.is_stale():
            self.has_ghosts = EPOLL is not None and isinstance(self.selector, EPOLL)

    def replace_selector(self) -> None:
        """Start over with an empty epoll set. O(n), once for all closes of a batch.

        epoll(7): an entry lives as long as its open file *description*. If the
        closed socket has a duplicate (by ``dup``, or in a forked child), its entry
        stays and cannot be removed any more. It goes on reporting the old number, and
        so looks like an event of whatever file has that number now. Only the standard
        library's selector needs this; `fdmux.Selector` tells entries apart.
        """
        try:
            fresh = selectors.EpollSelector()
        except OSError:  # out of descriptors: try again in the next wait
            return
        old, self.selector = self.selector, fresh
        self.has_ghosts = False
        for key in list(old.get_map().values()):
            self._move(key, fresh)
        old.close()

    def _move(self, key: WatchedKey, fresh: selectors.EpollSelector) -> None:
        try:
            fresh.register(key.fd, key.events, key.data)
        except OSError:  # closed meanwhile
            key.data.take(BOTH)
            self._by_fd.pop(key.fd, None)
