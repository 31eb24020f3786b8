"""Waiting, connecting and reading with a deadline, without any loop."""
