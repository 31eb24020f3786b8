"""The processes that the suite starts and measures; nothing here imports a row.

``native`` holds those in C, ``servers`` the Python servers of the rows echo, latency,
resp and native_echo, ``hosted`` what runs in the loops of Python programs.
"""
