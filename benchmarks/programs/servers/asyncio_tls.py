"""Echo over TLS as an asyncio `Protocol`: ``asyncio_tls LOOP CERTIFICATE KEY``.

The loops are those of asyncio_protocol.py.
"""

from __future__ import annotations

import asyncio
import ssl
import sys

from benchmarks.programs.servers.announce import BACKLOG, announce, listen
from benchmarks.programs.servers.asyncio_protocol import LOOPS, Echo


def make_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def serve(context: ssl.SSLContext) -> None:
    listener = listen()
    server = await asyncio.get_running_loop().create_server(
        Echo, sock=listener, backlog=BACKLOG, ssl=context
    )
    announce(listener.getsockname()[1])
    await server.serve_forever()


def main() -> None:
    name, certificate, key = sys.argv[1:]
    loop = LOOPS[name]()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve(make_context(certificate, key)))


if __name__ == "__main__":
    main()
