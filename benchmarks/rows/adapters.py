"""Row `adapters`: what requests of hiredis and libcurl cost in our loop.

Beside the same client in C on the loops that these libraries know: libuv and libevent,
by hiredis' own adapters, and beside the clients of asyncio programs. Every answer is
verified. See programs/native/gets.h, programs/hosted/native_gets.py and
programs/hosted/asyncio_gets.py.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import sysconfig
import tempfile
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, load_fdmux, require
from benchmarks.build import build
from benchmarks.contenders import build_on_fdmux, fdmux_include, find, start
from benchmarks.processes import Server, cores
from benchmarks.programs.servers.nginx import nginx_program
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import interleave_figures
from benchmarks.rows.program_peers import start_peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.contenders import Command, Program
    from benchmarks.options import Options

    Commands = dict[str, Callable[[], Command]]

UNIT = "client CPU ns per GET"
LIBUV = "libuv in C"
LIBEVENT = "libevent in C"
OURS = "fdmux in C"
BATCHES = "to Python in batches"  # on EventLoop
REDIS_PY = "redis-py in 100 tasks"
PIPELINES = "redis-py in pipelines"
AIOHTTP = "aiohttp in 100 tasks"
ON_OURS = "EventLoop"
HOSTS = {
    ON_OURS: "fdmux.hosts.asyncio",
    "SelectorEventLoop": "SelectorEventLoop",
    "mounted on asyncio": "asyncio",
    "mounted on uvloop": "uvloop",
    "mounted on trio": "trio",
    "mounted on gevent": "gevent",
}
GETS = {"redis": 50_000, "http": 3_000}
GETS_QUICK = {"redis": 5_000, "http": 300}
# The clients of asyncio, and how many of their GETs are enough.
PYTHON = {
    REDIS_PY: ("redis", 3_000),
    PIPELINES: ("redis-pipeline", 10_000),
    AIOHTTP: ("aiohttp", 1_000),
}
SAME = 1.05
REDIS_LIMITS = (
    *(Limit(name, SAME, of=LIBUV) for name in (OURS, *HOSTS)),
    *(Limit(name, SAME, of=LIBEVENT) for name in (OURS, *HOSTS)),
    Limit(BATCHES, 1.3, of=LIBUV),
    Limit(BATCHES, 0.1, of=REDIS_PY),
)
HTTP_LIMITS = (
    *(Limit(name, SAME, of=LIBUV) for name in (OURS, *HOSTS)),
    Limit(ON_OURS, 1 / 6, of=AIOHTTP),
)


def measure(options: Options) -> Iterator[Table]:
    with contextlib.ExitStack() as stack:
        port = start_peer("redis", cores(options.is_pinned)[1], stack)
        yield _measure(options, "redis", port, REDIS_LIMITS)
    with contextlib.ExitStack() as stack:
        port = _start_nginx(cores(options.is_pinned)[1], stack)
        yield _measure(options, "http", port, HTTP_LIMITS)


def _measure(
    options: Options, what: str, port: int, limits: tuple[Limit, ...]
) -> Table:
    situation = f"{what}: 100 GETs in flight"
    progress(f"  {situation}")
    left_out: dict[str, str] = {}
    gets = (GETS_QUICK if options.is_quick else GETS)[what]
    found = find(_commands(what), left_out)
    core = cores(options.is_pinned)[0]
    with contextlib.ExitStack() as stack:
        programs: dict[str, Program] = {}
        for name, command in found.items():
            count = min(gets, PYTHON[name][1]) if name in PYTHON else gets
            programs |= start({name: command}, (port, count), core, stack)
        contenders = {name: program.run_round for name, program in programs.items()}
        for warm_up in contenders.values():
            warm_up()
        figures = interleave_figures(contenders, options.rounds)
    samples = {
        name: [used_ns / count for count, used_ns in rounds]
        for name, rounds in figures.items()
    }
    return Table("adapters", situation, UNIT, LIBUV, samples, left_out, limits)


def _commands(what: str) -> Commands:
    commands: Commands = {
        LIBUV: functools.partial(_peer, what, "libuv"),
        OURS: functools.partial(_ours, what),
        **{
            name: functools.partial(_hosted, what, host, "verified")
            for name, host in HOSTS.items()
        },
    }
    if what == "http":
        return commands | {AIOHTTP: functools.partial(_python, AIOHTTP, "aiohttp")}
    redis_py = {
        name: functools.partial(_python, name, "redis", "hiredis")
        for name in (REDIS_PY, PIPELINES)
    }
    return commands | {
        LIBEVENT: functools.partial(_peer, what, "libevent"),
        BATCHES: functools.partial(_hosted, what, HOSTS[ON_OURS], "given"),
        **redis_py,
    }


def _flags(*modules: str) -> list[str]:
    """Return the flags that compile and link libraries."""
    try:
        done = subprocess.run(
            ["pkg-config", "--cflags", "--libs", *modules],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise Unavailable("no pkg-config (Debian: pkg-config)") from error
    if done.returncode != 0:
        raise Unavailable(done.stderr.strip().splitlines()[0])
    return done.stdout.split()


def _library(what: str) -> str:
    return {"redis": "hiredis", "http": "libcurl"}[what]


def _peer(what: str, loop: str) -> Command:
    return [str(build(f"{what}_{loop}.c", *_flags(_library(what), loop)))]


def _ours(what: str) -> Command:
    return [str(build_on_fdmux(f"{what}_fdmux.c", *_flags(_library(what))))]


def _hosted(what: str, host: str, way: str) -> Command:
    load_fdmux("mount")
    if host in ("uvloop", "trio", "gevent"):
        require(host)
    python = sysconfig.get_path("include")
    extension = build(
        *(f"{what}_extension.c", "-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000"),
        *(f"-I{fdmux_include()}", f"-isystem{python}", *_flags(_library(what))),
    )
    module = "benchmarks.programs.hosted.native_gets"
    return [sys.executable, "-m", module, str(extension), host, way]


def _python(name: str, *modules: str) -> Command:
    require(*modules)
    program = "benchmarks.programs.hosted.asyncio_gets"
    return [sys.executable, "-m", program, PYTHON[name][0]]


def _start_nginx(core: int | None, stack: contextlib.ExitStack) -> int:
    nginx_program()
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    module = "benchmarks.programs.servers.nginx"
    server = Server("nginx", [sys.executable, "-m", module, folder], core)
    stack.callback(server.end)
    return server.port
