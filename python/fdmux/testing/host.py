"""Host: what the kit needs from a loop to test it as a host.

It knows nothing of fdmux except what to mount on. To test another loop, write such a
class, of about thirty lines, and run the same cases.
"""

from __future__ import annotations

import abc
import importlib.metadata
import importlib.util
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[], object]


class Host(abc.ABC):
    """One loop of a library, from its construction to `close`. Takes no arguments.

    Attributes:
        name: The name in the table.
        module: The module that must be importable, such as ``"trio"``.
        package: The package to install for it, such as ``"trio"``; empty for the
            standard library.
        raises_interrupt: Whether `run` raises KeyboardInterrupt on Ctrl-C. If not, an
            application of that library has to handle the signal itself.
        ends_mount: Whether `close` unmounts. If not, an application of that library has
            to call `fdmux.Mounted.unmount`.
    """

    name: str
    module: str = "asyncio"
    package: str = ""
    raises_interrupt = True
    ends_mount = True

    @abc.abstractmethod
    def run(self, main: Callback) -> None:
        """Run the loop, call ``main()`` in it, and return after `stop`.

        A second call for the same object runs the same loop, or a new one if the
        library cannot run a loop twice.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Make `run` return. Called in the loop's thread."""

    @abc.abstractmethod
    def call_later(self, delay: float, callback: Callback) -> None:
        """Call ``callback()`` in the loop after ``delay`` seconds; 0: soon.

        The library decides where an exception of the callback goes: out of `run`, or to
        a log.
        """

    def close(self) -> None:  # noqa: B027 - some loops have nothing to close
        """Close the loop. Called once, while it does not run."""

    def target(self) -> object:
        """Return the argument for `fdmux.mount`; ``None`` if it can find the loop."""
        return None

    @classmethod
    def missing(cls) -> str:
        """Return why the host cannot be tested here; empty if it can."""
        try:
            found = importlib.util.find_spec(cls.module) is not None
        except ModuleNotFoundError:  # the parent package is missing
            found = False
        return "" if found else f"needs {cls.package}"

    @classmethod
    def version(cls) -> str:
        """Return the version of the library, or of Python."""
        if cls.package:
            return importlib.metadata.version(cls.package)
        return f"Python {platform.python_version()}"
