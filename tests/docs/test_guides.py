"""The tutorials and guides: the programs on them that are more than one block."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.compiled import compile_extension
from tests.docs.test_docs import blocks, named, run_python
from tests.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow  # each starts programs

LONG = 60.0
# The files of tests on the page about tests.
TESTS = [b.name for b in blocks() if b.name and b.name.startswith("howto/test_")]


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name.rpartition("/")[2]).write_text(named(name), encoding="utf-8")


# ---- TLS -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the command of the page makes."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    page = (ROOT / "docs" / "howto" / "tls.md").read_text(encoding="utf-8")
    command = re.search(r"^(openssl req .*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert command is not None
    folder = tmp_path_factory.mktemp("tls")
    words = shlex.split(command[1].replace("\\\n", " "))
    subprocess.run(words, cwd=folder, capture_output=True, timeout=LONG, check=True)
    return folder


@contextlib.contextmanager
def serving(program: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server of the page; yield it, and its port."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", program],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


def ask(port: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "client.py", port],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


def test_client_of_the_page_talks_to_its_server(certificate: Path) -> None:
    write(certificate, "tls/server.py", "tls/client.py")
    with serving("server.py", certificate) as (_process, port):
        done = ask(port, certificate)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "HELLO TLSv1.3\n"


def test_certificate_is_read_again_at_sighup(certificate: Path, tmp_path: Path) -> None:
    """A client that trusts another certificate is refused before, and served after."""
    made = [certificate / "cert.pem", certificate / "key.pem"]
    for file in made:
        shutil.copy(file, tmp_path)
    write(tmp_path, "tls/reload.py", "tls/client.py")
    with serving("reload.py", tmp_path) as (process, port):
        assert ask(port, tmp_path).stdout == "hello TLSv1.3\n"
        renew = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
        names = ["-addext", "subjectAltName=DNS:localhost"]
        out = ["-keyout", "key.pem", "-out", "cert.pem"]
        subprocess.run(
            [*renew.split(), *names, *out],
            cwd=tmp_path,
            capture_output=True,
            timeout=LONG,
            check=True,
        )
        assert "certificate verify failed" in ask(port, tmp_path).stderr
        process.send_signal(signal.SIGHUP)
        while (done := ask(port, tmp_path)).returncode:
            assert "certificate verify failed" in done.stderr
        assert done.stdout == "hello TLSv1.3\n"


# ---- tests ---------------------------------------------------------------------------


def test_there_are_tests_on_the_page_about_them() -> None:
    assert len(TESTS) == 4


@pytest.mark.parametrize("name", TESTS)
def test_test_of_the_page_passes(name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:randomly", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---- Qt ------------------------------------------------------------------------------


@pytest.mark.skipif(
    importlib.util.find_spec("PySide6") is None, reason="needs PySide6-Essentials"
)
@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("howto/qt_streams.py", "Qt has received hello\n"),
        ("howto/qt_asyncio.py", "asyncio runs in Qt\n"),
    ],
)
def test_program_of_the_page_on_qt_runs(
    name: str, printed: str, tmp_path: Path
) -> None:
    done = run_python(named(name), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


# ---- the extension of the tutorial ---------------------------------------------------


def test_program_of_the_tutorial_measures(tmp_path: Path) -> None:
    compile_extension(ROOT / "examples" / "meter" / "meter.c", tmp_path)
    done = run_python(named("meter.py"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_tutorial_shows_every_function_of_the_extension() -> None:
    source = (ROOT / "examples" / "meter" / "meter.c").read_text(encoding="utf-8")
    pieces = [b.text for b in blocks() if b.name == "examples/meter/meter.c"]
    functions = r"^(?:static|PyMODINIT_FUNC) [^;{]*?\b(\w+)\([^;{]*?\)\n\{"
    names = re.findall(functions, source, re.MULTILINE)
    assert len(names) == 7
    assert set(re.findall(functions, "".join(pieces), re.MULTILINE)) == set(names)
