"""The programs that measure themselves: one line in, one round's figures out.

Each contender stays a process of its own, so rounds can be interleaved; see
programs/native/rounds.h for the other end, in C. Those on fdmux are linked against the
static core of the fdmux that is installed: what a plain C program of a user gets.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from benchmarks.availability import Unavailable, load_fdmux
from benchmarks.build import build
from benchmarks.processes import Child, Failed
from benchmarks.progress import progress
from benchmarks.rounds import interleave_figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.rounds import Figures

ROUND_SECONDS = 120.0
Command = list[str]


class _GetInclude(Protocol):
    def __call__(self) -> str: ...


class Program(Child):
    """A running program; `Failed` says what did not work."""

    def __init__(self, name: str, command: Sequence[str], core: int | None) -> None:
        super().__init__(name, command, core)
        try:
            self._await_ready()
        except BaseException:
            self.end()
            raise

    def _await_ready(self) -> None:
        line = self.read_line(ROUND_SECONDS)
        if line != "ready":
            raise Failed(f"{self.name} said {line!r} instead of 'ready'")

    def run_round(self) -> list[float]:
        """Run one round; return the numbers it printed."""
        self.write_line()
        return [float(word) for word in self.read_line(ROUND_SECONDS).split()]


def fdmux_include() -> Path:
    """Return the folder of the installed fdmux's headers."""
    get_include = cast("_GetInclude", load_fdmux("get_include"))
    try:
        return Path(get_include())
    except OSError as error:
        raise Unavailable(f"fdmux is not installed with its headers: {error}") from None


def build_on_fdmux(source: str, *libraries: str) -> Path:
    """Compile a program against the static core of the installed fdmux."""
    include = fdmux_include()
    library = include.parent / "lib" / "libfdmux.a"
    if not library.exists():
        raise Unavailable(f"there is no static core {library}")
    return build(source, f"-I{include}", str(library), *libraries, "-pthread")


def find(
    commands: Mapping[str, Callable[[], Command]], left_out: dict[str, str]
) -> dict[str, Command]:
    """Return the commands of those contenders that can be built here."""
    found: dict[str, Command] = {}
    for name, command in commands.items():
        try:
            found[name] = command()
        except Unavailable as reason:
            left_out[name] = str(reason)
            progress(f"  {name}: {reason}")
    return found


def start(
    commands: Mapping[str, Command],
    arguments: Iterable[object],
    core: int | None,
    stack: contextlib.ExitStack,
) -> dict[str, Program]:
    """Start all of them with the same arguments, idle until asked for a round."""
    programs: dict[str, Program] = {}
    words = [str(argument) for argument in arguments]
    for name, command in commands.items():
        programs[name] = Program(name, [*command, *words], core)
        stack.callback(programs[name].end)
    return programs


def run_interleaved(
    commands: Mapping[str, Callable[[], Command]],
    core: int | None,
    rounds: int,
    left_out: dict[str, str],
) -> Figures:
    """Run those that can be built here; return all figures of all rounds."""
    with contextlib.ExitStack() as stack:
        programs = start(find(commands, left_out), (), core, stack)
        contenders = {name: program.run_round for name, program in programs.items()}
        return interleave_figures(contenders, rounds)
