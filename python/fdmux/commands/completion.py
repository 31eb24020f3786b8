"""``fdmux completion``: what a shell needs to complete the command line.

Its one rule: the package argcomplete does the work. It is an extra, and imported only
here and when a shell asks (`complete_for_shell`), so no other command pays for it.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from fdmux.commands.failure import Failure
from fdmux.commands.output import write

if TYPE_CHECKING:
    from fdmux.commands.arguments import Subparsers

SHELLS = ("bash", "zsh", "fish")
ASKED = "_ARGCOMPLETE"  # argcomplete's: the shell sets it when it asks

EXAMPLE = """\
example:
  $ fdmux completion bash >> ~/.bashrc
  $ fdmux completion zsh >> ~/.zshrc
  $ fdmux completion fish > ~/.config/fish/completions/fdmux.fish

exit status: 1 if argcomplete is not installed (pip install argcomplete)"""


def add_parser(commands: Subparsers) -> None:
    """Describe ``completion`` to the parser."""
    parser = commands.add_parser(
        "completion",
        help="print what makes a shell complete this command",
        description="Print the code with which a shell completes commands, options\n"
        "and values of fdmux. It needs the package argcomplete.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the code for one shell."""
    try:
        from argcomplete.shell_integration import shellcode  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Failure(
            f"complete in {arguments.shell}: {error}; pip install argcomplete"
        ) from error
    write(shellcode(["fdmux"], shell=arguments.shell))
    return 0


def complete_for_shell(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks for completions, and exit; otherwise do nothing."""
    if ASKED not in os.environ:
        return
    import argcomplete  # noqa: PLC0415 - the shell has its code, so it is there

    argcomplete.autocomplete(parser)
