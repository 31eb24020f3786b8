"""``fdmux``, or ``python -m fdmux``: the options, the commands, the exit codes.

Its one rule: each exit code has one meaning. 0: it worked; 1: it failed, and one line
on stderr says how; 2: the command line was wrong; 130: Ctrl-C cut it short. Users end a
server with Ctrl-C, so ``fdmux echo`` then exits with 0. The commands are in commands/.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from fdmux.commands import completion, demo, echo, info, ping
from fdmux.commands.failure import Failure
from fdmux.commands.output import write
from fdmux.sdk import __version__, get_cmake_dir, get_include, get_pkgconfig_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Answer = Callable[[], str]

EXAMPLES = """\
examples:
  fdmux demo                             see every helper work, on loopback
  fdmux echo --port 9200                 serve, until Ctrl-C
  fdmux ping 127.0.0.1 9200              measure round trips to that server
  fdmux info --json                      what this system offers
  fdmux completion bash >> ~/.bashrc     complete with the Tab key
  cc $(fdmux --cflags) -c extension.c    compile against the headers

exit status: 0 it worked, 1 it failed, 2 wrong arguments, 130 Ctrl-C cut it short;
Ctrl-C is how one ends "fdmux echo", which then exits with 0"""


def cflags() -> str:
    """Return the compiler options for the headers, quoted for a shell."""
    return shlex.quote(f"-I{get_include()}")


ANSWERS: tuple[tuple[str, Answer, str], ...] = (
    ("--include-dir", get_include, "print the folder of fdmux.h"),
    ("--cmake-dir", get_cmake_dir, "print the folder for fdmux_DIR"),
    ("--pkgconfig-dir", get_pkgconfig_dir, "print the folder of fdmux.pc"),
    ("--cflags", cflags, "print the compiler options for extensions"),
)


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the options and of every command."""
    parser = argparse.ArgumentParser(
        prog="fdmux",
        description="One I/O event core for Python and native code.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--version", action="version", version=f"fdmux {__version__}")
    for option, answer, text in ANSWERS:
        group.add_argument(
            option, action="store_const", dest="answer", const=answer, help=text
        )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in (demo, echo, ping, info, completion):
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code.

    Raises:
        SystemExit: 2 for wrong arguments, 0 after --help and --version.
    """
    parser = make_parser()
    completion.complete_for_shell(parser)
    arguments = parser.parse_args(argv)
    run = getattr(arguments, "run", None)
    answer: Answer | None = arguments.answer
    if (run is None) == (answer is None):
        parser.error("give one command, or one option that prints something")
    try:
        if answer is None:
            code: int = arguments.run(arguments)
        else:
            code = say(answer)
    except Failure as failure:
        print(f"fdmux: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, what shells expect
    except BrokenPipeError:
        return 1  # Whoever read our output has gone, as in `fdmux info | head -1`.
    return code


def say(answer: Answer) -> int:
    """Print one answer."""
    try:
        text = answer()
    except FileNotFoundError as error:
        raise Failure(f"find the SDK: {error}") from error
    write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
