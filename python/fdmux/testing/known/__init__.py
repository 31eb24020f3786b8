"""The hosts that fdmux knows, as the kit runs them.

Each file of `fdmux.hosts` that mounts on a host has a file of the same name here. Its
`HOSTS` are the classes to test it with. They import the library when an object is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fdmux.hosts import registry

if TYPE_CHECKING:
    from fdmux.testing.host import Host

HOSTS: dict[str, type[Host]] = {
    kind.name: kind
    for known in registry.HOSTS
    for kind in import_module(f"{__name__}.{known.module}").HOSTS
}
