"""Run CPython's own tests of asyncio with our selector or loop, and compare with stock.

    python tools/asyncio_suite.py                    # our selector for DefaultSelector
    python tools/asyncio_suite.py --loop transports  # our EventLoop for asyncio's
    python tools/asyncio_suite.py --python ~/py312/bin/python --jobs 2
    python tools/asyncio_suite_all.py                # both, on every CPython there is

Every test runs with the standard library's class and with ours, each module in a
process of its own. A test whose outcome differs is repeated alone, with both classes,
and counts only if no two outcomes agree. tools/asyncio_suite_known.txt lists the tests
that are known to differ, with reasons. Exit status: 0 if no other test differs, else 1.

The interpreter must have the package `test`, and be able to import fdmux. On Windows,
stock is the selector loop, which is made the default for that.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
import unittest
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType, TracebackType

    Outcomes = dict[str, tuple[str, str]]
    Verdict = tuple[str, str, str]
    Error = (
        tuple[type[BaseException], BaseException, TracebackType]
        | tuple[None, None, None]
    )

STOCK = "stock"
LOOPS = ("selector", "transports")
SELECTOR_MODULES = ("test.test_selectors", "test.test_socketserver")
KNOWN = Path(__file__).with_name("asyncio_suite_known.txt")
if sys.platform == "win32":
    SYSTEM_MODULE, SYSTEM_POLICY = (
        "asyncio.windows_events",
        "WindowsSelectorEventLoopPolicy",
    )
    OTHER_SELECTOR = "SelectSelector"
else:
    SYSTEM_MODULE, SYSTEM_POLICY = "asyncio.unix_events", "_UnixDefaultEventLoopPolicy"
    OTHER_SELECTOR = "EpollSelector"
MODULE_SECONDS = 600
TEST_SECONDS = 60
# Of Proactor loops and pipes of Windows: nothing of ours is in them.
OTHER_MODULES = ("test_windows_events", "test_windows_utils")
REPEATS = 3


# In the process that runs tests -------------------------------------------------------


class Recorder(unittest.TestResult):
    """Keeps the outcome of each test, and why it failed; unittest calls the methods."""

    def __init__(self, report: Path) -> None:
        super().__init__()
        self.outcomes: Outcomes = {}
        self._report = report
        self._watch: threading.Timer | None = None

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: D102, N802 - unittest's name
        if sys.platform == "win32":  # under wine, some of stock's tests hang
            self._watch = threading.Timer(TEST_SECONDS, self._end, [test.id()])
            self._watch.daemon = True
            self._watch.start()

    def stopTest(self, _test: unittest.TestCase) -> None:  # noqa: D102, N802 - unittest's name
        if self._watch is not None:
            self._watch.cancel()

    def _end(self, name: str) -> None:
        """End the process at a test that hangs; the rest of them is missing then."""
        self.outcomes[name] = ("hung", f"not done after {TEST_SECONDS} s")
        self.write()
        os._exit(1)

    def write(self) -> None:
        """Write the outcomes to the file that the other process reads."""
        self._report.write_text(json.dumps(self.outcomes), encoding="utf-8")

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: D102, N802 - unittest's name
        self.outcomes.setdefault(test.id(), ("passed", ""))

    def addError(self, test: unittest.TestCase, err: Error) -> None:  # noqa: D102, N802 - unittest's name
        self.addFailure(test, err)

    def addFailure(self, test: unittest.TestCase, err: Error) -> None:  # noqa: D102, N802 - unittest's name
        text = "".join(traceback.format_exception(*err))
        self.outcomes[test.id()] = ("failed", text)

    def addSubTest(  # noqa: D102, N802 - unittest's name
        self,
        test: unittest.TestCase,
        _subtest: unittest.TestCase,
        err: Error | None,
    ) -> None:
        if err is not None:
            self.addFailure(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: D102, N802 - unittest's name
        self.outcomes[test.id()] = ("skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, _err: Error) -> None:  # noqa: D102, N802 - unittest's name
        self.outcomes[test.id()] = ("failed as expected", "")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: D102, N802 - unittest's name
        self.outcomes[test.id()] = ("passed unexpectedly", "")


def put_in_place(loop: str) -> None:
    """Put our classes where asyncio and its tests look for the standard library's."""
    if sys.platform == "win32":
        make_selector_loop_the_default()
    if loop == STOCK:
        return
    host = importlib.import_module("fdmux.hosts.asyncio")
    streams = importlib.import_module("fdmux.hosts.asyncio.selector")
    selector = streams.StreamSelector if loop == "transports" else streams.Selector
    for name in ("DefaultSelector", OTHER_SELECTOR):
        setattr(importlib.import_module("selectors"), name, selector)
    if loop == "transports":
        own = importlib.import_module(SYSTEM_MODULE)
        for module in (importlib.import_module("asyncio"), own):
            for name in ("SelectorEventLoop", "EventLoop"):
                setattr(module, name, host.EventLoop)
        add_what_tests_reach_into(importlib.import_module("fdmux.hosts.asyncio.tls"))
        policy = getattr(own, SYSTEM_POLICY)
        policy._loop_factory = host.EventLoop  # noqa: SLF001 - no public name


