"""The loop in Python: descriptors, timers, calls of other threads; and its guests."""
