"""CPython's own test.test_selectors, run with our class in place of the stdlib's.

It runs in a subprocess of the same interpreter, since the classes are replaced before
the tests are imported. It skips one test by the name of the class; our copy of that,
test_modify_unregister, is in test_selector_faults.py.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TypedDict

import pytest

SCRIPT = """
import io, json, selectors, sys, unittest
import fdmux


class PollSelector(fdmux.Selector):
    def __init__(self):
        super().__init__("poll")

    @property
    def fileno(self):  # the stdlib's has none
        raise AttributeError("fileno")


best = fdmux.Selector
if sys.platform == "win32":  # no descriptor can stand for a loop

    class best(fdmux.Selector):
        fileno = PollSelector.fileno

    best.__name__ = "Selector"


# Not the name of the stdlib's class: tests of that class's internals look for it.
PollSelector.__name__ = "Selector"
selectors.EpollSelector = selectors.DefaultSelector = best
selectors.PollSelector = PollSelector
from test import support
support.use_resources = ["cpu"]  # test_above_fd_setsize
import test.test_selectors as tests

cases = [getattr(tests, name) for name in sys.argv[1:]]
assert all(issubclass(case.SELECTOR, fdmux.Selector) for case in cases)
load = unittest.defaultTestLoader.loadTestsFromTestCase
report = io.StringIO()
result = unittest.TextTestRunner(report, verbosity=2).run(
    unittest.TestSuite(map(load, cases)))
print(json.dumps({
    "run": result.testsRun,
    "failed": [text for _, text in result.failures + result.errors],
    "skipped": [test.id().rpartition(".")[2] for test, _ in result.skipped],
}))
"""

NAME_KEYED = {"test_modify_unregister"}
# What CPython skips on Windows with the standard library's class, too.
SKIPPED_ON_WINDOWS = {
    "test_above_fd_setsize",
    "test_empty_select",
    "test_select_interrupt_exc",
    "test_select_interrupt_noraise",
    "test_unregister_after_fd_close_and_reuse",
}


class Report(TypedDict):
    run: int
    failed: list[str]
    skipped: list[str]


def run_suite(*cases: str) -> Report:
    try:
        spec = importlib.util.find_spec("test.test_selectors")
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        pytest.skip("this interpreter was installed without its package `test`")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *cases],
        capture_output=True,
        check=False,
        timeout=120,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report: Report = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["EpollSelectorTestCase", "DefaultSelectorTestCase", "PollSelectorTestCase"]
)
def test_cpython_s_tests_pass_with_our_class(case: str) -> None:
    report = run_suite(case)
    assert not report["failed"], "\n".join(report["failed"])
    allowed = SKIPPED_ON_WINDOWS if sys.platform == "win32" else set()
    assert set(report["skipped"]) <= NAME_KEYED | allowed
    assert report["run"] >= 18
