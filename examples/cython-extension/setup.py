"""Build src/sensor_cython.pyx; the only part of fdmux it needs is the headers."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import fdmux

setup(
    ext_modules=cythonize(
        Extension(
            "sensor_cython",
            ["src/sensor_cython.pyx"],
            include_dirs=[fdmux.get_include()],
            libraries=["pthread"],
        ),
        build_dir="build",  # for the C file that Cython makes
        language_level=3,
    )
)
