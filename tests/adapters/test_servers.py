"""The servers of the tests: a test that is killed leaves none behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.adapters import built, servers
from tests.adapters.conftest import skip
from tests.adapters.servers import SERVERS, MissingError
from tests.tree import ROOT

DIE_WITHIN = 10.0
START_AND_DIE = """
import os, sys
from pathlib import Path
from tests.adapters import servers

servers.ZeroMQ.binary = Path(sys.argv[2])
server = servers.SERVERS[sys.argv[1]]()
print(server.process.pid, server.folder, flush=True)
os._exit(1)
"""


def is_running(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.adapters
@pytest.mark.parametrize("library", SERVERS)
def test_server_dies_with_the_process_that_started_it(
    library: str, tmp_path: Path
) -> None:
    peer = tmp_path / "zmq_peer"
    try:
        if library == "zmq":
            peer = servers.ZeroMQ.binary = built.build_zmq_peer(tmp_path)
        SERVERS[library]().stop()  # or skip
    except MissingError as error:
        skip(error)
    done = subprocess.run(
        [sys.executable, "-c", START_AND_DIE, library, str(peer)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    pid, folder = done.stdout.split()
    deadline = time.monotonic() + DIE_WITHIN
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)
    assert not is_running(pid)
