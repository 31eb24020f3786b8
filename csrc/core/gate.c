/* gate.c: see gate.h. Knows nothing about watchers. */
#include "gate.h"

#include <errno.h>

/* Functions run without the lock, so another thread of the parent may have held it when
 * the process forked. */
int fdmux__fork_return(struct fdmux_loop *loop)
{
    (void)fdmux__lock_open(&loop->lock);
    return -ECHILD;
}

int fdmux__options_check(const void *options, size_t size)
{
    if (options == NULL)
        return -EFAULT;
    /* Every struct is in its first version, so no other size is known yet. */
    return *(const size_t *)options == size ? 0 : -E2BIG;
}

int fdmux__arguments_check(const void *options, size_t size, const void *ret)
{
    int r = fdmux__options_check(options, size);

    return r == 0 && ret == NULL ? -EFAULT : r;
}

int fdmux__collect_check(uint32_t flags, bool has_no_fn)
{
    return flags == (has_no_fn ? FDMUX_COLLECT : 0) ? 0 : -EINVAL;
}

int fdmux__loop_check(struct fdmux_loop *loop)
{
    if (!fdmux__is_loop(loop))
        return loop == NULL ? -EFAULT : -EINVAL;
    if (atomic_load_explicit(&loop->is_closed, memory_order_relaxed))
        return -ESTALE;
    return fdmux__loop_is_forked(loop) ? -ECHILD : 0;
}

int fdmux__loop_lock(struct fdmux_loop *loop)
{
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    fdmux__lock_take(&loop->lock);
    if (!atomic_load_explicit(&loop->is_closed, memory_order_relaxed))
        return 0;
    fdmux__lock_release(&loop->lock);
    return -ESTALE;
}

void fdmux__loop_unlock(struct fdmux_loop *loop)
{
    fdmux__lock_release(&loop->lock);
}
