"""What arrives is given to the handler, whole and in order, and answers come back."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import weakref
from typing import TYPE_CHECKING

import pytest
from tests.python.datagrams.conftest import LOOPBACK, Recorder, port_of, run_until

from fdmux._delivery import Datagram
from fdmux.datagrams.endpoint import DatagramEndpoint, DatagramHandler
from fdmux.datagrams.limits import DatagramLimits
from fdmux.loop.event_loop import SelectorEventLoop

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fdmux.datagrams.address import Address


class Batches(DatagramHandler):
    """Records each batch, and answers with what ``answers`` has."""

    def __init__(self, answers: Iterable[object] | None = None) -> None:
        self.batches: list[list[tuple[bytes, Address | None]]] = []
        self.answers = answers

    def on_datagrams(
        self, _endpoint: DatagramEndpoint, datagrams: list[tuple[bytes, Address | None]]
    ) -> Iterable[tuple[bytes, Address | None]] | None:
        self.batches.append(datagrams)
        return self.answers  # type: ignore[return-value] # also wrong ones


class EchoAll(Batches):
    def on_datagrams(
        self, _endpoint: DatagramEndpoint, datagrams: list[tuple[bytes, Address | None]]
    ) -> list[tuple[bytes, Address | None]]:
        self.batches.append(datagrams)
        return datagrams


def test_handler_gets_each_datagram_with_its_sender(
    loop: SelectorEventLoop, handler: Recorder, talker: socket.socket
) -> None:
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    for data in (b"one", b"", b"three"):
        talker.sendto(data, endpoint.sockname)
    run_until(loop, lambda: len(handler.received) == 3)
    sender = talker.getsockname()
    assert handler.received == [(b"one", sender), (b"", sender), (b"three", sender)]
    addresses = [address for _data, address in handler.received]
    assert addresses[0] is addresses[2]  # made once for each peer


def test_what_on_datagram_returns_is_sent_to_the_sender(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    handler = Recorder(bytes.upper)
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    talker.connect(endpoint.sockname)
    for data in (b"a", b"b", b""):
        talker.send(data)
    run_until(loop, lambda: len(handler.received) == 3)
    assert [talker.recv(10) for _ in range(3)] == [b"A", b"B", b""]


def test_whole_batch_is_given_in_one_call_and_echoed(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    handler = EchoAll()
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    talker.connect(endpoint.sockname)
    sent = [b"%d" % number for number in range(65)]
    for data in sent:
        talker.send(data)
    run_until(loop, lambda: sum(map(len, handler.batches)) == 65)
    assert [len(batch) for batch in handler.batches] == [64, 1]
    assert handler.batches[0][0] == (b"0", talker.getsockname())
    assert [talker.recv(10) for _ in sent] == sent


def test_any_iterable_of_pairs_is_an_answer(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    pairs = ((data, talker.getsockname()) for data in (b"x", bytearray(b"y")))
    handler = Batches(pairs)
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    talker.sendto(b"?", endpoint.sockname)
    run_until(loop, lambda: handler.batches)
    assert [talker.recv(10) for _ in range(2)] == [b"x", b"y"]


@pytest.mark.parametrize(
    "answers",
    [7, [b"no pair"], [(b"too", "many", "parts")], [("text", None)], [(b"x", 7)]],
)
def test_wrong_answer_is_logged_and_the_endpoint_goes_on(
    answers: Iterable[object],
    loop: SelectorEventLoop,
    talker: socket.socket,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Batches(answers)
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    for count in (1, 2):
        talker.sendto(b"?", endpoint.sockname)
        run_until(loop, lambda: len(handler.batches) == count)  # noqa: B023 - runs now
        assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
            TypeError
        ] * count
    assert not endpoint.is_closing


def test_exception_of_a_callback_is_logged_and_the_endpoint_goes_on(
    loop: SelectorEventLoop, talker: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError("a bad datagram")
        return data

    handler = Recorder(answer)
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    talker.connect(endpoint.sockname)
    for data in (b"good", b"bad", b"better"):
        talker.send(data)
    run_until(loop, lambda: len(handler.received) == 3)
    assert [talker.recv(10) for _ in range(2)] == [b"good", b"better"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "a callback of <fdmux.DatagramEndpoint" in record.getMessage()


def test_keyboard_interrupt_leaves_run_and_no_datagram_is_lost(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    def answer(data: bytes) -> bytes:
        if data == b"stop":
            raise KeyboardInterrupt
        return data

    handler = Recorder(answer)
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    talker.connect(endpoint.sockname)
    for data in (b"before", b"stop", b"behind"):
        talker.send(data)
    with pytest.raises(KeyboardInterrupt):
        loop.run(1.0)
    assert [data for data, _ in handler.received] == [b"before", b"stop", b"behind"]
    assert [talker.recv(10) for _ in range(2)] == [b"before", b"behind"]


def test_local_address_ecn_and_truncation_are_attributes_of_the_pairs(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    handler = EchoAll()
    endpoint = DatagramEndpoint(
        loop,
        handler,
        address=("0.0.0.0", 0),  # noqa: S104 - every address of this machine
        limits=DatagramLimits(size_max=4),
        local_address=True,
        ecn=True,
    )
    port = port_of(endpoint)
    talker.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 1)
    talker.sendto(b"12345", ("127.0.0.2", port))
    run_until(loop, lambda: handler.batches)
    (datagram,) = handler.batches[0]
    assert isinstance(datagram, Datagram)
    data, address = datagram
    assert (data, address) == (b"1234", talker.getsockname())
    assert datagram.local == "127.0.0.2"
    assert datagram.ecn == 1
    assert datagram.is_truncated is True
    # The answer leaves from the address that was asked.
    assert talker.recvfrom(10) == (b"1234", ("127.0.0.2", port))


def test_truncated_datagram_says_so_unasked(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    handler = Batches()
    limits = DatagramLimits(size_max=4)
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK, limits=limits)
    talker.sendto(b"1234", endpoint.sockname)
    talker.sendto(b"12345", endpoint.sockname)
    run_until(loop, lambda: sum(map(len, handler.batches)) == 2)
    whole, cut = handler.batches[0]
    assert type(whole) is tuple
    assert isinstance(cut, Datagram)
    assert (cut.is_truncated, cut.local, cut.ecn) == (True, None, None)
    assert endpoint.stats.truncated == 1


def test_ipv6_has_addresses_of_four_parts(loop: SelectorEventLoop) -> None:
    handler = Recorder(bytes.upper)
    client = Recorder()
    server = DatagramEndpoint(loop, handler, address=("::1", 0))
    endpoint = DatagramEndpoint(loop, client, peer=("::1", port_of(server)))
    endpoint.send(b"six")
    run_until(loop, lambda: client.received)
    assert client.received == [(b"SIX", server.sockname)]
    assert handler.received == [(b"six", endpoint.sockname)]


def test_ipv6_endpoint_reaches_ipv4_by_its_plain_address(
    loop: SelectorEventLoop, handler: Recorder, talker: socket.socket
) -> None:
    endpoint = DatagramEndpoint(loop, handler, address=("::", 0))
    endpoint.send(b"four", talker.getsockname())
    data, address = talker.recvfrom(10)
    assert data == b"four"
    talker.sendto(b"back", address)
    run_until(loop, lambda: handler.received)
    host, port = talker.getsockname()
    assert handler.received == [(b"back", (f"::ffff:{host}", port, 0, 0))]


def test_unix_paths_have_datagrams_and_the_file_is_removed(
    loop: SelectorEventLoop, tmp_path: Path
) -> None:
    server_path, client_path = str(tmp_path / "server"), str(tmp_path / "client")
    handler, client = Recorder(bytes.upper), Recorder()
    server = DatagramEndpoint(loop, handler, address=server_path)
    endpoint = DatagramEndpoint(loop, client, address=client_path, peer=server_path)
    endpoint.send(b"over unix")
    run_until(loop, lambda: client.received)
    assert handler.received == [(b"over unix", client_path)]
    assert client.received == [(b"OVER UNIX", server_path)]
    server.close()
    endpoint.close()
    run_until(loop, lambda: handler.closed and client.closed)
    assert list(tmp_path.iterdir()) == []


def test_abstract_names_are_bytes_as_in_socket(loop: SelectorEventLoop) -> None:
    name = f"\0fdmux-test-{os.getpid()}"
    handler, client = Recorder(bytes.upper), Recorder()
    DatagramEndpoint(loop, handler, address=name)
    endpoint = DatagramEndpoint(loop, client, address=f"{name}-client", peer=name)
    endpoint.send(b"x")
    run_until(loop, lambda: client.received)
    assert handler.received == [(b"x", f"{name}-client".encode())]
    assert client.received == [(b"X", name.encode())]


def test_sender_without_a_name_has_no_address(
    loop: SelectorEventLoop, handler: Recorder
) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with right:
        DatagramEndpoint(loop, handler, sock=left)
        right.send(b"nobody")
        run_until(loop, lambda: handler.received)
    assert handler.received == [(b"nobody", None)]


def test_addresses_of_very_many_peers_are_right(loop: SelectorEventLoop) -> None:
    """Some share a place in what an endpoint remembers, and are made anew."""
    handler = Recorder(bytes.upper)
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    count = 300
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for turn in range(3):
            for number, sock in enumerate(socks):
                sock.sendto(b"%d %d" % (turn, number), endpoint.sockname)
                if number % 50 == 49:
                    run_until(
                        loop,
                        lambda: len(handler.received) == turn * count + number + 1,  # noqa: B023 - runs now
                    )
        expected = [
            (b"%d %d" % (turn, number), ("127.0.0.1", sock.getsockname()[1]))
            for turn in range(3)
            for number, sock in enumerate(socks)
        ]
        assert handler.received == expected
    finally:
        for sock in socks:
            sock.close()


def test_address_that_was_given_is_not_told(
    loop: SelectorEventLoop, handler: Recorder
) -> None:
    """A user may write an address in several ways; what is told has one form."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        port = sock.getsockname()[1]
        endpoint = DatagramEndpoint(loop, handler, address=("::1", 0))
        endpoint.send(b"x", ("0:0:0:0:0:0:0:1", port))
        _data, sender = sock.recvfrom(10)
        sock.sendto(b"y", sender)
        run_until(loop, lambda: handler.received)
    assert handler.received == [(b"y", ("::1", port, 0, 0))]


