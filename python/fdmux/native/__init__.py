"""What native code hands to Python: queues of items, and completions to await."""
