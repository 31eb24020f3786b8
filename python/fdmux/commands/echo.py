"""``fdmux echo``: run an `EchoServer` until Ctrl-C or SIGTERM, then report.

Ctrl-C stops at once. SIGTERM lets clients finish, up to a timeout.

The first line of its output is the address, printed once clients can connect; the last
line is the report. In between, a terminal shows one line that is rewritten. A pipe or a
file gets nothing in between, so programs can read the output.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import sys
from typing import TYPE_CHECKING

from fdmux.commands.arguments import host, seconds, whole_number
from fdmux.commands.failure import Failure, reason
from fdmux.commands.output import write, write_json
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.echo import EchoServer
from fdmux.streams.server import DRAIN_TIMEOUT, log_unexpected

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from types import FrameType

    from fdmux.commands.arguments import Subparsers


REDRAW_INTERVAL = 0.25  # as often as one can read
TO_LINE_START, CLEAR_TO_END = "\r", "\x1b[K"

EXAMPLE = """\
example:
  $ fdmux echo --port 9200
  listening on 127.0.0.1:9200
  $ fdmux echo --tls-cert server.pem
  listening on 127.0.0.1:9200
  $ fdmux echo --port 0 --json
  {"listening": {"host": "127.0.0.1", "port": 40123}}

exit status: 0 after Ctrl-C or SIGTERM, 1 if it cannot listen or cannot read the
certificate, 2 wrong arguments"""


def add_parser(commands: Subparsers) -> None:
    """Describe ``echo`` to the parser."""
    parser = commands.add_parser(
        "echo",
        help="run an echo server, until Ctrl-C",
        description="Send back what clients send, until Ctrl-C or SIGTERM; then print "
        "what was served. SIGTERM lets the connected clients finish.",
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
    parser.add_argument(
        "--tls-cert",
        metavar="FILE",
        help="encrypt with this chain of certificates (PEM); SIGHUP reads it again",
    )
    parser.add_argument(
        "--tls-key",
        metavar="FILE",
        help="the key of the certificate (default: in the file of --tls-cert)",
    )
    parser.add_argument(
        "--drain-timeout",
        metavar="SECONDS",
        type=seconds,
        default=DRAIN_TIMEOUT,
        help="after SIGTERM, close clients that have not left in this time "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the address in one line of JSON, and at the end the counters",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal arrives, then report."""
    try:
        # Signals stop this loop and not the server: a signal that arrives before `run`
        # then still counts, while `server.stop()` would only close the server.
        tls = load_tls(arguments)
        with SelectorEventLoop(error_hook=log_unexpected) as loop:
            with (
                stopped_by_signals(loop),
                EchoServer(
                    arguments.host, arguments.port, loop=loop, ssl=tls
                ) as server,
                reloaded_by_signal(loop, server, arguments),
                drained_by_signal(server, arguments.drain_timeout),
            ):
                announce(server, as_json=arguments.json)
                if sys.stdout.isatty() and not arguments.json:
                    Display(loop, server)
                server.run()
            if arguments.json:
                write_json(dataclasses.asdict(server.stats))
            else:
                report(server)
    except BrokenPipeError:
        raise  # from standard output; `main` knows it
    except OSError as error:
        raise Failure(reason(error)) from error
    return 0


def load_tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """Read the certificate and its key; None without ``--tls-cert``."""
    if arguments.tls_cert is None:
        if arguments.tls_key is not None:
            raise Failure("--tls-key needs --tls-cert")
        return None
    import ssl  # noqa: PLC0415 - 10 ms that only users of TLS pay

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password would be asked for at the terminal: an empty one fails instead.
        context.load_cert_chain(arguments.tls_cert, arguments.tls_key, password="")
    except OSError as error:
        files = " and ".join(filter(None, (arguments.tls_cert, arguments.tls_key)))
        raise Failure(f"read the certificate from {files}: {reason(error)}") from error
    return context


@contextlib.contextmanager
def reloaded_by_signal(
    loop: SelectorEventLoop, server: EchoServer, arguments: argparse.Namespace
) -> Iterator[None]:
    """With TLS, make SIGHUP read the certificate again, for new connections."""
    if arguments.tls_cert is None or not hasattr(signal, "SIGHUP"):  # as on Windows
        yield
        return

    def reload() -> None:
        try:
            context = load_tls(arguments)
        except Failure as failure:
            sys.stderr.write(f"fdmux: {failure}; the old one stays in use\n")
            return
        if context is not None:
            server.reload_tls(context)

    previous = signal.signal(
        signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(reload)
    )
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, previous)


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


@contextlib.contextmanager
def drained_by_signal(server: EchoServer, timeout: float) -> Iterator[None]:
    """Make SIGTERM let the clients of ``server`` finish; Ctrl-C still stops at once."""

    def drain(_number: int, _frame: FrameType | None) -> None:
        server.drain(timeout)

    previous = signal.signal(signal.SIGTERM, drain)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


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
            write(f"{TO_LINE_START}{line}{CLEAR_TO_END}")
        self._loop.call_later(REDRAW_INTERVAL, self._redraw)


def announce(server: EchoServer, *, as_json: bool) -> None:
    """Write where the server listens."""
    host, port = server.address
    if as_json:
        write_json({"listening": {"host": host, "port": port}})
    else:
        write(f"listening on {location(server.address)}\n")


def report(server: EchoServer) -> None:
    """Write the report, in place of the line of a `Display` if there was one."""
    stats = server.stats
    if sys.stdout.isatty():
        write(f"{TO_LINE_START}{CLEAR_TO_END}")
    cut_off = f", {stats.unfinished} unfinished" if stats.unfinished else ""
    write(
        f"served {stats.accepted} connections, {stats.bytes_in:,} bytes in, "
        f"{stats.bytes_out:,} bytes out, {stats.errors} errors{cut_off}\n"
    )


def location(address: tuple[str, int]) -> str:
    """Write an address the way URLs do."""
    name, port = address
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
