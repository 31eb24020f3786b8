"""Waiting for and reading from an ssl.SSLSocket, whose bytes leave the kernel early.

The cipher is an anonymous one, so that no certificate is needed; the peer is a TLS
engine in memory, so that each test decides which ciphertext bytes arrive when.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from tests.peers import send_at_once

from fdmux.sockets.read import IncompleteReadError, ReadTimeoutError, read_with_timeout
from fdmux.sockets.wait import wait_readable, wait_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def anonymous_context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # 1.3 has no anonymous cipher
    context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return context


class Peer:
    """The other end: a TLS engine, and the raw socket its ciphertext goes through."""

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = anonymous_context(ssl.PROTOCOL_TLS_SERVER)
        self.engine = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def encrypt(self, plaintext: bytes) -> bytes:
        self.engine.write(plaintext)
        return self.outgoing.read()

    def send(self, plaintext: bytes) -> None:
        self.raw.sendall(self.encrypt(plaintext))

    def shake_hands(self, client: ssl.SSLSocket) -> None:
        """Let both sides take turns until the handshake is complete."""
        for _ in range(10):
            finished = [try_step(client.do_handshake)]
            if wait_readable([self.raw], 0):
                self.incoming.write(self.raw.recv(65536))
            finished.append(try_step(self.engine.do_handshake))
            self.raw.sendall(self.outgoing.read())
            if all(finished):
                return
        pytest.fail("the handshake did not come to an end")


def try_step(step: Callable[[], None]) -> bool:
    try:
        step()
    except ssl.SSLWantReadError:
        return False
    return True


@pytest.fixture(params=[None, 0.0, 3.0], ids=["blocking", "non-blocking", "timed"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[ssl.SSLSocket, Peer]]:
    """A TLS socket in each mode, which it must still be in when the test ends."""
    left, right = socket.socketpair()
    send_at_once(left, right)
    left.setblocking(False)
    context = anonymous_context(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_socket(left, do_handshake_on_connect=False)
    with client, right:
        peer = Peer(right)
        peer.shake_hands(client)
        client.settimeout(request.param)
        yield client, peer
        assert client.gettimeout() == request.param


Ends = tuple[ssl.SSLSocket, Peer]


def kernel_says_readable(sock: socket.socket) -> bool:
    return bool(select.select([sock.fileno()], [], [], 0)[0])


def test_pending_bytes_make_it_readable_at_once(ends: Ends) -> None:
    client, peer = ends
    peer.send(b"0123456789")
    assert client.recv(1) == b"0"
    assert not kernel_says_readable(client)
    assert wait_readable([client], None) == [client]
    assert wait_readable([peer.raw, client], None) == [client]


def test_pending_bytes_do_not_hide_what_else_is_ready(ends: Ends) -> None:
    client, peer = ends
    peer.send(b"0123456789")
    client.recv(1)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
    ):
        assert wait_readable([server, peer.raw, client]) == [server, client]


def test_without_pending_bytes_the_kernel_decides(ends: Ends) -> None:
    client, peer = ends
    assert wait_readable([client], 0) == []
    assert wait_writable([client], 0) == [client]
    peer.send(b"0")
    assert wait_readable([client], 0) == [client]


def test_pending_bytes_are_read_without_waiting(ends: Ends) -> None:
    client, peer = ends
    peer.send(b"0123456789")
    assert read_with_timeout(client, 4) == b"0123"
    assert not kernel_says_readable(client)
    assert read_with_timeout(client, 6, 0) == b"456789"


def test_bytes_of_several_records_are_joined(ends: Ends) -> None:
    client, peer = ends
    message = bytes(range(256)) * 200
    peer.send(message[:20000])
    peer.send(message[20000:])
    assert read_with_timeout(client, len(message)) == message


def test_half_a_record_does_not_break_the_deadline(ends: Ends) -> None:
    client, peer = ends
    peer.send(b"first ")
    record = peer.encrypt(b"second")
    peer.raw.sendall(record[:-5])
    started = time.monotonic()
    with pytest.raises(ReadTimeoutError) as caught:
        read_with_timeout(client, 12, 0.02)
    assert 0.02 <= time.monotonic() - started < 1.0
    assert caught.value.partial == b"first "
    peer.raw.sendall(record[-5:])
    assert read_with_timeout(client, 6) == b"second"


def test_ragged_end_tells_what_came(ends: Ends) -> None:
    client, peer = ends
    peer.send(b"abc")
    peer.raw.shutdown(socket.SHUT_WR)
    with pytest.raises(IncompleteReadError) as caught:
        read_with_timeout(client, 10)
    assert (caught.value.partial, caught.value.expected) == (b"abc", 10)


def test_proper_end_tells_what_came(ends: Ends) -> None:
    client, peer = ends
    peer.send(b"abc")
    with pytest.raises(ssl.SSLWantReadError):
        peer.engine.unwrap()  # sends its close_notify, and now waits for ours
    peer.raw.sendall(peer.outgoing.read())
    with pytest.raises(IncompleteReadError) as caught:
        read_with_timeout(client, 10)
    assert (caught.value.partial, caught.value.expected) == (b"abc", 10)


def test_broken_record_is_the_error_of_ssl_with_what_came(ends: Ends) -> None:
    client, peer = ends
    peer.send(b"abc")
    peer.raw.sendall(b"this is not TLS")
    with pytest.raises(ssl.SSLError) as caught:
        read_with_timeout(client, 10)
    assert caught.value.__dict__["partial"] == b"abc"
    assert caught.value.__dict__["expected"] == 10


def test_read_that_must_write_waits_for_that(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, peer = ends
    receive, wants = client.recv, [ssl.SSLWantWriteError]
    waits: list[float] = []

    def recv(size: int) -> bytes:
        if wants:
            raise wants.pop()
        return receive(size)

    def wait(fds: list[int], timeout: float) -> list[int]:
        waits.append(timeout)
        return wait_writable(fds, timeout)

    peer.send(b"abc")
    monkeypatch.setattr(client, "recv", recv)
    monkeypatch.setattr("fdmux.sockets.read.wait_writable", wait)
    assert read_with_timeout(client, 3) == b"abc"
    assert len(waits) == 1


def test_socket_before_its_handshake_is_read_as_it_is() -> None:
    left, right = socket.socketpair()
    context = anonymous_context(ssl.PROTOCOL_TLS_CLIENT)
    with right, context.wrap_socket(left, do_handshake_on_connect=False) as client:
        client._sslobj = None  # type: ignore[attr-defined] # what unwrap() leaves
        right.send(b"abc")
        assert wait_readable([client], None) == [client]
        assert read_with_timeout(client, 3) == b"abc"
        with pytest.raises(ReadTimeoutError):
            read_with_timeout(client, 1, 0.01)


def test_mode_of_a_closed_socket_needs_no_restoring() -> None:
    left, right = socket.socketpair()
    context = anonymous_context(ssl.PROTOCOL_TLS_CLIENT)
    with right:
        client = context.wrap_socket(left, do_handshake_on_connect=False)
        client.close()
        with pytest.raises(OSError, match=r"."):
            read_with_timeout(client, 1)
