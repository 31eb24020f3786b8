"""Fixtures for native code that is at work during a fork."""

from tests.python.conftest import native_library, native_user

__all__ = ["native_library", "native_user"]
