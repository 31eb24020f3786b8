"""The capsules: what native code gets from them, and what they keep alive."""

from __future__ import annotations

import ctypes
import errno
import gc
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

import fdmux
from fdmux import NativeLoop, Selector, SelectorEventLoop
from fdmux._ffi import ffi
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.compiled import HasLoop
    from tests.python.conftest import NativeUser

    Adopt = Callable[[HasLoop], NativeUser]
    Open = Callable[[object, bytes], int]


class TableHead(ctypes.Structure):
    """How struct fdmux_api begins, in this and every later version."""

    _fields_: ClassVar = [
        ("abi_major", ctypes.c_uint32),
        ("abi_minor", ctypes.c_uint32),
        ("struct_size", ctypes.c_size_t),
        ("loop_create", ctypes.c_void_p),
    ]
    abi_major: int
    abi_minor: int
    struct_size: int
    loop_create: int


def test_table_is_where_an_extension_looks_for_it(open_capsule: Open) -> None:
    table = TableHead.from_address(open_capsule(fdmux._C_API, b"fdmux._C_API"))
    assert (table.abi_major, table.abi_minor) == fdmux.ABI_VERSION
    assert table.struct_size == ffi.sizeof("struct fdmux_api")
    assert table.loop_create


def test_table_is_imported_by_name_as_c_does(open_capsule: Open) -> None:
    import_capsule = ctypes.pythonapi.PyCapsule_Import
    import_capsule.restype = ctypes.c_void_p
    import_capsule.argtypes = [ctypes.c_char_p, ctypes.c_int]
    assert import_capsule(b"fdmux._C_API", 0) == open_capsule(
        fdmux._C_API, b"fdmux._C_API"
    )


@pytest.mark.parametrize("name", [b"fdmux.loop", b"_C_API", b"", b"fdmux._C_API2"])
def test_table_opens_under_no_other_name(open_capsule: Open, name: bytes) -> None:
    with pytest.raises(ValueError, match="PyCapsule_GetPointer"):
        open_capsule(fdmux._C_API, name)


@pytest.mark.parametrize("name", [b"fdmux._C_API", b"fdmux.memory", b"loop", b""])
def test_loop_opens_under_no_other_name(open_capsule: Open, name: bytes) -> None:
    with NativeLoop() as loop, pytest.raises(ValueError, match="PyCapsule_GetPointer"):
        open_capsule(loop.__fdmux_loop__(), name)


@pytest.mark.parametrize("owner", [Selector, NativeLoop, SelectorEventLoop])
def test_every_owner_hands_out_its_loop(
    owner: Callable[[], Selector], native_user: Adopt
) -> None:
    with owner() as carrier:
        native = native_user(carrier)
        loop = carrier if isinstance(carrier, NativeLoop) else carrier.native
        assert native.loop_address == loop.address
        assert native.wake() == 0


def test_loop_comes_with_the_table_of_its_core(
    open_capsule: Open, native_user: Adopt
) -> None:
    with NativeLoop() as loop:
        assert native_user(loop).table_address == open_capsule(
            fdmux._C_API, b"fdmux._C_API"
        )


@pytest.mark.parametrize("backend", backend_names())
def test_capsule_of_a_closed_loop_gives_estale(
    backend: str, native_user: Adopt
) -> None:
    with Selector(backend) as selector:
        native = native_user(selector)
    alive = weakref.ref(selector)
    del selector
    gc.collect()
    assert alive() is None  # and yet the memory is there
    assert native.wake() == -errno.ESTALE
    assert native.post() == -errno.ESTALE
    assert native.watch(0) == -errno.ESTALE
    assert native.unwatch(1) == -errno.ESTALE


def test_capsule_keeps_an_open_loop_open(native_user: Adopt) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    loop = NativeLoop()
    native = native_user(loop)
    alive = weakref.ref(loop)
    del loop
    assert native.wake() == 0
    assert alive() is not None
    native.capsule = None
    assert alive() is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_each_call_makes_a_capsule_and_none_is_left() -> None:
    loop = NativeLoop()
    alive = weakref.ref(loop)
    capsules = [loop.__fdmux_loop__() for _ in range(100)]
    assert len({id(capsule) for capsule in capsules}) == 100
    del loop
    while capsules:
        assert alive() is not None
        capsules.pop()
    assert alive() is None
