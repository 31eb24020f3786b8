"""How the bytes of TLS are moved: by OpenSSL's functions, or by methods of Python.

Python's `ssl.SSLObject` has an OpenSSL ``SSL`` inside. Where C can reach it, C calls
OpenSSL itself; elsewhere C calls the methods of the objects, which costs more and does
the same. The environment variable ``FDMUX_TLS=python`` chooses the methods.

Its one rule: OpenSSL is called only after everything that Python says about an object
has been found to be what OpenSSL says about it.

Imported by the first stream with TLS, since programs without TLS need no `ssl`.
"""

from __future__ import annotations

import _ssl
import dataclasses
import functools
import os
import ssl
import sys
from typing import TypeVar, cast

from fdmux._delivery import TlsSession, tls_load

SessionT = TypeVar("SessionT", bound=TlsSession)

ENVIRONMENT = "FDMUX_TLS"

# Versions of CPython whose objects have the layout that csrc/python/tls_session.c
# knows, and the size of the head of an object in words.
OLDEST, NEWEST = (3, 11), (3, 14)
HEAD_WORDS = 2
WORD = 8 if sys.maxsize > 1 << 32 else 4

# The type of the object in C inside of an SSLObject; other implementations lack it.
RAW_TYPE = cast("type | None", vars(_ssl).get("_SSLSocket"))

SESSION_WORDS = HEAD_WORDS + 3
BIO_WORDS = HEAD_WORDS + 1


@dataclasses.dataclass(frozen=True)
class Choice:
    """Whether C calls OpenSSL, and why, or why not."""

    is_direct: bool
    reason: str


@functools.cache
def choose() -> Choice:
    """Return how this process moves the bytes of TLS; found out once."""
    try:
        check_environment()
        check_layout()
        tls_load(
            getattr(_ssl, "__file__", None),
            ssl.OPENSSL_VERSION_NUMBER,
            ssl.OPENSSL_VERSION,
            object.__basicsize__,
        )
        check_client()
        check_server()
    except ImportError as error:
        return Choice(is_direct=False, reason=str(error))
    return Choice(is_direct=True, reason=ssl.OPENSSL_VERSION)


# C gives each SSL a BIO of its own before any byte moves. So all whose bytes C moves
# can have the same two until then.
NO_INCOMING, NO_OUTGOING = ssl.MemoryBIO(), ssl.MemoryBIO()


def make_session(
    kind: type[SessionT],
    context: ssl.SSLContext,
    *,
    server_side: bool,
    server_hostname: str | None = None,
    session: ssl.SSLSession | None = None,
) -> SessionT:
    """Make the TLS of one stream, of the type ``kind``.

    Raises:
        ssl.SSLError: ``context`` cannot be used for this.
        ValueError: The host name is not valid.
    """
    can_be_direct = choose().is_direct
    has_own_methods = (
        context.sslobject_class is not ssl.SSLObject
        or type(context).wrap_bio is not ssl.SSLContext.wrap_bio
    )
    must_call_python = has_own_methods or calls_python(context)
    if can_be_direct and not has_own_methods:
        incoming, outgoing = NO_INCOMING, NO_OUTGOING
    else:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    sslobject = context.wrap_bio(
        incoming, outgoing, server_side, server_hostname, session
    )
    raw: object = getattr(sslobject, "_sslobj", None)
    is_direct = can_be_direct and type(raw) is RAW_TYPE
    return kind(sslobject, incoming, outgoing, is_direct, must_call_python)


def calls_python(context: ssl.SSLContext) -> bool:
    """Whether OpenSSL tells Python of each step of a handshake.

    `_ssl` keeps what such a callback raises until one of its own methods returns. If
    that was the last one of the handshake, an error of the first step would end it.
    """
    return (
        context.keylog_filename is not None
        or getattr(context, "_msg_callback", None) is not None
    )


def check_environment() -> None:
    """Raise ImportError if the user has chosen Python's methods."""
    value = os.environ.get(ENVIRONMENT, "")
    if value == "python":
        raise ImportError(f"{ENVIRONMENT}=python is set")
    if value not in {"", "openssl"}:
        raise ImportError(f"{ENVIRONMENT} is {value!r}, neither python nor openssl")


def check_layout() -> None:
    """Raise ImportError unless the objects of `_ssl` may have the layout we know."""
    if sys.implementation.name != "cpython":
        raise ImportError(f"{sys.implementation.name} is not CPython")
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ImportError(f"CPython {version} is not known to keep the SSL where C can")
    sizes = (
        object.__basicsize__ == HEAD_WORDS * WORD,
        RAW_TYPE is not None and RAW_TYPE.__basicsize__ >= SESSION_WORDS * WORD,
        ssl.MemoryBIO.__basicsize__ >= BIO_WORDS * WORD,
    )
    if not all(sizes):
        raise ImportError("objects have other sizes in this build of CPython")


def check_client() -> None:
    """Compare what Python and OpenSSL say about a client, before and in its handshake.

    Raises:
        ImportError: They differ.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="fdmux.invalid")
    compare(client, incoming, outgoing)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        compare(client, incoming, outgoing)
    else:
        raise ImportError("a handshake without a peer has succeeded")


def check_server() -> None:
    """Compare what Python and OpenSSL say about a server that has got some bytes.

    Raises:
        ImportError: They differ.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(b"abc")
    compare(server, incoming, outgoing)


def compare(
    sslobject: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> None:
    """Raise ImportError unless OpenSSL says of ``sslobject`` what Python says."""
    said = TlsSession(sslobject, incoming, outgoing, True)._facts()  # noqa: SLF001 - ours
    expected = (
        int(sslobject.server_side),
        sslobject.pending(),
        incoming.pending,
        outgoing.pending,
    )
    version = sslobject.version()
    if said[:-1] != expected or version not in (None, said[-1]):
        raise ImportError(f"OpenSSL says {said}, and Python {(*expected, version)}")
