"""examples/python-callback: Python called by functions of the loop, one GIL a batch."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest
from tests.examples.conftest import check_links
from tests.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.examples.conftest import Installation

pytestmark = pytest.mark.slow  # an extension is compiled for the first of them

SOURCE = ROOT / "examples" / "python-callback"
COUNT = 10

# Ten descriptors are ready at once; `called` is called for each.
BEGIN = """
import socket, sys, threading, time
import calling
import fdmux

pairs = [socket.socketpair() for _ in range(10)]
loop = fdmux.SelectorEventLoop()
seen = []
for here, there in pairs:
    here.setblocking(False)
    there.send(b"x")

def watch_all(called):
    for here, _ in pairs:
        calling.watch(loop, here.fileno(), called)
"""
END = """
loop.close()
for here, there in pairs:
    here.close()
    there.close()
"""


@pytest.fixture(scope="module")
def example(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return installation.install_copy(SOURCE, tmp_path_factory.mktemp("python-callback"))


def run_code(installation: Installation, code: str) -> None:
    program = BEGIN + textwrap.dedent(code) + END
    assert installation.run_silently("-c", program) == ""


def test_example_runs(installation: Installation, example: Path) -> None:
    lines = installation.run_silently(example / "run.py").splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == [
        "on fdmux.SelectorEventLoop",
        "on fdmux.hosts.asyncio.EventLoop",
        "mounted on the loop of asyncio",
    ]
    assert lines.count("ok      the GIL taken once for these 10") == 3


def test_example_links_nothing_of_fdmux(
    installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    check_links(installation, "calling")


def test_batch_enters_a_hold_once(installation: Installation, example: Path) -> None:
    """The counting hold is entered and left once, beside the hold of the GIL."""
    assert example.is_dir()
    code = """
    watch_all(seen.append)
    assert loop.run_once(0) == 0  # nothing of Python's own
    assert calling.counts() == (10, 1)
    for _, there in pairs[:3]:
        there.send(b"y")
    loop.run_once(0)
    assert calling.counts() == (13, 2)
    assert seen == [b"x"] * 10 + [b"y"] * 3
    """
    run_code(installation, code)


def test_batch_without_data_enters_no_hold(
    installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    code = """
    for here, there in pairs:
        here.recv(1)
        there.close()
    watch_all(seen.append)  # finds the end, and is done without Python
    loop.run_once(0)
    assert calling.counts() == (0, 0)
    """
    run_code(installation, code)


def test_no_other_thread_runs_python_between_the_calls_of_a_batch(
    installation: Installation, example: Path
) -> None:
    """Another thread would run if the GIL were released between the calls."""
    assert example.is_dir()
    code = """
    turns = 0

    def turn():
        global turns
        while len(seen) < 10:
            turns += 1
            time.sleep(0)

    sys.setswitchinterval(1000)  # who has the GIL keeps it
    watch_all(lambda _data: seen.append(turns))
    other = threading.Thread(target=turn)
    other.start()
    loop.run_once(0)
    other.join()
    assert len(seen) == 10
    assert len(set(seen)) == 1
    """
    run_code(installation, code)


def test_exception_of_one_function_leaves_the_others_alone(
    installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    code = """
    def called(_data):
        seen.append(len(seen))
        if len(seen) == 4:
            raise LookupError("the fourth")

    watch_all(called)
    loop.run_once(0)
    assert seen == list(range(10))
    for attempt in range(2):
        try:
            calling.check()
        except LookupError as error:
            assert (attempt, str(error)) == (0, "the fourth")
        else:
            assert attempt == 1
    for _, there in pairs:
        there.send(b"y")
    loop.run_once(0)
    assert len(seen) == 19  # the one that has raised is called no more
    """
    run_code(installation, code)


ENDS = {
    "the loop closed": "loop.close()",
    "the loop forgotten": "loop = fdmux.SelectorEventLoop(); gc.collect()",
    "the function returned False": "",
}


@pytest.mark.parametrize("way", ENDS)
def test_functions_are_given_back(
    way: str, installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    code = f"""
    import gc, warnings, weakref

    warnings.simplefilter("ignore", ResourceWarning)  # of the loop that is forgotten

    class Function:
        def __call__(self, _data):
            return {way != "the function returned False"}

    function = Function()
    reference = weakref.ref(function)
    watch_all(function)
    del function
    loop.run_once(0)
    {ENDS[way]}
    assert reference() is None
    """
    run_code(installation, code)


def test_program_may_end_while_functions_are_watched(
    installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    program = """
    import calling, fdmux, socket, sys

    here, there = socket.socketpair()
    loop = fdmux.SelectorEventLoop()
    calling.watch(loop, here.fileno(), lambda data: sys.exit(data.decode()))
    calling.every(loop, 1, lambda: there.send(b"x"))
    while True:
        loop.run_once()
        try:
            calling.check()
        except SystemExit:
            break
    sys.stdout.write("over")
    """
    code = "import warnings; warnings.simplefilter('ignore', ResourceWarning)"
    said = installation.run_silently("-c", f"{code}\n{textwrap.dedent(program)}")
    assert said == "over"
