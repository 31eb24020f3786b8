"""What a `fdmux.Selector` looks at in debug mode.

Its one rule: it warns, and otherwise behaves as without. Closing a selector that still
has keys is no mistake: programs do that with the standard library's selectors too.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from fdmux.debugging import place_of_caller, warn_misuse, warn_unclosed
from fdmux.descriptor import check_open

if TYPE_CHECKING:
    from selectors import BaseSelector, SelectorKey

    from _typeshed import FileDescriptorLike

    class Watching(BaseSelector):
        """A `fdmux.Selector`."""

        _keys: dict[int, SelectorKey]
        _map: object
else:
    Watching = object


class DebugSelector(Watching):
    """The methods that a selector has in debug mode, before its own.

    Attributes:
        is_quiet: Its loop warns.
    """

    is_quiet = False
    _place = "?"
    _places: dict[int, str]

    def begin_debug(self) -> None:
        """Remember where the selector was made."""
        self._place = place_of_caller()
        self._places = {}

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> SelectorKey:
        """Register, and remember where."""
        key = super().register(fileobj, events, data)
        self._places[key.fd] = place_of_caller()
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """Unregister; warn if the file was closed before."""
        key = super().unregister(fileobj)
        self._warn_if_closed(key)
        return key

    def close(self) -> None:
        """Close; warn of each file that was closed before it was unregistered."""
        closed = [key for key in self._keys.values() if is_closed(key)]
        super().close()
        for key in closed:
            self._warn_if_closed(key)

    def __del__(self) -> None:
        if getattr(self, "_map", None) is not None and not self.is_quiet:
            warn_unclosed(f"unclosed selector {self!r}, made at {self._place}", self)

    def _warn_if_closed(self, key: SelectorKey) -> None:
        place = self._places.pop(key.fd, "?")
        if not self.is_quiet and is_closed(key):
            warn_misuse(
                f"fd {key.fd} ({type(key.fileobj).__name__}) was closed while a "
                f"selector watched it; registered at {place}",
                None,
            )


def is_closed(key: SelectorKey) -> bool:
    """Whether the registered file is closed; a system call."""
    try:
        check_open(key.fd)
        return not isinstance(key.fileobj, int) and key.fileobj.fileno() != key.fd
    except (OSError, ValueError):
        return True


@functools.cache
def debug_class(kind: type) -> type:
    """Return a class that behaves as ``kind``, a selector, and looks at more."""
    return type(kind.__name__, (DebugSelector, kind), {"__module__": kind.__module__})
