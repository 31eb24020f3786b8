/* backend.c: the list of backends, best first, and the choice among them. */
#include "backend.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "../core/internal.h"

static const struct fdmux__backend *const backends[] = {
#if defined(__linux__)
    &fdmux__backend_epoll,
#endif
    &fdmux__backend_poll,
};

/* A sandbox or an old kernel may lack the best one; then the next will do. */
static bool is_missing(int r)
{
    return r == -ENOSYS || r == -EPERM;
}

int fdmux__backend_open(struct fdmux_loop *loop, const char *name)
{
    int r = -ENOENT;

    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        if (name != NULL && strcmp(name, backends[i]->name) != 0)
            continue;
        loop->backend = backends[i];
        r = backends[i]->open(loop);
        if (r == 0 || name != NULL || !is_missing(r))
            return r;
    }
    return r;
}
