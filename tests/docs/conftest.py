"""What the examples and defaults of the documents run on."""

from tests.python.conftest import clock, loop, selector_factory

__all__ = ["clock", "loop", "selector_factory"]
