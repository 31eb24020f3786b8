"""`inherited_sockets`: the variables and descriptors that a supervisor passes."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import textwrap

import pytest

from fdmux.sockets import inherit
from fdmux.sockets.inherit import inherited_sockets

PASSED = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}


def pass_on(
    monkeypatch: pytest.MonkeyPatch, first: int, count: object, names: str | None
) -> None:
    monkeypatch.setattr(inherit, "FIRST_FD", first)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", str(count))
    if names is None:
        monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
    else:
        monkeypatch.setenv("LISTEN_FDNAMES", names)


@pytest.fixture
def listening() -> int:
    """A descriptor as a supervisor passes it: inheritable and blocking."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.set_inheritable(True)
        return sock.detach()


@pytest.mark.parametrize("unset", [True, False])
def test_socket_is_taken(
    unset: bool, listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_on(monkeypatch, listening, 1, "web")
    ((name, sock),) = inherited_sockets(unset_environment=unset)
    with sock:
        assert (name, sock.fileno()) == ("web", listening)
        assert not os.get_inheritable(listening)
        assert not os.get_blocking(listening)
        assert sock.gettimeout() == 0
    assert (PASSED & set(os.environ)) == (set() if unset else PASSED)


def test_sockets_without_names(listening: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_on(monkeypatch, listening, 1, None)
    (inherited,) = inherited_sockets()
    assert inherited.name == "unknown"
    inherited.sock.close()


@pytest.mark.parametrize("absent", ["LISTEN_PID", "LISTEN_FDS"])
def test_nothing_was_passed(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_on(monkeypatch, 3, 1, None)
    monkeypatch.delenv(absent)
    assert inherited_sockets() == []


def test_what_was_passed_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pass_on(monkeypatch, 3, 1, None)
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    assert inherited_sockets() == []
    assert "LISTEN_PID" not in os.environ  # useless to children too


def test_no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    pass_on(monkeypatch, 3, 0, "")
    assert inherited_sockets() == []


@pytest.mark.parametrize("text", ["", "-1", "one", "1 ", "²"])
@pytest.mark.parametrize("variable", ["LISTEN_PID", "LISTEN_FDS"])
def test_variable_that_is_no_number(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_on(monkeypatch, 3, 1, None)
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=f"{variable} is '{text}'"):
        inherited_sockets()


def test_names_that_are_not_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    pass_on(monkeypatch, 3, 1, "a:b")
    with pytest.raises(ValueError, match="2 names, and LISTEN_FDS is 1"):
        inherited_sockets()


def test_descriptor_that_is_no_socket(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is changed, and nothing closed."""
    reader, writer = os.pipe()
    first = fcntl.fcntl(listening, fcntl.F_DUPFD, 200)
    other = os.dup2(reader, first + 1)
    pass_on(monkeypatch, first, 2, "web:log")
    with pytest.raises(OSError, match=rf"inherit fd {other} \('log'\) as a socket"):
        inherited_sockets()
    assert os.get_inheritable(first)
    assert os.get_blocking(first)
    assert set(os.environ) >= PASSED
    for fd in (listening, reader, writer, first, other):
        os.close(fd)


def test_a_program_that_was_started_with_two() -> None:
    """As a supervisor does it: descriptors from 3 on, and the variables."""
    program = """
        from fdmux import inherited_sockets
        print([(name, sock.fileno()) for name, sock in inherited_sockets()])
    """
    launcher = """
        import os, socket, sys
        a, b = socket.create_server(("127.0.0.1", 0)), socket.socketpair()[0]
        high = [os.dup2(one.detach(), 100 + i) for i, one in enumerate((a, b))]
        for fd in high:
            os.dup2(fd, fd - 97)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2",
                          LISTEN_FDNAMES="web:peer")
        os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(launcher), textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "[('web', 3), ('peer', 4)]\n"