def make_selector_loop_the_default() -> None:
    """Have asyncio on Windows make selector loops instead of Proactor loops."""
    for name in ("asyncio", SYSTEM_MODULE):
        module = importlib.import_module(name)
        vars(module)["DefaultEventLoopPolicy"] = getattr(module, SYSTEM_POLICY)
        vars(module)["EventLoop"] = module.SelectorEventLoop


def add_what_tests_reach_into(tls: ModuleType) -> None:
    """Give transports with TLS the private names by which tests queue writes.

    asyncio's transports keep what is written while the protocol below is paused, which
    `test_flush_before_shutdown` does by hand; ours gather it until the loop waits.
    """
    transport = tls.SSLTransport
    transport._ssl_protocol = SimpleNamespace(  # noqa: SLF001 - the tests do
        pause_writing=lambda: None, resume_writing=lambda: None
    )
    transport._test__append_write_backlog = transport.write  # noqa: SLF001 - the same


def run_tests(loop: str, report: str, names: list[str]) -> None:
    """Run the named modules or tests, and write the outcomes to a file."""
    put_in_place(loop)
    # As regrtest sets it without the option -u.
    vars(importlib.import_module("test.support"))["use_resources"] = []
    recorder = Recorder(Path(report))
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        try:
            loaded = unittest.defaultTestLoader.loadTestsFromNames(names)
            unittest.TestSuite(chosen_tests(loaded)).run(recorder)
        except unittest.SkipTest as reason:  # the module cannot run here
            recorder.outcomes[names[0]] = ("skipped", str(reason))
        finally:
            os.chdir("/")
    recorder.write()


