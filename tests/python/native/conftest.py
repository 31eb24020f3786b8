"""The hosts in which completions are awaited."""

from tests.python.hosts.conftest import anyio, gevent, libuv_is_there, run, trio

__all__ = ["anyio", "gevent", "libuv_is_there", "run", "trio"]
