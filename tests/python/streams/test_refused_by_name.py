"""What a system does not have is refused with an OSError that names it."""

from __future__ import annotations

import errno
import socket

import pytest

from fdmux.datagrams.endpoint import DatagramEndpoint, DatagramHandler
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.client import connect_stream
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import StreamHandler

NO_UNIX = "'/run/x': Python has no Unix sockets on this system"
NO_REUSE = "reuse_port: this system has no SO_REUSEPORT"


def test_path_is_refused_where_there_are_no_unix_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SelectorEventLoop() as loop:
        monkeypatch.delattr(socket, "AF_UNIX", raising=False)
        with pytest.raises(OSError, match=NO_UNIX) as caught:
            connect_stream(loop, "/run/x", StreamHandler())
        assert caught.value.errno == errno.EAFNOSUPPORT
        with pytest.raises(OSError, match=NO_UNIX) as caught:
            DatagramEndpoint(loop, DatagramHandler(), address="/run/x")
        assert caught.value.errno == errno.EAFNOSUPPORT
        server = StreamServer("/run/x", None, StreamHandler(), loop=loop)
        with pytest.raises(OSError, match=f"listen on .*{NO_UNIX}") as caught:
            server.start()
        assert caught.value.errno == errno.EAFNOSUPPORT


def test_shared_port_is_refused_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    address = ("127.0.0.1", 0)
    with SelectorEventLoop() as loop:
        with pytest.raises(OSError, match=NO_REUSE) as caught:
            DatagramEndpoint(loop, DatagramHandler(), address=address, reuse_port=True)
        assert caught.value.errno == errno.EOPNOTSUPP
        server = StreamServer(*address, StreamHandler(), loop=loop, reuse_port=True)
        with pytest.raises(OSError, match=f"listen on .*{NO_REUSE}") as caught:
            server.start()
        assert caught.value.errno == errno.EOPNOTSUPP
