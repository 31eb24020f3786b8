"""The example for Prometheus: its metrics as Prometheus reads them."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

import fdmux

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

prometheus_client = pytest.importorskip("prometheus_client")
parser = pytest.importorskip("prometheus_client.parser")

Address = tuple[str, int]
Samples = dict[str, float]


@pytest.fixture
def addresses() -> Iterator[tuple[Address, Address]]:
    """Run the example; its addresses are those of the echo and of the metrics."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "server.py"],
        cwd=ROOT / "examples" / "prometheus",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            found = []
            for _ in range(2):
                host, _, port = server.stdout.readline().split()[-1].rpartition(":")
                found.append((host, int(port)))
            yield found[1], found[0]
            server.terminate()
            _, errors = server.communicate(timeout=10)
        finally:
            server.kill()
    assert errors == ""
    assert server.returncode == 0


def scrape(address: Address) -> Samples:
    """Return the value of each sample, by its name, and the bound of a bucket."""
    url = f"http://{address[0]}:{address[1]}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return samples_of(text)


def samples_of(text: str) -> Samples:
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_follow_what_clients_do(addresses: tuple[Address, Address]) -> None:
    echo, metrics = addresses
    before = scrape(metrics)
    assert before["fdmux_accepted_total"] == 0
    with socket.create_connection(echo) as sock:
        for _ in range(20):
            sock.sendall(b"hello")
            assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
        during = scrape(metrics)
    assert during["fdmux_accepted_total"] == 1
    assert during["echo_clients"] == 1
    assert during["echo_received_bytes_total"] == 100
    assert during["fdmux_batch_calls_sum"] >= 20
    assert during["fdmux_lag_seconds_bucket+Inf"] >= 20
    assert during["fdmux_busy_seconds_total"] > before["fdmux_busy_seconds_total"]


def test_buckets_count_up_to_their_bound(addresses: tuple[Address, Address]) -> None:
    samples = scrape(addresses[1])
    for name, bounds in (
        ("fdmux_batch_calls", fdmux.Report.SIZE_BOUNDS),
        ("fdmux_lag_seconds", fdmux.Report.LAG_BOUNDS),
    ):
        edges = [*(str(float(bound)) for bound in bounds), "+Inf"]
        counts = [samples[f"{name}_bucket{edge}"] for edge in edges]
        assert counts == sorted(counts)
        assert counts[-1] == samples[f"{name}_count"]


def test_slow_callbacks_are_counted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loop of the test's own, where everything is slow."""
    module = load_server()
    monkeypatch.setattr(module, "SLOW", 0.0)
    registry = prometheus_client.CollectorRegistry()
    with fdmux.SelectorEventLoop() as loop:
        module.LoopMetrics(loop, registry)
        loop.call_soon_threadsafe(int)
        loop.run_once(0)
        text = prometheus_client.generate_latest(registry).decode()
    samples = samples_of(text)
    assert samples["fdmux_slow_callbacks_totalint"] == 1


def load_server() -> ModuleType:
    """Import it under a name of its own: other examples have a server.py too."""
    path = ROOT / "examples" / "prometheus" / "server.py"
    spec = importlib.util.spec_from_file_location("prometheus_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
