"""A program: an echo service in a process of its own, which answers questions.

    python echo_service.py '{"limits": {"connection_max": 10000}}'

Prints its port; then, for each line on standard input, one line of facts as JSON; ends
with standard input. Its one rule: facts are gathered on the loop's own thread, between
two iterations, so they are true at one moment. Needs nothing but fdmux.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import fdmux
from fdmux import EchoServer, SelectorEventLoop, ServerLimits
from fdmux._ffi import lib
from fdmux.loop.event_loop import delivery_of
from fdmux.streams.stream import Stream

if TYPE_CHECKING:
    Facts = dict[str, float]


class Service(Protocol):
    """A server, and the facts about it."""

    def port(self) -> int: ...
    def facts(self) -> Facts: ...
    def close(self) -> None: ...


class PythonService:
    """EchoServer."""

    def __init__(self, loop: SelectorEventLoop, limits: dict[str, float]) -> None:
        self._loop = loop
        self._server = EchoServer(
            port=0,
            limits=ServerLimits(**limits),  # type: ignore[arg-type] # as given in JSON
            loop=loop,
        )
        self._server.start()

    def port(self) -> int:
        return self._server.address[1]

    def facts(self) -> Facts:
        stats = self._server.stats
        queues = [
            stream.buffered
            for stream in delivery_of(self._loop).streams()
            if isinstance(stream, Stream)
        ]
        return {**vars(stats), "longest_queue": max(queues, default=0)}

    def close(self) -> None:
        self._server.stop()


class NativeService:
    """The echo service of examples/native-echo."""

    def __init__(self, loop: SelectorEventLoop, folder: str) -> None:
        sys.path.insert(0, folder)
        native_echo = importlib.import_module("native_echo")
        self._server = native_echo.serve(loop)

    def port(self) -> int:
        return int(self._server.port())

    def facts(self) -> Facts:
        counts = self._server.counts()
        return {
            "open": counts["connections"],
            "accepted": counts["accepted"],
            "bytes_out": counts["bytes"],
            "errors": counts["failed"],
        }

    def close(self) -> None:
        self._server.close()


def kernel_events() -> list[int]:
    """What each registration in this process's epoll sets waits for."""
    events = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") != "anon_inode:[eventpoll]":
                continue
            info = Path("/proc/self/fdinfo", name).read_text(encoding="ascii")
        except FileNotFoundError:
            continue  # the descriptor of listdir itself
        lines = [line.split() for line in info.splitlines()]
        events += [int(words[3], 16) for words in lines if words[0] == "tfd:"]
    return events


def memory_kib() -> tuple[int, int]:
    """Return resident memory now, and at its highest."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    words = dict(line.split(":", 1) for line in status.splitlines())
    return int(words["VmRSS"].split()[0]), int(words["VmHWM"].split()[0])


def process_facts(loop: SelectorEventLoop) -> Facts:
    """What the kernel and the core say of this process."""
    rss, peak = memory_kib()
    events = kernel_events()
    stats = loop.native.stats()
    return {
        "rss_kib": rss,
        "peak_kib": peak,
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,
        "registrations": len(events),
        "reading": sum(1 for mask in events if mask & 1),
        "io_live": stats.io_live,
        "iterations": stats.iteration_count,
        "cpu": time.process_time(),
    }


class Commands:
    """Reads lines of standard input; the loop's thread answers each."""

    def __init__(self, loop: SelectorEventLoop, service: Service) -> None:
        self._loop = loop
        self._service = service
        self._descriptor_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.signals_seen = 0
        signal.signal(signal.SIGUSR1, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.signals_seen += 1

    def read(self) -> None:
        """Pass on each line; the end of the input ends the program."""
        for line in sys.stdin:
            self._loop.call_soon_threadsafe(self._answer, line.split())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _answer(self, words: list[str]) -> None:
        facts: Facts = {}
        if words[0] == "spare":
            self._spare(int(words[1]))
        elif words[0] == "short":
            self._short(int(words[1]))
        else:
            facts = {**process_facts(self._loop), **self._service.facts()}
            facts["signals"] = self.signals_seen
        print(json.dumps(facts), flush=True)  # noqa: T201 - the answer

    def _spare(self, count: int) -> None:
        """Leave ``count`` descriptors to be opened; -1: as many as at the start."""
        soft, hard = self._descriptor_limit
        if count >= 0:
            lowest_free = os.dup(0)
            os.close(lowest_free)
            soft = lowest_free + count
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    @staticmethod
    def _short(size: int) -> None:
        """Let no receive and no send move more than ``size`` bytes; 0: no limit."""
        if hasattr(lib, "fdmux_testing_short"):
            lib.fdmux_testing_short(size)


def main() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = json.loads(sys.argv[1])
    with SelectorEventLoop() as loop:
        service: Service
        if "native" in wanted:
            service = NativeService(loop, wanted["native"])
        else:
            service = PythonService(loop, wanted.get("limits", {}))
        commands = Commands(loop, service)
        print(service.port(), flush=True)  # noqa: T201 - the answer
        threading.Thread(target=commands.read, daemon=True).start()
        loop.run(None)
        service.close()
    print(f"ended, fdmux {fdmux.__version__}", flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
