"""examples/meter, the extension of the tutorial: what it tells, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import socket
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING, Protocol

import pytest
from tests.compiled import compile_extension
from tests.tree import ROOT

import fdmux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow  # it is compiled for the first of them

SOURCE = ROOT / "examples" / "meter"
LONG = 10.0


class Meter(Protocol):
    def start(
        self,
        loop: object,
        fd: int,
        period: float,
        function: Callable[[float], bool | None],
    ) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meter")
    compile_extension(SOURCE / "meter.c", folder)
    return folder


@pytest.fixture(scope="module")
def meter(folder: Path) -> Meter:
    spec = importlib.util.spec_from_file_location("meter", folder / "meter.abi3.so")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        yield here, there


def test_rate_counts_every_byte(
    meter: Meter, pair: tuple[socket.socket, socket.socket]
) -> None:
    here, there = pair
    rates = []
    with fdmux.SelectorEventLoop() as loop:

        def on_rate(rate: float) -> bool:
            rates.append(rate)
            if sum(rates) > 0:
                loop.stop()
                return False
            return True

        before = loop.native.stats().io_live
        meter.start(loop, here.fileno(), 0.01, on_rate)
        there.send(bytes(500))
        loop.run()
        assert sum(rates) == pytest.approx(500 / 0.01)
        assert loop.native.stats().io_live == before
        assert loop.native.stats().timer_live == 0


def test_exception_is_reported_and_ends_the_meter(
    meter: Meter,
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda found: seen.append(found.exc_type)
    )

    def fail(_rate: float) -> bool:
        loop.stop()
        raise ZeroDivisionError

    with fdmux.SelectorEventLoop() as loop:
        meter.start(loop, pair[0].fileno(), 0.001, fail)
        loop.run()
        assert loop.native.stats().timer_live == 0
    assert seen == [ZeroDivisionError]


def test_end_of_its_loop_frees_the_function(
    meter: Meter, pair: tuple[socket.socket, socket.socket]
) -> None:
    class Function:
        def __call__(self, rate: float) -> None: ...

    function = Function()
    gone = weakref.ref(function)
    with fdmux.SelectorEventLoop() as loop:
        meter.start(loop, pair[0].fileno(), 1.0, function)
        del function
        gc.collect()
        assert gone() is not None
    gc.collect()
    assert gone() is None


def test_refused_start_leaves_nothing(
    meter: Meter, pair: tuple[socket.socket, socket.socket]
) -> None:
    function = lambda _rate: None  # noqa: E731 - a new object, which can be watched
    gone = weakref.ref(function)
    with fdmux.SelectorEventLoop() as loop:
        with pytest.raises(ValueError, match="period"):
            meter.start(loop, pair[0].fileno(), 0.0, function)
        with pytest.raises(OSError, match="start a meter"):
            meter.start(loop, -5, 1.0, function)
        del function
        gc.collect()
        assert gone() is None
        assert loop.native.stats().timer_live == 0


def test_none_is_the_running_loop(
    meter: Meter, pair: tuple[socket.socket, socket.socket]
) -> None:
    async def main() -> float:
        found = asyncio.get_running_loop().create_future()

        def on_rate(rate: float) -> bool:
            if rate:
                found.set_result(rate)
            return not rate

        meter.start(None, pair[0].fileno(), 0.01, on_rate)
        pair[1].send(bytes(100))
        return float(await asyncio.wait_for(found, LONG))

    assert asyncio.run(main()) == pytest.approx(100 / 0.01)


def test_program_runs(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SOURCE / "run.py")],
        env={"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[-2] for line in done.stdout.splitlines()] == ["1,000,000"] * 2
