"""Tour: callbacks for sockets, timers and other threads."""

from __future__ import annotations

import socket
import threading
import time

from fdmux import SelectorEventLoop
from fdmux.commands.tour.expect import PATIENCE, expect, milliseconds_since


def callbacks() -> str:
    """One socket with a read and a write callback at once."""
    left, right = socket.socketpair()
    received: list[bytes] = []
    with left, right, SelectorEventLoop() as loop:

        def on_readable(sock: socket.socket) -> None:
            received.append(sock.recv(64))
            loop.stop()

        def on_writable(sock: socket.socket) -> None:
            sock.sendall(b"ping")
            loop.unregister_write(sock)

        def answer(sock: socket.socket) -> None:
            sock.sendall(sock.recv(64).replace(b"i", b"o"))

        loop.register_read(left, on_readable)
        loop.register_write(left, on_writable)
        loop.register_read(right, answer)
        loop.run(timeout=PATIENCE)
    expect(received == [b"pong"], f"received {received}")
    return "one socket written and read by callbacks"


def timers() -> str:
    """Timers run in the order of their times, not in the order of the calls."""
    ran: list[str] = []
    with SelectorEventLoop() as loop:
        began = loop.time()
        loop.call_at(began + 0.02, loop.stop)
        loop.call_at(began + 0.01, ran.append, "second")
        loop.call_at(began + 0.005, ran.append, "first")
        loop.call_at(began + 0.001, ran.append, "never").cancel()
        loop.run(timeout=PATIENCE)
        took = loop.time() - began
    expect(ran == ["first", "second"], f"ran {ran}")
    expect(took >= 0.02, f"20 ms were over after {took * 1000:.3f}")
    return f"2 in order, 1 cancelled, 20 ms took {took * 1000:.2f} ms"


def other_threads() -> str:
    """Another thread hands over calls, then stops the loop; both work at once."""
    ran: list[int] = []
    stopped_at: list[float] = []
    with SelectorEventLoop() as loop:

        def work() -> None:
            for number in range(100):
                loop.call_soon_threadsafe(ran.append, number)
            loop.call_soon_threadsafe(threading.Thread(target=end).start)

        def end() -> None:
            stopped_at.append(time.monotonic())
            loop.stop()

        threading.Thread(target=work).start()
        loop.run(timeout=PATIENCE)
        late = milliseconds_since(stopped_at[0])
    expect(ran == list(range(100)), f"ran {ran}")
    expect(late < 1000, f"stop() took {late:.0f} ms")
    return f"{len(ran)} calls in order, stop() took {late:.2f} ms"
