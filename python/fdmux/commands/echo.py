"""``fdmux echo``: an `EchoServer` until Ctrl-C, and what it has done.

Its one rule: the first line is the address, printed when clients can connect, and the
last what happened. In between a terminal sees one line that is rewritten; a pipe or a
file sees nothing, so it can be read by programs.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

from fdmux.commands.arguments import host, whole_number
from fdmux.commands.failure import Failure, reason
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.echo import EchoServer
from fdmux.streams.server import log_unexpected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from fdmux.commands.arguments import Subparsers


REDRAW_INTERVAL = 0.25  # as often as one can read
TO_LINE_START, CLEAR_TO_END = "\r", "\x1b[K"

EXAMPLE = """\
example:
  $ fdmux echo --port 9200
  listening on 127.0.0.1:9200"""


def add_parser(commands: Subparsers) -> None:
    """Describe ``echo`` to the parser."""
    parser = commands.add_parser(
        "echo",
        help="serve as an echo server, until Ctrl-C",
        description="Send back what clients send, until Ctrl-C or SIGTERM.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host",
        type=host,
        default="127.0.0.1",
        help="the address to listen on; 0.0.0.0 for all (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=whole_number(0, 65535),
        default=9200,
        help="0 lets the kernel choose (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve, and report."""
    try:
        # The loop is ours, so that a signal that comes before `run` is not lost: its
        # `stop` counts for the next run, while the server's would only close it.
        with SelectorEventLoop(error_hook=log_unexpected) as loop:
            with (
                stopped_by_signals(loop),
                EchoServer(arguments.host, arguments.port, loop=loop) as server,
            ):
                sys.stdout.write(f"listening on {location(server.address)}\n")
                sys.stdout.flush()
                if sys.stdout.isatty():
                    Display(loop, server)
                server.run()
            report(server)
    except BrokenPipeError:
        raise  # of stdout
    except OSError as error:
        raise Failure(reason(error)) from error
    return 0


@contextlib.contextmanager
def stopped_by_signals(loop: SelectorEventLoop) -> Iterator[None]:
    """Make Ctrl-C and SIGTERM stop the loop instead of raising or killing."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        loop.stop()

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


class Display:
    """One line of a terminal, rewritten when the server's counters change."""

    def __init__(self, loop: SelectorEventLoop, server: EchoServer) -> None:
        self._loop = loop
        self._server = server
        self._shown = ""
        self._redraw()

    def _redraw(self) -> None:
        stats = self._server.stats
        line = (
            f"{stats.open} connected of {stats.accepted}, "
            f"{stats.bytes_in:,} bytes in, {stats.bytes_out:,} bytes out"
        )
        if line != self._shown:
            self._shown = line
            sys.stdout.write(f"{TO_LINE_START}{line}{CLEAR_TO_END}")
            sys.stdout.flush()
        self._loop.call_later(REDRAW_INTERVAL, self._redraw)


def report(server: EchoServer) -> None:
    """Write what happened, over the line of a `Display` if there was one."""
    stats = server.stats
    if sys.stdout.isatty():
        sys.stdout.write(f"{TO_LINE_START}{CLEAR_TO_END}")
    sys.stdout.write(
        f"served {stats.accepted} connections, {stats.bytes_in:,} bytes in, "
        f"{stats.bytes_out:,} bytes out, {stats.errors} errors\n"
    )


def location(address: tuple[str, int]) -> str:
    """Write an address the way URLs do."""
    name, port = address
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
