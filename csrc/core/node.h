/* node.h: one descriptor and its watchers, for io.c. With the lock held, all of it. */
#ifndef FDMUX_NODE_H
#define FDMUX_NODE_H

#include "internal.h"

static inline struct fdmux__io *fdmux__io_at(struct fdmux_loop *loop, uint32_t index)
{
    return fdmux__slots_at(&loop->ios, index);
}

static inline struct fdmux__node *fdmux__node_at(struct fdmux_loop *loop,
                                                 uint32_t index)
{
    return fdmux__slots_at(&loop->nodes, index);
}

/* What the kernel must know of a watcher's events: nothing, if it wants none. */
uint32_t fdmux__node_kernel_mask(uint32_t events);
/* The union of a node's watchers. O(watchers of the node). */
uint32_t fdmux__node_wanted(struct fdmux_loop *loop, const struct fdmux__node *node);
/* May `mask` join what the kernel already holds for a descriptor? */
bool fdmux__node_options_agree(uint32_t held, uint32_t mask);
/* Tell the kernel a node's interest if it is new, or anyway. 0 or as backend.h. */
int fdmux__node_tell(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask);
int fdmux__node_tell_anyway(struct fdmux_loop *loop, struct fdmux__node *node,
                            uint32_t mask);
/* Is this number an open descriptor? 0 or -EBADF. */
int fdmux__node_check_fd(int fd);

/* Put the watcher in slot `index` on the node of `fd`, made if need be. 0 or as
 * fdmux_io_add; on failure it is on none. */
int fdmux__node_attach(struct fdmux_loop *loop, uint32_t index, int fd,
                       uint32_t events);
/* Put it on a node that wants what it wants already. */
void fdmux__node_append(struct fdmux_loop *loop, struct fdmux__node *node,
                        uint32_t index);
/* Take it off its node; never fails. */
void fdmux__node_detach(struct fdmux_loop *loop, uint32_t index);

#endif
