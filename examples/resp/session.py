"""One client of the example server, without I/O: bytes in, replies out.

Its one rule: it makes replies only as fast as they are taken. Requests, which are
small, wait until `go_on` while there are too many bytes of replies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import resp

if TYPE_CHECKING:
    from store import Store


class Session:
    """Parses what a client sends, and answers it.

    Attributes:
        waiting: Requests that are not answered yet.
        problem: The error that ends the connection; send it when no request waits.
    """

    __slots__ = ("_answer_all", "_feed", "problem", "waiting")

    def __init__(self, store: Store) -> None:
        self._feed = resp.Parser().feed
        self._answer_all = store.answer_all
        self.waiting: list[list[bytes]] = []
        self.problem: resp.ProtocolError | None = None

    def receive(self, data: bytes) -> bytes:
        """Take received bytes; return replies to complete requests, within bounds."""
        try:
            requests = self._feed(data)
        except resp.ProtocolError as problem:
            requests = problem.requests
            self.problem = problem
        return self.take(requests)

    def take(self, requests: list[list[bytes]]) -> bytes:
        """Take parsed requests; return replies, as `receive` does."""
        if self.waiting:
            self.waiting += requests
            return b""
        replies = self._answer_all(requests)
        if requests:
            self.waiting = requests
        return replies

    def go_on(self) -> bytes:
        """Return further replies, as `receive` does."""
        return self._answer_all(self.waiting)
