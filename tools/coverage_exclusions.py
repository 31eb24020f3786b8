"""The lines that tests need not reach, with reasons. No other file excludes any."""

from __future__ import annotations

from tools.coverage_reached import Exclusion

RACE = "between two instructions: another thread closes the loop just there"
NO_MEMORY = "Python is out of memory, which no test can cause"
TOUR = "the tour has found the library at fault"
KIT = "the conformance kit has found a host at fault; those of the suite pass"

NATIVE = (
    Exclusion(
        "csrc/core/gate.c",
        "if (!atomic_load_explicit(&loop->is_closed, memory_order_relaxed))",
        RACE,
        within="int fdmux__loop_lock(",
        through="return -ESTALE;",
    ),
    Exclusion(
        "csrc/core/loop.c",
        "int r = -pthread_mutex_init(&loop->lock, NULL);",
        "glibc makes a plain mutex without asking for anything",
        within="static int open_loop(",
        through="r = fdmux__wake_open(loop);",
        is_of_branches=True,
    ),
    Exclusion(
        "csrc/core/queue.c",
        "return r < 0 ? r : fdmux__bell_open(",
        "as above: the mutex is made",
        is_of_branches=True,
    ),
    Exclusion(
        "csrc/core/io_dispatch.c",
        "if (target->first == FDMUX__SLOT_NONE)",
        "between two instructions: another thread removes the watcher just there",
        through="return;",
    ),
    Exclusion(
        "csrc/core/node.c",
        "if (loop->backend->reopen == NULL)",
        "only epoll(7) reports descriptors that are gone, and it can reopen",
        through="return 0;",
    ),
    Exclusion(
        "csrc/core/post.c",
        "if (capacity <= queue->capacity)",
        "2^31 posts in one queue, 32 GiB",
        through="return -ENOMEM;",
    ),
    Exclusion(
        "csrc/core/post.c",
        "if (loop->is_post_closed)",
        RACE,
        through="return -ESTALE;",
    ),
    Exclusion(
        "csrc/core/queue.c",
        "if (capacity <= ring->capacity)",
        "2^31 items in one queue, 16 GiB",
        through="return -ENOMEM;",
    ),
    Exclusion(
        "csrc/core/queue.c",
        "if (!atomic_load(&queue->is_closed))",
        RACE,
        within="static int lock_queue(",
        through="return -ESTALE;",
    ),
    Exclusion(
        "csrc/core/queue.c",
        "if (pthread_mutex_trylock(&queue->lock) == 0) {",
        "fork(2) in the few instructions for which another thread has the lock",
        is_of_branches=True,
    ),
    Exclusion(
        "csrc/core/slots.c",
        "if (chunk >= FDMUX__CHUNK_COUNT - 1)",
        "2^28 watchers of one kind in one loop, 12 GiB",
        through="return -ENOMEM;",
    ),
    Exclusion(
        "csrc/core/wake.c",
        "while (atomic_load(&loop->waker_count) != 0)",
        "between two instructions: another thread wakes the loop as it closes",
        through="sched_yield();",
    ),
    Exclusion(
        "csrc/core/wake.c",
        "if (!atomic_load(&loop->is_wake_closed))",
        "between two instructions: another thread wakes the loop as it closes",
        is_of_branches=True,
    ),
    Exclusion(
        "csrc/stream/send.c",
        "if ((stream->state & FDMUX__STREAM_NO_BUFFERS) != 0)",
        "a stream without buffers does not send; kept, as a count depends on it",
        within="static void wait_for_buffers(",
        through="return;",
    ),
    Exclusion(
        "csrc/stream/send.c",
        "if (found < 0 && found != -ENOENT)",
        RACE,
        through="return found;",
    ),
    Exclusion(
        "csrc/stream/end.c",
        "if ((stream->state & FDMUX__STREAM_FAILED) != 0)",
        "a stream that failed asks for nothing, which no kernel refuses",
        within="void fdmux__stream_mark_failed(",
        through="return;",
    ),
    Exclusion(
        "csrc/python/glue.c",
        "if (PyCapsule_SetContext(capsule, owner) < 0)",
        "fails only for an object that is no capsule",
        through="return -ENOMEM;",
    ),
    Exclusion(
        "csrc/python/glue.c",
        "if (r == 0 && PyList_Append(list, capsule) < 0)",
        NO_MEMORY,
        through="r = -ENOMEM;",
    ),
)

