/* fork.c: noticing that this process is a child of the one that made a loop.
 *
 * The kernel objects of a loop are shared across fork(2): a child that changed them
 * would change its parent's. So a counter rises in each child, and every entry point
 * compares it with the loop's own. */
#include "internal.h"

#include <errno.h>

#include "../backends/backend.h"

static _Atomic uint32_t generation;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void count_fork(void)
{
    atomic_fetch_add(&generation, 1);
}

static void watch_forks(void)
{
    /* Fails for memory only; then forks go unnoticed, which nobody could mend here. */
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

/* Functions are called without the lock; another thread of the parent may have had it.
 */
int fdmux__fork_return(struct fdmux_loop *loop)
{
    (void)pthread_mutex_init(&loop->lock, NULL);
    return -ECHILD;
}

/* The child has one thread, this one, whatever the parent's threads held. */
static void forget_parent(struct fdmux_loop *loop)
{
    (void)pthread_mutex_init(&loop->lock, NULL);
    (void)pthread_mutex_init(&loop->post_lock, NULL);
    fdmux__post_drop(loop);
    loop->is_dispatching = loop->is_waiting = loop->is_calling = false;
    loop->is_hosted = false;
    loop->event_count = 0;
    loop->pending_error = 0;
    loop->parked_deadline_ns = loop->steady_deadline_ns = 0;
    loop->hold_count = 0; /* the child has them, or has lost them, with its thread */
    fdmux__calling_end(loop);
    atomic_store(&loop->waker_count, 0);
    atomic_store(&loop->is_signalled, false);
    atomic_store(&loop->is_wake_wanted, false);
    atomic_store(&loop->is_stop_wanted, false);
}

/* Closes the child's copies of what both processes share; the parent keeps its own. */
static int open_again(struct fdmux_loop *loop)
{
    const char *name = loop->backend->name;
    int r;

    loop->backend->close(loop);
    fdmux__wake_close(loop);
    r = fdmux__wake_open(loop);
    if (r < 0)
        return r;
    atomic_store(&loop->is_wake_closed, false);
    r = fdmux__backend_open(loop, name);
    return r < 0 ? r : fdmux__node_tell_all(loop);
}

int fdmux_loop_after_fork(struct fdmux_loop *loop)
{
    int r = fdmux__loop_check(loop);

    if (r != -ECHILD)
        return r;
    forget_parent(loop);
    r = open_again(loop);
    if (r == 0) {
        loop->fork_generation = fdmux__fork_generation();
        fdmux__reap(loop);
    }
    return r;
}
