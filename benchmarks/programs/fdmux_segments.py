"""Sends 64 KiB as datagrams of 1,200 bytes, by ``DatagramEndpoint.send_segments``.

    python -m benchmarks.programs.fdmux_segments SENDS

Prints `ready`, and for each line the CPU microseconds of one such send, as
programs/native/datagram_segments.c does.
"""

from __future__ import annotations

import sys
import time

import fdmux
from benchmarks.programs.servers.announce import bind_datagrams

LENGTH = 65536
SEGMENT = 1200


def main() -> None:
    count = int(sys.argv[1])
    sink = bind_datagrams()
    where = sink.getsockname()
    data = bytes(LENGTH)
    with fdmux.SelectorEventLoop() as loop:
        endpoint = fdmux.DatagramEndpoint(
            loop, fdmux.DatagramHandler(), sock=bind_datagrams()
        )
        print("ready", flush=True)
        for _line in sys.stdin:
            start = time.process_time_ns()
            for _ in range(count):
                endpoint.send_segments(data, SEGMENT, where)
            spent = time.process_time_ns() - start
            print(f"{spent / 1000 / count:.4f}", flush=True)
    sink.close()


if __name__ == "__main__":
    main()
