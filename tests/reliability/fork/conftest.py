"""Native code, which a fork finds at work."""

from tests.python.conftest import native_library, native_user

__all__ = ["native_library", "native_user"]
