"""Build the Rust library with rustc alone, checked against the installed fdmux.h.

It compiles src/layout.c with that header and runs it, which writes the size of each
struct and the offset of each member as Rust constants. src/fdmux.rs does not compile
unless its structs agree with them.
"""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

import fdmux


class RustcBuild(build_ext):
    """Let rustc build the library in place of an extension module."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return a plain name, since ctypes loads the library and nobody imports it."""
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Write layout.rs, then build the library with it."""
        temporary = Path(self.build_temp).resolve()
        temporary.mkdir(parents=True, exist_ok=True)
        os.environ["LAYOUT_RS"] = str(temporary / "layout.rs")  # fdmux.rs includes it
        program = str(temporary / "layout")
        include = f"-I{fdmux.get_include()}"
        self.spawn([os.environ.get("CC", "cc"), include, "src/layout.c", "-o", program])
        self.spawn([program, os.environ["LAYOUT_RS"]])
        library = Path(self.get_ext_fullpath(ext.name)).resolve()
        library.parent.mkdir(parents=True, exist_ok=True)
        options = ["--edition=2021", "--crate-type=cdylib", "-Copt-level=2"]
        options += ["-Cpanic=abort", "-Cstrip=symbols", "-o", str(library)]
        self.spawn(["rustc", *options, *ext.sources])


setup(
    ext_modules=[Extension("sensor_rust.libsensor", ["src/sensor.rs"])],
    cmdclass={"build_ext": RustcBuild},
)
