"""What an endpoint sends, what it refuses, and how it begins and ends."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, cast

import pytest
from tests.python.datagrams.conftest import (
    LONG,
    LOOPBACK,
    Recorder,
    closed_port,
    port_of,
    run_until,
)

from fdmux._ffi import lib
from fdmux.datagrams.endpoint import (
    DatagramEndpoint,
    DatagramHandler,
    DatagramStats,
)
from fdmux.datagrams.limits import DatagramLimits
from fdmux.loop.event_loop import SelectorEventLoop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fdmux.datagrams.address import Address


@pytest.fixture
def endpoint(loop: SelectorEventLoop, handler: Recorder) -> DatagramEndpoint:
    return DatagramEndpoint(loop, handler, address=LOOPBACK)


# ---- sending ---------------------------------------------------------------------


def test_bytes_like_objects_are_sent_as_they_are_now(
    endpoint: DatagramEndpoint, talker: socket.socket
) -> None:
    where = talker.getsockname()
    for data in (b"bytes", bytearray(b"array"), memoryview(b"xviewx")[1:5], b""):
        endpoint.send(data, where)
    assert [talker.recv(10) for _ in range(4)] == [b"bytes", b"array", b"view", b""]
    assert endpoint.stats.sent == 4


def test_object_that_changes_in_a_callback_is_sent_as_it_was(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    class Sender(DatagramHandler):
        def on_datagram(
            self, endpoint: DatagramEndpoint, _data: bytes, address: Address | None
        ) -> None:
            data = bytearray(b"before")
            endpoint.send(data, address)
            data[:] = b"behind"
            endpoint.send(data, address)

    server = DatagramEndpoint(loop, Sender(), address=LOOPBACK)
    talker.sendto(b"?", server.sockname)
    run_until(loop, lambda: server.stats.sent == 2)
    assert [talker.recv(10) for _ in range(2)] == [b"before", b"behind"]


def test_many_pairs_leave_in_order(
    endpoint: DatagramEndpoint, talker: socket.socket
) -> None:
    where = talker.getsockname()
    sent = [b"%d" % number for number in range(150)]
    endpoint.send_many([(data, where) for data in sent])
    assert [talker.recv(10) for _ in sent] == sent
    endpoint.send_many(iter([(b"last", where)]))
    assert talker.recv(10) == b"last"


@pytest.mark.parametrize("size", [10, 1000, 30000])
def test_segments_arrive_as_datagrams(
    size: int, endpoint: DatagramEndpoint, talker: socket.socket
) -> None:
    data = os.urandom(60_000 if size > 10 else 1_005)
    talker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    endpoint.send_segments(data, size, talker.getsockname())
    expected = [data[at : at + size] for at in range(0, len(data), size)]
    assert [talker.recv(70_000) for _ in expected] == expected
    assert endpoint.stats.sent == len(expected)


def test_joined_datagrams_are_divided_again(
    loop: SelectorEventLoop, handler: Recorder, endpoint: DatagramEndpoint
) -> None:
    receiver = Recorder()
    to = DatagramEndpoint(loop, receiver, address=LOOPBACK, gro=True)
    to.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    data = os.urandom(50_500)
    endpoint.send_segments(data, 1000, to.sockname)
    run_until(loop, lambda: len(receiver.received) == 51)
    assert b"".join(data for data, _ in receiver.received) == data
    assert {len(data) for data, _ in receiver.received} == {1000, 500}
    assert handler.errors == []


def test_connected_endpoint_needs_no_address(
    loop: SelectorEventLoop, handler: Recorder, talker: socket.socket
) -> None:
    endpoint = DatagramEndpoint(loop, handler, peer=talker.getsockname())
    assert endpoint.connected
    assert endpoint.peername == talker.getsockname()
    assert f"peer={talker.getsockname()!r}" in repr(endpoint)
    endpoint.send(b"one")
    endpoint.send_many([(b"two", None)])
    endpoint.send_segments(b"threefour", 5)
    received = [talker.recvfrom(10) for _ in range(4)]
    assert [data for data, _ in received] == [b"one", b"two", b"three", b"four"]
    assert received[0][1] == endpoint.sockname


# ---- errors ----------------------------------------------------------------------


def test_error_of_the_network_is_told_with_its_peer(
    loop: SelectorEventLoop,
    handler: Recorder,
    endpoint: DatagramEndpoint,
    talker: socket.socket,
) -> None:
    where = ("127.0.0.1", closed_port())
    endpoint.send(b"anybody?", where)
    endpoint.send(b"you", talker.getsockname())
    assert talker.recv(10) == b"you"
    run_until(loop, lambda: handler.errors)
    ((error, address),) = handler.errors
    assert isinstance(error, ConnectionRefusedError)
    assert str(error) == f"[Errno 111] send to {where}: Connection refused"
    assert address == where
    assert endpoint.stats.errors == 1


def test_error_of_a_connected_endpoint_names_the_peer(
    loop: SelectorEventLoop, handler: Recorder
) -> None:
    where = ("127.0.0.1", closed_port())
    endpoint = DatagramEndpoint(loop, handler, peer=where)
    endpoint.send(b"anybody?")
    run_until(loop, lambda: handler.errors)
    assert (
        str(handler.errors[0][0]) == f"[Errno 111] send to {where}: Connection refused"
    )


def test_datagram_that_is_too_long_is_told_and_counted(
    loop: SelectorEventLoop,
    handler: Recorder,
    endpoint: DatagramEndpoint,
    talker: socket.socket,
) -> None:
    where = talker.getsockname()
    endpoint.send_many([(bytes(70_000), where), (b"small", where)])
    assert talker.recv(10) == b"small"
    run_until(loop, lambda: handler.errors)
    ((error, address),) = handler.errors
    assert error.errno == errno.EMSGSIZE
    assert address == where
    assert endpoint.stats.failed == 1


@pytest.mark.parametrize("verb", ["close", "abort"])
def test_endpoint_may_end_when_it_is_told_an_error(
    loop: SelectorEventLoop, talker: socket.socket, verb: str
) -> None:
    class Ending(Recorder):
        def on_error(
            self, endpoint: DatagramEndpoint, error: OSError, address: Address | None
        ) -> None:
            super().on_error(endpoint, error, address)
            getattr(endpoint, verb)()

    handler = Ending()
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    endpoint.send(bytes(70_000), talker.getsockname())
    run_until(loop, lambda: handler.closed)
    loop.run_once(0)
    assert handler.closed == [None]
    assert [error.errno for error, _ in handler.errors] == [errno.EMSGSIZE]


@pytest.mark.faults
def test_full_queue_drops_counts_and_tells_when_there_is_room(
    loop: SelectorEventLoop, handler: Recorder, talker: socket.socket
) -> None:
    limits = DatagramLimits(queue_max=3 * 68, queue_low=0)
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK, limits=limits)
    kinds = lib.FDMUX_CALL_SEND | lib.FDMUX_CALL_SENDMMSG
    lib.fdmux_testing_fail(kinds, 1, errno.EAGAIN, 1)
    for _ in range(5):
        endpoint.send(b"four", talker.getsockname())
    stats = endpoint.stats
    assert (stats.queued, stats.queued_count, stats.dropped) == (204, 3, 2)
    lib.fdmux_testing_fail(0, 0, 0, 0)
    run_until(loop, lambda: handler.writable)
    assert [talker.recv(10) for _ in range(3)] == [b"four"] * 3
    assert endpoint.stats.queued == 0
    assert {error.errno for error, _ in handler.errors} == {errno.ENOBUFS}


@pytest.mark.faults
def test_close_sends_the_queue_and_abort_drops_it(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    for end, expected in (("close", [b"last"]), ("abort", [])):
        handler = Recorder()
        endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
        lib.fdmux_testing_fail(lib.FDMUX_CALL_SEND, 1, errno.EAGAIN, 0)
        endpoint.send(b"last", talker.getsockname())
        lib.fdmux_testing_fail(0, 0, 0, 0)
        getattr(endpoint, end)()
        assert endpoint.is_closing
        run_until(loop, lambda: handler.closed)  # noqa: B023 - runs now
        assert handler.closed == [None]
        talker.settimeout(LONG if expected else 0)
        received = []
        with contextlib.suppress(BlockingIOError):
            received.append(talker.recv(10))
        assert received == expected


# ---- arguments -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda it: it.send(), TypeError, "takes 1 to 2 arguments, not 0"),
        (lambda it: it.send(b"", None, 1), TypeError, "takes 1 to 2 arguments, not 3"),
        (lambda it: it.send("text", LOOPBACK), TypeError, "bytes-like .* not <class"),
        (lambda it: it.send(b"", 7), TypeError, "address is 7; it must be"),
        (lambda it: it.send(b"", ("x",)), TypeError, r"it must be \(host, port\)"),
        (lambda it: it.send(b"", (7, 7)), TypeError, r"it must be \(host, port\)"),
        (lambda it: it.send(b"", ("localhost", 7)), ValueError, "resolve names first"),
        (lambda it: it.send(b"", ("127.0.0.1", 65536)), OverflowError, "port is 65536"),
        (lambda it: it.send(b"", ("127.0.0.1", -1)), OverflowError, "port is -1"),
        (lambda it: it.send(b"", ("::1", 7, 1 << 20, 0)), OverflowError, "flow is"),
        (lambda it: it.send(b"", ("::1", 7, 0, -1)), OverflowError, "scope is -1"),
        (lambda it: it.send(b"", ""), ValueError, "1 to 107 bytes"),
        (lambda it: it.send(b"", "x" * 108), ValueError, "1 to 107 bytes"),
        (lambda it: it.send_many(7), TypeError, "not iterable"),
        (lambda it: it.send_many([7]), TypeError, r"a pair \(data, address\)"),
        (lambda it: it.send_segments(b"x", 0), ValueError, "segment_size is 0"),
        (lambda it: it.send_segments(b"x", 65536), ValueError, "segment_size is 65536"),
        (lambda it: it.send_segments(b"x"), TypeError, "takes 2 to 3 arguments"),
        (lambda it: it.send_segments(b"x", "1"), TypeError, "integer"),
    ],
)
def test_wrong_arguments_of_sends_are_refused(
    call: Callable[[DatagramEndpoint], object],
    kind: type[Exception],
    text: str,
    endpoint: DatagramEndpoint,
) -> None:
    with pytest.raises(kind, match=text):
        call(endpoint)
    assert endpoint.stats == DatagramStats(*[0] * 11)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({}, ValueError, "needs an address, a peer, or a socket"),
        (
            {"address": ("localhost", 0)},
            ValueError,
            "address is .* resolve names first",
        ),
        ({"peer": ("localhost", 0)}, ValueError, "peer is .* resolve names first"),
        ({"address": 7}, TypeError, "address is 7; it must be"),
        ({"address": ("x", 0, 0)}, TypeError, "address is"),
        ({"address": (None, 0)}, TypeError, "address is"),
        ({"address": ("127.0.0.1", 65536)}, OverflowError, "port is 65536"),
        ({"address": ""}, ValueError, "not empty"),
        (
            {"address": LOOPBACK, "peer": ("::1", 9)},
            ValueError,
            "two families",
        ),
        ({"address": ("192.0.2.1", 0)}, OSError, r"bind to \('192.0.2.1', 0\): Cannot"),
        ({"address": "x" * 200}, OSError, "bind to 'xxx.*too long"),
        ({"peer": "/no/such"}, FileNotFoundError, "connect to '/no/such': No such"),
        ({"sock": 7}, TypeError, "sock is 7"),
        ({"address": LOOPBACK, "limits": 7}, TypeError, "limits is 7"),
    ],
)
def test_wrong_arguments_of_endpoints_open_nothing(
    options: dict[str, object],
    kind: type[Exception],
    text: str,
    loop: SelectorEventLoop,
    handler: Recorder,
) -> None:
    with pytest.raises(kind, match=text):
        DatagramEndpoint(loop, handler, **options)  # type: ignore[arg-type] # wrong ones
    assert handler.closed == []


def test_handlers_without_callbacks_are_refused(loop: SelectorEventLoop) -> None:
    class Half:
        on_error = on_writable = on_close = on_datagram = None

    for handler, text in (
        (DatagramHandler, r"pass an object: DatagramHandler\(\)"),
        (Half(), r"no on_error\(\)"),
        (7, "handler is 7"),
    ):
        with pytest.raises(TypeError, match=text):
            DatagramEndpoint(loop, handler, address=LOOPBACK)  # type: ignore[arg-type] # wrong ones
    Half.on_error = Half.on_writable = Half.on_close = print  # type: ignore[assignment] # callable
    with pytest.raises(TypeError, match=r"no on_datagram\(\)"):
        DatagramEndpoint(loop, Half(), address=LOOPBACK)  # type: ignore[arg-type] # a wrong one


def test_handler_of_another_class_is_served(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    class Own:
        def on_error(self, *_arguments: object) -> None: ...
        def on_writable(self, *_arguments: object) -> None: ...
        def on_close(self, *_arguments: object) -> None: ...
        def on_datagram(
            self, _endpoint: object, data: bytes, _address: object
        ) -> bytes:
            return data

    own = cast("DatagramHandler", Own())
    endpoint = DatagramEndpoint(loop, own, address=LOOPBACK)
    talker.sendto(b"x", endpoint.sockname)
    run_until(loop, lambda: endpoint.stats.sent)
    assert talker.recv(10) == b"x"


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"size_max": 0}, "size_max is 0"),
        ({"size_max": (256 << 10) + 1}, "size_max is 262145"),
        ({"queue_max": 1 << 31}, "queue_max is"),
        ({"queue_low": -1}, "queue_low is -1"),
        ({"queue_max": 10, "queue_low": 10}, "below queue_max, which is 10"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(
    limits: dict[str, int], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        DatagramLimits(**limits)


# ---- sockets ---------------------------------------------------------------------


def test_socket_is_taken_over_unless_it_is_refused(
    loop: SelectorEventLoop, handler: Recorder
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
        with pytest.raises(ValueError, match="not a datagram socket"):
            DatagramEndpoint(loop, handler, sock=stream)
        assert stream.fileno() >= 0
    with pytest.raises(ValueError, match="the socket is closed"):
        DatagramEndpoint(loop, handler, sock=stream)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with pytest.raises(ValueError, match="no address and no peer"):
        DatagramEndpoint(loop, handler, sock=sock, peer=LOOPBACK)
    loop.register_read(sock, print)
    endpoint = DatagramEndpoint(loop, handler, sock=sock)
    assert sock.fileno() == -1
    assert endpoint.fileno() >= 0


def test_two_endpoints_share_a_port_if_both_ask_for_it(
    loop: SelectorEventLoop, handler: Recorder
) -> None:
    first = DatagramEndpoint(loop, handler, address=LOOPBACK, reuse_port=True)
    where = cast("tuple[str, int]", first.sockname)
    second = DatagramEndpoint(loop, handler, address=where, reuse_port=True)
    assert second.sockname == where
    with pytest.raises(OSError, match=r"bind to .*: Address already in use"):
        DatagramEndpoint(loop, handler, address=where)


def test_multicast_group_is_joined_through_the_socket(
    loop: SelectorEventLoop, handler: Recorder, talker: socket.socket
) -> None:
    group, interface = "239.255.77.77", "127.0.0.1"
    endpoint = DatagramEndpoint(loop, handler, address=(group, 0))
    port = port_of(endpoint)
    member = struct.pack("4s4s", socket.inet_aton(group), socket.inet_aton(interface))
    endpoint.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    option = socket.inet_aton(interface)
    talker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, option)
    talker.sendto(b"to all", (group, port))
    run_until(loop, lambda: handler.received)
    assert handler.received == [(b"to all", talker.getsockname())]


def test_view_of_the_socket_has_options_and_addresses(
    loop: SelectorEventLoop, handler: Recorder, endpoint: DatagramEndpoint
) -> None:
    view = endpoint.socket
    view.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    assert view.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 1
    assert view.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 4) == b"\1\0\0\0"
    assert view.getsockname() == endpoint.sockname
    with pytest.raises(OSError) as caught:
        view.getpeername()
    assert caught.value.errno == errno.ENOTCONN
    assert view.fileno() == endpoint.fileno()
    endpoint.close()
    run_until(loop, lambda: handler.closed)
    assert repr(view) == "<fdmux.SocketView fd=-1>"
    with pytest.raises(OSError, match="the endpoint has ended"):
        view.getsockname()


def test_socket_file_is_left_alone_when_another_has_its_path(
    loop: SelectorEventLoop, handler: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "sock"
    endpoint = DatagramEndpoint(loop, handler, address=str(path))
    path.unlink()
    path.write_text("another")
    endpoint.close()
    run_until(loop, lambda: handler.closed)
    assert path.read_text() == "another"


# ---- the end ---------------------------------------------------------------------


def test_closed_endpoint_ignores_what_is_sent(
    loop: SelectorEventLoop, handler: Recorder, talker: socket.socket
) -> None:
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    where = endpoint.sockname
    endpoint.close()
    endpoint.close()
    endpoint.send(b"late", talker.getsockname())
    endpoint.send_many([(b"late", talker.getsockname())])
    talker.sendto(b"late too", where)
    run_until(loop, lambda: handler.closed)
    assert (handler.closed, handler.received) == ([None], [])
    assert endpoint.fileno() == -1
    assert endpoint.stats == DatagramStats(*[0] * 11)
    endpoint.abort()
    assert "fd=-1" in repr(endpoint)


def test_endpoint_closed_in_its_callback_gets_no_more(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    class Once(Recorder):
        def on_datagram(
            self, endpoint: DatagramEndpoint, data: bytes, address: Address | None
        ) -> bytes:
            super().on_datagram(endpoint, data, address)
            endpoint.send(b"goodbye", address)
            endpoint.close()
            return b"not sent"

    handler = Once()
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    for data in (b"one", b"two"):
        talker.sendto(data, endpoint.sockname)
    run_until(loop, lambda: handler.closed)
    assert [data for data, _ in handler.received] == [b"one"]
    assert talker.recv(10) == b"goodbye"


@pytest.mark.faults
def test_socket_that_fails_ends_the_endpoint_with_its_error(
    loop: SelectorEventLoop,
    handler: Recorder,
    endpoint: DatagramEndpoint,
    talker: socket.socket,
) -> None:
    talker.sendto(b"x", endpoint.sockname)
    lib.fdmux_testing_fail(lib.FDMUX_CALL_RECVMMSG, 1, errno.EIO, 0)
    run_until(loop, lambda: handler.closed)
    assert str(handler.closed[0]) == "[Errno 5] endpoint: Input/output error"


@pytest.mark.faults
def test_endpoint_that_cannot_be_watched_leaves_the_socket(
    loop: SelectorEventLoop, handler: Recorder, tmp_path: Path
) -> None:
    DatagramEndpoint(loop, handler, address=LOOPBACK)
    lib.fdmux_testing_fail(lib.FDMUX_CALL_EPOLL_CTL, 1, errno.ENOSPC, 1)
    with pytest.raises(OSError, match="make an endpoint of fd"):
        DatagramEndpoint(loop, handler, address=str(tmp_path / "sock"))
    assert list(tmp_path.iterdir()) == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(OSError, match="make an endpoint of fd"):
            DatagramEndpoint(loop, handler, sock=sock)
        assert sock.getblocking()


def test_closed_loop_ends_every_endpoint(handler: Recorder) -> None:
    with SelectorEventLoop() as loop:
        endpoints = [DatagramEndpoint(loop, handler, address=LOOPBACK) for _ in "ab"]
        endpoints[0].send(b"x", endpoints[1].sockname)
    assert handler.closed == [None, None]
    assert [it.fileno() for it in endpoints] == [-1, -1]


def test_forked_child_drops_the_endpoints_of_its_parent(
    loop: SelectorEventLoop, handler: Recorder, endpoint: DatagramEndpoint
) -> None:
    where = endpoint.sockname
    child = os.fork()
    if child == 0:
        status = 1
        try:
            endpoint.send(b"child", where)
            endpoint.close()
            del endpoint
            loop.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    endpoint.send(b"parent", where)
    run_until(loop, lambda: handler.received)
    assert handler.received == [(b"parent", where)]