def chosen_tests(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield the tests one by one, without those of Proactor loops."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from chosen_tests(test)
        elif "Proactor" not in test.id():
            yield test


# In the process that compares ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Suite:
    """How to run the tests of one interpreter."""

    python: str
    loop: str

    def ask(self, code: str) -> str:
        """Run a line of code in the interpreter; return what it prints."""
        done = subprocess.run(
            [self.python, "-c", code], capture_output=True, check=True, text=True
        )
        return done.stdout.strip()

    def run(self, loop: str, names: list[str]) -> Outcomes:
        """Run tests in a process of their own."""
        with tempfile.TemporaryDirectory() as directory:
            report = Path(directory, "report.json")
            command = [self.python, __file__, "--worker", loop, str(report), *names]
            problem = run_bounded(command)
            if not report.exists():
                return dict.fromkeys(names, ("broke off", problem))
            found = json.loads(report.read_text(encoding="utf-8"))
        return {name: (outcome, reason) for name, (outcome, reason) in found.items()}

    def modules(self) -> list[str]:
        """List the modules of test.test_asyncio; for a selector, its own tests too."""
        where = self.ask("import test.test_asyncio as t; print(t.__path__[0])")
        files = sorted(Path(where).glob("test_*.py"))
        more = SELECTOR_MODULES if self.loop == "selector" else ()
        if sys.platform == "win32":  # ours has a fileno that refuses, which stock lacks
            more = tuple(name for name in more if name != "test.test_selectors")
        names = [file.stem for file in files if file.stem not in OTHER_MODULES]
        return [*(f"test.test_asyncio.{name}" for name in names), *more]

    def verdict(self, name: str) -> Verdict | None:
        """Repeat one test alone.

        Returns:
            The outcomes of stock and of ours, and the reason of ours; ``None`` if they
            agree in at least one repetition.
        """
        stock: set[str] = set()
        ours: set[str] = set()
        reason = ""
        for _ in range(REPEATS):
            stock.add(self.run(STOCK, [name]).get(name, ("missing", ""))[0])
            outcome, why = self.run(self.loop, [name]).get(name, ("missing", ""))
            ours.add(outcome)
            reason = why or reason
            if stock & ours:
                return None
        return "/".join(sorted(stock)), "/".join(sorted(ours)), reason

    def known(self) -> dict[str, str]:
        """Return the patterns of tests that may differ on this Python, with reasons."""
        version = self.ask("import sys; print('%d.%d' % sys.version_info[:2])")
        found = {}
        for line in KNOWN.read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("#"):
                continue
            loop, pattern, versions, reason = line.split(maxsplit=3)
            if loop == self.loop and (
                versions == "all" or version in versions.split(",")
            ):
                found[pattern] = reason
        return found


def run_bounded(command: list[str]) -> str:
    """Run a program within the time limit; return how it ended."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=MODULE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {MODULE_SECONDS} s"
    return f"exit status {done.returncode}: {done.stderr[-2000:].decode()}"


def main() -> int:
    """Compare; print the differences and the counts; return the exit status."""
    options = parse()
    suite = Suite(options.python, options.loop)
    modules = [name for name in suite.modules() if is_chosen(name, options.patterns)]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        parts = [
            [pool.submit(suite.run, loop, [module]) for module in modules]
            for loop in (STOCK, suite.loop)
        ]
        stock, ours = (
            {name: found for part in kind for name, found in part.result().items()}
            for kind in parts
        )
        nothing = ("missing", "")
        names = [
            name
            for name in sorted(stock.keys() | ours.keys())
            if stock.get(name, nothing)[0] != ours.get(name, nothing)[0]
        ]
        verdicts = dict(zip(names, pool.map(suite.verdict, names), strict=True))
    report_shared(stock, ours)
    count = report(verdicts, suite.known()) + count_broken(stock) + count_broken(ours)
    for title, outcomes in (("stock", stock), ("ours", ours)):
        counts = Counter(outcome for outcome, _ in outcomes.values())
        text = ", ".join(f"{number} {what}" for what, number in counts.most_common())
        print(f"{title:6} {len(outcomes)} tests: {text}")
    print(f"{count} differ or broke off")
    return min(count, 1)


def report(verdicts: dict[str, Verdict | None], known: dict[str, str]) -> int:
    """Print each difference; return how many are not known."""
    count = 0
    for name, verdict in verdicts.items():
        if verdict is None:
            print(f"flaky    {name}")
            continue
        stock, ours, traceback_text = verdict
        reasons = (
            why for pattern, why in known.items() if fnmatch.fnmatch(name, pattern)
        )
        reason = next(reasons, None)
        count += reason is None
        print(f"{'DIFFERS' if reason is None else 'known':8} {name}")
        print(f"         {stock} with stock, {ours} with ours")
        print(traceback_text if reason is None else f"         {reason}")
    return count


def report_shared(stock: Outcomes, ours: Outcomes) -> None:
    """Name the tests that fail with both: the system is the reason, or stock."""
    for name, (outcome, _) in sorted(ours.items()):
        if outcome in {"failed", "hung"} and stock.get(name, ("", ""))[0] == outcome:
            print(f"both     {name}: {outcome}")


def count_broken(outcomes: Outcomes) -> int:
    """Print the modules whose process ended early; return how many."""
    broken = {
        name: why for name, (what, why) in outcomes.items() if what == "broke off"
    }
    for name, reason in broken.items():
        print(f"BROKE OFF {name}\n{reason}")
    return len(broken)


def is_chosen(name: str, patterns: list[str]) -> bool:
    """Whether a module matches one of the patterns, or there are no patterns."""
    return not patterns or any(fnmatch.fnmatch(name, f"*{p}*") for p in patterns)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="whose tests to run")
    parser.add_argument(
        "--loop", choices=LOOPS, default="selector", help="which of our classes to test"
    )
    # Two for each core, as most of these tests sleep most of the time.
    jobs = 2 * (os.cpu_count() or 1)
    parser.add_argument("--jobs", type=int, default=jobs, help="processes")
    parser.add_argument(
        "--patterns", nargs="*", default=[], metavar="P", help="only these modules"
    )
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        run_tests(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        sys.exit(main())
