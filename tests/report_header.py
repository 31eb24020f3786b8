"""What pytest prints in its header: the build under test, and installed hosts.

Its one rule: it asks the library and the installed packages, so nothing can be claimed
that is not there; it imports no host, since some change the process.
"""

from __future__ import annotations

import importlib.metadata

# Distributions whose loops can host ours; asyncio and selectors are always there.
HOSTS = (
    *("uvloop", "trio", "anyio", "tornado", "gevent"),
    *("PySide6-Essentials", "PyQt6", "PyGObject"),
)


def header_lines() -> list[str]:
    """Describe what the tests run on."""
    try:
        from fdmux import sdk  # noqa: PLC0415 - the C tests run without the package
    except ImportError as error:
        return [f"fdmux: not installed ({error}); only tests/core can run"]
    return [
        f"fdmux: {sdk.__version__}, FDMUX_TESTING {'on' if is_test_build() else 'off'}",
        f"backends: {', '.join(map(describe_backend, backend_names()))}",
        f"hosts: {', '.join(installed_hosts()) or 'none but asyncio'}",
    ]


def is_test_build() -> bool:
    from fdmux._ffi import lib  # noqa: PLC0415 - as above

    return hasattr(lib, "fdmux_testing_fail")


def backend_names() -> tuple[str, ...]:
    from fdmux._native import backend_names  # noqa: PLC0415 - as above

    return backend_names()


def describe_backend(name: str) -> str:
    """Open a loop on it; say what features it has, or why it does not open."""
    from fdmux import NativeLoop  # noqa: PLC0415 - as above

    try:
        with NativeLoop(name) as loop:
            features = sorted(loop.stats().features)
    except ValueError:
        return f"{name} (not in this build)"
    except OSError as error:
        return f"{name} (does not open: {error.strerror})"
    # `nanoseconds` under epoll: the kernel has epoll_pwait2(2).
    return f"{name} ({', '.join(features) or 'no features'})"


def installed_hosts() -> list[str]:
    """Name them with their versions."""
    found = []
    for name in HOSTS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
