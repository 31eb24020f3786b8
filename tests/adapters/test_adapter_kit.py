"""The conformance kit for adapters, on the adapter that docs/adapters.md explains."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import pytest
from tests.compiled import compile_shared
from tests.tree import ROOT

from fdmux.testing import (
    ADAPTER_CASES,
    Adapter,
    cases_adapter,
    report,
    run_adapter_case,
)
from fdmux.testing.__main__ import main

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

WORKED = Path(__file__).with_name("worked")


class Extension(Protocol):
    """worked/lines_extension.c."""

    def open(self, loop: object, port: int) -> None: ...
    def request(self, done: Callable[[], object]) -> None: ...
    def reconnect(self) -> None: ...
    def close(self) -> None: ...


class Lines(Adapter):
    """The worked adapter, as its author would test it."""

    extension: Extension

    def open(self, loop: object, port: int) -> None:
        self.extension.open(loop, port)

    def request(self, done: Callable[[], object]) -> None:
        self.extension.request(done)

    def reconnect(self) -> None:
        self.extension.reconnect()

    def close(self) -> None:
        self.extension.close()

    def answer(self, connection: socket.socket) -> bool:
        received = connection.recv(4096)
        connection.sendall(received)
        return bool(received)


def build(folder: Path, adapter: str) -> Extension:
    """Build the extension with the text of an adapter, and load it."""
    shutil.copytree(WORKED, folder, dirs_exist_ok=True)
    (folder / "lines_adapter.h").write_text(adapter)
    path = compile_shared(
        folder / "lines.abi3.so",
        *(folder / "lines.c", folder / "lines_extension.c"),
        flags=("-DPy_LIMITED_API=0x030B0000", f"-I{sysconfig.get_path('include')}"),
    )
    spec = importlib.util.spec_from_file_location("lines", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Extension", module)


ADAPTER = (WORKED / "lines_adapter.h").read_text()


@pytest.fixture(scope="module", autouse=True)
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the extension with the worked adapter."""
    folder = tmp_path_factory.mktemp("lines")
    Lines.extension = build(folder, ADAPTER)
    return folder


@pytest.mark.parametrize("case", ADAPTER_CASES)
def test_worked_adapter_passes(case: str) -> None:
    assert run_adapter_case(Lines, case) is None


PAGE = (ROOT / "docs" / "adapters.md").read_text()


def test_document_shows_the_worked_adapter() -> None:
    assert f"```c\n{ADAPTER}```\n" in PAGE


def test_class_of_the_document_is_tested_by_the_command(extension: Path) -> None:
    _, _, block = PAGE.partition("<!-- test: lines_under_test.py -->\n```python\n")
    program = block.partition("```")[0]
    (extension / "lines_under_test.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "fdmux.testing", "--adapter", "lines_under_test:Lines"],
        env={**os.environ, "PYTHONPATH": str(extension)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line.partition(":")[0].split() for line in done.stdout.splitlines()]
    assert said == [["ok", case] for case in ADAPTER_CASES], done.stderr
    assert done.returncode == 0


MISTAKES = {
    "keeps the watcher of the old socket": (
        "    return fdmux_io_replace_fd(",
        (
            "    if (fdmux_io_fd(adapter->loop, adapter->io)"
            " == lines_fd(adapter->lines))\n"
            "        return 0; /* it looks like the same */\n"
            "    return fdmux_io_replace_fd("
        ),
        "reconnect_at_once",
        TimeoutError,
    ),
    "always watches for writing": (
        "lines_wants_write(lines) ? FDMUX_READ | FDMUX_WRITE : FDMUX_READ",
        "FDMUX_READ | FDMUX_WRITE * (lines != NULL)",
        "idle",
        AssertionError,
    ),
    "does not look before a wait": (
        "lines_wanted(adapter->lines) == adapter->events ? 0",
        "adapter->events != 0 ? 0",
        "request_in_callback",
        TimeoutError,
    ),
    "frees nothing at the end of the loop": (
        "    io.destroyed = lines_destroyed;\n",
        "",
        "close_of_loop",
        AssertionError,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_kit_finds_an_adapter_that(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong, case, error = MISTAKES[mistake]
    assert right in ADAPTER
    monkeypatch.setattr(
        Lines, "extension", build(tmp_path, ADAPTER.replace(right, wrong))
    )
    monkeypatch.setattr(cases_adapter, "TIME_LIMIT", 0.2)
    before = cases_adapter.low_descriptors()
    with pytest.raises(error):
        run_adapter_case(Lines, case)
    for left in cases_adapter.numbers(cases_adapter.low_descriptors() - before):
        os.close(int(left))


class Deaf(Adapter):
    """An adapter that does nothing."""

    def open(self, loop: object, port: int) -> None:
        pass

    def request(self, done: Callable[[], object]) -> None:
        pass

    def reconnect(self) -> None:
        pass

    def close(self) -> None:
        pass

    def answer(self, connection: socket.socket) -> bool:
        return bool(connection.recv(1))


def test_command_reports_each_case(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        report, "run_apart", lambda _what, name, wanted: run_all(name, wanted)
    )
    monkeypatch.setattr(cases_adapter, "TIME_LIMIT", 0.05)
    assert main(["--adapter", f"{__name__}:Deaf"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL  answers: A request is answered" in printed
    assert "ok    close_while_connecting: A client may be closed" in printed


def run_all(name: str, wanted: tuple[str, ...]) -> tuple[report.Result, ...]:
    """Run the cases in this process; those that wait take no time here."""
    results = []
    for case in wanted:
        try:
            run_adapter_case(report.find_adapter(name), case)
        except (AssertionError, TimeoutError) as error:
            results.append(report.Result(case, error=str(error)))
        else:
            results.append(report.Result(case))
    return tuple(results)


def test_command_refuses_what_is_no_adapter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--adapter", "fdmux:Selector"]) == 2
    assert "no adapter 'fdmux:Selector'" in capsys.readouterr().out


def test_command_refuses_what_is_for_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--adapter", f"{__name__}:Deaf", "--host", "asyncio"])
    assert "leave out --host and --case" in capsys.readouterr().err
