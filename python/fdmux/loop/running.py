"""Which loop runs in this thread; and one caller at a time runs or closes a loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from fdmux._native import LoopClosed
from fdmux.loop.iteration import TURN

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from fdmux._native import NativeLoop
    from fdmux.loop.iteration import Iteration

    class HasNative(Protocol):
        """A `SelectorEventLoop`."""

        @property
        def native(self) -> NativeLoop:
            """The core loop."""


Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Running(threading.local):
    """The `SelectorEventLoop` whose callback runs in this thread, or None."""

    loop: HasNative | None = None


running = Running()


def run_in_turn(
    loop: HasNative,
    iteration: Iteration,
    work: Callable[[*Arguments], Result],
    *args: *Arguments,
    is_one_batch: bool,
) -> Result:
    """Call ``work(*args)`` as the only one who runs ``loop``; then forget a `stop`.

    Ctrl-C may come at each call of a function, as it begins or has returned. So one
    call inside the `try` takes the turn, and no call is needed to give it back.

    Raises:
        LoopClosed: The loop cannot be used any more.
        RuntimeError: Somebody else runs or closes it.
    """
    if iteration.unusable is not None:  # `check_usable`, without a call
        raise LoopClosed(iteration.unusable)
    turn, me, outer = iteration.turn, object(), running.loop
    try:
        if turn.setdefault(TURN, me) is not me:
            raise RuntimeError("run the loop: it is running already")
        running.loop = loop
        iteration.is_one_batch = is_one_batch
        delivery = iteration.core.delivery
        if delivery is not None:
            delivery.is_one_batch = is_one_batch
            delivery.enter()
        return work(*args)
    finally:
        if TURN in turn and turn[TURN] is me:
            iteration.is_stopping = False
            running.loop = outer  # the loop whose callback has run this one
            if iteration.core.delivery is not None:
                iteration.core.delivery.leave()
            del turn[TURN]


def close_in_turn(iteration: Iteration) -> None:
    """Close a loop while nobody runs it.

    Raises:
        RuntimeError: Somebody runs it.
    """
    turn, me = iteration.turn, object()
    try:
        if turn.setdefault(TURN, me) is not me:
            raise RuntimeError("close the loop: it is running; call stop() first")
        iteration.close()
    finally:
        if TURN in turn and turn[TURN] is me:  # as in `run_in_turn`
            del turn[TURN]
