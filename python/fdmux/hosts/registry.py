"""Which loop runs in this thread, and which file of this folder mounts on it.

Its one rule: it imports no library to ask whether the library's loop runs. The program
of a loop that runs, or of a host that is passed, has imported the library already.
"""

from __future__ import annotations

import errno
import importlib
import sys
import threading
import weakref
from typing import TYPE_CHECKING, NamedTuple, cast

from fdmux._native import NativeLoop
from fdmux.hosts.mounted import Mounted
from fdmux.loop.running import running as running_here

if TYPE_CHECKING:
    from fdmux.hosts.watched import HostModule


class KnownHost(NamedTuple):
    """A kind of host that one file of this folder can mount on.

    Attributes:
        module: The name of that file; `fdmux.testing.known` has one of the same name.
        what: What messages call such a host.
        libraries: Modules; a program that has such a host has imported one of them.
        named: How to name the host where `find_running` may miss it.
    """

    module: str
    what: str
    libraries: tuple[str, ...]
    named: str = ""


# In the order of asking which loop runs. trio comes before asyncio, since it may run as
# a guest of asyncio. gevent comes after both, since its hub exists while others run.
HOSTS = (
    KnownHost("event_loop", "a SelectorEventLoop", ("fdmux.loop.event_loop",)),
    KnownHost("trio", "a trio nursery or token", ("trio",)),
    KnownHost("asyncio_mount", "an asyncio or uvloop loop", ("asyncio",)),
    KnownHost("tornado", "a tornado IOLoop", ("tornado.ioloop",)),
    KnownHost("anyio", "an anyio task group", ("anyio",)),
    KnownHost("gevent", "a gevent hub", ("gevent",), "fdmux.mount(gevent.get_hub())"),
    KnownHost("qt", "a QObject", ("PySide6.QtCore", "PyQt6.QtCore")),
    KnownHost("glib", "a GLib.MainContext or MainLoop", ("gi",)),
    KnownHost("selectors", "a selectors.BaseSelector", ("selectors",)),
)

# Held to add to `mounts` or to list it, as another thread may mount meanwhile.
registry = threading.Lock()
mounts: weakref.WeakKeyDictionary[object, weakref.ref[Mounted]] = (
    weakref.WeakKeyDictionary()
)


def mount(host: object = None) -> Mounted:
    """Mount a native loop on a loop of Python, the host; once for each host.

    >>> with mount(selectors.DefaultSelector()) as mounted:
    ...     extension.start(mounted.native)

    The host watches one descriptor, which stands for all native descriptors, timers and
    posted calls. When it is readable, the host's callback dispatches them in C, without
    the GIL. Mounting a host again returns the same `Mounted`.

    Args:
        host: The loop to mount on: a `SelectorEventLoop`, an asyncio or uvloop loop, a
            tornado ``IOLoop``, a gevent hub, a selector whose user calls
            ``key.data()``, a ``QObject`` of this thread, a ``GLib.MainContext`` or
            ``MainLoop``; the token of a trio run; or a trio nursery or anyio task
            group, whose end unmounts and in which errors of native functions are
            raised. ``None``: the loop that runs
            in this thread, of fdmux, asyncio, uvloop, tornado, trio, anyio or gevent.

    Returns:
        The mount. `Mounted.unmount` ends it, and so does the end of the host.

    Raises:
        RuntimeError: No loop runs in this thread, or the host is closed, belongs to
            another thread or cannot watch descriptors. (A Proactor loop of Windows
            waits for a handle instead.)
        TypeError: ``host`` is none of these.
        OSError: The process has no more descriptors.

    Threads: The host's.
    """
    module, host = find_running() if host is None else find(host)
    drop_ended()
    loop = module.loop_of(host)
    reference = mounts.get(loop)
    mounted = None if reference is None else reference()
    if mounted is not None and mounted.is_mounted:
        return mounted
    mounted = make(module, host)
    with registry:
        mounts[loop] = weakref.ref(mounted)
    return mounted


def current() -> NativeLoop:
    """Return the `NativeLoop` of the loop that runs in this thread.

    >>> async def main():
    ...     extension.start(current())  # in asyncio, uvloop, trio and others
    >>> asyncio.run(main())

    In a callback of a `SelectorEventLoop` it is that loop's own. In an asyncio, uvloop,
    tornado, trio, anyio or gevent loop it is the native loop that is mounted there; the
    first call mounts it, as `mount` does. It lives as long as the running loop.

    Raises:
        RuntimeError: No loop runs in this thread, or it cannot watch descriptors.

    Threads: Any.
    """
    loop = running_here.loop
    return loop.native if loop is not None else mount().native


def running() -> object | None:
    """Return the loop that runs in this thread, or ``None``, as `mount` finds it."""
    try:
        return find_running()[1]
    except RuntimeError:
        return None


def find_running() -> tuple[HostModule, object]:
    """Return the loop that runs in this thread, and the module that mounts on it.

    Raises:
        RuntimeError: No loop runs here.
    """
    for known in imported():
        module = module_of(known)
        host = module.running()
        if host is not None:
            return module, host
    names = "".join(f", or {known.named}" for known in imported() if known.named)
    raise RuntimeError(
        "no loop that can host a native loop is running in this thread: call this from "
        f"a callback or task of one, or name the host: fdmux.mount(host){names}"
    )


def find(host: object) -> tuple[HostModule, object]:
    """Return ``host``, and the module that mounts on it.

    Raises:
        TypeError: No module knows such a host.
    """
    for known in imported():
        module = module_of(known)
        if module.accepts(host):
            return module, host
    *others, last = (known.what for known in HOSTS)
    raise TypeError(
        f"mount: host must be {', '.join(others)} or {last}, not {host!r}; any other "
        "loop can watch the fileno() of a fdmux.NativeLoop for reading and call its "
        "dispatch()"
    )


def imported() -> list[KnownHost]:
    """Return the hosts whose library the program has imported."""
    return [
        known
        for known in HOSTS
        if any(library in sys.modules for library in known.libraries)
    ]


def module_of(known: KnownHost) -> HostModule:
    """Import the file of this folder that mounts on such a host."""
    return cast("HostModule", importlib.import_module(f"fdmux.hosts.{known.module}"))


def make(module: HostModule, host: object) -> Mounted:
    """Mount on a host for the first time."""
    native = module.native_of(host)
    if native is not None:
        return Mounted(host, native, is_owner=False)
    native = NativeLoop()
    try:
        # As `proactor_of`, whose file imports asyncio: its loop waits for a handle.
        if getattr(host, "_proactor", None) is None:
            check_fd(native, host)
    except BaseException:
        native.close()
        raise
    mounted = Mounted(host, native, is_owner=True)
    mounted.attach(module, host)
    return mounted


def check_fd(native: NativeLoop, host: object) -> None:
    """Raise a RuntimeError that helps if the backend has no descriptor."""
    try:
        native.fileno()
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise RuntimeError(
            f"mount on {host!r}: the {native.backend} backend has no descriptor that a "
            "host could watch; use a loop on fdmux.Selector(), which needs none"
        ) from error


def drop_ended() -> None:
    """Unmount from hosts that were closed without a call of `Mounted.unmount`."""
    with registry:
        references = list(mounts.values())
    for reference in references:
        mounted = reference()
        if mounted is not None and mounted.has_ended:
            mounted.unmount()
