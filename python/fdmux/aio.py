"""aio: await what native threads have done, in asyncio, trio and gevent."""

from fdmux.native.completion import Completion

__all__ = ["Completion"]
