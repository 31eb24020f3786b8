"""Framers in C: the same frames as in Python, in one call, whatever the division."""

from __future__ import annotations

import contextlib
import gc
import importlib.machinery
import importlib.util
import itertools
import random
import secrets
import shutil
import socket
import subprocess
import sysconfig
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

import pytest
from tests.peers import send_at_once
from tests.tree import HEADERS

from fdmux.framing import (
    Delimited,
    FixedSize,
    FrameHandler,
    FrameTooLongError,
    Framing,
    IncompleteFrameError,
    LengthPrefixed,
)
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.client import add_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fdmux.framing import ReceiveBuffer
    from fdmux.streams.stream import Stream

    Frames = list[bytes]


class InPython:
    """The same framing, without its part in C."""

    def __init__(self, framing: Framing) -> None:
        self.take = framing.take
        self.encode = framing.encode


class Recorder(FrameHandler):
    """Remembers what came, in which calls, and answers as the test says."""

    def __init__(self, framing: object) -> None:
        self.framing = cast("Framing", framing)  # type: ignore[misc] # of this one
        self.calls: list[Frames] = []
        self.closed: list[Exception | None] = []
        self.answer: Callable[[Stream, Frames], bytes | None] = lambda *_: None

    @property
    def frames(self) -> Frames:
        return list(itertools.chain.from_iterable(self.calls))

    def on_frames(self, stream: Stream, frames: Frames) -> bytes | None:
        self.calls.append(frames)
        return self.answer(stream, frames)

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.closed.append(error)


class Link:
    """A stream of a handler, and the socket at its other end."""

    def __init__(self, handler: FrameHandler) -> None:
        self.loop = SelectorEventLoop()
        self.sock, theirs = socket.socketpair()
        send_at_once(self.sock, theirs)
        self.sock.settimeout(30)
        try:
            self.stream = add_stream(self.loop, theirs, handler)
        except BaseException:
            theirs.close()
            self.close()
            raise

    def send(self, data: bytes) -> None:
        """Let the stream receive ``data`` at once."""
        with contextlib.suppress(ConnectionError):  # it was closed
            self.sock.sendall(data)
        self.loop.run_once(0)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        for _ in range(3):
            self.loop.run_once(0)

    def close(self) -> None:
        self.sock.close()
        self.loop.close()


@contextlib.contextmanager
def linked(handler: FrameHandler) -> Iterator[Link]:
    link = Link(handler)
    try:
        yield link
    finally:
        link.close()


def run_pieces(framing: object, pieces: list[bytes]) -> Recorder:
    """Receive these pieces, then the end."""
    handler = Recorder(framing)
    with linked(handler) as link:
        for piece in pieces:
            link.send(piece)
        link.end()
    return handler


def outcome(handler: Recorder) -> tuple[list[Frames], list[tuple[object, ...]]]:
    """What must be equal in C and Python: frames, calls, the error and its message."""
    errors: list[tuple[object, ...]] = [
        (type(error), str(error), getattr(error, "partial", None))
        for error in handler.closed
    ]
    return handler.calls, errors


def random_pieces(data: bytes, source: random.Random) -> list[bytes]:
    pieces, start = [], 0
    size_max = source.choice([1, 3, 20, 500])
    while start < len(data):
        size = source.randint(1, size_max)
        pieces.append(data[start : start + size])
        start += size
    return pieces


# The same as in Python ------------------------------------------------------------

DELIMITERS = [b"\n", b"\r\n", b"aab", b"aaa", b"abcabd"]
FRAMINGS: dict[str, Framing] = {
    **{f"{it!r}": Delimited(it, frame_max=50) for it in DELIMITERS},
    **{
        f"{size} bytes, {order}": LengthPrefixed(size, order, frame_max=200)
        for size in (1, 2, 4, 8)
        for order in ("big", "little")
    },
    "fixed": FixedSize(7),
    "fixed, 1": FixedSize(1),
}