def test_one_endpoint_sends_in_the_callback_of_another(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    out = DatagramEndpoint(loop, Recorder(), peer=talker.getsockname())

    class Forward(DatagramHandler):
        def on_datagram(
            self, _endpoint: DatagramEndpoint, data: bytes, _address: Address | None
        ) -> None:
            out.send(data)
            out.send(data.upper())

    inside = DatagramEndpoint(loop, Forward(), address=LOOPBACK)
    talker.sendto(b"pass on", inside.sockname)
    run_until(loop, lambda: out.stats.sent == 2)
    assert [talker.recv(20) for _ in range(2)] == [b"pass on", b"PASS ON"]


def test_other_thread_is_refused(loop: SelectorEventLoop, handler: Recorder) -> None:
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    texts: list[str] = []

    def misuse() -> None:
        for attempt in (
            lambda: endpoint.send(b"x", endpoint.sockname),
            endpoint.close,
            endpoint.abort,
            lambda: endpoint.stats,
        ):
            with pytest.raises(RuntimeError) as raised:
                attempt()
            texts.append(str(raised.value))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=misuse)
    loop.call_soon_threadsafe(thread.start)
    loop.run()
    thread.join()
    assert len(texts) == 4
    assert all("an endpoint in another thread" in text for text in texts)
    assert texts[0].startswith("send through an endpoint")


def test_endpoint_and_its_loop_are_collected_together() -> None:
    loop = SelectorEventLoop()
    handler = Recorder()
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK)
    endpoint.data = loop  # a cycle
    gone = weakref.ref(handler)
    loop.close()
    assert handler.closed == [None]
    del loop, endpoint, handler
    import gc  # noqa: PLC0415 - here alone

    gc.collect()
    assert gone() is None


def test_references_are_balanced(
    loop: SelectorEventLoop, talker: socket.socket
) -> None:
    handler = EchoAll()
    endpoint = DatagramEndpoint(loop, handler, address=LOOPBACK, local_address=True)
    address = endpoint.sockname
    for turn in range(3):
        for _ in range(20):
            talker.sendto(b"x", address)
        run_until(
            loop,
            lambda: sum(map(len, handler.batches)) == (turn + 1) * 20,  # noqa: B023 - runs now
        )
    sender = handler.batches[0][0][1]
    del handler.batches[:]
    # This name, the argument of getrefcount, and the endpoint's memory of its peers.
    assert sys.getrefcount(sender) == 3
