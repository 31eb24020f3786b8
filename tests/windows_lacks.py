"""On Windows: what a test asks for that no Windows has is the reason to skip it.

A plugin of pytest, loaded on Windows alone. A test that fails is skipped instead if its
own code has asked for a call of POSIX, or if fdmux has refused by name what cannot be
there. If fdmux's own code asks for such a call, the test fails. tests/windows_known.txt
names the tests that cannot hold for another reason, and those that wine fails.
"""

from __future__ import annotations

import asyncio
import errno
import fnmatch
import gc
import inspect
import re
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

from fdmux.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Generator

KNOWN = ROOT / "tests" / "windows_known.txt"
# What the message of an AttributeError or ImportError says, and why that is so.
LACKS = {
    r"'os' has no attribute '\w+'": "no such call",
    r"'socket' has no attribute '(AF|MSG|SO|SCM|I\w+|UDP|TCP)_\w+'": "no such option",
    r"'socket' has no attribute '\w+_fds'": "no such call",
    r"'socket' object has no attribute '(sendmsg|recvmsg)\w*'": "no such call",
    r"'select' has no attribute '\w+'": "no such wait",
    r"'selectors' has no attribute '(Epoll|Poll|Kqueue)Selector'": "no such wait",
    r"'signal' has no attribute '\w+'": "no such signal",
    r"'time' has no attribute '\w+'": "no such clock",
    r"No module named '(resource|fcntl|pwd|grp|termios|pty|tty)'": "no such module",
}
# What fdmux says when it refuses by name, and socket.socketpair of Windows.
REFUSALS = (
    "get the fd of the loop: ",
    "has no descriptor that a host could watch",
    "it cannot watch descriptors; run",
    "no backend called 'epoll' on this system",
    "no descriptor can stand for a loop",
    "Python has no Unix sockets on this system",
    "this system has no SO_REUSEPORT",
    " with local_address",
    " with ecn",
    "Only SOCK_STREAM socket type is supported",
)
# Windows waits for sockets, which are no descriptors: what a test says that has others.
OTHER_FILES = re.compile(
    r"os\.(pipe|dup|dup2|open|close|fdopen|fstat|get_\w+|set_\w+)\(|/dev/null|TemporaryFile|\bopen\("
)
CAUGHT = (
    *(AttributeError, ImportError, OSError, RuntimeError, ValueError),
    AssertionError,
)
NO_SOCKET = {errno.EBADF, errno.ENOTSOCK, errno.EINVAL}
WRONG_FUNCTION = 1  # ERROR_INVALID_FUNCTION, of a file that is none


def known() -> dict[str, str]:
    """Return the patterns of tests that fail there, with reasons."""
    lines = KNOWN.read_text(encoding="utf-8").splitlines()
    parts = [line.partition(" ") for line in lines if line and line[0] != "#"]
    return {pattern: reason for pattern, _, reason in parts}


class Policy(asyncio.DefaultEventLoopPolicy):
    """Loops of asyncio that C code can live in: Proactor loops watch no descriptor."""

    _loop_factory = staticmethod(lambda: asyncio.SelectorEventLoop(Selector()))


def pytest_configure() -> None:
    """Have asyncio make loops on our selector, as programs do there."""
    asyncio.set_event_loop_policy(Policy())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is known to fail."""
    reasons = known()
    for item in items:
        reason = reason_before(item)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        name = item.nodeid.removeprefix("tests/python/")
        for pattern, why in reasons.items():
            # Only the bracket of parameters: the others are sets of characters.
            if fnmatch.fnmatchcase(name, pattern.replace("[", "[[]", 1)):
                item.add_marker(pytest.mark.skip(reason=f"Windows: {why}"))


def reason_before(item: pytest.Item) -> str:
    """Say why the test must not even begin; otherwise nothing."""
    if not isinstance(item, pytest.Function):
        return ""
    source = inspect.getsource(item.function)
    if "os.fork" in source:
        return "Windows: no fork"
    # There, the number of a socket is that of some other file, or of none.
    has_number = "fileno()" in source or "detach()" in source
    if has_number and re.search(r"os\.(close|dup2)\(", source) is not None:
        return "Windows: the test closes a socket by its number"
    return ""


def reason_of(error: BaseException | None, item: pytest.Item | None = None) -> str:
    """Say what Windows lacks, if that is why the test failed; otherwise nothing."""
    message = str(error)
    if isinstance(error, AttributeError | ImportError) and is_of_tests(error):
        for pattern, why in LACKS.items():
            if re.search(pattern, message):
                return f"Windows: {why} ({message})"
    # pytest.raises shows the message of the wrong exception.
    if isinstance(error, OSError | RuntimeError | ValueError | AssertionError):
        if any(text in message for text in REFUSALS):
            return f"Windows: refused by name ({message})"
        if isinstance(error, OSError) and uses_other_files(error, item):
            return f"Windows: waits for sockets alone ({message})"
    return ""


def uses_other_files(error: OSError, item: pytest.Item | None) -> bool:
    """Whether the error is that of a test which waits for more than sockets."""
    numbers = (error.errno, getattr(error, "winerror", None))
    if not isinstance(item, pytest.Function):
        return False
    if numbers[0] not in NO_SOCKET and WRONG_FUNCTION not in numbers:
        return False
    return OTHER_FILES.search(inspect.getsource(item.function)) is not None


def is_of_tests(error: BaseException) -> bool:
    """Whether the code that has raised it is in a file of the tests."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    path = Path(frames[-1][0].f_code.co_filename)
    # pytest's monkeypatch imports what a test names.
    return path.is_relative_to(ROOT / "tests") or path.parent.name == "_pytest"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Skip a test that has asked for what Windows lacks."""
    yield from skipping(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Do the same for what its fixtures ask for."""
    yield from skipping(item)


def skipping(item: pytest.Item) -> Generator[None]:
    """Turn an error of what follows into a skip, if there is a reason."""
    try:
        return (yield)
    except CAUGHT as error:
        reason = reason_of(error, item)
        if not reason:
            raise
        forget(error)
        pytest.skip(reason)


def forget(error: BaseException) -> None:
    """Close what the test had open, without the warnings that it was left open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        traceback.clear_frames(error.__traceback__)
        gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a file that asks for it when it is imported."""
    report = yield
    excinfo = report.call.excinfo if report.failed and report.call else None
    if excinfo is not None:
        # pytest wraps what an import raises.
        error = excinfo.value.__cause__ or excinfo.value
        reason = reason_of(error)
        if reason:
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, f"Skipped: {reason}")
    return report