PYTHON = (
    Exclusion(
        "python/fdmux/_native.py",
        'if "subinterpreters" not in str(problem)',
        "an interpreter with a GIL of its own: Python 3.12 and later, and tested there",
        through="raise ImportError(",
    ),
    Exclusion("python/fdmux/commands/tour/c_source.py", "return Counts(0, 0", TOUR),
    Exclusion(
        "python/fdmux/commands/tour/connects.py",
        'raise UnexpectedError("connected to a port',
        TOUR,
    ),
    Exclusion(
        "python/fdmux/commands/tour/connects.py",
        'raise UnexpectedError("connected to a listener',
        TOUR,
    ),
    Exclusion(
        "python/fdmux/commands/tour/connects.py",
        'raise UnexpectedError("read 5 bytes where 3',
        TOUR,
    ),
    Exclusion(
        "python/fdmux/commands/tour/connects.py",
        'raise UnexpectedError("read 5 bytes where 4',
        TOUR,
    ),
    Exclusion("python/fdmux/commands/tour/native.py", "raise UnexpectedError(", TOUR),
    Exclusion("python/fdmux/commands/tour/streams.py", "raise UnexpectedError(", TOUR),
    Exclusion(
        "python/fdmux/hosts/asyncio/transport.py",
        'extra["sockname"] = sock.getsockname()',
        "getsockname(2) fails only if there is no memory",
        through='extra["sockname"] = None',
    ),
    Exclusion(
        "python/fdmux/hosts/qt.py",
        "except RuntimeError:",
        "if Qt deletes the notifier first, which depends on how the process ends",
        through="pass",
    ),
    Exclusion(
        "python/fdmux/hosts/trio.py",
        "if watched.is_mounted:",
        "only other code can have closed the descriptor of the native loop",
        through="raise",
    ),
    Exclusion(
        "python/fdmux/selector.py",
        "if self._map is None:  # closed meanwhile by another thread",
        RACE,
        through="self._batch = CLOSED",
    ),
)

KIT_LINES = (
    ("__main__.py", "if result.error:", "{result.remark}"),
    ("__main__.py", 'if __name__ == "__main__":', "sys.exit(main())"),
    ("cases_io.py", "if again.fileno() != number:", "stack.callback("),
    ("cases_life.py", "if not contains(error, PlannedError):", "raise"),
    ("cases_life.py", "if not contains(error, OSError):", "raise"),
    ("cases_life.py", "except BaseException as error:  # noqa: BLE001 - rai", "abort"),
    ("cases_life.py", "if errors:", "raise errors[0]"),
    ("cases_life.py", 'if not hasattr(os, "fork"):', 'return "this system'),
    ("cases_life.py", 'raise AssertionError("the child dispatched', ""),
    ("cases_life.py", "if threading.current_thread() is not", "return "),
    ("cases_life.py", "if not contains(error, KeyboardInterrupt):", "raise"),
    ("native.py", "if result < 0:", "raise OSError(-result, attempted)"),
    ("native.py", "except BaseException as error:", "return 0"),
    ("report.py", "except subprocess.TimeoutExpired:", "return output, f"),
    ("report.py", "except BaseException:  # noqa", "result = Result("),
    ("session.py", "if self._error is not None:", "raise error"),
)

EXCLUSIONS: tuple[Exclusion, ...] = (
    *NATIVE,
    *PYTHON,
    *(
        Exclusion(f"python/fdmux/testing/{name}", text, KIT, through=through)
        for name, text, through in KIT_LINES
    ),
    Exclusion(
        "python/fdmux/testing/cases_life.py",
        "try:",
        "in a forked child, after coverage.py has stopped there",
        within="pid = os.fork()",
        through="os._exit(0)",
    ),
    Exclusion(
        "python/fdmux/testing/known/qt.py",
        "def run(self, main: Callback) -> None:",
        "PyQt6 is not installed for the suite, because of its licence",
        within='name = "Qt (PyQt6)"',
        through="sys.excepthook = before",
    ),
)
