/* wake.c: see wake.h.
 *
 * The flag `is_wake_rung` says that the bell was rung and not silenced yet, so waking a
 * busy loop costs one atomic exchange. The descriptor carries no data; if it is full,
 * the loop wakes anyway. */
#include "wake.h"

#include <sched.h>

#include "bell.h"
#include "gate.h"
#include "hold.h"

int fdmux__wake_open(struct fdmux_loop *loop)
{
    return fdmux__bell_open(&loop->wake_read_fd, &loop->wake_write_fd);
}

void fdmux__wake_close(struct fdmux_loop *loop)
{
    atomic_store(&loop->is_wake_closed, true);
    while (atomic_load(&loop->waker_count) != 0)
        sched_yield(); /* a waker has passed its check and will write(2) */
    fdmux__bell_close(loop->wake_read_fd, loop->wake_write_fd);
    loop->wake_read_fd = loop->wake_write_fd = -1;
}

int fdmux__wake_ring(struct fdmux_loop *loop)
{
    int r = 0;

    if (atomic_exchange(&loop->is_wake_rung, true))
        return 0;
    atomic_fetch_add(&loop->waker_count, 1);
    if (!atomic_load(&loop->is_wake_closed))
        r = fdmux__bell_ring(loop->wake_write_fd);
    atomic_fetch_sub(&loop->waker_count, 1);
    if (r < 0)
        atomic_store(&loop->is_wake_rung, false); /* the next waker tries again */
    return r;
}

/* Must come before the loop looks at what the wakers wanted. A later waker then finds
 * the flag cleared and rings again, so no wake is lost. */
int fdmux__wake_silence(struct fdmux_loop *loop)
{
    int r = fdmux__bell_silence(loop->wake_read_fd);

    atomic_store(&loop->is_wake_rung, false);
    return r;
}

int fdmux_loop_wake(struct fdmux_loop *loop)
{
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    atomic_store(&loop->is_wake_wanted, true);
    /* On the calling thread the flag is enough: the end of the batch looks at it. This
     * includes a signal handler that has interrupted that thread. */
    return fdmux__is_calling_thread(loop) ? 0 : fdmux__wake_ring(loop);
}

int fdmux_loop_stop(struct fdmux_loop *loop)
{
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    atomic_store(&loop->is_stop_wanted, true);
    return fdmux__wake_ring(loop);
}
