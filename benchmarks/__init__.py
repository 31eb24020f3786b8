"""The benchmark suite: fdmux beside its peers, in the same run.

Run ``python -m benchmarks`` from the repository, see README.md for how to read it.
"""
