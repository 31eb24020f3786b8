"""Let cffi build the C part, as build_native.py describes it."""

from setuptools import setup

setup(cffi_modules=["build_native.py:ffi"])
