"""aio: results of native threads, to be awaited in asyncio, trio and gevent."""

from fdmux.native.completion import Completion

__all__ = ["Completion"]
