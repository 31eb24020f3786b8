/* choose.c: see choose.h. */
#include "choose.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "../core/loop_state.h"
#include "../core/wake.h"
#include "backend.h"

#define FDMUX__BACKEND(name) &fdmux__backend_##name,
static const struct fdmux__backend *const backends[] = {
#include "list.def"
};
#undef FDMUX__BACKEND

#define BACKEND_COUNT (sizeof backends / sizeof backends[0])

const char *fdmux__backend_name(uint32_t index)
{
    return index < BACKEND_COUNT ? backends[index]->name : NULL;
}

/* A sandbox or an old kernel may lack the best one; the next one is tried then. */
static bool is_missing(int r)
{
    return r == -ENOSYS || r == -EPERM;
}

int fdmux__backend_open(struct fdmux_loop *loop, const char *name)
{
    int r = -ENOENT;

    for (size_t i = 0; i < BACKEND_COUNT; i++) {
        if (name != NULL && strcmp(name, backends[i]->name) != 0)
            continue;
        loop->backend = backends[i];
        r = fdmux__wake_open(loop);
        if (r == 0)
            r = backends[i]->open(loop);
        if (r == 0 || name != NULL || !is_missing(r))
            return r;
    }
    return r;
}
