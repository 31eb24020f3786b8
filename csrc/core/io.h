/* io.h: watchers of descriptors, for bindings and for streams. */
#ifndef FDMUX_IO_H
#define FDMUX_IO_H

#include "node.h"

/* fdmux_io_add without its checks, for a binding that dispatches compact batches. */
int fdmux__io_add(struct fdmux_loop *loop, const struct fdmux_io_options *options,
                  uint32_t compact, uint64_t *ret_io);
/* Change one watcher's interest and tell the kernel, with the lock held. */
int fdmux__io_set_events(struct fdmux_loop *loop, struct fdmux__io *io,
                         uint32_t events);
/* With the lock held. */
void fdmux__io_kill_all(struct fdmux_loop *loop);

#endif
