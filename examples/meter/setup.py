"""Build meter.c with setuptools; the only part of fdmux it needs is the headers."""

from setuptools import Extension, setup

import fdmux

setup(
    ext_modules=[
        Extension(
            "meter",
            ["meter.c"],
            include_dirs=[fdmux.get_include()],
            # One build for every CPython from 3.11 on.
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    py_modules=[],
)
