"""EventLoop where C cannot run it: everything is asyncio's own, on our selector."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

REFUSED = """
import asyncio
from fdmux import _delivery
def refuse(*args):
    raise RuntimeError("not here")
_delivery.asyncio_types = refuse
"""
# A TimerHandle whose _when is no slot: C finds out by itself.
OTHER_SLOTS = """
import asyncio
class TimerHandle(asyncio.Handle):
    def __init__(self, when, callback, args, loop, context=None):
        super().__init__(callback, args, loop, context)
        self._when, self._scheduled = when, False
    __lt__ = asyncio.TimerHandle.__lt__
    when = asyncio.TimerHandle.when
    def cancel(self):
        if not self._cancelled:
            self._loop._timer_handle_cancelled(self)
        super().cancel()
asyncio.TimerHandle = asyncio.events.TimerHandle = TimerHandle
"""
USE = """
import asyncio, collections, threading
from fdmux.hosts.asyncio import EventLoop, Guest, private, run
assert not private.HAS_ITERATION
assert not private.HAS_TRANSPORTS
assert private.Handle is asyncio.Handle
assert private.TimerHandle is asyncio.TimerHandle
assert not [name for name in vars(private.LoopBase) if not name.startswith("__")]

async def shout(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()

async def main():
    loop = asyncio.get_running_loop()
    assert type(loop) is EventLoop, loop
    assert type(loop.call_soon(print)) is asyncio.Handle
    assert type(loop.call_later(9, print)) is asyncio.TimerHandle
    assert isinstance(loop._ready, collections.deque)
    assert isinstance(loop._scheduled, list)
    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"hello\\n")
    assert await reader.readline() == b"HELLO\\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    called = asyncio.Event()
    threading.Timer(0.01, loop.call_soon_threadsafe, (called.set,)).start()
    await called.wait()
    await asyncio.wait_for(asyncio.sleep(0.001), 5)
    loop._scheduled.clear()

run(main())
run(main(), debug=True)
loop = EventLoop()
loop.call_soon(loop.stop)
loop.run_forever()
try:
    loop.observe(type("Observer", (), {"on_slow": print})())
except NotImplementedError as error:
    assert str(error).startswith("observe the loop: asyncio itself runs it")
else:
    raise AssertionError
assert loop._run_once.__func__.__qualname__ == "BaseEventLoop._run_once"
loop.stop()
loop.close()
with Guest() as guest:
    task = guest.start(asyncio.sleep(0, 42))
    while not task.done():
        guest.dispatch()
    assert task.result() == 42
"""
WRONG = """
import asyncio, collections, contextvars
from fdmux import _delivery
for early in (None, asyncio.Transport):
    try:
        _delivery.asyncio_transport(early)
    except RuntimeError:
        continue
    raise AssertionError(early)
good = (asyncio.Handle, asyncio.TimerHandle, collections.deque, contextvars.Context,
        contextvars.copy_context, print, print, print)
class Meta(type):
    pass
class Empty:
    pass
class Slots(asyncio.Handle):
    __slots__ = ("_when",)
wrong = [(), good[:-1], good + (1,)]
for place in range(4):
    for other in (None, 1, int, type, Meta, Empty, Slots, dict, asyncio.Future, object):
        wrong.append(good[:place] + (other,) + good[place + 1:])
for args in wrong:
    try:
        _delivery.asyncio_types(*args)
    except (TypeError, RuntimeError, AttributeError):
        continue
    raise AssertionError(args)
made = _delivery.asyncio_types(*good)
assert made == _delivery.asyncio_types()
class NoNew(asyncio.transports._FlowControlMixin):
    def __new__(cls):
        raise RuntimeError
class Mixed(asyncio.Transport):
    __slots__ = ("_high_water", "_loop", "_low_water", "_protocol_pause")
for other in (None, 1, int, object, type, asyncio.Transport, asyncio.Protocol,
              asyncio.Handle, Slots, NoNew, Mixed):
    try:
        _delivery.asyncio_transport(other)
    except (TypeError, RuntimeError, AttributeError):
        continue
    raise AssertionError(other)
