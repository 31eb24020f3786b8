"""A statsd sink: ``python sink.py [--port 8125]`` counts, and prints when it ends.

Try ``echo -n 'hits:1|c' > /dev/udp/127.0.0.1/8125`` in bash.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import re
import signal
import sys
from typing import TYPE_CHECKING

import fdmux

if TYPE_CHECKING:
    from collections.abc import Sequence

# name:value|type, and perhaps |@rate; c counts, g is the last value, ms is a time.
LINE = re.compile(rb"([\w.\-]+):([-+]?\d+(?:\.\d+)?)\|(c|g|ms)(?:\|@(0?\.\d+|1))?")
NAMES_MAX = 10_000  # anybody can invent names


class Sink(fdmux.DatagramHandler):
    """Adds up what arrives; called once for each batch of datagrams."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.gauges: dict[str, float] = {}
        self.times: dict[str, tuple[int, float]] = {}
        self.bad_lines = 0

    def on_datagrams(
        self,
        _endpoint: fdmux.DatagramEndpoint,
        datagrams: Sequence[tuple[bytes, object]],
    ) -> None:
        """Take all lines of a batch; nothing is answered."""
        for data, _address in datagrams:
            for line in data.splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        found = LINE.fullmatch(line)
        if found is None or self._is_full(found[1].decode()):
            self.bad_lines += 1
            return
        name, value = found[1].decode(), float(found[2])
        if found[3] == b"c":
            self.counts[name] += round(value / float(found[4] or 1))
        elif found[3] == b"g":
            self.gauges[name] = value
        else:
            count, total = self.times.get(name, (0, 0.0))
            self.times[name] = (count + 1, total + value)

    def _is_full(self, name: str) -> bool:
        known = (self.counts, self.gauges, self.times)
        return sum(map(len, known)) >= NAMES_MAX and not any(name in it for it in known)

    def report(self) -> str:
        """Return a line for each name."""
        lines = [f"{name} {count}" for name, count in self.counts.items()]
        lines += [f"{name} {value:g}" for name, value in self.gauges.items()]
        lines += [
            f"{name} {total / count:g} ms, {count} times"
            for name, (count, total) in self.times.items()
        ]
        return "\n".join([*sorted(lines), f"bad lines: {self.bad_lines}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect until Ctrl-C or SIGTERM, then print the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    options = parser.parse_args(arguments)
    sink = Sink()
    with fdmux.SelectorEventLoop() as loop:
        address = (options.host, options.port)
        endpoint = fdmux.DatagramEndpoint(loop, sink, address=address)
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        host, port = endpoint.sockname[:2]
        print(f"collecting at {host}:{port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            loop.run()
        while loop.run_once(0):  # take what has arrived
            pass
        print(sink.report())
        print(f"dropped by the kernel: {endpoint.stats.kernel_dropped}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
