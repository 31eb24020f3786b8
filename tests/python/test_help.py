"""`help()` lists what users call, and no plumbing."""

from __future__ import annotations

import pydoc
import re

import pytest

import fdmux

CALLBACKS = {
    "on_connect",
    "on_data",
    "on_end",
    "on_writable",
    "on_drain",
    "on_stopping",
    "on_close",
    "on_tls",
    "on_tls_failed",
}
STREAM_LIMITS = {
    "receive_max",
    "queue_max",
    "queue_high",
    "queue_low",
    "idle_timeout",
    "stall_timeout",
    "handshake_timeout",
    "shutdown_timeout",
}
SERVER = {
    "address",
    "stats",
    "start",
    "run",
    "run_in_thread",
    "call_soon_threadsafe",
    "drain",
    "reload_tls",
    "stop",
}
DOCUMENTED: dict[str, set[str]] = {
    "Stream": {
        "data",
        "peername",
        "buffered",
        "received",
        "sent",
        "is_closing",
        "write",
        "writelines",
        "shutdown",
        "close",
        "abort",
        "pause_reading",
        "resume_reading",
        "fileno",
        "start_tls",
        "tls",
    },
    "StreamTls": {
        "version",
        "cipher",
        "alpn_protocol",
        "peer_certificate",
        "peer_certificate_der",
        "server_name",
        "session",
        "session_reused",
        "ssl_object",
        "is_done",
    },
    "StreamHandler": CALLBACKS,
    "FrameHandler": CALLBACKS
    | {"on_frame", "on_frames", "on_frame_error", "frame_error", "send"},
    "StreamServer": SERVER,
    "EchoServer": SERVER,
    "StreamLimits": STREAM_LIMITS,
    "ServerLimits": STREAM_LIMITS | {"connection_max", "total_max"},
    "DatagramEndpoint": {
        "data",
        "send",
        "send_many",
        "send_segments",
        "close",
        "abort",
        "fileno",
        "is_closing",
        "connected",
        "peername",
        "sockname",
        "socket",
        "stats",
    },
    "DatagramHandler": {
        "on_datagram",
        "on_datagrams",
        "on_error",
        "on_writable",
        "on_close",
    },
    "DatagramLimits": {"size_max", "queue_max", "queue_low"},
    "ClientPool": {"connection_count", "exchange", "close"},
    "LengthPrefixed": {"take", "encode"},
    "Delimited": {"take", "encode"},
    "FixedSize": {"take", "encode"},
    "ReceiveBuffer": {"feed", "peek", "take_exact", "take_until", "take_all"},
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_help_lists_only_what_is_documented(name: str) -> None:
    thing = getattr(fdmux, name)
    assert {each for each in dir(thing) if not each.startswith("_")} == DOCUMENTED[name]
    text = pydoc.plain(pydoc.render_doc(thing))
    listed = set(re.findall(r"^ \|  ([a-z]\w*)(?:\(| = |$)", text, re.MULTILINE))
    assert listed - {"data"} <= DOCUMENTED[name]
    assert "DESCRIPTION" not in text


def test_help_of_a_stream_says_who_makes_it() -> None:
    text = pydoc.plain(pydoc.render_doc(fdmux.Stream))
    assert "Made by `StreamServer`, `connect_stream` and `add_stream`" in text
    assert "delivery" not in text.replace("fdmux._delivery", "")
    with pytest.raises(TypeError, match="StreamServer, connect_stream and add_stream"):
        fdmux.Stream()
