"""The commands of the example server: a dictionary behind the Redis protocol.

It uses no socket and no loop. Its one rule: a request gets exactly one reply, and a
command with unknown options gets an error and has no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import resp

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[[list[bytes]], bytes]

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
# With so many bytes of replies, send them before answering further requests: a short
# request may have a long reply.
REPLIES_MAX = 1024 * 1024
ANY = resp.ARGUMENTS_MAX


class Store:
    """Answers PING, ECHO, SET, GET, DEL, EXISTS, INCR, MGET, DBSIZE and FLUSHALL.

    CONFIG GET and COMMAND, which Redis clients send, get empty answers. Only memory
    bounds the keys, as in Redis itself.
    """

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        # The function of a command, and the least and most words of its request.
        self._commands: dict[bytes, tuple[Command, int, int]] = {
            b"PING": (self._ping, 1, 2),
            b"ECHO": (lambda request: resp.bulk(request[1]), 2, 2),
            b"SET": (self._set, 3, 3),
            b"GET": (self._get, 2, 2),
            b"DEL": (self._delete, 2, ANY),
            b"EXISTS": (self._exists, 2, ANY),
            b"INCR": (self._increment, 2, 2),
            b"MGET": (self._get_many, 2, ANY),
            b"DBSIZE": (self._count, 1, 1),
            b"FLUSHALL": (self._flush, 1, 1),
            b"COMMAND": (lambda _request: resp.array([]), 1, ANY),
            b"CONFIG": (lambda request: resp.array([request[2], b""]), 3, 3),
        }

    def answer(self, request: list[bytes]) -> bytes:
        """Execute one request."""
        name = request[0]
        found = self._commands.get(name) or self._commands.get(name.upper())
        if found is None:
            return resp.error(f"unknown command {shown(name)}")
        command, least, most = found
        if not least <= len(request) <= most:
            return resp.error(f"wrong number of arguments for {shown(name)}")
        return command(request)

    def answer_all(self, requests: list[list[bytes]]) -> bytes:
        """Execute requests in order; return all their replies as one.

        It stops at `REPLIES_MAX` bytes. It removes the answered requests from
        ``requests``.
        """
        if len(requests) == 1:
            return self.answer(requests.pop())
        answer = self.answer
        replies: list[bytes] = []
        size = 0
        for request in requests:
            reply = answer(request)
            replies.append(reply)
            size += len(reply)
            if size >= REPLIES_MAX:
                break
        del requests[: len(replies)]
        return b"".join(replies)

    def _ping(self, request: list[bytes]) -> bytes:
        return resp.bulk(request[1]) if len(request) > 1 else PONG

    def _set(self, request: list[bytes]) -> bytes:
        _, key, self._values[key] = request
        return OK

    def _get(self, request: list[bytes]) -> bytes:
        return resp.bulk(self._values.get(request[1]))

    def _delete(self, request: list[bytes]) -> bytes:
        gone = [self._values.pop(key, None) for key in request[1:]]
        return b":%d\r\n" % sum(value is not None for value in gone)

    def _exists(self, request: list[bytes]) -> bytes:
        return b":%d\r\n" % sum(key in self._values for key in request[1:])

    def _increment(self, request: list[bytes]) -> bytes:
        text = self._values.get(request[1], b"0")
        if not text.removeprefix(b"-").isdigit() or len(text) > 20:
            return resp.error("value is not an integer")
        value = int(text) + 1
        self._values[request[1]] = b"%d" % value
        return b":%d\r\n" % value

    def _get_many(self, request: list[bytes]) -> bytes:
        values = [self._values.get(key) for key in request[1:]]
        if sum(len(value or b"") for value in values) > REPLIES_MAX:
            return resp.error(f"the values have more than {REPLIES_MAX} bytes")
        return resp.array(values)

    def _count(self, _request: list[bytes]) -> bytes:
        return b":%d\r\n" % len(self._values)

    def _flush(self, _request: list[bytes]) -> bytes:
        self._values.clear()
        return OK


def shown(name: bytes) -> str:
    """Return any bytes as one printable line."""
    return ascii(name[:64].decode(errors="replace"))
