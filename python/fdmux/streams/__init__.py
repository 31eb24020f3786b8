"""Streams: buffered connections with callbacks; servers, clients and framing."""
