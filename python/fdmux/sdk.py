"""Where the files are that builders of native code need, and which version they have.

Its one rule: all paths start at the folder of the C extension. In an editable install
the Python files are in the source tree, but the files that CMake installs are not.
"""

from __future__ import annotations

from pathlib import Path

from fdmux._ffi import __file__ as extension
from fdmux._ffi import ffi, lib

ROOT = Path(extension).parent

__version__ = ffi.string(lib.fdmux_py_version()).decode()


def _existing(path: Path) -> str:
    """Return ``path``.

    Raises:
        FileNotFoundError: It does not exist: the SDK is not installed.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} does not exist: this install of fdmux lacks its SDK; reinstall it"
        )
    return str(path)


def get_include() -> str:
    """Return the folder of ``fdmux.h`` and ``fdmux_python.h``, for ``-I``."""
    return _existing(ROOT / "include")


def get_cmake_dir() -> str:
    """Return the folder of ``fdmuxConfig.cmake``, for ``fdmux_DIR``."""
    return _existing(ROOT / "lib" / "cmake" / "fdmux")


def get_pkgconfig_dir() -> str:
    """Return the folder of ``fdmux.pc``, for ``PKG_CONFIG_PATH``."""
    return _existing(ROOT / "lib" / "pkgconfig")
