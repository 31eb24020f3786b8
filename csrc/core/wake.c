/* wake.c: see wake.h.
 *
 * The flag `is_wake_rung` says that the bell was rung and not silenced yet, so waking a
 * busy loop costs one atomic exchange. The descriptor carries no data; if it is full,
 * the loop wakes anyway. */
#include "wake.h"

#include "../backends/backend.h"
#include "gate.h"
#include "hold.h"

int fdmux__wake_open(struct fdmux_loop *loop)
{
    int r = 0;

    if (loop->backend->ring == NULL && !fdmux__is_fd(loop->bell.read_fd))
        r = fdmux__sys_bell_open(&loop->bell);
    if (r == 0)
        atomic_store(&loop->is_wake_closed, false);
    return r;
}

void fdmux__wake_close(struct fdmux_loop *loop)
{
    atomic_store(&loop->is_wake_closed, true);
    while (atomic_load(&loop->waker_count) != 0)
        fdmux__thread_yield(); /* a waker has passed its check and will ring */
    fdmux__sys_bell_close(&loop->bell);
}

static int ring(struct fdmux_loop *loop)
{
    return loop->backend->ring != NULL ? loop->backend->ring(loop)
                                       : fdmux__sys_bell_ring(&loop->bell);
}

int fdmux__wake_ring(struct fdmux_loop *loop)
{
    int r = 0;

    if (atomic_exchange(&loop->is_wake_rung, true))
        return 0;
    atomic_fetch_add(&loop->waker_count, 1);
    if (!atomic_load(&loop->is_wake_closed))
        r = ring(loop);
    atomic_fetch_sub(&loop->waker_count, 1);
    if (r < 0)
        atomic_store(&loop->is_wake_rung, false); /* the next waker tries again */
    return r;
}

/* Must come before the loop looks at what the wakers wanted. A later waker then finds
 * the flag cleared and rings again, so no wake is lost. */
int fdmux__wake_silence(struct fdmux_loop *loop)
{
    int r = loop->backend->ring != NULL ? 0 : fdmux__sys_bell_silence(&loop->bell);

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
