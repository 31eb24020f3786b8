/* What a callback of the latency row computes for ECHO_BUSY_NS nanoseconds; nothing
 * where that is not defined, as in the echo row. See servers/busy.py. */
#ifndef FDMUX_BENCHMARKS_BUSY_H
#define FDMUX_BENCHMARKS_BUSY_H

#include "rounds.h"

#ifndef ECHO_BUSY_NS
#define ECHO_BUSY_NS 0
#endif

static inline void stay_busy(void)
{
    int64_t until_ns = ECHO_BUSY_NS > 0 ? now_ns() + ECHO_BUSY_NS : 0;

    while (ECHO_BUSY_NS > 0 && now_ns() < until_ns)
        ;
}

#endif
