"""ClientPool: many connections to one server, used from one thread."""
