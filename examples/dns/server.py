"""A DNS server for one zone: ``python server.py [--port 5353]``.

Try ``dig @127.0.0.1 -p PORT www.example.test``.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

from zone import Zone

import fdmux

if TYPE_CHECKING:
    from collections.abc import Sequence

ORIGIN = "example.test."
RECORDS = """
@    60 IN NS   ns
ns   60 IN A    127.0.0.1
www  60 IN A    192.0.2.1
www  60 IN A    192.0.2.2
www  60 IN AAAA 2001:db8::1
text 60 IN TXT  "hello from fdmux"
"""


class Responder(fdmux.DatagramHandler):
    """Answers each question to its sender; what is none gets no answer."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def on_datagram(
        self, _endpoint: fdmux.DatagramEndpoint, data: bytes, _address: object
    ) -> bytes | None:
        """Return the answer, which goes to the sender."""
        return self._zone.answer(data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    options = parser.parse_args(arguments)
    handler = Responder(Zone(RECORDS, ORIGIN))
    with fdmux.SelectorEventLoop() as loop:
        address = (options.host, options.port)
        # An answer comes from the address that was asked, if there are several.
        endpoint = fdmux.DatagramEndpoint(
            loop, handler, address=address, local_address=True
        )
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        host, port = endpoint.sockname[:2]
        print(f"answering at {host}:{port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            loop.run()
        stats = endpoint.stats
        print(f"{stats.received} questions, {stats.sent} answers", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
