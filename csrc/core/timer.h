/* timer.h: timers on the heap. All functions need the lock. */
#ifndef FDMUX_TIMER_H
#define FDMUX_TIMER_H

#include "retire.h"

struct fdmux__batch;

struct fdmux__timer {
    struct fdmux__watcher base;
    fdmux_timer_fn fn;
    int64_t period_ns;
    uint32_t tag;
    uint32_t heap_index; /* FDMUX__HEAP_NONE when not armed */
};

/* Call or collect the timers that are due. Releases the lock while a function runs. */
int fdmux__timer_dispatch(struct fdmux_loop *loop, struct fdmux__batch *batch);
void fdmux__timer_kill_all(struct fdmux_loop *loop);

#endif
