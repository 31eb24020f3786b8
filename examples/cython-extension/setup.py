"""Build src/sensor_cython.pyx; all it needs of fdmux is where the headers lie."""

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
