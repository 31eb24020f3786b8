"""Ten thousand connections at once: each gets back what it sent, and nothing is left.

Server and clients are processes of their own, as together they would need more
descriptors than one process may have. Every byte goes through SHA-256 where it is sent
and where it returns.
"""

from __future__ import annotations

import json
import resource
import secrets
from typing import TYPE_CHECKING

import pytest
from tests.compiled import compile_native_echo
from tests.reliability.echo_process import EchoProcess, LineProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.reliability.conftest import Bars
    from tests.reliability.echo_process import Facts

LONG = 300.0
SIZE = 4096
ROUNDS = 3
# What a process needs besides its connections.
DESCRIPTORS_BESIDES = 100


def echo_verified(bars: Bars, title: str, server: EchoProcess, count: int) -> Facts:
    """Run the crowd against ``server``; return its facts with everyone connected."""
    seed = secrets.token_hex(8)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    base = warmed_up(server, seed)
    arguments = map(str, (server.address[1], count, ROUNDS, SIZE, seed))
    with LineProcess("many_clients.py", *arguments) as crowd:
        assert crowd.hear(LONG) == "open"
        open_now = server.facts_when(lambda facts: facts["open"] >= count)
        bars.at_least(count, f"{title}: open at once", open_now["open"])
        assert open_now["registrations"] - base["registrations"] >= count
        crowd.say("go")
        verdict: dict[str, float] = json.loads(crowd.hear(LONG))
        full = server.facts()
    for name in ("wrong", "lost", "reset", "unended"):
        bars.at_most(0, f"{title}: {name}", verdict[name])
    bars.at_most(60, f"{title}: time for 3 rounds", verdict["seconds"], "s")
    check_nothing_left(bars, title, server, base)
    return full


def warmed_up(server: EchoProcess, seed: str) -> Facts:
    """The facts after a first client, when the loop has opened what it needs."""
    arguments = map(str, (server.address[1], 1, 20, 10, seed))
    with LineProcess("many_clients.py", *arguments) as client:
        assert client.hear(LONG) == "open"
        client.say("go")
        client.hear(LONG)
    return server.facts_when(lambda facts: not facts["open"])


def check_nothing_left(
    bars: Bars, title: str, server: EchoProcess, base: Facts
) -> None:
    names = ("descriptors", "registrations", "io_live")
    left = server.facts_when(lambda facts: not facts["open"])
    for name in names:
        bars.at_most(0, f"{title}: {name} left", left[name] - base[name])


def require_descriptors(count: int) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + DESCRIPTORS_BESIDES:
        pytest.skip(f"needs a hard limit of {count + DESCRIPTORS_BESIDES} open files")


@pytest.fixture
def native_echo(tmp_path: Path) -> Path:
    return compile_native_echo(tmp_path)


@pytest.mark.commit
@pytest.mark.slow
def test_five_hundred_get_back_what_they_sent(bars: Bars) -> None:
    require_descriptors(500)
    with EchoProcess(connection_max=500) as server:
        echo_verified(bars, "500 connections", server, 500)


@pytest.mark.commit
@pytest.mark.slow
def test_five_hundred_get_back_what_they_sent_from_c(
    bars: Bars, native_echo: Path
) -> None:
    require_descriptors(500)
    with EchoProcess(native=native_echo) as server:
        echo_verified(bars, "500 connections, service in C", server, 500)


@pytest.mark.nightly
def test_ten_thousand_get_back_what_they_sent(bars: Bars) -> None:
    require_descriptors(10_000)
    title = "10,000 connections"
    with EchoProcess(connection_max=10_000, idle_timeout=None) as server:
        full = echo_verified(bars, title, server, 10_000)
    bars.at_most(250, f"{title}: server's memory", full["peak_kib"] / 1024, "MiB")


@pytest.mark.nightly
def test_ten_thousand_get_back_what_they_sent_from_c(
    bars: Bars, native_echo: Path
) -> None:
    require_descriptors(10_000)
    title = "10,000 connections, service in C"
    with EchoProcess(native=native_echo) as server:
        full = echo_verified(bars, title, server, 10_000)
    bars.at_most(60, f"{title}: server's memory", full["peak_kib"] / 1024, "MiB")
