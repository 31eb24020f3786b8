"""The examples of the documents run, and their links lead somewhere.

A block of Python runs as it stands, in a process and a folder of its own. A comment
before the fence, ``<!-- test: NAME -->``, says that a block belongs to a test below; C
blocks all do.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.tree import ROOT

import fdmux

DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
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
def test_python_block_runs(block: Block, tmp_path: Path) -> None:
    done = run_python(block.text, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_server_of_the_readme_serves_several_clients_and_ends_by_ctrl_c(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", named("server")],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().split()[-1])
            address = ("127.0.0.1", port)
            with (
                socket.create_connection(address, timeout=10) as one,
                socket.create_connection(address, timeout=10) as two,
            ):
                one.sendall(b"one")
                two.sendall(b"two")
                assert two.recv(100) == b"TWO"
                assert one.recv(100) == b"ONE"
                one.sendall(b"again")
                assert one.recv(100) == b"AGAIN"
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=10)
        finally:
            server.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt")


def compile_extension(name: str, text: str, folder: Path) -> None:
    """Compile by header alone, against the fdmux that is installed."""
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
    compile_extension("counter", named("counter.c"), tmp_path)
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


def test_every_c_block_belongs_to_a_test() -> None:
    c_blocks = [block.name for block in blocks() if block.language == "c"]
    assert None not in c_blocks


def anchors(document: Path) -> set[str]:
    """Return what a Markdown renderer makes of the headings."""
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
    assert "tests:begin" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
