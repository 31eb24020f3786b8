/* extension.h: what the core calls of the parts built on top of it: streams, datagrams.
 *
 * The core knows nothing else about them. `prepare` and `is_pending` run with the
 * loop's lock, the others without it. */
#ifndef FDMUX_EXTENSION_H
#define FDMUX_EXTENSION_H

#include <stdbool.h>

#define FDMUX__PREFETCH_MAX 8

struct fdmux_loop;
struct fdmux__batch;
struct fdmux__io;

/* Each has one place in a loop, so that it finds its data without a search. */
enum { FDMUX__STREAMS, FDMUX__DATAGRAMS, FDMUX__EXTENSION_COUNT };

struct fdmux__extension_hooks {
    void (*prepare)(struct fdmux_loop *loop); /* before each wait */
    /* Load into the cache what these watchers, some of them NULL, will need soon. For
     * streams only. */
    void (*prefetch)(struct fdmux_loop *loop, struct fdmux__io *const *ios, int count);
    int (*dispatch)(struct fdmux_loop *loop, struct fdmux__batch *batch); /* after io */
    bool (*is_pending)(
        const struct fdmux_loop *loop); /* true: the loop must not sleep */
    void (*close)(struct fdmux_loop *loop);
};

struct fdmux__extension {
    const struct fdmux__extension_hooks *hooks; /* NULL until it is first used */
    void *data;
};

#endif
