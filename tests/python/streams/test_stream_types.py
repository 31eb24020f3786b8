"""What a type checker makes of programs: the type of ``Stream.data``, overrides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fdmux

PROGRAM = """\
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from fdmux import (
    ReceiveBuffer,
    SelectorEventLoop,
    Stream,
    StreamHandler,
    StreamServer,
    connect_stream,
    wait_readable,
)
from fdmux.framing import Delimited, FrameHandler


@dataclass
class Session:
    lines: list[bytes] = field(default_factory=list)


class Plain(StreamHandler):
    def on_data(self, stream: Stream, data: bytes) -> bytes | None:
        stream.data = 5
        return data or None


class Typed(StreamHandler[Session]):
    def on_connect(self, stream: Stream[Session]) -> None:
        stream.data = Session()

    def on_data(self, stream: Stream[Session], data: bytes) -> memoryview | None:
        stream.data.lines.append(data)
        log(stream)
        return None

    def on_close(self, stream: Stream[Session], error: Exception | None) -> None: ...


class Lines(FrameHandler[Session]):
    framing = Delimited()

    def on_frame(self, stream: Stream[Session], frame: bytes) -> bytes:
        stream.data.lines.append(frame)
        return frame


class PlainLines(FrameHandler):
    framing = Delimited()

    def on_frame(self, stream: Stream, frame: bytes) -> None:
        self.send(stream, bytearray(frame))


def log(stream: Stream) -> None:
    print(stream.peername, stream.buffered)


def ask(loop: SelectorEventLoop) -> Stream[Session]:
    wait_readable([0], Fraction(1, 2))
    connect_stream(loop, ("127.0.0.1", 1), Plain(), timeout=Decimal(1))
    return connect_stream(loop, ("127.0.0.1", 1), Typed())


for handler in (Plain(), Typed(), Lines(), PlainLines()):
    StreamServer("127.0.0.1", 0, handler)
buffer = ReceiveBuffer()
"""

MISTAKES = """\
from fdmux import Stream, StreamHandler


class Typed(StreamHandler[int]):
    def on_data(self, stream: Stream[int], data: bytes) -> str:
        return "text"

    def on_connect(self, stream: Stream[int]) -> None:
        stream.data = "text"
"""


def check_types(text: str, folder: Path) -> str:
    pytest.importorskip("mypy")
    program = folder / "program.py"
    program.write_text(text)
    root = Path(fdmux.__file__).parent.parent
    # mypy finds site-packages by itself, and refuses to be given their path.
    path = {} if root.name == "site-packages" else {"MYPYPATH": str(root)}
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental"]
    done = subprocess.run(
        [*command, "--config-file=", "--follow-imports=silent", str(program)],
        cwd=folder,
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_strict_program_is_accepted(tmp_path: Path) -> None:
    assert check_types(PROGRAM, tmp_path).startswith("Success")


@pytest.mark.slow
def test_mistakes_are_found(tmp_path: Path) -> None:
    found = check_types(MISTAKES, tmp_path)
    assert 'Return type "str" of "on_data" incompatible' in found
    assert 'expression has type "str", variable has type "int"' in found


def test_generic_classes_can_be_subscripted() -> None:
    class Typed(fdmux.StreamHandler[int]):
        pass

    class Framed(fdmux.FrameHandler[int]):
        framing = fdmux.Delimited()

    assert fdmux.Stream[int].__args__ == (int,)  # type: ignore[attr-defined] # of typing
    fdmux.StreamServer("127.0.0.1", 0, Typed())
    fdmux.StreamServer("127.0.0.1", 0, Framed())
