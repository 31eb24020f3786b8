"""Hand the build of the C part to cffi, which finds it in build_native.py."""

from setuptools import setup

setup(cffi_modules=["build_native.py:ffi"])
