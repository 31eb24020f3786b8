"""The modules of fdmux import downwards only, without a circle.

`ORDER` is the one place where the order is written: each module may import the modules
above its own line, and no other. Imports for type checking count as well, since a
reader follows them too. (What is imported by a computed name does not count: the
registry of hosts finds the file of a host in that way, once its library is there.)
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import fdmux

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(fdmux.__file__).parent

# From the bottom to the top. A package stands for its __init__.py, "fdmux" for the
# whole: what stands below that line in this list is built on the public names.
ORDER = """
checks
errnos
_ffi
_delivery
_native
observing
sdk
descriptor
debugging
debug_selector
selector

sockets
sockets.poll
sockets.schedule
sockets.race
sockets.lookup
sockets.wait
sockets.handshake
sockets.connect
sockets.read
sockets.inherit

loop
loop.timers
loop.wakeup
loop.interest
loop.core_loop
loop.iteration
loop.observed
loop.debug
loop.running
loop.event_loop
loop.guest_base
loop.guest

streams
streams.limits
streams.address
streams.receive_buffer
streams.framing
streams.tls_library
streams.tls
streams.stream
streams.frame_handler
streams.checks
streams.binding
streams.seek
streams.connecting
streams.client
streams.listener
streams.drain
streams.server
streams.echo

datagrams
datagrams.limits
datagrams.address
datagrams.socket_view
datagrams.endpoint

pool
pool.replies
pool.outcome
pool.backoff
pool.connection
pool.pool

hosts.watched
hosts.mounted
hosts.registry
hosts
hosts.event_loop
hosts.selectors
hosts.asyncio_mount
hosts.tornado
hosts.trio
hosts.anyio
hosts.gevent
hosts.glib
hosts.qt
hosts.asyncio.private
hosts.asyncio.observed
hosts.asyncio.writing
hosts.asyncio.reading
hosts.asyncio.transport
hosts.asyncio.datagrams
hosts.asyncio.selector
hosts.asyncio.server
hosts.asyncio.sendfile
hosts.asyncio.tls
hosts.asyncio.accepting
hosts.asyncio.loop
hosts.asyncio.coroutines
hosts.asyncio.guest
hosts.asyncio.policy
hosts.asyncio

native
native.queue
native.completion

aio
framing
fdmux

testing.native
testing.host
testing.session
testing.cases_io
testing.cases_time
testing.cases_life
testing.cases
testing.adapter
testing.adapter_peer
testing.cases_adapter
testing.known.event_loop
testing.known.selectors
testing.known.asyncio_mount
testing.known.tornado
testing.known.trio
testing.known.anyio
testing.known.gevent
testing.known.glib
testing.known.qt
testing.known
testing.report
testing
testing.__main__

commands
commands.failure
commands.output
commands.arguments
commands.completion
commands.tour.expect
commands.tour.c_source
commands.tour.waits
commands.tour.connects
commands.tour.loops
commands.tour.native
commands.tour.servers
commands.tour.streams
commands.tour.queues
commands.tour.hosting
commands.tour
commands.demo
commands.echo
commands.info
commands.ping

__main__
""".split()  # noqa: SIM905 - one name a line


class Arrow(NamedTuple):
    """One import: ``source`` imports ``target``, in this line of its file."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def module_name(path: Path, root: Path) -> str:
    """Return the name of a module as `ORDER` has it."""
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts) or root.name


def modules_of(root: Path) -> dict[str, Path]:
    """Find the modules of a tree; those in C have a file of types alone."""
    paths = [*root.rglob("*.pyi"), *root.rglob("*.py")]
    return {module_name(path, root): path for path in paths}


def imported_names(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Return what a statement imports: modules, and names that may be modules."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, node.lineno
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        for alias in node.names:
            yield f"{node.module}.{alias.name}", node.lineno


def arrows_of(root: Path, modules: dict[str, Path]) -> list[Arrow]:
    """Read every import of the tree, at any depth of its files."""
    found: list[Arrow] = []
    for source, path in sorted(modules.items()):
        for node in ast.walk(ast.parse(path.read_text())):
            for name, line in imported_names(node):
                target = target_of(name, root.name, modules)
                if target is not None:
                    found.append(Arrow(source, target, line))
    return found


def target_of(name: str, package: str, modules: dict[str, Path]) -> str | None:
    """Return the module that an imported name is, or that it comes from."""
    if name != package and not name.startswith(f"{package}."):
        return None
    inside = name.removeprefix(package).removeprefix(".")
    while inside and inside not in modules:
        inside = inside.rpartition(".")[0]
    return inside or package


def broken(root: Path, order: Sequence[str]) -> list[str]:
    """Return what is wrong with a tree, in sentences."""
    modules = modules_of(root)
    rank = {name: number for number, name in enumerate(order)}
    wrong = [
        f"{name} has no place in ORDER" for name in sorted(set(modules) - set(rank))
    ]
    wrong += [
        f"{name} of ORDER does not exist" for name in order if name not in modules
    ]
    if wrong:
        return wrong
    upwards = [
        f"{arrow}: upwards, in line {arrow.line} of the first"
        for arrow in arrows_of(root, modules)
        if rank[arrow.target] >= rank[arrow.source]
    ]
    return list(dict.fromkeys(upwards))


def test_imports_run_downwards() -> None:
    wrong = broken(ROOT, ORDER)
    assert not wrong, "\n".join(wrong)


def test_layers_are_in_the_order_of_the_design() -> None:
    """A layer is a package or a module at the top; its modules stand together."""
    layers = list(dict.fromkeys(name.partition(".")[0] for name in ORDER))
    blocks = [name.partition(".")[0] for name in ORDER]
    assert [
        a for a, b in zip(blocks, [*blocks[1:], ""], strict=True) if a != b
    ] == layers


# ---- the test itself, on a tree that is made up --------------------------------------


def make_tree(folder: Path, **sources: str) -> Path:
    """Write ``package/<name>.py``, with __ for / in the names."""
    root = folder / "package"
    root.mkdir()
    (root / "__init__.py").touch()
    for name, source in sources.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return root


def test_downward_imports_pass(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path,
        low="import os\n",
        room__middle="from package import low\n",
        high="from package.room.middle import x\nimport package.low\n",
    )
    assert broken(root, ["low", "room.middle", "high", "package"]) == []


def test_upward_import_is_named(tmp_path: Path) -> None:
    root = make_tree(tmp_path, low="import os\nfrom package.high import x\n", high="")
    assert broken(root, ["low", "high", "package"]) == [
        "low -> high: upwards, in line 2 of the first"
    ]


def test_circle_is_named_in_every_order(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path, a="from package import b\n", b="def f():\n    import package.a\n"
    )
    assert broken(root, ["a", "b", "package"])[0].startswith("a -> b: upwards")
    assert broken(root, ["b", "a", "package"])[0].startswith("b -> a: upwards")


def test_name_of_the_whole_package_is_an_import_of_it(tmp_path: Path) -> None:
    root = make_tree(tmp_path, low="from package import anything\n")
    assert broken(root, ["low", "package"]) == [
        "low -> package: upwards, in line 1 of the first"
    ]


def test_imports_for_types_count(tmp_path: Path) -> None:
    typing = "if TYPE_CHECKING:\n    from package.high import x\n"
    root = make_tree(tmp_path, low=typing, high="")
    assert len(broken(root, ["low", "high", "package"])) == 1


def test_every_module_has_a_place(tmp_path: Path) -> None:
    root = make_tree(tmp_path, low="", new="")
    assert broken(root, ["low", "old", "package"]) == [
        "new has no place in ORDER",
        "old of ORDER does not exist",
    ]
