/* backend.h: what a kernel interface must do for a loop.
 *
 * A backend is one file with one const table. The contract:
 *
 * - A node is one descriptor with the union of what its watchers want. The backend
 *   learns of changes only through `update`, and reports events with the token that the
 *   node had then.
 * - A change is in effect when `update` returns, also while another thread is in
 * `wait`. If the kernel cannot do that, the backend wakes the waiter
 * (fdmux__wake_ring).
 * - `update`, `prepare`, `arm`, `rest` and `park` run with the loop's lock held; `wait`
 * runs without it, so `update` must not move or free what `wait` reads.
 * - Readiness is level-triggered, unless the node has FDMUX_EDGE. A hang-up or error is
 *   reported as HANGUP or ERROR with READ and WRITE added, so it wakes both directions.
 * - A descriptor that was closed without removal causes no event, no busy loop and no
 *   error.
 * - `wait` returns before its timeout only for an event or EINTR.
 * - A node is reported in one event, whatever the kernel has to say of it.
 * - Every descriptor that a backend opens is close-on-exec.
 * - Functions that return int return -errno for errors. */
#ifndef FDMUX_BACKEND_H
#define FDMUX_BACKEND_H

#include <stdint.h>

struct fdmux_loop;
struct fdmux__node;

/* `token` is a node's, or FDMUX__WAKE_TOKEN. */
struct fdmux__event {
    uint64_t token;
    uint32_t events;
};

#define FDMUX__WAKE_TOKEN UINT64_C(1)
/* In `events`: the node's descriptor was closed; call `update` with 0. */
#define FDMUX__GONE UINT32_C(0x80000000)
/* In `events`, set by the core: some of the node's watchers have had this event. */
#define FDMUX__KEPT UINT32_C(0x40000000)

struct fdmux__backend {
    const char *name;
    /* A node that is ready may be reported by so many entries of the kernel; 0 means 1.
     * loop->events has room for as many per event. */
    int entries_per_node;
    /* Create the kernel object. Without `ring`, watch loop->bell.read_fd as
     * FDMUX__WAKE_TOKEN. */
    int (*open)(struct fdmux_loop *loop);
    /* Accepts a half-open backend. Leaves the nodes' descriptors alone. */
    void (*close)(struct fdmux_loop *loop);
    /* Watch `node->fd` for `mask` (0: stop watching). `node->mask` is the mask of the
     * last successful update. -ENOENT: the number means another file by now, and
     * nothing is registered; -EBADF: the same of a closed number. Never fails for 0. */
    int (*update)(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask);
    /* Allocate what a wait for `capacity` events needs; `wait` itself never allocates.
     */
    int (*prepare)(struct fdmux_loop *loop, int capacity);
    /* Fill loop->events with up to `capacity` events, and return their count; 0 for
     * EINTR. If nodes were added meanwhile, there may be more events, as many as there
     * is room. A negative timeout waits for ever. */
    int (*wait)(struct fdmux_loop *loop, int64_t timeout_ns, int capacity);
    /* Replace the kernel object by an empty one, because the old one reports a
     * descriptor that can no longer be removed. The caller then registers every node
     * again. May be NULL. */
    int (*reopen)(struct fdmux_loop *loop);
    /* A descriptor that is readable when the loop has something to do, or an event of
     * Windows that is set then. May be NULL; `arm` belongs to either. */
    int (*host_fd)(struct fdmux_loop *loop);
    int (*host_handle)(struct fdmux_loop *loop, void **ret_handle);
    /* Make that readable, or set, at `deadline_ns`; INT64_MAX for never. */
    int (*arm)(struct fdmux_loop *loop, int64_t deadline_ns);
    /* The host waits from now on: the kernel must watch everything. Called at the end
     * of each dispatch then. May be NULL. */
    int (*rest)(struct fdmux_loop *loop);
    /* End the wait that is under way at `deadline_ns`, or the first one after it, and
     * set loop->is_park_over. Replaces the last such deadline. May be NULL. */
    int (*park)(struct fdmux_loop *loop, int64_t deadline_ns);
    /* Report FDMUX__WAKE_TOKEN once, in the wait that is under way or in the next one.
     * Any thread, or a signal handler, so it preserves errno. May be NULL: then the
     * loop has a bell. */
    int (*ring)(struct fdmux_loop *loop);
    /* FDMUX_FEATURE_ bits. */
    uint32_t (*features)(const struct fdmux_loop *loop);
};

/* The tables: fdmux__backend_epoll and so on. */
#define FDMUX__BACKEND(name) extern const struct fdmux__backend fdmux__backend_##name;
#include "list.def"
#undef FDMUX__BACKEND

#endif
