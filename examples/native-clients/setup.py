"""Build native_clients: of fdmux it needs the headers, of the libraries pkg-config."""

import subprocess

from setuptools import Extension, setup

import fdmux

LIBRARIES = ("hiredis", "libcurl", "libcares", "libpq")


def flags_of(option: str) -> list[str]:
    """Return what pkg-config says; it names what is not installed."""
    command = ["pkg-config", option, *LIBRARIES]
    return subprocess.run(  # noqa: S603 - pkg-config
        command, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()


NAMES = ("module", "redis", "http", "dns", "postgresql")

setup(
    ext_modules=[
        Extension(
            "native_clients",
            [f"src/{name}.c" for name in NAMES],
            depends=["src/clients.h"],
            include_dirs=[fdmux.get_include()],
            extra_compile_args=["-fvisibility=hidden", *flags_of("--cflags")],
            extra_link_args=flags_of("--libs"),
            # One build for every CPython from 3.11 on.
            define_macros=[("Py_LIMITED_API", "0x030B0000"), ("CLIENTS_IN_PYTHON", "")],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    py_modules=[],
)
