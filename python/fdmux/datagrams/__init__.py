"""Datagrams: endpoints that receive and send them in batches, with callbacks."""
