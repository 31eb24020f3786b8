"""Results of native threads for Python: queues of items, and completions to await."""
