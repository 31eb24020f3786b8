"""The steps of ``fdmux demo``, in the order in which they are shown.

A step is a function that uses one helper on loopback, checks with `expect` what came
of it, and returns what was seen, for people to read. Nothing outlives its step.
"""

from fdmux.commands.tour import connects, loops, native, servers, waits

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
    ("EchoServer: slow client", servers.slow_client),
    ("ClientPool", servers.pool),
    ("C beside Python", native.beside_sockets),
    ("C on a stdlib selector", native.on_stdlib_selector),
    ("NativeLoop: one fd", native.behind_one_fd),
    ("current", native.found_by_current),
    ("asyncio on Selector", native.under_asyncio),
)
