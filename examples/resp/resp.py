"""The Redis protocol (RESP 2) without I/O: requests out of bytes, replies into bytes.

It uses no socket and no loop, so the same parser works with any. Its one rule: it keeps
incomplete requests, within bounds, and loses nothing. It parses what it keeps again
only when enough has arrived, so a peer that sends single bytes costs no more than
another.
"""

from __future__ import annotations

BULK_MAX = 512 * 1024  # one argument
REQUEST_MAX = BULK_MAX + 64 * 1024  # all arguments of a request
ARGUMENTS_MAX = 1024
LINE_MAX = 4096  # an inline command; other lines are shorter

CRLF = b"\r\n"
# Short heads are looked up, which is several times faster than int() or %.
COUNTS = {b"*%d" % count: count for count in range(1, 65)}
HEADS = [b"$%d\r\n" % length for length in range(1024)]
LENGTHS = {head[:-2]: length for length, head in enumerate(HEADS)}

Request = list[bytes]


class ProtocolError(ValueError):
    """The data is not RESP; the connection must end.

    Attributes:
        requests: The complete requests before it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.requests: list[Request] = []


class Parser:
    """Cuts a stream of bytes into requests: arrays of bulk strings."""

    __slots__ = ("_kept", "_missing", "_request", "_room", "_wanted")

    def __init__(self) -> None:
        self._kept = bytearray()
        self._wanted = (
            0  # the length of `_kept` at which to parse on; 0: between requests
        )
        self._request: Request = []  # its complete arguments
        self._missing = 0  # how many arguments are missing
        self._room = 0  # how many bytes these may have

    def feed(self, data: bytes) -> list[Request]:
        """Take received bytes; return the requests that are complete now.

        Raises:
            ProtocolError: The data is not a request, or the request is too large.
        """
        if not self._wanted:
            requests, start = cut_plain(data)
            if start == len(data):
                return requests
            is_plain = False
        else:
            self._kept += data
            if len(self._kept) < self._wanted:
                return []
            data = bytes(self._kept)
            self._kept.clear()
            requests, start = [], 0
            is_plain = True  # perhaps, after the incomplete request
        try:
            self._cut(data, start, requests, is_plain)
        except ProtocolError as problem:
            problem.requests = requests
            raise
        return requests

    def _cut(
        self, data: bytes, start: int, requests: list[Request], is_plain: bool
    ) -> None:
        """Parse the general way, piece by piece, and keep what is incomplete."""
        self._wanted = 0
        while start < len(data):
            start = self._take(data, start)
            if self._wanted:
                self._kept += memoryview(data)[start:]
                return
            if self._missing:
                continue
            if self._request:
                requests.append(self._request)
                self._request = []
            if is_plain:
                is_plain = False
                plain, size = cut_plain(data[start:])
                requests += plain
                start += size
        self._wanted = 1 if self._missing else 0

    def _take(self, data: bytes, start: int) -> int:
        """Take a line, or an argument with its head; return where the next begins.

        If it is incomplete, take nothing, and set `_wanted`.
        """
        line_end = data.find(CRLF, start, start + LINE_MAX)
        after = line_end + 2
        if line_end < 0:
            self._wanted = len(data) - start + 1
            if self._wanted > LINE_MAX:
                raise ProtocolError("a line is too long")
        elif not self._missing:
            self._begin(data[start:line_end])
            return after
        else:
            length = parse_number(data[start:line_end], b"$", min(BULK_MAX, self._room))
            end = after + length
            if len(data) >= end + 2:
                self._add(data[after:end], data[end : end + 2])
                return end + 2
            self._wanted = end + 2 - start
        return start

    def _begin(self, line: bytes) -> None:
        """Begin a request by its first line."""
        if line.startswith(b"*"):
            self._missing = parse_number(line, b"*", ARGUMENTS_MAX)
            self._room = REQUEST_MAX
        else:
            self._request = line.split()  # inline, as people type commands
            if len(self._request) > ARGUMENTS_MAX:
                raise ProtocolError("a line has too many words")

    def _add(self, argument: bytes, end: bytes) -> None:
        if end != CRLF:
            raise ProtocolError("an argument is longer than it said")
        self._request.append(argument)
        self._missing -= 1
        self._room -= len(argument)


def cut_plain(data: bytes) -> tuple[list[Request], int]:
    """Cut off plain requests, the fast way; return them, and where they end.

    A plain request is complete and short, and has no CRLF inside an argument. Then its
    lines are its arguments, which the heads confirm. The general way does the others.
    """
    lines = data.split(CRLF)
    last = len(lines) - 1
    requests: list[Request] = []
    number = 0
    while number < last:
        count = COUNTS.get(lines[number])
        if count is None:
            break
        after = number + 1 + 2 * count
        if after > last:
            break
        request = lines[number + 2 : after : 2]
        head = number + 1
        for argument in request:
            if LENGTHS.get(lines[head]) != len(argument):
                break
            head += 2
        else:
            requests.append(request)
            number = after
            continue
        break
    if number == last and not lines[last]:
        return requests, len(data)
    return requests, sum(map(len, lines[:number])) + 2 * number


def parse_number(line: bytes, sign: bytes, maximum: int) -> int:
    """Parse a head: a count or length behind its sign."""
    digits = line[1:]
    if line[:1] != sign or not digits.isdigit() or len(digits) > 7:
        raise ProtocolError(
            f"expected {sign.decode()!r} and a length, got {line[:20]!r}"
        )
    number = int(digits)
    if number > maximum:
        raise ProtocolError(f"{line.decode()} is too large: {maximum} is left")
    return number


def bulk(value: bytes | None) -> bytes:
    """Make a bulk string, or the null one."""
    if value is None:
        return b"$-1\r\n"
    length = len(value)
    return (HEADS[length] if length < 1024 else b"$%d\r\n" % length) + value + CRLF


def array(values: list[bytes | None]) -> bytes:
    """Make an array of bulk strings."""
    return b"*%d\r\n" % len(values) + b"".join(map(bulk, values))


def error(text: str) -> bytes:
    """Make an error reply."""
    return b"-ERR %b\r\n" % text.encode()
