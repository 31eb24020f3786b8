"""Ask a DNS server for many names at once: ``python resolve.py NAME... --port PORT``.

All questions are under way together, through one endpoint that is connected to the
server. A question without an answer is asked again, and given up in the end.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import dns.exception
import dns.message

import fdmux

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TRY_SECONDS = 0.5
TRIES = 4


class Resolver(fdmux.DatagramHandler):
    """The questions that are under way, by their number in the message."""

    def __init__(self, loop: fdmux.SelectorEventLoop, server: tuple[str, int]) -> None:
        self._loop = loop
        self._endpoint = fdmux.DatagramEndpoint(loop, self, peer=server)
        self._waiting: dict[int, dns.message.Message] = {}
        self.results: dict[str, list[str] | Exception] = {}

    def resolve(self, names: Iterable[str], kind: str) -> None:
        """Ask for all names, and run the loop until each has an answer or an error."""
        for name in names:
            query = dns.message.make_query(name, kind, use_edns=0)
            while query.id in self._waiting:
                query.id = (query.id + 1) % 65536
            self._waiting[query.id] = query
            self._ask(query.id, TRIES)
        while self._waiting:
            self._loop.run_once(TRY_SECONDS)

    def _ask(self, number: int, tries: int) -> None:
        query = self._waiting.get(number)
        if query is None:
            return
        if tries == 0:
            self._end(number, TimeoutError(f"no answer in {TRIES * TRY_SECONDS:g} s"))
            return
        self._endpoint.send(query.to_wire())
        self._loop.call_later(TRY_SECONDS, self._ask, number, tries - 1)

    def _end(self, number: int, result: list[str] | Exception) -> None:
        query = self._waiting.pop(number)
        self.results[str(query.question[0].name)] = result

    def on_datagram(
        self, _endpoint: fdmux.DatagramEndpoint, data: bytes, _address: object
    ) -> None:
        """Take an answer; whatever does not fit a question is dropped."""
        try:
            reply = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return
        query = self._waiting.get(reply.id)
        if query is not None and query.is_response(reply):
            texts = [record.to_text() for found in reply.answer for record in found]
            self._end(reply.id, texts)

    def on_error(
        self, _endpoint: fdmux.DatagramEndpoint, error: OSError, _address: object
    ) -> None:
        """Give up: nobody listens there."""
        for number in list(self._waiting):
            self._end(number, error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each name; the exit status is 1 if one has no answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--server", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--type", default="A")
    options = parser.parse_args(arguments)
    with fdmux.SelectorEventLoop() as loop:
        resolver = Resolver(loop, (options.server, options.port))
        resolver.resolve(options.names, options.type)
    for name, result in sorted(resolver.results.items()):
        text = ", ".join(sorted(result)) if isinstance(result, list) else str(result)
        print(f"{name} {text or 'nothing'}")
    return int(any(isinstance(it, Exception) for it in resolver.results.values()))


if __name__ == "__main__":
    sys.exit(main())
