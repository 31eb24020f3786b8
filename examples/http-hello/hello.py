"""HTTP/1.1 without I/O: says hello to each request of one connection, on `h11`.

Its one rule: it makes replies only as fast as they are taken. Pipelined requests wait
in h11 while there are too many bytes of replies.
"""

from __future__ import annotations

import http

import h11

HEADERS_MAX = 16 * 1024  # of one request, its first line included
BODY_MAX = 1024 * 1024  # of one request; it is read and dropped
REPLIES_MAX = 64 * 1024  # with so many bytes, send replies before making more
DROPPED_MAX = 4 * 1024 * 1024  # read and dropped after the last request
METHODS = (b"GET", b"HEAD", b"POST")
TEXT = b"Hello, world!\n"


class Refused(Exception):  # noqa: N818 - reads as "the request was refused"
    """A request gets this status, and the connection ends."""

    def __init__(self, status: int) -> None:
        super().__init__(http.HTTPStatus(status).phrase)
        self.status = status


class Hello:
    """One connection: takes received bytes, returns replies.

    Attributes:
        is_waiting: There may be further requests to answer: call `go_on`.
        is_over: No more requests are answered: end the writing side, and wait a while
            for the client's end. Closing at once, with unread bytes, would cause a
            reset, which can overtake the last reply.
    """

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADERS_MAX)
        self._request: h11.Request | None = None
        self._body_size = 0
        self.is_waiting = False
        self._dropped_size = 0
        self.is_over = False

    @property
    def is_flooded(self) -> bool:
        """Whether it is over and the client still sends."""
        return self._dropped_size > DROPPED_MAX

    def receive(self, data: bytes) -> bytes:
        """Take what arrived, b"" at its end; return replies."""
        if self.is_over:
            self._dropped_size += len(data)
            return b""
        self._h11.receive_data(data)
        return self.go_on()

    def go_on(self) -> bytes:
        """Return replies to the received requests, up to `REPLIES_MAX`."""
        replies: list[bytes] = []
        size = 0
        self.is_waiting = True
        while self.is_waiting and size < REPLIES_MAX:
            reply = self._next()
            replies.append(reply)
            size += len(reply)
        return b"".join(replies)

    def _next(self) -> bytes:
        """Handle one event of h11; return its reply."""
        try:
            return self._answer(self._h11.next_event())
        except h11.RemoteProtocolError as problem:
            return self._refuse(problem.error_status_hint)
        except Refused as refused:
            return self._refuse(refused.status)

    def _answer(self, event: object) -> bytes:
        if event is h11.NEED_DATA:
            self.is_waiting = False
            return self._continue()
        if isinstance(event, h11.Request):
            self._begin(event)
        elif isinstance(event, h11.Data):
            self._body_size += len(event.data)
            if self._body_size > BODY_MAX:
                raise Refused(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif isinstance(event, h11.EndOfMessage):
            return self._greet()
        else:  # the end, or bytes after the last request
            self.is_waiting = False
            self.is_over = True
        return b""

    def _begin(self, request: h11.Request) -> None:
        self._request = request
        self._body_size = 0
        # h11 bounds only incomplete headers.
        if sum(len(name) + len(value) for name, value in request.headers) > HEADERS_MAX:
            raise Refused(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if request.method not in METHODS:
            raise Refused(http.HTTPStatus.NOT_IMPLEMENTED)

    def _continue(self) -> bytes:
        """Send 100 Continue, if the client waits for it."""
        if not self._h11.they_are_waiting_for_100_continue:
            return b""
        return self._send(h11.InformationalResponse(status_code=100, headers=[]))

    def _greet(self) -> bytes:
        reply = self._reply(http.HTTPStatus.OK, TEXT, [])
        if self._h11.our_state is h11.MUST_CLOSE:  # as the client wished
            self.is_waiting = False
            self.is_over = True
        else:
            self._h11.start_next_cycle()
        return reply

    def _refuse(self, status: int) -> bytes:
        """Answer with an error, unless half a reply is out, and end."""
        self.is_waiting = False
        self.is_over = True
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        text = f"{status} {http.HTTPStatus(status).phrase}\n".encode()
        return self._reply(status, text, [("Connection", "close")])

    def _reply(self, status: int, text: bytes, headers: list[tuple[str, str]]) -> bytes:
        about = [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))]
        reason = http.HTTPStatus(status).phrase
        parts = [
            self._send(
                h11.Response(
                    status_code=status, headers=about + headers, reason=reason.encode()
                )
            )
        ]
        if self._request is None or self._request.method != b"HEAD":
            parts.append(self._send(h11.Data(data=text)))
        parts.append(self._send(h11.EndOfMessage()))
        self._request = None
        return b"".join(parts)

    def _send(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""
