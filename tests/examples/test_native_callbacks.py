"""examples/native-callbacks: Python called with what a native thread finds."""

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

SOURCE = ROOT / "examples" / "native-callbacks"

# The thread has thousands of jobs of some 50 us left whenever this program ends.
BEGIN = """
import sys
import factors
from fdmux import NativeQueue, SelectorEventLoop

called = []
loop = SelectorEventLoop()
queue = NativeQueue()
factors.start(queue)
loop.register_read(queue, factors.drain)

def on_factor(number, factor):
    called.append(factor)
    {in_callback}

for _ in range(10_000):
    factors.submit(99_999_989, on_factor)
while not called:
    loop.run_once()
assert factors.waiting()
{at_the_end}
"""
WAYS_TO_END = {
    "the end of the program": ("", ""),
    "sys.exit in a callback": ("sys.exit()", ""),
    "the loop closed": ("", "loop.close()"),
    "the queue closed": ("", "loop.unregister(queue); queue.close()"),
    "the queue forgotten": ("", "loop.close(); del loop, queue"),
}


@pytest.fixture(scope="module")
def example(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return installation.install_copy(
        SOURCE, tmp_path_factory.mktemp("native-callbacks")
    )


def test_example_runs(installation: Installation, example: Path) -> None:
    printed = installation.run_silently(example / "run.py")
    assert "10,000 callbacks" in printed
    assert "one exception" in printed
    assert "WRONG" not in printed


def test_example_links_nothing_of_fdmux(
    installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    check_links(installation, "factors")


@pytest.mark.parametrize("attempt", range(4))
@pytest.mark.parametrize("way", WAYS_TO_END)
def test_interpreter_ends_well_while_the_thread_works(
    way: str, attempt: int, installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    assert attempt >= 0  # the same again: the thread is never at the same point
    in_callback, at_the_end = WAYS_TO_END[way]
    program = BEGIN.format(in_callback=in_callback, at_the_end=at_the_end)
    assert installation.run_silently("-c", program) == ""


def test_exception_reaches_the_error_hook_and_every_other_function_is_called(
    installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    program = """
    import factors
    from fdmux import NativeQueue, SelectorEventLoop

    seen = []

    def on_factor(number, factor):
        if number % 100 == 0:
            raise ZeroDivisionError(str(number))
        seen.append(number)

    def on_error(error, source):
        assert source is queue
        seen.append(-int(str(error)))

    with NativeQueue() as queue, SelectorEventLoop(error_hook=on_error) as loop:
        factors.start(queue)
        loop.register_read(queue, factors.drain)
        for number in range(1, 1001):
            factors.submit(number, on_factor)
        while factors.waiting():
            loop.run_once()
    assert seen == [n if n % 100 else -n for n in range(1, 1001)]
    """
    assert installation.run_silently("-c", textwrap.dedent(program)) == ""
