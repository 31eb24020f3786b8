/* polled.h: descriptors that poll(2) watches: all of a loop's, or those that its kernel
 * set cannot watch.
 *
 * There are two arrays: updates change the master, and a wait uses a copy that nothing
 * else touches. So another thread may register at any time; it wakes the waiter, which
 * takes a new copy. A wait is O(descriptors). */
#ifndef FDMUX_POLLED_H
#define FDMUX_POLLED_H

#include <stdbool.h>
#include <stdint.h>

#include "../core/node.h"
#include "../platform/sys.h"

struct fdmux__poll_set {
    fdmux__pollfd *fds;
    uint64_t *tokens;
    uint32_t count;
    uint32_t capacity;
};

struct fdmux__polled {
    struct fdmux__poll_set master; /* entry 0 belongs to the backend */
    struct fdmux__poll_set copy;
    bool is_copy_stale;
    uint32_t next; /* where the next scan begins, so that no entry is always last */
};

/* Watch `fd` for reading in entry 0. 0 or -ENOMEM; then close. */
int fdmux__polled_open(struct fdmux__polled *polled, fdmux_fd fd, uint64_t token);
void fdmux__polled_close(struct fdmux__polled *polled);
/* As `update` of backend.h. node->backend_index is the node's entry, 0 for none. 0 or
 * -ENOMEM. */
int fdmux__polled_update(struct fdmux_loop *loop, struct fdmux__polled *polled,
                         struct fdmux__node *node, uint32_t mask);
/* Before a wait, with the loop's lock held: take a new copy if needed. 0 or -ENOMEM. */
int fdmux__polled_prepare(struct fdmux__polled *polled);
/* After poll(2) has filled the copy: report at most `capacity` of the entries from
 * `first` on. Returns how many. */
int fdmux__polled_scan(struct fdmux__polled *polled, uint32_t first,
                       struct fdmux__event *events, int capacity);

#endif
