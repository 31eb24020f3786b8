"""One build returns None safely on every Python, whichever headers it was built with.

Py_RETURN_NONE of the limited API takes no reference if the headers are those of Python
3.12 or later, where None is immortal. On 3.11 each call then takes one away.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.abi.conftest import CURRENT, build_consumer, compile_c, load
from tests.tree import ROOT

import fdmux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow  # extensions are compiled

CALLS = 500
UNSAFE = re.compile(r"\bPy_RETURN_(?:NONE|TRUE|FALSE|NOTIMPLEMENTED)\b")
SOURCES = ("csrc", "examples", "tests", "benchmarks")
INCLUDE = "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_path({!r}))"


@functools.cache
def headers_of_pythons() -> dict[str, str]:
    """Find the headers of this Python, of those on the PATH, and of its neighbours."""
    names = [f"python3.{minor}" for minor in range(11, 16)]
    found = [path for path in map(shutil.which, names) if path is not None]
    found += map(str, Path(sys.base_prefix).resolve().parent.glob("3.*/bin/python3"))
    headers: dict[str, str] = {}
    for python in [sys.executable, *found]:
        command = [python, "-c", INCLUDE.format("include")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        version = re.match(r"\(3, (\d+)\) (.+)", done.stdout)
        if version is None or int(version[1]) < 11:
            continue
        if (Path(version[2]) / "Python.h").exists():
            headers.setdefault(f"3.{version[1]}", version[2])
    return headers


def lost(call: Callable[[], object]) -> int:
    """Return how many references to None are gone after the calls."""
    before = sys.getrefcount(None)
    for _ in range(CALLS):
        call()
    return before - sys.getrefcount(None)


def test_consumer_of_any_headers_takes_no_reference_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = headers_of_pythons()
    if not built:
        pytest.skip("needs Python.h (Debian: python3-dev)")
    with fdmux.NativeLoop() as loop:
        for version, include in built.items():
            monkeypatch.setattr(
                "tests.abi.conftest.sysconfig.get_path", {"include": include}.get
            )
            folder = tmp_path / version
            folder.mkdir()
            consumer = load(build_consumer(CURRENT, folder))
            assert lost(functools.partial(consumer.adopt, loop)) < CALLS // 10, version


GIVEN_BACK: list[None] = []  # for as long as None must not be freed

LOSING = """
#include <Python.h>
static PyObject *give(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    Py_RETURN_NONE;
}
static PyMethodDef methods[] = {{"has_table", give, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT,
                                        .m_name = "consumer", .m_methods = methods};
PyMODINIT_FUNC PyInit_consumer(void)
{
    return PyModule_Create(&definition);
}
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is immortal here")
def test_macro_of_later_headers_loses_a_reference_at_each_call(tmp_path: Path) -> None:
    """The danger is real, and `lost` finds it."""
    later = [path for name, path in headers_of_pythons().items() if name != "3.11"]
    if not later:
        pytest.skip("needs the headers of Python 3.12 or later")
    source, built = tmp_path / "losing.c", tmp_path / "losing.so"
    source.write_text(LOSING, encoding="utf-8")
    done = compile_c(
        *("-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000", f"-isystem{later[0]}"),
        *(source, "-o", built),
    )
    assert done.returncode == 0, done.stderr
    gone = lost(load(built).has_table)
    GIVEN_BACK.extend([None] * gone)
    assert gone >= CALLS


def sources() -> Iterator[Path]:
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".c", ".h", ".cpp", ".hpp"}:
                yield path


def test_no_source_of_ours_uses_such_a_macro() -> None:
    comment = re.compile(r"/\*.*?\*/", re.DOTALL)
    texts = {path: path.read_text(encoding="utf-8") for path in sources()}
    assert len(texts) > 100
    assert not [p for p, text in texts.items() if UNSAFE.search(comment.sub("", text))]