def random_data(framing: Framing, source: random.Random) -> bytes:
    """Mostly frames; sometimes a frame too long, or bytes that are not a frame."""
    data = b""
    for _ in range(source.randrange(30)):
        if isinstance(framing, Delimited):
            body = bytes(source.choices(b"abcd\r\n", k=source.randrange(30)))
            data += body + source.choice(DELIMITERS)
        elif isinstance(framing, FixedSize):
            data += source.randbytes(source.randrange(20))
        else:
            data += framing.encode(source.randbytes(source.randrange(60)))
        if source.random() < 0.02:
            data += source.randbytes(source.randrange(300))
    return data[: len(data) - source.randrange(4)]


@pytest.mark.parametrize("name", FRAMINGS)
def test_c_cuts_as_python_does_in_any_division(name: str) -> None:
    seed = secrets.token_hex(8)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    source = random.Random(seed)
    framing = FRAMINGS[name]
    for _ in range(15):
        pieces = random_pieces(random_data(framing, source), source)
        expected = outcome(run_pieces(InPython(framing), pieces))
        assert outcome(run_pieces(framing, pieces)) == expected, pieces


@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("over", [-1, 0, 1])
def test_longest_frame_is_exact_wherever_it_is_split(
    delimiter: bytes, over: int
) -> None:
    framing = Delimited(delimiter, frame_max=20)
    data = b"z" * (20 + over) + delimiter + b"zz" + delimiter
    for split in range(1, len(data)):
        pieces = [data[:split], data[split:]]
        handler = run_pieces(framing, pieces)
        assert handler.frames == ([] if over > 0 else [b"z" * (20 + over), b"zz"])
        assert outcome(handler) == outcome(run_pieces(InPython(framing), pieces))
        assert isinstance(handler.closed[0], FrameTooLongError) == (over > 0)


@pytest.mark.parametrize(
    ("framing", "data"),
    [
        (Delimited(b"\n", frame_max=5), b"ok\nok\n123456"),
        (Delimited(b"\r\n", frame_max=5), b"ok\r\nok\r\n1234567"),
        (LengthPrefixed(2, frame_max=5), b"\0\2ok\0\2ok\0\6"),
        (LengthPrefixed(8, "little", frame_max=5), b"\2" + bytes(7) + b"ok\xff" * 9),
    ],
)
def test_too_long_frame_closes_with_the_words_of_python(
    framing: Framing, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    native, python = (
        run_pieces(it, [data, b"more\n"]) for it in (framing, InPython(framing))
    )
    assert isinstance(native.closed[0], FrameTooLongError)
    assert native.frames[0] == b"ok"
    assert outcome(native) == outcome(python)
    assert caplog.records == []


@pytest.mark.parametrize("make", [lambda it: it, InPython], ids=["c", "python"])
def test_answer_to_frames_before_a_too_long_one_is_sent(
    make: Callable[[Framing], object],
) -> None:
    handler = Recorder(make(Delimited(b"\n", frame_max=5)))
    handler.answer = lambda _stream, frames: b"<%d>" % len(frames)
    with linked(handler) as link:
        link.send(b"1\n2\n345678")
        link.loop.run_once(0)
        assert link.sock.recv(100) == b"<2>"
        assert link.sock.recv(100) == b""
    assert isinstance(handler.closed[0], FrameTooLongError)


@pytest.mark.parametrize("make", [lambda it: it, InPython], ids=["c", "python"])
def test_last_word_can_be_said_to_who_sends_no_frames(
    make: Callable[[Framing], object],
) -> None:
    class Polite(Recorder):
        def on_frame_error(self, stream: Stream, error: Exception) -> None:
            stream.write(str(error).encode())
            super().on_frame_error(stream, error)

    handler = Polite(make(LengthPrefixed(1, frame_max=5)))
    with linked(handler) as link:
        link.send(b"\6")
        assert link.sock.recv(100) == b"a frame of 6 bytes; at most 5"
    assert isinstance(handler.closed[0], FrameTooLongError)


def test_end_in_the_middle_has_what_had_come() -> None:
    handler = run_pieces(Delimited(), [b"one\nt", b"w", b"o"])
    (error,) = handler.closed
    assert isinstance(error, IncompleteFrameError)
    assert error.partial == b"two"
    assert handler.frames == [b"one"]


# Calls -----------------------------------------------------------------------------


def test_all_frames_come_in_one_call_and_the_answer_is_written_as_it_is() -> None:
    handler = Recorder(LengthPrefixed(1))
    handler.answer = lambda _stream, frames: b"<" + b",".join(frames) + b">"
    with linked(handler) as link:
        link.send(b"\1a\2bc\0\3d")
        assert handler.calls == [[b"a", b"bc", b""]]
        assert link.sock.recv(100) == b"<a,bc,>"
        link.send(b"ef")
        assert handler.calls[1:] == [[b"def"]]
        assert link.sock.recv(100) == b"<def>"
        link.send(b"\7in part")
        link.send(b"\7in")
        assert handler.calls[2:] == [[b"in part"]]


def test_frames_after_close_are_not_told() -> None:
    class Leaving(FrameHandler):
        framing: ClassVar[Framing] = Delimited()

        def on_frame(self, stream: Stream, frame: bytes) -> bytes:
            told.append(frame)
            if frame == b"quit":
                stream.close()
            return frame.upper()

    told: Frames = []
    with linked(Leaving()) as link:
        link.send(b"one\nquit\nthree\nfo")
        assert link.sock.recv(100) == b"ONE\n"
        assert link.sock.recv(100) == b""
    assert told == [b"one", b"quit"]


def test_exception_in_on_frame_ends_the_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_stream: Stream, _frames: Frames) -> None:
        raise LookupError("of the handler")

    handler = Recorder(Delimited())
    handler.answer = fail
    with linked(handler) as link:
        link.send(b"one\ntwo\nth")
        link.loop.run_once(0)
    assert [type(error) for error in handler.closed] == [LookupError]
    assert handler.calls == [[b"one", b"two"]]
    assert "raised" in caplog.text


