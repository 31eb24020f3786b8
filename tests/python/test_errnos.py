"""Numbers of C become those of Python's errno; on Windows the two differ."""

from __future__ import annotations

import errno
import runpy
import sys
from typing import TYPE_CHECKING

from fdmux import errnos

if TYPE_CHECKING:
    import pytest


def test_numbers_are_the_same_here() -> None:
    assert errnos.errno_from_c(errno.ECONNREFUSED) == errno.ECONNREFUSED
    assert errnos.text_of(errno.ECONNREFUSED) == "Connection refused"


def test_windows_has_numbers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    there = runpy.run_path(errnos.__file__)
    assert there["errno_from_c"](107) == errno.ECONNREFUSED
    assert there["errno_from_c"](errno.ENOMEM) == errno.ENOMEM
    assert there["text_of"](errno.ENOMEM) == "Cannot allocate memory"
