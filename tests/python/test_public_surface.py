"""The public names, docstrings and headers of fdmux, and that they agree."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux import sdk
from fdmux._ffi import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

# Every name here is a promise; see design.md section 5 before adding one.
REVIEWED = {
    "ABI_VERSION",
    "EVENT_READ",
    "EVENT_WRITE",
    "ClientPool",
    "Datagram",
    "DatagramEndpoint",
    "DatagramHandler",
    "DatagramLimits",
    "DatagramStats",
    "Delimited",
    "EchoServer",
    "FixedSize",
    "ForkedLoop",
    "FrameHandler",
    "FrameTooLongError",
    "Guest",
    "IncompleteFrameError",
    "IncompleteReadError",
    "InheritedSocket",
    "LengthPrefixed",
    "LoopClosed",
    "Mounted",
    "NativeLoop",
    "NativeQueue",
    "NotRegistered",
    "Observation",
    "Observer",
    "ReadTimeoutError",
    "ReceiveBuffer",
    "Report",
    "Selector",
    "SelectorEventLoop",
    "SelectorKey",
    "ServerLimits",
    "ServerStats",
    "Stats",
    "Stream",
    "StreamHandler",
    "StreamLimits",
    "StreamServer",
    "StreamTls",
    "__version__",
    "add_stream",
    "aio",
    "connect_stream",
    "connect_with_timeout",
    "current",
    "framing",
    "get_cmake_dir",
    "get_include",
    "get_pkgconfig_dir",
    "hosts",
    "inherited_sockets",
    "mount",
    "read_with_timeout",
    "wait_readable",
    "wait_writable",
}
OURS = sorted(
    name
    for name in REVIEWED
    if getattr(getattr(fdmux, name), "__module__", "").startswith("fdmux")
)
STRICT = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
C99 = ["cc", "-x", "c", "-std=c99", *STRICT]
CXX17 = ["c++", "-x", "c++", "-std=c++17", *STRICT]
COMPILERS = pytest.mark.parametrize("command", [C99, CXX17], ids=["c99", "c++17"])


@pytest.fixture
def headers(include_path: Path) -> dict[str, str]:
    """The public headers without their comments."""
    return {
        path.name: re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        for path in sorted(include_path.glob("*.h"))
    }


def functions_of(header: str) -> set[str]:
    return set(re.findall(r"FDMUX_API [^;]*?\b(fdmux_\w+)\(", header))


# ---- names ---------------------------------------------------------------------------


def test_public_names_are_those_that_were_reviewed() -> None:
    assert set(fdmux.__all__) == REVIEWED
    assert len(fdmux.__all__) == len(REVIEWED)


def test_nothing_else_is_public() -> None:
    public = {
        name
        for name, value in vars(fdmux).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public - REVIEWED == set()


@pytest.mark.parametrize("name", OURS)
def test_every_public_name_says_what_it_is(name: str) -> None:
    thing = getattr(fdmux, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            is_method = inspect.isroutine(value) or isinstance(value, property)
            if is_method and not member.startswith("_"):
                assert inspect.getdoc(value), f"{name}.{member}"


# What help() of these shows: promises, and no plumbing.
MEMBERS: dict[type, set[str]] = {
    fdmux.SelectorEventLoop: {
        "call_at",
        "call_later",
        "call_soon_threadsafe",
        "close",
        "native",
        "observe",
        "register_read",
        "register_write",
        "run",
        "run_once",
        "slow_callback_duration",
        "stop",
        "time",
        "unregister",
        "unregister_read",
        "unregister_write",
    },
    fdmux.Selector: {
        "close",
        "fileno",
        "get_key",
        "get_map",
        "modify",
        "register",
        "select",
        "unregister",
    },
    fdmux.NativeLoop: {
        "address",
        "after_fork",
        "backend",
        "close",
        "dispatch",
        "fileno",
        "handle",
        "next_deadline",
        "stats",
        "wake",
    },
    fdmux.Guest: {"close", "deadline", "dispatch", "fileno"},
}


@pytest.mark.parametrize("kind", MEMBERS, ids=lambda kind: kind.__name__)
def test_help_shows_what_was_reviewed(kind: type) -> None:
    assert {name for name in dir(kind) if not name.startswith("_")} == MEMBERS[kind]


def test_import_gives_the_parts_and_imports_no_large_library() -> None:
    """`ctypes` and `ssl` crash CPython 3.12.1 when it is initialised a second time."""
    program = (
        "import sys, fdmux\n"
        "fdmux.aio.Completion, fdmux.framing.Delimited, fdmux.hosts.mount\n"
        "print({'asyncio', 'ctypes', 'ssl', 'trio'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"


def test_versions_come_from_the_header(headers: dict[str, str]) -> None:
    header = headers["fdmux.h"]
    assert f'#define FDMUX_VERSION "{fdmux.__version__}"' in header
    major, minor = fdmux.ABI_VERSION
    assert re.search(rf"#define FDMUX_ABI_MAJOR +{major}\n", header)
    assert re.search(rf"#define FDMUX_ABI_MINOR +{minor}\n", header)


# ---- the C boundary ------------------------------------------------------------------


def test_extension_has_what_the_headers_declare(headers: dict[str, str]) -> None:
    for name in ("fdmux.h", "fdmux_api.h", "fdmux_stream.h", "fdmux_datagram.h"):
        declared = functions_of(headers[name])
        assert declared
        assert declared <= set(dir(lib)), name
    assert {n for n in dir(lib) if re.match(r"fdmux_(?!_|py_|testing_)", n)} == (
        functions_of(headers["fdmux.h"])
        | functions_of(headers["fdmux_api.h"])
        | functions_of(headers["fdmux_stream.h"])
        | functions_of(headers["fdmux_datagram.h"])
    )


def test_extension_has_the_constants_of_the_headers(headers: dict[str, str]) -> None:
    pattern = r"#define (FDMUX_\w+) (0x[0-9a-f]+|\d+)\b"
    constants = re.findall(pattern, headers["fdmux.h"])
    assert len(constants) > 15
    for name, value in constants:
        assert getattr(lib, name) == int(value, 0), name


@pytest.mark.parametrize(
    ("header", "home", "prefix"),
    [
        ("fdmux.h", "fdmux_api.h", "fdmux_"),
        ("fdmux_stream.h", "fdmux_stream.h", "fdmux_stream_"),
        ("fdmux_datagram.h", "fdmux_datagram.h", "fdmux_datagram_"),
    ],
)
def test_table_has_every_function(
    headers: dict[str, str], header: str, home: str, prefix: str
) -> None:
    table = f"{prefix}api"
    found = re.search(rf"struct {table} \{{(.*?)\n\}};", headers[home], re.DOTALL)
    assert found
    members = set(re.findall(r"\(\*(\w+)\)\(", found[1]))
    declared = functions_of(headers[header])
    assert {name.removeprefix(prefix) for name in declared} == members
    macros = set(re.findall(r"#define (fdmux_\w+)\(", headers["fdmux_python.h"]))
    assert declared <= macros


def test_python_header_has_no_name_of_its_own(headers: dict[str, str]) -> None:
    declared = {
        name
        for header in ("fdmux.h", "fdmux_stream.h", "fdmux_tls.h", "fdmux_datagram.h")
        for name in functions_of(headers[header])
    }
    macros = set(re.findall(r"#define (fdmux_\w+)\(", headers["fdmux_python.h"]))
    assert macros == declared


def test_table_is_as_large_as_it_says() -> None:
    table = lib.fdmux_get_api()
    assert table.struct_size == ffi.sizeof("struct fdmux_api")
    assert (table.abi_major, table.abi_minor) == fdmux.ABI_VERSION


def test_type_stub_names_what_the_extension_has() -> None:
    stub = Path(fdmux.__file__).with_name("_ffi.pyi").read_text()
    (lib_class,) = (
        node
        for node in ast.parse(stub).body
        if isinstance(node, ast.ClassDef) and node.name == "Lib"
    )
    functions = {n.name for n in lib_class.body if isinstance(n, ast.FunctionDef)}
    constants = {
        node.target.id
        for node in lib_class.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert len(functions) > 15
    testing = {n for n in functions | constants if re.match("fdmux_test|FDMUX_CALL", n)}
    if not hasattr(lib, "fdmux_testing_fail"):
        functions, constants = functions - testing, constants - testing
    assert functions | constants <= set(dir(lib))
    assert all(isinstance(getattr(lib, name), int) for name in constants)
    assert all(callable(getattr(lib, name)) for name in functions)


# ---- headers -------------------------------------------------------------------------


def check_syntax(command: list[str], source: str) -> None:
    done = subprocess.run(
        [*command, "-"], input=source, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@COMPILERS
@pytest.mark.parametrize(
    "name", ["fdmux.h", "fdmux_api.h", "fdmux_stream.h", "fdmux_frame.h"]
)
def test_header_compiles_alone(
    command: list[str], name: str, include_path: Path
) -> None:
    check_syntax([*command, f"-I{include_path}"], f"#include <{name}>\n")
    twice = f"#include <{name}>\n#include <{name}>\nint unused(void);\n"
    check_syntax([*command, f"-I{include_path}"], twice)


@COMPILERS
@pytest.mark.parametrize("limited", [True, False], ids=["limited-api", "full-api"])
def test_python_header_compiles(
    command: list[str], limited: bool, include_path: Path
) -> None:
    python = sysconfig.get_paths()["include"]
    options = [f"-I{include_path}", "-isystem", python]
    if limited:
        options.append("-DPy_LIMITED_API=0x030a0000")
    body = "#include <Python.h>\n#include <fdmux_python.h>\n"
    use = "int use(PyObject *o); int use(PyObject *o) { return fdmux_import() == 0 "
    use += "&& fdmux_from_object(o) != NULL && fdmux_loop_wake(NULL); }\n"
    check_syntax([*command, *options], body + use)


def test_python_header_asks_for_python_h(include_path: Path) -> None:
    done = subprocess.run(
        [*C99, f"-I{include_path}", "-"],
        input="#include <fdmux_python.h>\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert "include Python.h before fdmux_python.h" in done.stderr


def test_header_needs_nothing_but_stddef_and_stdint(headers: dict[str, str]) -> None:
    for name in ("fdmux.h", "fdmux_frame.h"):
        included = re.findall(r"#include (\S+)", headers[name])
        assert included == ["<stddef.h>", "<stdint.h>"], name
    for name in ("fdmux_api.h", "fdmux_stream.h"):
        assert re.findall(r"#include (\S+)", headers[name]) == ['"fdmux.h"'], name


def test_no_enum_and_no_long_in_the_abi(headers: dict[str, str]) -> None:
    for name in ("fdmux.h", "fdmux_api.h", "fdmux_stream.h", "fdmux_frame.h"):
        found = re.findall(r"\b(enum|long|bool|FILE)\b", headers[name])
        assert not found, name


def test_loop_is_opaque(headers: dict[str, str]) -> None:
    assert "struct fdmux_loop;" in headers["fdmux.h"]
    assert not re.search(r"struct fdmux_loop \{", headers["fdmux.h"])


def test_every_function_is_documented(include_path: Path) -> None:
    """A comment ends on the line above each, or above the one it goes with."""
    text = (include_path / "fdmux.h").read_text()
    for declaration in re.finditer(r"^FDMUX_API", text, re.MULTILINE):
        before = text[: declaration.start()].rstrip()
        assert before.endswith("*/"), text[declaration.start() :].partition("\n")[0]


# ---- where the parts lie -------------------------------------------------------------

DIRECTORIES: dict[str, tuple[Callable[[], str], str]] = {
    "include": (fdmux.get_include, "fdmux.h"),
    "frame-include": (fdmux.get_include, "fdmux_frame.h"),
    "python-include": (fdmux.get_include, "fdmux_python.h"),
    "cmake": (fdmux.get_cmake_dir, "fdmuxConfig.cmake"),
    "pkgconfig": (fdmux.get_pkgconfig_dir, "fdmux.pc"),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_sdk_is_where_it_is_said_to_be(name: str) -> None:
    get, file = DIRECTORIES[name]
    if not (sdk.ROOT / "include").is_dir():
        pytest.skip("fdmux is built in place here: it has no SDK")
    assert Path(get()).is_absolute()
    assert (Path(get()) / file).is_file()


@pytest.mark.parametrize("name", DIRECTORIES)
def test_install_without_its_sdk_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="lacks its SDK"):
        DIRECTORIES[name][0]()
