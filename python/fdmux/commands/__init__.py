"""The commands of ``python -m fdmux``: one a file.

Each has ``add_parser``, which describes its arguments, and ``run``, which gets them and
returns the exit code or raises `Failure`.
"""
