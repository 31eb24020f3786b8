"""``fdmux ping``: connect, send messages to an echo server, time the replies.

Its one rule: no step waits longer than ``--timeout``, and the first failure ends the
command with one line that names the step.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import time
from typing import TYPE_CHECKING

from fdmux.commands.arguments import host, seconds, whole_number
from fdmux.commands.failure import Failure, reason
from fdmux.commands.output import write, write_json
from fdmux.sockets.connect import connect_with_timeout
from fdmux.sockets.read import read_with_timeout

if TYPE_CHECKING:
    from fdmux.commands.arguments import Subparsers


# The kernel's buffers hold a whole message of this size, so no send waits for a read.
SIZE_MAX = 64 * 1024

EXAMPLE = """\
example:
  $ fdmux ping 127.0.0.1 9200 --count 3 --size 1024
  $ fdmux ping 127.0.0.1 9200 --json

exit status: 0 if every echo came, 1 if it cannot connect or one does not come"""


def add_parser(commands: Subparsers) -> None:
    """Describe ``ping`` to the parser."""
    parser = commands.add_parser(
        "ping",
        help="measure round trips to an echo server",
        description="Connect, send messages one after another, and time their echoes.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("host", type=host, help="a name or an address")
    parser.add_argument("port", type=whole_number(1, 65535), help="1 to 65535")
    parser.add_argument(
        "--count",
        type=whole_number(1, 1_000_000),
        default=5,
        help="how many messages (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=whole_number(1, SIZE_MAX),
        default=64,
        help="bytes in each message (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=5.0,
        help="seconds for the connect, and for each reply (default: %(default)s)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, with all times"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Connect and ping; print the times."""
    began = time.perf_counter()
    with connect(arguments.host, arguments.port, arguments.timeout) as sock:
        took = time.perf_counter() - began
        if not arguments.json:
            peer = f"{arguments.host} port {arguments.port}"
            write(f"connected to {peer} in {milliseconds(took)}\n")
        trips = [
            time_one(sock, f"message {index} of {arguments.count}", arguments)
            for index in range(1, arguments.count + 1)
        ]
    if arguments.json:
        write_json(
            {
                "host": arguments.host,
                "port": arguments.port,
                "size": arguments.size,
                "connect_seconds": took,
                "round_trip_seconds": trips,
            }
        )
        return 0
    write(
        f"{len(trips)} x {arguments.size} bytes and back: "
        f"min {milliseconds(min(trips))}, median "
        f"{milliseconds(statistics.median(trips))}, max {milliseconds(max(trips))}\n"
    )
    return 0


def connect(name: str, port: int, timeout: float) -> socket.socket:
    """Return a connected socket that sends at once."""
    try:
        sock = connect_with_timeout(name, port, timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise Failure(reason(error)) from error
    except ValueError as error:  # what no host can be called
        raise Failure(f"connect to {(name, port)}: {error}") from error
    return sock


def time_one(sock: socket.socket, name: str, arguments: argparse.Namespace) -> float:
    """Send one message, read its echo, return the seconds between."""
    message = os.urandom(arguments.size)
    began = time.perf_counter()
    try:
        sock.sendall(message)
        reply = read_with_timeout(sock, len(message), arguments.timeout)
    except OSError as error:
        raise Failure(f"{name}: {reason(error)}") from error
    took = time.perf_counter() - began
    if reply != message:
        raise Failure(f"{name}: the reply is not what was sent; no echo server?")
    return took


def milliseconds(duration: float) -> str:
    """Write a duration for people."""
    return f"{duration * 1000:.3f} ms"
