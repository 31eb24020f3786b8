"""Tour: results of threads, put into a queue in C and taken by the loop."""

from __future__ import annotations

import threading

from fdmux import NativeQueue, SelectorEventLoop
from fdmux._ffi import ffi, lib
from fdmux._native import check
from fdmux.commands.tour.expect import expect, run_until

COUNT = 100
BATCH = 256


def native_queue() -> str:
    """A thread puts results without the GIL; the loop takes them in batches."""
    # An extension has threads of its own, and allocates its items. Here Python's
    # thread calls the same function of C, which runs without the GIL.
    items = [ffi.new("int64_t *") for _ in range(COUNT)]
    numbers = {int(ffi.cast("uintptr_t", item)): n for n, item in enumerate(items)}
    taken: list[int] = []
    call_count = 0
    with NativeQueue() as queue, SelectorEventLoop() as loop:
        c_queue = queue._c_queue  # noqa: SLF001 - our own handle

        def put() -> None:
            for item in items:
                check(lib.fdmux_queue_put(c_queue, item), "put into the queue")

        def drain(_queue: NativeQueue) -> None:
            nonlocal call_count
            call_count += 1
            batch = ffi.new("void *[]", BATCH)
            count = check(lib.fdmux_queue_take(c_queue, batch, BATCH), "take")
            addresses = [int(ffi.cast("uintptr_t", batch[i])) for i in range(count)]
            taken.extend(numbers[address] for address in addresses)

        loop.register_read(queue, drain)
        thread = threading.Thread(target=put)
        thread.start()
        run_until(loop, lambda: len(taken) >= COUNT)
        thread.join()
    expect(taken == list(range(COUNT)), f"taken {taken}")
    return f"{COUNT} results in order, taken by {call_count} calls"
