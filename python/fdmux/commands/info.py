"""``fdmux info``: what is installed here, and what this system offers.

Its one rule: it asks the loaded core, a loop made for the purpose and the kernel; it
concludes nothing from version numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import _cffi_backend

from fdmux._native import (
    ABI_VERSION,
    NativeLoop,
    backend_names,
    datagram_features,
)
from fdmux.commands.failure import Failure, reason
from fdmux.commands.output import write
from fdmux.sdk import __version__, get_include

if TYPE_CHECKING:
    from fdmux.commands.arguments import Subparsers


SOMAXCONN = Path("/proc/sys/net/core/somaxconn")

TLS = {
    "openssl": "by OpenSSL's functions",
    "python": "by methods of Python",
    "none": "none",
}

EXAMPLE = """\
example:
  $ fdmux info --json | python -c 'import json, sys; print(json.load(sys.stdin))'

exit status: 0"""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What `info` reports; the fields are the names in its JSON.

    Attributes:
        abi: Major and minor of the C interface.
        backend: The backend that a loop uses by default.
        features: For each backend here, what its loops can do.
        datagrams: What the kernel can do for datagrams: batches, GSO, GRO.
        include_dir: The folder of the headers; ``None`` if this install has none.
        open_files_soft: The soft RLIMIT_NOFILE; ``None`` for no limit.
        open_files_hard: How far a program may raise that.
        backlog_max: The kernel's bound for ``listen``; ``None`` if it does not say.
        tls: What moves the bytes of streams with TLS: ``openssl``, its functions;
            ``python``, methods of Python; ``none`` without the module `ssl`.
        tls_reason: The version of OpenSSL, or why its functions are not called.
    """

    version: str
    abi: tuple[int, int]
    backend: str
    features: dict[str, list[str]]
    datagrams: list[str]
    include_dir: str | None
    python: str
    cffi: str
    system: str
    open_files_soft: int | None
    open_files_hard: int | None
    backlog_max: int | None
    tls: str
    tls_reason: str


def add_parser(commands: Subparsers) -> None:
    """Describe ``info`` to the parser."""
    parser = commands.add_parser(
        "info",
        help="what is installed, and what this system offers",
        description="Print version, ABI, backends, their features, and limits.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the facts."""
    facts = gather()
    if arguments.json:
        text = json.dumps(dataclasses.asdict(facts), indent=2)
    else:
        text = "\n".join(f"{name:<12}{value}" for name, value in table(facts))
    write(f"{text}\n")
    return 0


def gather() -> Facts:
    """Collect the facts."""
    features = find_features()
    soft, hard = open_files()
    tls, tls_reason = find_tls()
    return Facts(
        version=__version__,
        abi=ABI_VERSION,
        backend=next(iter(features)),
        features=features,
        datagrams=find_datagrams(),
        include_dir=find_include(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        cffi=_cffi_backend.__version__,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        open_files_soft=soft,
        open_files_hard=hard,
        backlog_max=int(SOMAXCONN.read_text()) if SOMAXCONN.exists() else None,
        tls=tls,
        tls_reason=tls_reason,
    )


def find_tls() -> tuple[str, str]:
    """Ask how streams with TLS move their bytes, and why so."""
    try:
        from fdmux.streams.tls_library import choose  # noqa: PLC0415 - Python may lack ssl
    except ImportError as error:
        return "none", str(error)
    choice = choose()
    return ("openssl" if choice.is_direct else "python"), choice.reason


def find_features() -> dict[str, list[str]]:
    """Make a loop on each backend, the default first, and ask what it found."""
    features: dict[str, list[str]] = {}
    for name in (None, *backend_names()):
        features.update(try_backend(name))
    return features


def try_backend(name: str | None) -> dict[str, list[str]]:
    """Return the features of a backend by its name; nothing if it is not here."""
    try:
        with NativeLoop(name) as loop:
            return {loop.backend: sorted(loop.stats().features)}
    except ValueError:
        return {}
    except OSError as error:
        raise Failure(reason(error)) from error


def find_datagrams() -> list[str]:
    """Ask the kernel what it can do for datagrams."""
    try:
        with NativeLoop() as loop:
            return list(datagram_features(loop))
    except OSError as error:
        raise Failure(reason(error)) from error


def find_include() -> str | None:
    """Return the folder of the headers, if there is one."""
    try:
        return get_include()
    except FileNotFoundError:
        return None


def open_files() -> tuple[int | None, int | None]:
    """Return the limits of open files, ``None`` for none; Windows has none."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return None, None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = (
        None if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard)
    )
    return next(limits), next(limits)


def table(facts: Facts) -> list[tuple[str, str]]:
    """Arrange the facts for people."""
    rows = [
        ("fdmux", f"{facts.version}, ABI {facts.abi[0]}.{facts.abi[1]}"),
        ("headers", facts.include_dir or "none in this install"),
        ("python", f"{facts.python}, cffi {facts.cffi}"),
        ("system", facts.system),
    ]
    for name, found in facts.features.items():
        mark = " (default)" if name == facts.backend else ""
        rows.append(("backend", f"{name}{mark}: {', '.join(found) or 'nothing more'}"))
    rows.append(("tls", f"{TLS[facts.tls]}: {facts.tls_reason}"))
    rows.append(("datagrams", ", ".join(facts.datagrams) or "one by one"))
    soft, hard = counted(facts.open_files_soft), counted(facts.open_files_hard)
    rows.append(("open files", f"{soft}, can be raised to {hard}"))
    rows.append(("backlog", f"{counted(facts.backlog_max)} at most"))
    return rows


def counted(limit: int | None) -> str:
    """Write a limit for people."""
    return "no limit" if limit is None else f"{limit:,}"
