"""A consumer that the core cannot serve gets an error that says what to do.

The cores of other versions are impostors: tables that have the version and size of such
a core, and nothing else.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, ClassVar

import pytest

import fdmux

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.abi.conftest import Consumer

    MakeCapsule = Callable[[int, bytes], object]

pytestmark = pytest.mark.slow  # an extension is compiled for each release

TABLE_NAME = b"fdmux._C_API"
LOOP_NAME = b"fdmux.loop"
HUGE = 1 << 20


class TableHead(ctypes.Structure):
    """The first members of struct fdmux_api, the same in every version."""

    _fields_: ClassVar = [
        ("abi_major", ctypes.c_uint32),
        ("abi_minor", ctypes.c_uint32),
        ("struct_size", ctypes.c_size_t),
    ]


class LoopRef(ctypes.Structure):
    """struct fdmux_loop_handle."""

    _fields_: ClassVar = [("api", ctypes.c_void_p), ("loop", ctypes.c_void_p)]


class Owner:
    """An object whose capsule claims that it has a loop."""

    def __init__(self, capsule: object) -> None:
        self.capsule = capsule

    def __fdmux_loop__(self) -> object:
        return self.capsule


MAJOR, MINOR = fdmux.ABI_VERSION
IMPOSTORS = {
    "other-major": TableHead(MAJOR + 1, MINOR, HUGE),
    "far-major": TableHead(0xFFFFFFFF, 0xFFFFFFFF, HUGE),
    "older-major": TableHead(MAJOR - 1, 0xFFFFFFFF, HUGE),
    "smaller-table": TableHead(MAJOR, MINOR, ctypes.sizeof(TableHead)),
    "empty": TableHead(0, 0, 0),
}


@pytest.fixture(params=IMPOSTORS)
def impostor(request: pytest.FixtureRequest) -> TableHead:
    return IMPOSTORS[str(request.param)]


def told(impostor: TableHead, consumer: Consumer) -> str:
    """Return what a user must be told; has what the impostor says of itself."""
    major, minor = consumer.import_core()
    return (
        rf"compiled for ABI {major}\.{minor}, the installed fdmux has "
        rf"{impostor.abi_major}\.{impostor.abi_minor}: "
        r"upgrade fdmux, or rebuild the extension"
    )


def test_import_of_another_core_is_an_import_error(
    impostor: TableHead,
    consumer: Consumer,
    make_capsule: MakeCapsule,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = told(impostor, consumer)
    capsule = make_capsule(ctypes.addressof(impostor), TABLE_NAME)
    monkeypatch.setattr(fdmux, "_C_API", capsule)
    with pytest.raises(ImportError, match=message):
        consumer.import_core()


def test_loop_of_another_core_is_an_import_error(
    impostor: TableHead, consumer: Consumer, make_capsule: MakeCapsule
) -> None:
    message = told(impostor, consumer)
    ref = LoopRef(ctypes.addressof(impostor), None)
    owner = Owner(make_capsule(ctypes.addressof(ref), LOOP_NAME))
    with pytest.raises(ImportError, match=message):
        consumer.adopt(owner)


def test_refused_core_leaves_the_consumer_with_the_one_it_had(
    consumer: Consumer, make_capsule: MakeCapsule
) -> None:
    consumer.import_core()
    ref = LoopRef(ctypes.addressof(IMPOSTORS["other-major"]), None)
    with pytest.raises(ImportError):
        consumer.adopt(Owner(make_capsule(ctypes.addressof(ref), LOOP_NAME)))
    assert consumer.has_table()
    with fdmux.NativeLoop() as loop:
        consumer.adopt(loop)


def test_table_under_another_name_is_refused(
    consumer: Consumer, make_capsule: MakeCapsule, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = TableHead(MAJOR, MINOR, HUGE)
    capsule = make_capsule(ctypes.addressof(head), b"fdmux.table")
    monkeypatch.setattr(fdmux, "_C_API", capsule)
    with pytest.raises((AttributeError, ImportError), match="_C_API"):
        consumer.import_core()


@pytest.mark.parametrize(
    ("owner", "error"),
    [
        pytest.param(object(), TypeError, id="no-loop"),
        pytest.param(Owner(None), ValueError, id="no-capsule"),
        pytest.param(Owner(fdmux._C_API), ValueError, id="capsule-of-the-table"),
    ],
)
def test_object_without_a_loop_is_refused(
    owner: object, error: type[Exception], consumer: Consumer
) -> None:
    with pytest.raises(error, match=r"host must be|PyCapsule_GetPointer"):
        consumer.adopt(owner)
