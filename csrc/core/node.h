/* node.h: descriptors as the kernel knows them, each with its watchers. All functions
 * need the lock. */
#ifndef FDMUX_NODE_H
#define FDMUX_NODE_H

#include "loop_state.h"
#include "retire.h"

#define FDMUX__EVENT_MASK                                                              \
    (FDMUX_READ | FDMUX_WRITE | FDMUX_PRIORITY | FDMUX_PEER_CLOSED | FDMUX_HANGUP |    \
     FDMUX_ERROR)
#define FDMUX__OPTION_MASK (FDMUX_EDGE | FDMUX_ONESHOT | FDMUX_EXCLUSIVE)
/* Options of the kernel's entry: all watchers of one descriptor must agree on them. */
#define FDMUX__KERNEL_OPTIONS (FDMUX_EDGE | FDMUX_EXCLUSIVE)

/* One watcher of one descriptor. */
struct fdmux__io {
    struct fdmux__watcher base;
    fdmux_io_fn fn;
    _Atomic uint32_t events; /* readiness wanted, and options */
    _Atomic uint32_t next;   /* slot of the next watcher of the same node */
    uint32_t tag;
    uint32_t compact; /* compact batches get this less 1; 0: they get nothing */
    uint32_t node;    /* slot, or NONE: its descriptor was closed and reused */
    _Atomic uint32_t born; /* the batch in which it joined its node */
};

/* One descriptor, with the union of what its watchers want. */
struct fdmux__node {
    struct fdmux__slot slot;
    fdmux_fd fd;
    uint32_t mask; /* what the backend was told; 0: not registered there */
    _Atomic uint32_t first;
    uint32_t index;         /* its own slot */
    uint32_t resume; /* slot + 1 of the watcher that the next walk begins with */
    uint32_t changed; /* the batch in which its token last changed */
    uint32_t backend_index; /* for the backend's own use; 0 in a new set */
};

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
/* Can the kernel, which was told the mask `told` for a descriptor, add `mask` to it? */
bool fdmux__node_options_agree(uint32_t told, uint32_t mask);
/* Tell the kernel a node's interest if it has changed. 0, or as `update` of backend.h.
 */
int fdmux__node_tell(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask);
/* Tell the kernel even if nothing has changed. A descriptor number that means another
 * file by now is registered again: the caller says that the number is current. */
int fdmux__node_tell_anyway(struct fdmux_loop *loop, struct fdmux__node *node,
                            uint32_t mask);

/* Put the watcher in slot `index` on the node of `fd`, which is created if needed. 0,
 * or as fdmux_io_add; after a failure it is on no node. */
int fdmux__node_attach(struct fdmux_loop *loop, uint32_t index, fdmux_fd fd,
                       uint32_t events);
/* Put it on a node whose mask already contains what it wants. */
void fdmux__node_append(struct fdmux_loop *loop, struct fdmux__node *node,
                        uint32_t index);
/* Take it off its node. Never fails. */
void fdmux__node_detach(struct fdmux_loop *loop, uint32_t index);

/* Replace the kernel's set by a new one with the same nodes. */
int fdmux__node_rebuild_all(struct fdmux_loop *loop);
/* Tell the kernel every node, for a new and empty set. */
int fdmux__node_tell_all(struct fdmux_loop *loop);

#endif
