/* dispatch.h: run iterations of a loop. */
#ifndef FDMUX_DISPATCH_H
#define FDMUX_DISPATCH_H

#include "batch.h"

struct fdmux_loop;

/* fdmux_loop_dispatch into any kind of batch. */
int fdmux__loop_dispatch(struct fdmux_loop *loop, int64_t timeout_ns,
                         struct fdmux__batch *batch);

#endif
