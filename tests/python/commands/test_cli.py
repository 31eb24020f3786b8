"""The command line: options, help, exit codes, `info` and `demo`."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

import fdmux
from fdmux import NativeLoop, sdk
from fdmux.__main__ import main
from fdmux._ffi import lib
from fdmux.commands import demo, tour
from fdmux.commands.failure import NotHereError
from fdmux.commands.tour import expect
from fdmux.commands.tour.expect import UnexpectedError, need_descriptor

LONG = 60.0
COMMANDS = ("demo", "echo", "ping", "info", "completion")
LAYOUT = {
    "--include-dir": "include",
    "--cmake-dir": "lib/cmake/fdmux",
    "--pkgconfig-dir": "lib/pkgconfig",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fdmux", *arguments],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the last line of what a wrong command line prints."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


# Options --------------------------------------------------------------------------


def test_version_is_that_of_the_core() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"fdmux {fdmux.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: fdmux {command} ")
    assert f"example:\n  $ fdmux {command}" in text
    assert "exit status: " in text


def test_help_names_every_command_and_the_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n    {command} " in done.stdout
    assert "exit status: 0 it worked, 1 it failed, 2 wrong arguments" in done.stdout
    assert 'Ctrl-C is how one ends "fdmux echo", which then exits with 0' in done.stdout


def test_help_of_echo_says_what_ctrl_c_returns() -> None:
    """test_cli_echo.py holds the process to it."""
    assert "exit status: 0 after Ctrl-C or SIGTERM" in run("echo", "--help").stdout


@pytest.mark.parametrize("option", LAYOUT)
def test_folders_of_the_sdk_are_printed(
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / LAYOUT[option]
    folder.mkdir(parents=True)
    monkeypatch.setattr(sdk, "ROOT", tmp_path)
    assert main([option]) == 0
    assert capsys.readouterr().out == f"{folder}\n"


def test_cflags_are_quoted_for_a_shell(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "my root" / "include").mkdir(parents=True)
    monkeypatch.setattr(sdk, "ROOT", tmp_path / "my root")
    assert main(["--cflags"]) == 0
    assert capsys.readouterr().out == f"'-I{tmp_path}/my root/include'\n"


@pytest.mark.parametrize("option", [*LAYOUT, "--cflags"])
def test_install_without_the_sdk_is_a_failure_in_one_line(
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sdk, "ROOT", tmp_path)
    assert main([option]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"fdmux: .* does not exist: .*\n", captured.err)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--cflags", "demo"), ("--cflags", "--include-dir"), ("fly",), ("--fly",)],
    ids=" ".join,
)
def test_wrong_command_line_exits_with_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_error(capsys, *arguments).startswith("fdmux: error: ")


def test_wrong_command_line_exits_with_2_as_a_process() -> None:
    done = run("echo", "--port", "65536")
    assert done.returncode == 2
    assert done.stderr.endswith("'65536' is not a whole number from 0 to 65535\n")


def test_reader_that_goes_away_makes_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "fdmux", "info"],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=LONG,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("argument", ["info", "demo", "echo", "--cflags"])
def test_full_disk_is_a_failure_in_one_line(argument: str) -> None:
    options = ("--port", "0") if argument == "echo" else ()
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fdmux", argument, *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LONG,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "fdmux: write to standard output: No space left on device\n"


# info -----------------------------------------------------------------------------


@pytest.mark.faults
def test_info_without_a_descriptor_names_the_attempt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lib.fdmux_testing_fail(lib.FDMUX_CALL_EVENTFD, 1, errno.EMFILE, True)
    try:
        assert main(["info"]) == 1
    finally:
        lib.fdmux_testing_fail(0, 0, 0, False)
    assert capsys.readouterr().err == "fdmux: create a loop: Too many open files\n"


@pytest.mark.faults
def test_info_says_what_the_kernel_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = lib.FDMUX_CALL_SOCKET | lib.FDMUX_CALL_RECVMMSG
    lib.fdmux_testing_fail(kinds, 1, errno.EMFILE, True)
    try:
        assert main(["info"]) == 1
        assert "ask about datagrams: Too many" in capsys.readouterr().err
        lib.fdmux_testing_fail(kinds, 2, errno.ENOSYS, True)
        assert main(["info"]) == 0
    finally:
        lib.fdmux_testing_fail(0, 0, 0, False)
    assert "datagrams   one by one" in capsys.readouterr().out


def test_info_as_json() -> None:
    done = run("info", "--json")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert facts["version"] == fdmux.__version__
    assert tuple(facts["abi"]) == fdmux.ABI_VERSION
    for name, features in facts["features"].items():
        with fdmux.NativeLoop(name) as loop:
            assert sorted(loop.stats().features) == features
    with fdmux.NativeLoop() as loop:
        assert facts["backend"] == loop.backend
    assert "poll" in facts["features"]
    assert set(facts["datagrams"]) <= {"batches", "GSO", "GRO"}
    assert facts["open_files_soft"] is None or facts["open_files_soft"] > 0
    assert facts["python"].endswith(sys.version.split()[0])
    assert (facts["tls"], facts["tls_reason"]) == ("openssl", ssl.OPENSSL_VERSION)


def test_info_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert f"{fdmux.__version__}, ABI " in text
    with fdmux.NativeLoop() as loop:
        assert f"{loop.backend} (default): " in text
    assert "open files  " in text
    assert "datagrams   " in text
    assert "by OpenSSL's functions: OpenSSL " in text


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "os.environ['FDMUX_TLS'] = 'python'",
            "by methods of Python: FDMUX_TLS=python",
        ),
        ("sys.modules['_ssl'] = None", "none: import of _ssl halted"),
    ],
)
def test_info_says_how_tls_is_done(code: str, expected: str) -> None:
    program = f"import os, sys; {code}\nfrom fdmux.__main__ import main; main(['info'])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert expected in done.stdout


# demo -----------------------------------------------------------------------------


@pytest.mark.slow
def test_demo_passes() -> None:
    done = run("demo", "--traceback")
    assert done.returncode == 0, done.stdout + done.stderr
    *steps, summary = done.stdout.splitlines()
    assert len(steps) == len(tour.STEPS)
    assert all(step.startswith("ok ") for step in steps)
    assert re.fullmatch(rf"{len(steps)} steps, all ok, \d+\.\d s", summary)
    assert done.stderr == ""


def test_demo_covers_every_part() -> None:
    shown = " ".join(title for title, _step in tour.STEPS)
    for name in (
        "Selector",
        "wait_readable",
        "connect_with_timeout",
        "SelectorEventLoop",
        "streams",
        "FrameHandler",
        "EchoServer",
        "ClientPool",
        "NativeQueue",
        "current",
        "mount",
        "Guest",
    ):
        assert name in shown


def test_demo_goes_on_after_a_failed_step_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise UnexpectedError("water runs uphill")

    steps = (("first", fail), ("second", lambda: "seen"))
    monkeypatch.setattr(tour, "STEPS", steps)
    assert main(["demo", "--traceback"]) == 1
    captured = capsys.readouterr()
    first, second, summary = captured.out.splitlines()
    assert first.startswith("FAILED  first ")
    assert first.endswith(" UnexpectedError: water runs uphill")
    assert second.split() == ["ok", "second", "seen"]
    assert summary.startswith("2 steps, 1 FAILED, ")
    assert "in fail" in captured.err


def test_demo_skips_a_step_that_shows_what_is_not_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave() -> str:
        raise NotHereError("no such thing on this system")

    monkeypatch.setattr(tour, "STEPS", (("first", leave), ("second", lambda: "seen")))
    assert main(["demo"]) == 0
    first, _, summary = capsys.readouterr().out.splitlines()
    assert first.split(maxsplit=2) == [
        "skipped",
        "first",
        "no such thing on this system",
    ]
    assert summary.startswith("2 steps, all ok, 1 skipped, ")


def test_step_that_needs_a_descriptor_of_the_loop_is_left_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(expect, "NativeLoop", functools.partial(NativeLoop, "poll"))
    with pytest.raises(NotHereError, match=r"no descriptor .* on poll"):
        need_descriptor()


def test_demo_shows_no_traceback_unless_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> str:
        raise OSError("no")

    assert not demo.take("step", fail, with_traceback=False).passed
    assert capsys.readouterr().err == ""


def test_interrupted_command_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(tour, "STEPS", (("step", interrupt),))
    assert main(["demo"]) == 130
