"""Modules of hosts without their loop: the lists, and loops that do not run."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fdmux import NativeLoop, SelectorEventLoop
from fdmux.hosts import anyio, asyncio_mount, event_loop, glib, qt, registry
from fdmux.hosts.watched import Watched
from fdmux.testing import HOSTS

if TYPE_CHECKING:
    import pytest


class HasNative:
    """A loop with an attribute ``native``."""

    def __init__(self, native: NativeLoop) -> None:
        self.native = native


def test_registry_lists_each_file_that_mounts_on_a_host() -> None:
    files = Path(registry.__file__).parent.glob("*.py")
    mounts = {file.stem for file in files if "\ndef attach(" in file.read_text("utf-8")}
    assert {known.module for known in registry.HOSTS} == mounts


def test_kit_has_a_host_for_each_kind_that_the_registry_lists() -> None:
    modules = {kind.__module__ for kind in HOSTS.values()}
    for known in registry.HOSTS:
        assert f"fdmux.testing.known.{known.module}" in modules


def test_kit_imports_no_library_before_a_host_is_made() -> None:
    libraries = {name for known in registry.HOSTS for name in known.libraries}
    libraries -= {"asyncio", "selectors", "fdmux.loop.event_loop"}  # always there
    program = (
        "import sys, fdmux.testing.known\n"
        f"assert not {libraries} & {{*sys.modules}}, {libraries} & {{*sys.modules}}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_hosts_that_must_be_passed_are_never_running() -> None:
    assert glib.running() is None
    assert qt.running() is None


def test_only_a_qobject_is_a_host_of_qt(monkeypatch: pytest.MonkeyPatch) -> None:
    core = types.SimpleNamespace(QObject=HasNative)
    monkeypatch.setitem(sys.modules, "PySide6.QtCore", core)
    assert qt.accepts(HasNative(cast("NativeLoop", None)))
    assert not qt.accepts(object())


def test_anyio_without_trio_has_no_token_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "trio", raising=False)
    assert anyio.trio_token() is None


def test_native_loop_of_a_host_is_its_attribute() -> None:
    with NativeLoop() as native:
        assert asyncio_mount.native_of(HasNative(native)) is native
        assert asyncio_mount.native_of(HasNative(cast("NativeLoop", 7))) is None


def test_attaching_to_our_loop_does_nothing() -> None:
    with SelectorEventLoop() as loop:
        watched = Idle(loop)
        event_loop.attach(loop, watched).detach()
        assert watched.is_mounted


class Idle(Watched):
    """A mount without work, whose host takes no errors."""

    def fileno(self) -> int:
        return -1

    def _serve(self) -> None:
        """Nothing to do."""

    def _close(self) -> None:
        """Nothing to release."""


def test_error_without_an_attachment_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Idle(HasNative(cast("NativeLoop", None)))._report(OSError("without a host"))
    assert "without a host" in caplog.text
