"""Servers and drivers for the adapters: each made once, on first use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.adapters import built, matrix, servers
from tests.adapters.trials import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.adapters.servers import Server


def skip(error: servers.MissingError) -> None:
    """Skip what needs something that is not installed; in CI all is to be there."""
    if os.environ.get("CI"):
        pytest.fail(f"CI {error}")
    pytest.skip(str(error))


class Workshop:
    """What the session has built and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells: matrix.Cells = {}
        self._built: dict[object, Path] = {}
        self._servers: dict[str, Server] = {}

    def server(self, library: str) -> Server:
        """Return the running server of a library."""
        if library not in self._servers:
            if library == "zmq":
                servers.ZeroMQ.binary = built.build_zmq_peer(self.folder)
            self._servers[library] = servers.SERVERS[library]()
        found = self._servers[library]
        if found.process is None:  # killed by a trial that failed
            found.start()
        return found

    def program(self, host: str, libraries: tuple[str, ...]) -> Path:
        """Return what `run_trials` takes: a C program, or a folder of modules."""
        if host == PLAIN:
            return self._plain(libraries)
        for library in libraries:
            if library not in self._built:
                built.build_module(library, self.folder)
                self._built[library] = self.folder
        return self.folder

    def _plain(self, libraries: tuple[str, ...]) -> Path:
        built.flags_of(*libraries)  # before the core is built in vain
        if libraries not in self._built:
            prefix = self.core()
            self._built[libraries] = built.build_plain(libraries, prefix, self.folder)
        return self._built[libraries]

    def core(self) -> Path:
        """Return the prefix of the core with sanitizers."""
        if "core" not in self._built:
            self._built["core"] = built.build_core(self.folder)
        return self._built["core"]

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()


@pytest.fixture(scope="session")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Workshop]:
    made = Workshop(tmp_path_factory.mktemp("adapters"))
    yield made
    made.stop()
    target = request.config.getoption("--matrix-to")
    if target:
        matrix.write(made.cells, Path(target))
