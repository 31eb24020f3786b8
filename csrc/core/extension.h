/* extension.h: what the core calls of a part built on top of it (streams).
 *
 * The core knows nothing else about that part. `dispatch` and `close` run without the
 * loop's lock, the other two with it. */
#ifndef FDMUX_EXTENSION_H
#define FDMUX_EXTENSION_H

#include <stdbool.h>

struct fdmux_loop;
struct fdmux__batch;

struct fdmux__extension {
    void (*prepare)(struct fdmux_loop *loop); /* before each wait */
    int (*dispatch)(struct fdmux_loop *loop, struct fdmux__batch *batch); /* after io */
    bool (*is_pending)(
        const struct fdmux_loop *loop); /* true: the loop must not sleep */
    void (*close)(struct fdmux_loop *loop);
};

#endif
