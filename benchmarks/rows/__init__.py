"""The rows of the suite: one file each, listed here in the order they run.

A row is a function from `Options` to tables. To add one, write ``rows/<name>.py``
with a ``measure`` function and add a line below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.options import Options
from benchmarks.result import Table
from benchmarks.rows import (
    adapters,
    asyncio_calls,
    chain,
    completions,
    cores,
    datagrams,
    echo,
    hold,
    hosts,
    latency,
    memory,
    native_echo,
    observe,
    post,
    programs,
    resp,
    selector,
    timers,
    timers_million,
    tls,
    wait,
)

Row = Callable[[Options], Iterator[Table]]

ROWS: dict[str, Row] = {
    "selector": selector.measure,
    "wait": wait.measure,
    "echo": echo.measure,
    "tls": tls.measure,
    "datagrams": datagrams.measure,
    "latency": latency.measure,
    "cores": cores.measure,
    "observe": observe.measure,
    "resp": resp.measure,
    "native_echo": native_echo.measure,
    "chain": chain.measure,
    "post": post.measure,
    "timers": timers.measure,
    "memory": memory.measure,
    "asyncio-calls": asyncio_calls.measure,
    "timers-million": timers_million.measure,
    "programs": programs.measure,
    "hosts": hosts.measure,
    "hold": hold.measure,
    "completions": completions.measure,
    "adapters": adapters.measure,
}
