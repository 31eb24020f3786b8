"""Host: what the kit must be able to do with a loop, to test it as a host.

Its one rule: it says nothing about fdmux but how one mounts. Whoever brings another
loop writes such a class, of some thirty lines, and runs the same cases.
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
    """One loop of a library, from its making to its end. Made without arguments.

    Attributes:
        name: What it is called in the table.
        module: What must be importable, such as ``"trio"``; none for the stdlib.
        package: What one installs to get it, such as ``"trio"``.
        raises_interrupt: Whether Ctrl-C comes out of `run` as a KeyboardInterrupt. If
            not, an application of that library has to handle the signal itself.
        ends_mount: Whether `close` also ends what is mounted. If not, an application of
            that library has to call `fdmux.Mounted.unmount`.
    """

    name: str
    module: str = "asyncio"
    package: str = ""
    raises_interrupt = True
    ends_mount = True

    @abc.abstractmethod
    def run(self, main: Callback) -> None:
        """Run the loop, call ``main()`` in it, and return after `stop`.

        Called again for the same object, it runs the same loop, or a new one if that
        is all the library has.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Make `run` return. Called in the loop's thread."""

    @abc.abstractmethod
    def call_later(self, delay: float, callback: Callback) -> None:
        """Call ``callback()`` in the loop after so many seconds; 0 is: soon.

        What it raises goes where the library has it: out of `run`, or to a log.
        """

    def close(self) -> None:  # noqa: B027 - some loops have nothing to close
        """End the loop. Not running any more; called once."""

    def target(self) -> object:
        """Return what `fdmux.mount` is to be given; ``None`` when it has to find it."""
        return None

    @classmethod
    def missing(cls) -> str:
        """Return why it cannot be tested here, or nothing."""
        try:
            found = importlib.util.find_spec(cls.module) is not None
        except ModuleNotFoundError:  # of the package around it
            found = False
        return "" if found else f"needs {cls.package}"

    @classmethod
    def version(cls) -> str:
        """Return the version that is tested."""
        if cls.package:
            return importlib.metadata.version(cls.package)
        return f"Python {platform.python_version()}"
