"""The event loop in Python: descriptors, timers, calls of other threads; and guests."""
