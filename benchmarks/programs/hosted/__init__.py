"""The programs of the rows hosts and hold: native code beside Python.

Each speaks as those of native/ do (native/rounds.h): ``ready``, then the figures of a
round for each line. While one waits for its line its loop stands still, so nothing of
it is measured.
"""
