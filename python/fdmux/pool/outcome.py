"""The outcome of a message: its reply, or the error that it has instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    Outcome: TypeAlias = "bytes | ExchangeError"


class ExchangeError(OSError):
    """A message got no reply.

    Attributes:
        index: The number of the message, from 0.
        results: The outcome of every message, in order: the reply, or its error.
    """

    def __init__(self, index: int, text: str) -> None:
        super().__init__(f"message {index}: {text}")
        self.index = index
        self.results: Sequence[Outcome] = ()


class ExchangeTimeoutError(ExchangeError, TimeoutError):
    """The timeout was over before the reply was whole."""


class ExchangeConnectionError(ExchangeError, ConnectionError):
    """The connection failed or broke; ``__cause__`` is the error."""


def replies_or_raise(results: list[Outcome]) -> list[bytes]:
    """Return the replies, or raise the first error."""
    replies: list[bytes] = []
    for outcome in results:
        if isinstance(outcome, ExchangeError):
            outcome.results = results
            raise outcome
        replies.append(outcome)
    return replies
