/* wake.c: waking a loop that sleeps, from any thread or a signal handler.
 *
 * A flag says that a signal is on its way, so a busy loop costs its wakers one atomic
 * exchange. No data travels in the descriptor: a full one means "already awake". */
#include "internal.h"

#include <sched.h>

#include "bell.h"

int fdmux__wake_open(struct fdmux_loop *loop)
{
    return fdmux__bell_open(&loop->wake_read_fd, &loop->wake_write_fd);
}

void fdmux__wake_close(struct fdmux_loop *loop)
{
    atomic_store(&loop->is_wake_closed, true);
    while (atomic_load(&loop->waker_count) != 0)
        sched_yield(); /* a waker between its check and its write(2) */
    fdmux__bell_close(loop->wake_read_fd, loop->wake_write_fd);
    loop->wake_read_fd = loop->wake_write_fd = -1;
}

int fdmux__wake_signal(struct fdmux_loop *loop)
{
    int r = 0;

    if (atomic_exchange(&loop->is_signalled, true))
        return 0;
    atomic_fetch_add(&loop->waker_count, 1);
    if (!atomic_load(&loop->is_wake_closed))
        r = fdmux__bell_ring(loop->wake_write_fd);
    atomic_fetch_sub(&loop->waker_count, 1);
    if (r < 0)
        atomic_store(&loop->is_signalled, false); /* the next one tries again */
    return r;
}

/* Before looking at what the wakers wanted: a later wake then signals anew. */
int fdmux__wake_drain(struct fdmux_loop *loop)
{
    int r = fdmux__bell_silence(loop->wake_read_fd);

    atomic_store(&loop->is_signalled, false);
    return r;
}

int fdmux_loop_wake(struct fdmux_loop *loop)
{
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    atomic_store(&loop->is_wake_wanted, true);
    /* The end of the batch under way looks at the flag; also in a signal handler that
     * has interrupted it. */
    return fdmux__is_calling_thread(loop) ? 0 : fdmux__wake_signal(loop);
}

int fdmux_loop_stop(struct fdmux_loop *loop)
{
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    atomic_store(&loop->is_stop_wanted, true);
    return fdmux__wake_signal(loop);
}
