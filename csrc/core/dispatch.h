/* dispatch.h: run iterations of a loop. */
#ifndef FDMUX_DISPATCH_H
#define FDMUX_DISPATCH_H

#include "batch.h"

struct fdmux_loop;

/* fdmux_loop_dispatch into any kind of batch. */
int fdmux__loop_dispatch(struct fdmux_loop *loop, int64_t timeout_ns,
                         struct fdmux__batch *batch);
/* Dispatch what is pending in the extension, and nothing else, without waiting. A
 * function may close the loop, as in any dispatch. Returns 0, also if a dispatch is
 * running, which does the same at its end; or -errno. */
int fdmux__loop_dispatch_extension(struct fdmux_loop *loop);

#endif
