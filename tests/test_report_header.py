"""The head of a test run names what is tested."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests import report_header
from tests.report_header import describe_backend, header_lines

from fdmux import NativeLoop

if TYPE_CHECKING:
    import pytest


def test_head_names_the_build_and_each_backend_that_opens() -> None:
    build, backends, hosts = header_lines()
    assert build.endswith(("FDMUX_TESTING on", "FDMUX_TESTING off"))
    with NativeLoop() as loop:
        assert f"{loop.backend} (" in backends
    assert hosts.startswith("hosts: ")


def test_head_says_which_backend_is_missing() -> None:
    assert describe_backend("abacus") == "abacus (not in this build)"


def test_head_says_why_a_backend_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("fdmux.NativeLoop", refuse)
    assert describe_backend("epoll") == "epoll (does not open: Too many open files)"


def test_head_says_so_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fdmux", None)
    (line,) = report_header.header_lines()
    assert line.startswith("fdmux: not installed")
