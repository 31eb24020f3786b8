"""The statsd example: what it adds up, and its program with a real sender."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.examples.conftest import example_module, running_server

if TYPE_CHECKING:
    from types import ModuleType


def sink() -> ModuleType:
    return example_module("statsd", "sink")


def test_lines_are_added_up() -> None:
    collector = sink().Sink()
    batch = [
        (b"hits:1|c\nhits:2|c", None),
        (b"hits:1|c|@0.1", None),
        (b"load:0.5|g\nload:-1.5|g", None),
        (b"page:10|ms\npage:20|ms", None),
    ]
    collector.on_datagrams(None, batch)
    assert collector.report().splitlines() == [
        "hits 13",
        "load -1.5",
        "page 15 ms, 2 times",
        "bad lines: 0",
    ]


def test_bad_lines_are_counted_and_change_nothing() -> None:
    collector = sink().Sink()
    bad = (b"", b"x", b"x:|c", b"x:1|q", b"x:nan|c", b"\xff:1|c", b"x:1|c|@7")
    collector.on_datagrams(None, [(b"\n".join(bad), None)])
    assert collector.report() == f"bad lines: {len(bad)}"


def test_names_have_a_bound() -> None:
    module = sink()
    collector = module.Sink()
    count = module.NAMES_MAX
    for number in range(count + 5):
        collector.on_datagrams(None, [(b"name%d:1|c" % number, None)])
    collector.on_datagrams(None, [(b"name0:1|c", None)])
    assert len(collector.counts) == count
    assert collector.counts["name0"] == 2
    assert collector.bad_lines == 5


def test_program_collects_until_it_is_ended() -> None:
    said: list[str] = []
    with (
        running_server("statsd", program="sink.py", said=said) as address,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        for _ in range(200):
            sock.sendto(b"hits:1|c\npage:3|ms", address)
    assert said[0].splitlines() == [
        "hits 200",
        "page 3 ms, 200 times",
        "bad lines: 0",
        "dropped by the kernel: 0",
    ]
