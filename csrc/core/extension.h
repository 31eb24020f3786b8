/* extension.h: what the core calls of a part built on top of it (streams).
 *
 * The core knows nothing else about that part. `prepare` and `is_pending` run with the
 * loop's lock, the others without it. */
#ifndef FDMUX_EXTENSION_H
#define FDMUX_EXTENSION_H

#include <stdbool.h>

#define FDMUX__PREFETCH_MAX 8

struct fdmux_loop;
struct fdmux__batch;
struct fdmux__io;

struct fdmux__extension {
    void (*prepare)(struct fdmux_loop *loop); /* before each wait */
    /* Load into the cache what these watchers, some of them NULL, will need soon. */
    void (*prefetch)(struct fdmux_loop *loop, struct fdmux__io *const *ios, int count);
    int (*dispatch)(struct fdmux_loop *loop, struct fdmux__batch *batch); /* after io */
    bool (*is_pending)(
        const struct fdmux_loop *loop); /* true: the loop must not sleep */
    void (*close)(struct fdmux_loop *loop);
};

#endif
