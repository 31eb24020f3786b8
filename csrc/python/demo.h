/* demo.h: native code that shares a loop with Python, for `python -m fdmux demo`.
 *
 * It has a pipe, a periodic timer and a thread, uses them through fdmux.h as an
 * extension would, and counts what happens. Nothing here uses Python. */
#ifndef FDMUX_PYTHON_DEMO_H
#define FDMUX_PYTHON_DEMO_H

#include "fdmux.h"

/* cffi:begin */

#define FDMUX_PY_DEMO_CALLS 64 /* bytes that the thread writes, calls that it posts */
#define FDMUX_PY_DEMO_TICKS 5  /* expiries of the timer, 1 ms apart */

struct fdmux_py_demo;

struct fdmux_py_demo_counts {
    uint64_t bytes;     /* read from the pipe by a function in C */
    uint64_t ticks;     /* of the timer */
    uint64_t calls;     /* posted by the thread, and run */
    uint64_t in_order;  /* of these, the ones that ran in the order of posting */
    uint64_t dropped;   /* posted, but the loop was closed first */
    uint64_t destroyed; /* watchers that have ended: 2 when all have */
};

/* Register the watchers and start the thread. Returns 0 or -errno. */
int fdmux_py_demo_start(struct fdmux_loop *loop, struct fdmux_py_demo **ret_demo);

/* What has happened so far. Any thread. */
void fdmux_py_demo_count(struct fdmux_py_demo *demo,
                         struct fdmux_py_demo_counts *ret_counts);

/* Join the thread, remove the watchers, free the memory. The loop may be closed, but no
 * thread may be dispatching it.
 *
 * Returns 0; -EBUSY, freeing nothing, while posted calls wait in the loop: run or close
 * it first. */
int fdmux_py_demo_stop(struct fdmux_py_demo *demo);

/* cffi:end */

#endif
