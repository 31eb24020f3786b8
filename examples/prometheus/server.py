"""An echo server with metrics: ``python server.py [--metrics-port 9100]``.

Try ``curl http://127.0.0.1:9100/metrics`` while clients are connected.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import signal
import sys
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

import fdmux

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import CollectorRegistry, Metric

SLOW = 0.1


class Echo(fdmux.StreamHandler):
    """Sends back what arrives."""

    def on_data(self, _stream: fdmux.Stream, data: bytes) -> bytes:
        """Return it: that sends it."""
        return data


class LoopMetrics:
    """Observes a loop, and gives its numbers to Prometheus when it asks.

    The numbers of a report only grow, so they are counters and histograms as they are.
    A scrape reads them in its own thread; the loop is not disturbed.
    """

    def __init__(
        self, loop: fdmux.SelectorEventLoop, registry: CollectorRegistry
    ) -> None:
        self.slow = prometheus_client.Counter(
            "fdmux_slow_callbacks",
            f"Callbacks that took {SLOW:g} s or more",
            ["callback"],
            registry=registry,
        )
        self.observation = loop.observe(self, slow=SLOW)
        registry.register(self)

    def on_slow(self, what: str, _duration: float) -> None:
        """Count it under its name; a program has few callbacks."""
        self.slow.labels(what).inc()

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as of now; called by each scrape, in its thread."""
        report = self.observation.report()
        for name, text, value in (
            ("fdmux_busy_seconds", "Time in callbacks", report.busy),
            ("fdmux_accepted", "Clients that were accepted", report.accepted),
            ("fdmux_refused", "Clients that were refused", report.refused),
            ("fdmux_shortages", "Times without descriptors", report.shortages),
        ):
            yield CounterMetricFamily(name, text, value=value)
        yield histogram(
            "fdmux_batch_calls",
            "Callbacks in one batch",
            (report.SIZE_BOUNDS, report.batch_sizes, report.calls),
        )
        yield histogram(
            "fdmux_lag_seconds",
            "How late callbacks began",
            (report.LAG_BOUNDS, report.lags, report.lag),
        )


class ServerMetrics:
    """The numbers of one server."""

    def __init__(self, server: fdmux.StreamServer, registry: CollectorRegistry) -> None:
        self.server = server
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as of now; `stats` may be read in any thread."""
        stats = self.server.stats
        yield GaugeMetricFamily("echo_clients", "Open connections", value=stats.open)
        yield CounterMetricFamily(
            "echo_received_bytes", "Bytes received", value=stats.bytes_in
        )


def histogram(
    name: str, text: str, counts: tuple[Sequence[float], Sequence[int], float]
) -> HistogramMetricFamily:
    """Convert counts between bounds to those up to each bound, as Prometheus counts."""
    bounds, numbers, total = counts
    edges = [*(str(float(bound)) for bound in bounds), "+Inf"]
    buckets = list(zip(edges, itertools.accumulate(numbers), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument("--metrics-port", type=int, default=0, help="the same")
    options = parser.parse_args(arguments)
    registry = prometheus_client.CollectorRegistry()
    with fdmux.SelectorEventLoop() as loop:
        server = fdmux.StreamServer(options.host, options.port, Echo(), loop=loop)
        with server:
            metrics = LoopMetrics(loop, registry)
            ServerMetrics(server, registry)
            web, thread = prometheus_client.start_http_server(
                options.metrics_port, options.host, registry
            )
            print(f"metrics at {options.host}:{web.server_port}", flush=True)
            host, port = server.address
            print(f"serving at {host}:{port}", flush=True)
            signal.signal(signal.SIGTERM, lambda *_: server.stop())
            with contextlib.suppress(KeyboardInterrupt):
                server.run()
            web.shutdown()
            web.server_close()
            thread.join()
            metrics.observation.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
