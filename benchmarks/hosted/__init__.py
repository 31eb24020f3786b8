"""The programs of the hosts row: native code in the loops that Python programs run.

Each speaks as those of native/ do (native/rounds.h): ``ready``, then the figures of a
round for each line. While one waits for its line its loop stands still, so nothing of
it is measured.
"""
