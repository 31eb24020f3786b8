"""The documents: their programs run, their excerpts and their links are right.

A block of Python runs as it stands, in a process and a folder of its own. A comment
before the fence, ``<!-- test: NAME -->``, gives a block to a test below. If NAME is a
path below examples/, the block must be part of that file, which has tests of its own.
Each block of C has a name.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import pytest
from tests.tree import ROOT

import fdmux

if TYPE_CHECKING:
    from tests.certificates import Certificates

DOCS = ROOT / "docs"
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "c-api"),
    ROOT / "benchmarks" / "README.md",
    ROOT / "tests" / "README.md",
]

BLOCK = re.compile(
    r"(?:<!-- test: (?P<name>\S+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.*)$", re.MULTILINE)
C_FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]


class Block(NamedTuple):
    document: str
    line: int
    name: str | None
    language: str
    text: str


def blocks() -> list[Block]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("text"))
            name = str(document.relative_to(ROOT))
            language = match["language"]
            found.append(Block(name, line, match["name"], language, match["text"]))
    return found


def named(name: str) -> str:
    (block,) = [block for block in blocks() if block.name == name]
    return block.text


PLAIN = [block for block in blocks() if block.language == "python" and not block.name]


def run_python(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", PLAIN, ids=[f"{block.document}:{block.line}" for block in PLAIN]
)
def test_python_block_runs(
    block: Block, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if ".pem" in block.text:
        made = request.getfixturevalue("certificates")
        shutil.copytree(made.server.parent, tmp_path, dirs_exist_ok=True)
    done = run_python(block.text, tmp_path)
    assert done.returncode == 0, done.stderr


SERVERS = pytest.mark.parametrize("name", ["server", "callbacks"])
FEW_DESCRIPTORS = """
import os, resource
free = len(os.listdir("/proc/self/fd")) + 20
resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
"""


class Server:
    """A program of the documents that serves, in a process."""

    def __init__(self, program: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline().split()[-1])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=10)

    def end(self) -> str:
        """Press Ctrl-C; return what was written to stderr."""
        self._process.send_signal(signal.SIGINT)
        return self._process.communicate(timeout=10)[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()


def is_answered(sock: socket.socket, message: bytes = b"hello") -> bool:
    sock.sendall(message)
    answer = b""
    while len(answer) < len(message):
        piece = sock.recv(65536)
        if not piece:
            return False
        answer += piece
    return answer == message.upper()


@pytest.mark.slow
@SERVERS
def test_server_of_the_documents_serves_several_clients_and_ends_by_ctrl_c(
    name: str, tmp_path: Path
) -> None:
    with Server(named(name), tmp_path) as server:
        with server.connect() as one, server.connect() as two:
            assert is_answered(one)
            assert is_answered(two)
            assert is_answered(one, b"again")
        errors = server.end()
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1


@pytest.mark.slow
def test_tls_server_of_the_readme_serves(
    tmp_path: Path, certificates: Certificates
) -> None:
    shutil.copytree(certificates.server.parent, tmp_path, dirs_exist_ok=True)
    context = certificates.client_context()
    with (
        Server(named("server-tls"), tmp_path) as server,
        server.connect() as sock,
        context.wrap_socket(sock, server_hostname="localhost") as encrypted,
    ):
        assert is_answered(encrypted)
        assert is_answered(encrypted, b"again")


@pytest.mark.slow
@SERVERS
def test_client_that_resets_harms_no_other(name: str, tmp_path: Path) -> None:
    with Server(named(name), tmp_path) as server:
        with server.connect() as other:
            for _ in range(3):
                with server.connect() as sock:
                    assert is_answered(sock)
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                assert is_answered(other)
        server.end()


@pytest.mark.slow
@SERVERS
def test_client_that_reads_late_gets_all_bytes(name: str, tmp_path: Path) -> None:
    size = 16 * 1024 * 1024
    received = 0
    with Server(named(name), tmp_path) as server, server.connect() as sock:
        sender = threading.Thread(target=sock.sendall, args=(b"x" * size,))
        sender.start()
        while received < size:
            piece = sock.recv(1 << 20)
            assert piece.strip(b"X") == b""
            received += len(piece)
        sender.join()
        server.end()


@pytest.mark.slow
@SERVERS
def test_server_short_of_descriptors_goes_on(name: str, tmp_path: Path) -> None:
    with (
        Server(FEW_DESCRIPTORS + named(name), tmp_path) as server,
        contextlib.ExitStack() as stack,
    ):
        crowd = [stack.enter_context(server.connect()) for _ in range(40)]
        assert is_answered(crowd[0])
        for sock in crowd[:35]:
            sock.close()
        while not is_served(server):  # until it has noticed that clients left
            time.sleep(0.01)
        server.end()


def is_served(server: Server) -> bool:
    """Ask with a new client each time: a server at its limit closes further clients."""
    try:
        with server.connect() as sock:
            return is_answered(sock)
    except ConnectionError:
        return False


def compile_extension(name: str, text: str, folder: Path) -> None:
    """Compile with only the headers of the installed fdmux."""
    source = folder / f"{name}.c"
    source.write_text(text, encoding="utf-8")
    includes = [sysconfig.get_path("include"), fdmux.get_include()]
    command = ["cc", "-shared", "-fPIC", *C_FLAGS]
    command += [f"-isystem{include}" for include in includes]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    command += [str(source), "-o", str(folder / f"{name}{suffix}")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_native_extension_of_the_readme_counts_bytes(tmp_path: Path) -> None:
    """Compiled by the line that stands there."""
    shutil.copy(ROOT / "examples" / "minimal-extension" / "counter.c", tmp_path)
    # fdmux is in one of these folders, python3-config in the other.
    folders = [sysconfig.get_path("scripts"), sysconfig.get_config_var("BINDIR")]
    path = os.pathsep.join([*folders, os.environ["PATH"]])
    compiled = subprocess.run(
        ["sh", "-e", "-c", named("counter.sh")],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stderr
    done = run_python(named("counter.py"), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_native_thread_of_the_documents_calls_python(tmp_path: Path) -> None:
    compile_extension("counting", named("counting.c"), tmp_path)
    done = run_python(named("counting.py"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.slow
def test_native_framer_of_the_documents_cuts_records(tmp_path: Path) -> None:
    compile_extension("records", named("records.c"), tmp_path)
    done = run_python(named("records.py"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.slow
def test_function_of_a_loop_of_the_documents_calls_python(tmp_path: Path) -> None:
    compile_extension("watching", named("watching.c"), tmp_path)
    done = run_python(named("watching.py"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.slow
def test_watchers_of_the_documents_share_a_connection(tmp_path: Path) -> None:
    compile_extension("silence", named("silence.c"), tmp_path)
    done = run_python(named("silence.py"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "printed"), [("host", "3 ticks\n"), ("streams", "hello, stream\n")]
)
def test_c_program_of_the_documents_runs_on_the_static_core(
    name: str, printed: str, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.c").write_text(named(f"{name}.c"), encoding="utf-8")
    include = fdmux.get_include()
    command = ["cc", *C_FLAGS, f"-I{include}", f"{name}.c", "-o", name]
    command += [f"-L{Path(include).parent / 'lib'}", "-lfdmux", "-pthread"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(
        [str(tmp_path / name)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == printed


EXCERPTS = [b for b in blocks() if b.name and b.name.startswith("examples/")]


@pytest.mark.parametrize(
    "block", EXCERPTS, ids=[f"{block.document}:{block.line}" for block in EXCERPTS]
)
def test_excerpt_is_part_of_its_program(block: Block) -> None:
    assert block.name is not None
    assert block.text in (ROOT / block.name).read_text(encoding="utf-8")


def test_every_c_block_belongs_to_a_test() -> None:
    c_blocks = [block.name for block in blocks() if block.language == "c"]
    assert None not in c_blocks


def anchors(document: Path) -> set[str]:
    """Return the anchors that a Markdown renderer makes of the headings."""
    text = document.read_text(encoding="utf-8")
    found = set()
    for match in HEADING.finditer(BLOCK.sub("", text)):
        kept = re.sub(r"[^\w\- ]", "", match["text"].lower())
        found.add(kept.replace(" ", "-"))
    return found


def relative_links() -> list[tuple[Path, str]]:
    return [
        (document, match["target"])
        for document in DOCUMENTS
        for match in LINK.finditer(BLOCK.sub("", document.read_text(encoding="utf-8")))
        if "://" not in match["target"]
    ]


@pytest.mark.parametrize(
    ("document", "target"),
    relative_links(),
    ids=lambda value: value.name if isinstance(value, Path) else str(value),
)
def test_link_leads_somewhere(document: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    found = (document.parent / path).resolve() if path else document
    assert found.exists()
    if anchor:
        assert anchor in anchors(found)


def test_command_of_the_readme_is_what_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = readme.split("<!-- tests:begin -->")[1].split("<!-- tests:end -->")[0]
    assert "FDMUX_TESTING=ON" in command
    assert "readme_command tests" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_citation_names_this_version_and_licence() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    facts = dict(re.findall(r"^([\w-]+): (.+)$", text, re.MULTILINE))
    assert facts["cff-version"] == "1.2.0"
    assert (facts["version"], facts["license"]) == (fdmux.__version__, "MIT")


QUESTIONS = ["tls", "an-extension-in-c", "compared-with-uvloop", "what-it-does-not-do"]


def test_readme_answers_four_questions_from_its_first_lines() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    beginning = text.split("\n## ")[0]
    assert re.findall(r"\]\(#([\w-]+)\)", beginning) == QUESTIONS
    assert set(QUESTIONS) <= anchors(ROOT / "README.md")
    assert len(text.splitlines()) < 320


def rows_of(text: str) -> set[tuple[str, ...]]:
    """Return the figures of each row of the tables in ``text``."""
    rows = re.findall(r"^\| [^|]+ \|(.*)\|$", text, re.MULTILINE)
    return {tuple(cell.strip() for cell in row.split("|")) for row in rows}


def test_figures_of_the_readme_are_on_the_page_of_figures() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("### Compared with C")
    shown = rows_of(rest.partition("<!-- measured:end -->")[0])
    assert len(shown) > 4
    assert shown <= rows_of((DOCS / "performance.md").read_text(encoding="utf-8"))
    _, _, rest = readme.partition("### Compared with uvloop")
    programs = rows_of(rest.partition("### Compared with C")[0])
    page = rows_of((DOCS / "performance.md").read_text(encoding="utf-8"))
    assert len(programs & page) >= 5  # of programs; the other rows are ratios of two


def mapped_files() -> list[str]:
    """Return the files that the table "Where things are" names."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Where things are")[1].split("\n## ")[0]
    return sorted(set(re.findall(r"`([\w/]+\.(?:py|c|h))`", section)))


@pytest.mark.parametrize("name", mapped_files())
def test_file_of_the_map_exists(name: str) -> None:
    folders = ("csrc", "python/fdmux", "tests")
    assert any(list((ROOT / folder).rglob(name)) for folder in folders)
