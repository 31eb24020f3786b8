"""The Python servers of the rows echo, latency, resp and native_echo: programs each.

They are equal in what they do: loopback, a backlog of 1,024, TCP_NODELAY, 256 KiB
asked of each receive, the answer written at once, and only what the kernel does not
take is queued.
"""
