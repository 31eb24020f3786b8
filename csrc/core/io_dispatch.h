/* io_dispatch.h: from the backend's events to functions and collected records. */
#ifndef FDMUX_IO_DISPATCH_H
#define FDMUX_IO_DISPATCH_H

struct fdmux_loop;
struct fdmux__batch;

/* Dispatch loop->events, without the lock. 0, or the error of a function. */
int fdmux__io_dispatch(struct fdmux_loop *loop, struct fdmux__batch *batch);

#endif