def test_interrupt_in_on_frame_leaves_the_rest_where_it_is() -> None:
    def interrupt(_stream: Stream, frames: Frames) -> None:
        if frames == [b"one"]:
            raise KeyboardInterrupt

    handler = Recorder(Delimited())
    handler.answer = interrupt
    with linked(handler) as link:
        with pytest.raises(KeyboardInterrupt):
            link.send(b"one\ntw")
        link.send(b"o\n")
    assert handler.calls == [[b"one"], [b"two"]]


def test_handler_with_its_own_on_data_gets_bytes() -> None:
    class Raw(Recorder):
        def on_data(self, _stream: Stream, data: bytes) -> None:
            self.calls.append([data])

    handler = Raw(Delimited())
    with linked(handler) as link:
        link.send(b"a\nb\nc")
    assert handler.calls == [[b"a\nb\nc"]]


def test_framing_without_a_part_in_c_goes_through_python() -> None:
    class Pairs:
        def take(self, buffer: ReceiveBuffer) -> bytes | None:
            return buffer.take_exact(2)

        def encode(self, frame: bytes) -> bytes:
            return frame

    handler = run_pieces(Pairs(), [b"aab", b"bc"])
    assert handler.calls == [[b"aa"], [b"bb"]]
    assert isinstance(handler.closed[0], IncompleteFrameError)
    assert handler._cut_with() is None


# Memory ----------------------------------------------------------------------------


def test_rest_is_dropped_at_the_end_even_if_the_stream_is_kept() -> None:
    handler = Recorder(LengthPrefixed(4, frame_max=1 << 20))
    with linked(handler) as link:
        link.send((1 << 20).to_bytes(4, "big") + bytes(1000))
        link.stream.abort()
        link.loop.run_once(0)
        assert handler.closed == [None]
        assert link.stream._take_rest() == b""


def test_streams_that_end_in_a_frame_leave_nothing() -> None:
    part = (1 << 20).to_bytes(4, "big") + bytes(100_000)

    def once() -> None:
        handler = Recorder(LengthPrefixed(4, frame_max=1 << 20))
        with linked(handler) as link:
            link.send(part)
            link.stream.abort()
            link.loop.run_once(0)
        gc.collect()

    once()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20):
            once()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000  # two rests


# Framers of others -----------------------------------------------------------------


class NativeFramer(Protocol):
    """The module compiled from native_framer.c."""

    def make(self, kind: str, /) -> object: ...
    def calls(self) -> tuple[int, int]: ...


