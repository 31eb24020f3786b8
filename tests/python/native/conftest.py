"""The hosts in which completions are awaited."""

from tests.python.hosts.conftest import gevent, libuv_is_there, run, trio

__all__ = ["gevent", "libuv_is_there", "run", "trio"]
