/* batch.h: what one call of fdmux_loop_dispatch carries through its iterations. */
#ifndef FDMUX_BATCH_H
#define FDMUX_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "../platform/sys.h"

/* A loop that is busy with functions returns at least this often, so that its caller
 * can run signal handlers: half of the 100 ms within which a Ctrl-C must be handled. */
#define FDMUX__SLICE_NS (50 * FDMUX__NS_PER_MS)
/* A step that calls many functions looks at the clock after each so many of them. */
#define FDMUX__CALLS_UNTIMED 64

struct fdmux_ready;

/* Collected readiness goes to `ready`, or, for bindings, to `compact`. */
struct fdmux__batch {
    struct fdmux_ready *ready;
    uint32_t *compact; /* 4 * (compact - 1) + READ and WRITE (node.h) */
    int capacity;      /* of the array above */
    int collected;
    uint32_t called;     /* functions called in this iteration */
    bool is_full;        /* something was ready but did not fit */
    int64_t deadline_ns; /* 0: poll once */
    int64_t slice_ns;    /* when busy functions must let the caller handle signals */
};

/* Is the slice over? The first call with functions called begins it. */
static inline bool fdmux__slice_is_over(struct fdmux__batch *batch, int64_t now_ns)
{
    if (batch->slice_ns == 0)
        batch->slice_ns = now_ns + FDMUX__SLICE_NS;
    return now_ns >= batch->slice_ns;
}

/* Must the step that has just called a function leave the rest to the next iteration?
 */
static inline bool fdmux__step_must_end(struct fdmux__batch *batch)
{
    return batch->called % FDMUX__CALLS_UNTIMED == 0 &&
           fdmux__slice_is_over(batch, fdmux__sys_now());
}

#endif
