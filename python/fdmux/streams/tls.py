"""TLS of a stream: how it begins, what is known of it, and its errors.

Python's own `ssl.SSLObject` makes the handshake and verifies the peer; C moves the
bytes (csrc/python/tls_session.c). This file knows no sockets.

Its one rule: a stream that asked for TLS sends no plaintext. If TLS cannot begin, the
stream is closed.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import math
from typing import TYPE_CHECKING, cast

from fdmux._delivery import TlsSession
from fdmux.checks import check_tls_context, checked_timeout, refusal
from fdmux.errnos import text_of
from fdmux.streams.limits import (
    HANDSHAKE_TIMEOUT,
    SHUTDOWN_TIMEOUT,
    check_shutdown_timeout,
)

if TYPE_CHECKING:
    import ssl
    from typing import Protocol, TypeVar

    from fdmux.checks import Seconds
    from fdmux.streams.limits import StreamLimits

    Cipher = tuple[str, str, int]
    # As `ssl.SSLObject.getpeercert` returns it.
    Certificate = dict[str, object]

    SessionT = TypeVar("SessionT", bound=TlsSession)

    class MakeSession(Protocol):
        """The function `tls_library.make_session`."""

        def __call__(
            self,
            kind: type[SessionT],
            context: ssl.SSLContext,
            *,
            server_side: bool,
            server_hostname: str | None = None,
            session: ssl.SSLSession | None = None,
        ) -> SessionT:
            """Make the TLS of one stream."""


MS_MAX = (1 << 32) - 1

# ssl.PROTOCOL_TLS_CLIENT and _SERVER: this module does not import ssl, which is big.
PROTOCOL_TLS_CLIENT = 16
PROTOCOL_TLS_SERVER = 17


@dataclasses.dataclass(frozen=True)
class TlsOptions:
    """How a stream begins TLS.

    Raises:
        TypeError: ``context`` is not an `ssl.SSLContext`, or a timeout no number.
        ValueError: A timeout is out of range, or a client that verifies the name of its
            server has none.
    """

    context: ssl.SSLContext
    server_side: bool
    server_hostname: str | None = None
    session: ssl.SSLSession | None = None
    handshake_timeout: Seconds | None = HANDSHAKE_TIMEOUT
    shutdown_timeout: Seconds = SHUTDOWN_TIMEOUT

    def __post_init__(self) -> None:
        """Refuse what cannot begin."""
        check_tls_context(self.context)
        # wrap_bio() would verify no name without a word, other than wrap_socket().
        if self.context.check_hostname and not (
            self.server_side or self.server_hostname
        ):
            raise ValueError("server_hostname is missing: the context verifies it")
        handshake = checked_timeout(self.handshake_timeout, "handshake_timeout")
        if handshake <= 0:
            wanted = "> 0, or None"
            raise ValueError(refusal("handshake_timeout", handshake, wanted))
        check_shutdown_timeout(self.shutdown_timeout)

    @functools.cached_property  # a server asks for each client
    def timeouts_ms(self) -> tuple[int, int]:
        """The timeouts as C takes them; a handshake of 0 has none."""
        handshake = milliseconds(self.handshake_timeout)
        shutdown = min(milliseconds(self.shutdown_timeout), MS_MAX)
        return (0 if handshake > MS_MAX else max(handshake, 1)), shutdown


def milliseconds(timeout: Seconds | None) -> int:
    """Round up; None and ``inf`` are more than C takes."""
    seconds = checked_timeout(timeout)
    return MS_MAX + 1 if seconds > MS_MAX / 1000 else math.ceil(seconds * 1000)


def check_side(context: ssl.SSLContext, *, server_side: bool) -> None:
    """Refuse a context that can only be the other side of a connection.

    Raises:
        ValueError: It can.
    """
    other = PROTOCOL_TLS_CLIENT if server_side else PROTOCOL_TLS_SERVER
    if getattr(context, "protocol", None) != other:
        return
    if server_side:
        raise ValueError(
            "the TLS context is for clients (PROTOCOL_TLS_CLIENT); a server needs "
            "PROTOCOL_TLS_SERVER"
        )
    raise ValueError(
        "the TLS context is for servers (PROTOCOL_TLS_SERVER); a client needs "
        "PROTOCOL_TLS_CLIENT"
    )


def server_options(context: ssl.SSLContext, limits: StreamLimits) -> TlsOptions:
    """Return the options for the clients of a server.

    Raises:
        TypeError: ``context`` is not an `ssl.SSLContext`.
        ValueError: ``context`` is one for clients.
    """
    check_tls_context(context)
    check_side(context, server_side=True)
    return TlsOptions(
        context,
        server_side=True,
        handshake_timeout=limits.handshake_timeout,
        shutdown_timeout=limits.shutdown_timeout,
    )


def client_options(
    context: ssl.SSLContext,
    limits: StreamLimits,
    server_hostname: str | None,
    session: ssl.SSLSession | None,
) -> TlsOptions:
    """Return the options of a client.

    Raises:
        TypeError: ``context`` is not an `ssl.SSLContext`.
        ValueError: ``context`` is one for servers, or verifies a name that is missing.
    """
    check_tls_context(context)
    check_side(context, server_side=False)
    return TlsOptions(
        context,
        server_side=False,
        server_hostname=server_hostname,
        session=session,
        handshake_timeout=limits.handshake_timeout,
        shutdown_timeout=limits.shutdown_timeout,
    )


class StreamTls(TlsSession):
    """What is known of the encryption of a stream: `Stream.tls`.

    Everything but `server_name` is known once the handshake is done.

    Threads: The loop's, since C uses the session meanwhile.
    """

    __slots__ = ("_is_beginning",)

    # The stream begins with TLS, and its `on_connect` is still to come.
    _is_beginning: bool

    @property
    def version(self) -> str | None:
        """The version of the protocol, such as ``"TLSv1.3"``."""
        return self.ssl_object.version()

    @property
    def cipher(self) -> Cipher | None:
        """The name of the cipher, the version that defines it, and its secret bits."""
        return self.ssl_object.cipher()

    @property
    def alpn_protocol(self) -> str | None:
        """The protocol chosen by ALPN, or None."""
        return self.ssl_object.selected_alpn_protocol()

    @property
    def peer_certificate(self) -> Certificate | None:
        """The peer's certificate as `ssl.SSLObject.getpeercert` returns it; or None.

        Empty if it was not verified.
        """
        return cast("Certificate | None", self.ssl_object.getpeercert())

    @property
    def peer_certificate_der(self) -> bytes | None:
        """The peer's certificate in DER, verified or not; None if it has sent none."""
        return self.ssl_object.getpeercert(binary_form=True)

    @property
    def server_name(self) -> str | None:
        """The name that this client has asked for; None on a server.

        A server learns the name in the ``sni_callback`` of its context.
        """
        return self.ssl_object.server_hostname

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session, for ``start_tls`` and ``connect_stream`` to resume it later.

        With TLS 1.3 the server sends it after the handshake, with the first data.
        """
        return self.ssl_object.session

    @property
    def session_reused(self) -> bool:
        """Whether the handshake has resumed an earlier session."""
        return bool(self.ssl_object.session_reused)

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The object of Python itself. Do not read, write or shut it down."""
        return cast("ssl.SSLObject", self._object)

    def _error_of(self, code: int, attempt: str) -> Exception:
        """Return the exception for the errno with which the stream has ended."""
        import ssl  # noqa: PLC0415 - whoever uses TLS has imported it

        error, self._error = cast("Exception | None", self._error), None
        what = f"{attempt}: TLS" if self.is_done else f"{attempt}: TLS handshake"
        if error is not None:
            return error
        if code == errno.ECONNABORTED:
            text = f"{what}: the peer has ended the connection without close_notify"
            return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, text)
        if code == errno.EPROTO:
            return ssl.SSLError(ssl.SSL_ERROR_SSL, f"{what} failed")
        return OSError(code, f"{what}: {text_of(code)}")


@functools.cache
def session_maker() -> MakeSession:
    """Return `tls_library.make_session`, which imports ssl: some programs have none."""
    from fdmux.streams.tls_library import make_session  # noqa: PLC0415 - as said above

    return make_session


def make_tls(options: TlsOptions, *, is_beginning: bool) -> StreamTls:
    """Make the TLS of a stream.

    Raises:
        ssl.SSLError: ``options.context`` cannot be used for this.
        ValueError: The host name is not valid.
    """
    tls = session_maker()(
        StreamTls,
        options.context,
        server_side=options.server_side,
        server_hostname=options.server_hostname,
        session=options.session,
    )
    tls._is_beginning = is_beginning  # noqa: SLF001 - of its maker
    return tls