@pytest.fixture(scope="session")
def native_framer(
    tmp_path_factory: pytest.TempPathFactory,
) -> NativeFramer:
    python = sysconfig.get_path("include")
    if shutil.which("cc") is None or not (Path(python) / "Python.h").exists():
        pytest.skip("needs a C compiler and Python.h (Debian: gcc, python3-dev)")
    here = Path(__file__).parent
    built = tmp_path_factory.mktemp("native") / "native_framer.so"
    subprocess.run(
        [
            *("cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared"),
            *("-fPIC", "-DPy_LIMITED_API=0x030B0000", f"-isystem{python}"),
            f"-I{HEADERS}",
            *(str(here / "native_framer.c"), "-o", str(built)),
        ],
        check=True,
    )
    loader = importlib.machinery.ExtensionFileLoader("native_framer", str(built))
    spec = importlib.util.spec_from_loader("native_framer", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return cast("NativeFramer", module)


class Native:
    """A framing that C alone can cut."""

    def __init__(self, module: NativeFramer, kind: str) -> None:
        self._framer = module.make(kind)

    def __fdmux_framer__(self) -> object:
        return self._framer


def test_frame_can_be_a_list(native_framer: NativeFramer) -> None:
    pieces = [b" GET a\n SET b", b" c\n\n GET", b"\n"]
    handler = run_pieces(Native(native_framer, "words"), pieces)
    calls = cast("list[object]", handler.calls)
    assert calls == [
        [[b"GET", b"a"]],
        [[b"SET", b"b", b"c"], []],
        [[b"GET"]],
    ]
    assert handler.closed == [None]


@pytest.mark.parametrize("bad", [b"!", b"?"])
def test_framer_that_refuses_closes_the_stream(
    native_framer: NativeFramer, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    handler = run_pieces(Native(native_framer, "words"), [b" ok\n" + bad, b" no\n"])
    assert cast("list[object]", handler.calls) == [[[b"ok"]]]
    assert isinstance(handler.closed[0], FrameTooLongError)
    assert caplog.records == []


@pytest.mark.parametrize(
    "kind",
    [
        *("no size", "size beyond", "no part", "two parts", "too many parts"),
        *("first outside", "length outside", "part of the next", "list outside"),
    ],
)
def test_malformed_frame_is_an_error_of_the_framer(
    native_framer: NativeFramer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler = run_pieces(Native(native_framer, kind), [b"some", b"more"])
    (error,) = handler.closed
    assert type(error) is ValueError
    assert "a framer returned" in str(error)
    assert handler.calls == []
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", ["newer", "empty"])
def test_framer_of_another_version_is_refused_at_once(
    native_framer: NativeFramer, kind: str
) -> None:
    handler = Recorder(Native(native_framer, kind))
    with (
        pytest.raises(ValueError, match="another version"),
        linked(handler),
    ):
        pass


def test_what_is_no_framer_is_refused_at_once() -> None:
    class NoFramer:
        def __fdmux_framer__(self) -> object:
            return object()

    with pytest.raises(ValueError, match="PyCapsule"), linked(Recorder(NoFramer())):
        pass


@pytest.mark.slow
def test_frame_that_comes_byte_by_byte_costs_few_calls(
    native_framer: NativeFramer,
) -> None:
    size = 65536
    source = random.Random(1)
    body = source.randbytes(size)
    handler = Recorder(Native(native_framer, "sized"))
    native_framer.calls()
    with linked(handler) as link:
        for byte in size.to_bytes(4, "big") + body:
            link.send(bytes([byte]))
        assert handler.calls == [[body]]
    calls, wrong = native_framer.calls()
    assert calls == 3  # at the first byte, with the length, at the last
    assert wrong == 0


def test_framer_is_told_what_it_has_seen(native_framer: NativeFramer) -> None:
    """It is not told of bytes that came while it was not asked."""
    data = b"".join(len(it).to_bytes(4, "big") + it for it in (b"x" * 9, b"", b"yy"))
    for size in (1, 2, 3, 5, 7):
        native_framer.calls()
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        handler = run_pieces(Native(native_framer, "sized"), pieces)
        assert handler.frames == [b"x" * 9, b"", b"yy"]
        assert native_framer.calls()[1] == 0
