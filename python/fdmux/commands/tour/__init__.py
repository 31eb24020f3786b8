"""The steps of ``fdmux demo``, in the order in which they are shown.

A step is a function that uses one helper on loopback, checks the result with `expect`,
and returns a line that says what it saw. Nothing outlives its step.
"""

from fdmux.commands.tour import (
    connects,
    hosting,
    loops,
    native,
    queues,
    servers,
    streams,
    waits,
)

STEPS = (
    ("Selector", waits.selector),
    ("wait_readable", waits.readable),
    ("wait_writable", waits.writable),
    ("connect_with_timeout", connects.connected),
    ("connect: refused", connects.refused),
    ("connect: timeout", connects.timed_out),
    ("read_with_timeout", connects.read_whole),
    ("read: timeout, partial", connects.read_partial),
    ("read: end, partial", connects.read_ended),
    ("SelectorEventLoop", loops.callbacks),
    ("timers", loops.timers),
    ("call_soon_threadsafe, stop", loops.other_threads),
    ("streams: server and client", streams.both_ends),
    ("streams: other threads", streams.from_another_thread),
    ("FrameHandler", streams.framing),
    ("EchoServer: slow client", servers.slow_client),
    ("ClientPool", servers.pool),
    ("C beside Python", native.beside_sockets),
    ("C on a stdlib selector", native.on_stdlib_selector),
    ("NativeLoop: one fd", native.behind_one_fd),
    ("NativeQueue", queues.native_queue),
    ("current", native.found_by_current),
    ("asyncio on Selector", native.under_asyncio),
    ("asyncio on our transports", hosting.asyncio_on_the_core),
    ("mount on stock asyncio", hosting.mounted_on_asyncio),
    ("Guest: poll(2) is the host", hosting.guest),
)
