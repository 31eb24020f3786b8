/* gate.c: see gate.h. Knows nothing about watchers. */
#include "gate.h"

#include <errno.h>

static _Atomic uint32_t generation;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void count_fork(void)
{
    atomic_fetch_add(&generation, 1);
}

static void watch_forks(void)
{
    /* Fails only for lack of memory; then forks go unnoticed, and no caller could do
     * anything about it. */
    (void)pthread_atfork(NULL, NULL, count_fork);
}

uint32_t fdmux__fork_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

void fdmux__fork_watch(void)
{
    (void)pthread_once(&once, watch_forks); /* cannot fail for a valid `once` */
}

/* Functions run without the lock, so another thread of the parent may have held it when
 * the process forked. */
int fdmux__fork_return(struct fdmux_loop *loop)
{
    (void)pthread_mutex_init(&loop->lock, NULL);
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
    pthread_mutex_lock(&loop->lock);
    if (!atomic_load_explicit(&loop->is_closed, memory_order_relaxed))
        return 0;
    pthread_mutex_unlock(&loop->lock);
    return -ESTALE;
}

void fdmux__loop_unlock(struct fdmux_loop *loop)
{
    pthread_mutex_unlock(&loop->lock);
}
