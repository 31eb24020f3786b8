"""The parser and commands of ``examples/resp``, the same for every Python contender."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Protocol, cast

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "resp"


class Session(Protocol):
    waiting: list[list[bytes]]
    problem: ValueError | None

    def receive(self, data: bytes) -> bytes: ...
    def go_on(self) -> bytes: ...


class _MakeSession(Protocol):
    def __call__(self, store: object) -> Session: ...


class MakeSessions:
    """One store, and a session for each connection."""

    def __init__(self) -> None:
        sys.path.insert(0, str(EXAMPLE))
        store = importlib.import_module("store")
        session = importlib.import_module("session")
        self._store = store.Store()
        self._make = cast("_MakeSession", session.Session)

    def __call__(self) -> Session:
        return self._make(self._store)
