"""The commands of ``fdmux``, one in each file.

Each has ``add_parser``, which describes its arguments, and ``run``, which gets them and
returns the exit code or raises `Failure`.
"""
