"""The examples in the docstrings run, with a peer, a server and native code at hand.

Each example gets the public names, and what it calls by a name that says enough to a
reader: `sock`, `port`, `loop`, `extension`. What an example prints is compared with
what it shows, also if it shows nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import inspect
import selectors
import socket
import threading
from typing import TYPE_CHECKING

import pytest

import fdmux
import fdmux.hosts.asyncio
import fdmux.testing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What is made or called by users, so an example says more than words.
WITH_EXAMPLE = {
    *(
        "ClientPool",
        "DatagramEndpoint",
        "Delimited",
        "EchoServer",
        "FixedSize",
        "Guest",
    ),
    *("LengthPrefixed", "NativeLoop", "NativeQueue", "ReceiveBuffer", "Selector"),
    *("SelectorEventLoop", "ServerLimits", "StreamHandler", "StreamServer"),
    *("add_stream", "connect_stream", "connect_with_timeout", "current", "mount"),
    *("read_with_timeout", "wait_readable", "wait_writable"),
}
OBJECTS: dict[str, object] = {
    **{name: getattr(fdmux, name) for name in fdmux.__all__},
    "aio.Completion": fdmux.aio.Completion,
    "hosts.asyncio.run": fdmux.hosts.asyncio.run,
    "hosts.asyncio.EventLoop": fdmux.hosts.asyncio.EventLoop,
    "hosts.asyncio.Guest": fdmux.hosts.asyncio.Guest,
}
EXAMPLES = {
    name: found
    for name, each in OBJECTS.items()
    if inspect.isclass(each) or inspect.isfunction(each)
    for found in doctest.DocTestFinder(recurse=False).find(each, name)
    if found.examples
}


class Extension:
    """Stands for native code: its thread finishes what it is given."""

    def __init__(self, loop: fdmux.SelectorEventLoop) -> None:
        self.loop = loop

    def start(self, given: object) -> None:
        if isinstance(given, fdmux.aio.Completion):
            job = fdmux.testing.NativeJob(given)
            threading.Thread(target=job.finish, args=(42,)).start()
        elif isinstance(given, fdmux.NativeQueue):
            self.loop.call_later(0.0, self.loop.stop)
        else:
            assert isinstance(given, fdmux.NativeLoop)

    def drain(self, queue: fdmux.NativeQueue) -> None:
        """Take what is in the queue: nothing."""


class Host:
    """Stands for a loop of another kind, and for the notifier and application of Qt."""

    def __init__(self) -> None:
        self.call: Callable[[], object] | None = None
        self.fd = -1

    def watch(self, fd: int, call: Callable[[], object]) -> None:
        self.fd, self.call = fd, call

    @property
    def activated(self) -> Host:
        return self

    def connect(self, call: Callable[[], object]) -> None:
        self.call = call

    def exec(self) -> None:
        """Serve the guest until it has been idle for a moment."""
        assert self.call is not None
        while fdmux.wait_readable([self.fd], timeout=0.05):
            self.call()


class Notifier(Host):
    class Type:
        Read = 0

    last: Host

    def __call__(self, fd: int, kind: int) -> Host:
        assert kind == self.Type.Read
        self.fd = fd
        return self


async def main() -> None:
    await asyncio.sleep(0.001)


@pytest.fixture
def names() -> Iterator[dict[str, object]]:
    """What examples use beside the public names."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(fdmux.EchoServer(port=0))
        server.run_in_thread()
        sock, peer = map(stack.enter_context, socket.socketpair())
        idle, other = map(stack.enter_context, socket.socketpair())
        peer.sendall(b"hello")
        loop = stack.enter_context(fdmux.SelectorEventLoop())
        extension = Extension(loop)
        host = Notifier()

        def on_readable(sock: socket.socket) -> None:
            assert sock.recv(100) == b"hello"
            loop_of_example = found["loop"]
            assert isinstance(loop_of_example, fdmux.SelectorEventLoop)
            loop_of_example.stop()

        found: dict[str, object] = {
            **{name: getattr(fdmux, name) for name in fdmux.__all__},
            **{
                name: getattr(fdmux.hosts.asyncio, name)
                for name in ("EventLoop", "run")
            },
            "fdmux": fdmux,
            "asyncio": asyncio,
            "selectors": selectors,
            "sock": sock,
            "idle": idle,
            "port": server.address[1],
            "loop": loop,
            "extension": extension,
            "module": extension,
            "main": main,
            "host": host,
            "application": host,
            "QSocketNotifier": host,
            "on_readable": on_readable,
            "other": other,
        }
        yield found


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_of_a_docstring_runs(name: str, names: dict[str, object]) -> None:
    example = EXAMPLES[name]
    example.globs = names
    said: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert results.failed == 0, "".join(said)
    assert results.attempted == len(example.examples)


def test_what_users_make_and_call_has_an_example() -> None:
    assert set(EXAMPLES) >= WITH_EXAMPLE | {"aio.Completion", "hosts.asyncio.run"}
    assert set(fdmux.__all__) >= WITH_EXAMPLE


def test_every_public_name_has_a_docstring_that_begins_with_a_sentence() -> None:
    for name, each in OBJECTS.items():
        if inspect.isclass(each) or inspect.isfunction(each):
            first, _, rest = (inspect.getdoc(each) or "").partition("\n")
            assert first, name
            assert first.endswith((".", ")")), (name, first)
            assert not rest or rest.startswith("\n"), (name, first)
