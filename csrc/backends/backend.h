/* backend.h: what a kernel interface must do for a loop. One file, one const table.
 *
 * The contract, for epoll and poll, and for kqueue and Windows to come:
 *
 * - A node is one descriptor with a union of interest. The backend learns of changes
 *   only through `update`, and reports events with the token it was given then.
 * - `update` is applied when it returns, also while another thread is in `wait`; if the
 *   kernel cannot do that, the backend wakes the waiter with fdmux__wake_signal.
 * - `update`, `prepare` and `arm` run with the loop's lock held; `wait` runs without
 *   it, so what `wait` reads must not be moved or freed by `update`.
 * - Level-triggered, unless a node has FDMUX_EDGE. A hang-up or error is reported as
 *   HANGUP or ERROR, with READ and WRITE added: both directions wake.
 * - A descriptor that was closed without removal causes no event, no spin, no error.
 * - `wait` never returns before its timeout without a reason: an event, or EINTR.
 * - Every descriptor a backend opens is close-on-exec. All functions return -errno. */
#ifndef FDMUX_BACKEND_H
#define FDMUX_BACKEND_H

#include <stdint.h>

struct fdmux_loop;
struct fdmux__node;

struct fdmux__backend {
    const char *name;
    /* Create the kernel object and watch loop->wake_read_fd, as FDMUX__WAKE_TOKEN. */
    int (*open)(struct fdmux_loop *loop);
    /* Accepts a half-open backend. Never touches what the nodes watch. */
    void (*close)(struct fdmux_loop *loop);
    /* Watch `node->fd` for `mask` (0: no longer); `node->mask` is what was told before.
     * -ENOENT: another file has taken the number since; nothing is registered now.
     * Telling 0 never fails. */
    int (*update)(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask);
    /* Get ready to wait for up to `capacity` events: the only place that allocates. */
    int (*prepare)(struct fdmux_loop *loop, int capacity);
    /* Fill loop->events with up to `capacity` events; returns their count. EINTR is 0
     * events. Negative timeouts wait for ever. */
    int (*wait)(struct fdmux_loop *loop, int64_t timeout_ns, int capacity);
    /* Start over with an empty kernel object, since the old one reports a descriptor
     * that can no longer be removed; the caller tells it every node again. May be
     * NULL. */
    int (*reopen)(struct fdmux_loop *loop);
    /* One descriptor that is readable when the loop has something to do. */
    int (*host_fd)(struct fdmux_loop *loop);
    /* Make that descriptor readable at `deadline_ns`; INT64_MAX for never. */
    int (*arm)(struct fdmux_loop *loop, int64_t deadline_ns);
    /* End a wait at `deadline_ns`, once, and say so in loop->is_park_over. Replaces the
     * last deadline. With the lock held, by who waits then. May be NULL. */
    int (*park)(struct fdmux_loop *loop, int64_t deadline_ns);
    /* FDMUX_FEATURE_ bits. */
    uint32_t (*features)(const struct fdmux_loop *loop);
};

/* Find a backend by name; NULL finds the best that opens. 0 or -ENOENT. */
int fdmux__backend_open(struct fdmux_loop *loop, const char *name);

extern const struct fdmux__backend fdmux__backend_poll;
#if defined(__linux__)
extern const struct fdmux__backend fdmux__backend_epoll;
#endif

#endif
