"""How C gets at OpenSSL: what is checked before, and what is done where it cannot."""

from __future__ import annotations

import dataclasses
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux._delivery import TlsSession, tls_load
from fdmux.streams import tls_library
from fdmux.streams.tls_library import ENVIRONMENT, choose, make_session

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = object.__basicsize__


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    choose.cache_clear()
    yield
    choose.cache_clear()


def parts(
    server_side: bool = True,
) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    made = context.wrap_bio(incoming, outgoing, server_side=server_side)
    return made, incoming, outgoing


def make() -> TlsSession:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return make_session(TlsSession, context, server_side=True)


def test_openssl_is_called_here() -> None:
    """On the interpreters that fdmux is tested with."""
    choice = choose()
    assert choice.is_direct, choice.reason
    assert choice.reason == ssl.OPENSSL_VERSION
    assert make()._is_direct


def test_an_import_needs_no_ssl() -> None:
    code = "import sys, fdmux; assert not {'ssl', '_ssl', 'ctypes'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("python", "FDMUX_TLS=python is set"),
        ("maybe", "FDMUX_TLS is 'maybe', neither python nor openssl"),
    ],
)
def test_the_environment_chooses(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    monkeypatch.setenv(ENVIRONMENT, value)
    assert choose() == tls_library.Choice(is_direct=False, reason=reason)
    assert not make()._is_direct


@dataclasses.dataclass
class Implementation:
    name: str


def test_other_implementations_call_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "implementation", Implementation("pypy"))
    assert choose().reason == "pypy is not CPython"


def test_unknown_versions_call_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_library, "NEWEST", (3, 10))
    assert "is not known to keep the SSL where C can" in choose().reason


def test_other_sizes_call_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_library, "BIO_WORDS", 100)
    assert choose().reason == "objects have other sizes in this build of CPython"


def test_another_library_calls_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "OPENSSL_VERSION", "OpenSSL 9.9.9")
    assert choose().reason.startswith("_ssl uses OpenSSL 9.9.9, but OpenSSL ")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nonexistent/_ssl.so", "the library of _ssl is not loaded"),
        (fdmux._delivery.__file__, "the library of _ssl shows no SSL_do_handshake"),
    ],
)
def test_a_library_without_the_functions_is_refused(path: str, reason: str) -> None:
    with pytest.raises(ImportError, match=reason):
        tls_load(path, ssl.OPENSSL_VERSION_NUMBER, ssl.OPENSSL_VERSION, HEAD)


def test_a_python_that_has_ssl_inside_is_asked_itself() -> None:
    """Here it has not; nothing is loaded to find that out."""
    with pytest.raises(ImportError, match="shows no SSL_do_handshake"):
        tls_load(None, ssl.OPENSSL_VERSION_NUMBER, ssl.OPENSSL_VERSION, HEAD)


def test_what_openssl_and_python_say_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Liar(ssl.SSLObject):
        def pending(self) -> int:
            return 7

    monkeypatch.setattr(ssl.SSLContext, "sslobject_class", Liar)
    assert choose().reason.startswith("OpenSSL says (0, 0, 0, 0, ")


def test_a_handshake_that_succeeds_alone_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Quick(ssl.SSLObject):
        def do_handshake(self) -> None:
            pass

    monkeypatch.setattr(ssl.SSLContext, "sslobject_class", Quick)
    assert choose().reason == "a handshake without a peer has succeeded"


def test_only_the_objects_that_belong_together_are_used() -> None:
    assert choose().is_direct
    sslobject, incoming, outgoing = parts()
    for wrong in (
        (sslobject, outgoing, incoming),
        (sslobject, ssl.MemoryBIO(), outgoing),
    ):
        with pytest.raises(ImportError, match="another layout than is known"):
            TlsSession(*wrong, True)


def test_an_object_of_another_layout_is_not_followed() -> None:
    """Its words are looked at, and lead nowhere."""

    class Strange:
        __slots__ = ("first", "second", "third")
        second: object

    class Holder:
        _sslobj = Strange()

    assert choose().is_direct
    Holder._sslobj.second = Holder
    with pytest.raises(ImportError, match="another layout than is known"):
        TlsSession(Holder(), ssl.MemoryBIO(), ssl.MemoryBIO(), True)


def test_facts_are_those_of_openssl() -> None:
    session = TlsSession(*parts(), False)
    with pytest.raises(RuntimeError, match="calls Python"):
        session._facts()
