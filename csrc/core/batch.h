/* batch.h: what one call of fdmux_loop_dispatch carries through its iterations. */
#ifndef FDMUX_BATCH_H
#define FDMUX_BATCH_H

#include <stdbool.h>
#include <stdint.h>

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

#endif