flow_control = asyncio.transports._FlowControlMixin
transport = _delivery.asyncio_transport(flow_control)
assert issubclass(transport, flow_control)
assert transport is _delivery.asyncio_transport(flow_control)
import fdmux.hosts.asyncio as host
assert host.private.HAS_ITERATION
"""

NO_TRANSPORTS = """
import asyncio
from fdmux import _delivery
def refuse(*args):
    raise RuntimeError("not here")
_delivery.asyncio_transport = refuse
from fdmux.hosts.asyncio import private, run
assert private.HAS_ITERATION
assert not private.HAS_TRANSPORTS
async def main():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\\n")
    assert await reader.readline() == b"hello\\n"
    kind = type(writer.transport)
    assert kind is asyncio.selector_events._SelectorSocketTransport, kind
    writer.close()
    await writer.wait_closed()
    server.close()
run(main())
"""

# A later Python may lack a private name: then asyncio's own parts do the work.
MISSING = """
import asyncio
from asyncio import base_events, constants, selector_events, sslproto
module, name = {module}, "{name}"
delattr(module, name)
from fdmux.hosts.asyncio import EventLoop, private, run
assert private.HAS_ITERATION == {has_iteration}
assert not private.HAS_TRANSPORTS
"""
SERVE = """
async def main():
    assert type(asyncio.get_running_loop()) is EventLoop
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\\n")
    assert await reader.readline() == b"hello\\n"
    writer.close()
    await writer.wait_closed()
    server.close()
run(main())
"""


def run_program(program: str) -> None:
    subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], check=True, timeout=120
    )


@pytest.mark.slow
@pytest.mark.parametrize("reason", [REFUSED, OTHER_SLOTS], ids=["refused", "slots"])
def test_loop_without_c_is_asyncio_s(reason: str) -> None:
    run_program(reason + USE)


@pytest.mark.slow
def test_types_are_refused_for_anything_but_asyncio_s() -> None:
    run_program(WRONG)


@pytest.mark.slow
def test_transports_without_c_are_asyncio_s() -> None:
    run_program(NO_TRANSPORTS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "has_iteration"),
    [
        ("constants", "_SendfileMode", True),
        ("base_events", "_SendfileFallbackProtocol", True),
        ("sslproto", "_create_transport_context", True),
        ("base_events", "_format_handle", False),
    ],
)
def test_missing_private_name_leaves_asyncio_s_own_parts(
    module: str, name: str, has_iteration: bool
) -> None:
    missing = MISSING.format(module=module, name=name, has_iteration=has_iteration)
    run_program(missing + SERVE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["_accept_connection2", "_ensure_fd_no_transport"])
def test_missing_method_of_asyncio_s_loop_leaves_its_own_transports(name: str) -> None:
    """Without it asyncio of today cannot serve: a later one has another way."""
    missing = MISSING.format(
        module="selector_events.BaseSelectorEventLoop", name=name, has_iteration=True
    )
    run_program(missing + "\nrun(asyncio.sleep(0))")


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="other names since 3.14")
def test_loop_of_another_interpreter_is_asyncio_s(tmp_path: Path) -> None:
    use = tmp_path / "use.py"
    use.write_text(USE, encoding="utf-8")
    code = f"exec(open({str(use)!r}).read(), {{'__name__': 'use'}})"
    program = f"""
import fdmux.hosts.asyncio as host
assert host.private.HAS_ITERATION
code = {code!r}
try:
    import _interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
    other = interpreters.create(isolated=False)
    interpreters.run_string(other, code)
else:
    other = _interpreters.create("legacy")
    failed = _interpreters.exec(other, code)
    assert failed is None, failed
loop = host.EventLoop()
loop.call_soon(loop.call_later, 0, loop.stop)
loop.run_forever()
loop.close()
"""
    run_program(program)


@pytest.mark.slow
def test_loop_without_c_passes_the_tests_of_the_loop() -> None:
    files = ["scheduling", "iteration", "handles", "timers", "replaced"]
    paths = [
        str(ROOT / f"tests/python/hosts/asyncio/test_asyncio_{name}.py")
        for name in files
    ]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", "not stock", *paths]
    program = f"{REFUSED}\nimport pytest, sys\nsys.exit(pytest.main({options!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
