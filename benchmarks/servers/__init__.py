"""The Python echo servers of the echo row, each a program of its own.

They are equal in what they do: loopback, a backlog of 1,024, TCP_NODELAY, 64 KiB
asked of each receive, the echo written at once, and only what the kernel does not
take is queued.
"""
