/* wake.c: waking a loop that sleeps, from any thread or a signal handler.
 *
 * A flag says that a signal is on its way, so a busy loop costs its wakers one atomic
 * exchange. No data travels in the descriptor: a full one means "already awake". */
#include "internal.h"

#include <errno.h>
#include <sched.h>

#include "sys.h"

int fdmux__wake_open(struct fdmux_loop *loop)
{
    int fds[2];
    int r = -ENOSYS;

#if defined(__linux__)
    r = fdmux__sys_eventfd();
    if (r >= 0) {
        loop->wake_read_fd = loop->wake_write_fd = r;
        return 0;
    }
#endif
    if (r == -EMFILE || r == -ENFILE)
        return r; /* a pipe would need two */
    r = fdmux__sys_pipe(fds);
    if (r < 0)
        return r;
    loop->wake_read_fd = fds[0];
    loop->wake_write_fd = fds[1];
    return 0;
}

/* Close errors are ignored: close(2) has released the descriptor whatever it says. */
void fdmux__wake_close(struct fdmux_loop *loop)
{
    atomic_store(&loop->is_wake_closed, true);
    while (atomic_load(&loop->waker_count) != 0)
        sched_yield(); /* a waker between its check and its write(2) */
    if (loop->wake_write_fd != loop->wake_read_fd)
        (void)fdmux__sys_close(loop->wake_write_fd);
    if (loop->wake_read_fd >= 0)
        (void)fdmux__sys_close(loop->wake_read_fd);
    loop->wake_read_fd = loop->wake_write_fd = -1;
}

static int write_signal(int fd)
{
    uint64_t one = 1; /* eventfd(2) takes eight bytes; a pipe takes anything */
    int errno_before = errno; /* a signal handler must leave it as it was */
    int r;

    do {
        r = fdmux__sys_write(fd, &one, sizeof one);
    } while (r == -EINTR);
    errno = errno_before;
    return r == -EAGAIN || r > 0 ? 0 : r;
}

int fdmux__wake_signal(struct fdmux_loop *loop)
{
    int r = 0;

    if (atomic_exchange(&loop->is_signalled, true))
        return 0;
    atomic_fetch_add(&loop->waker_count, 1);
    if (!atomic_load(&loop->is_wake_closed))
        r = write_signal(loop->wake_write_fd);
    atomic_fetch_sub(&loop->waker_count, 1);
    if (r < 0)
        atomic_store(&loop->is_signalled, false); /* the next one tries again */
    return r;
}

/* Before looking at what the wakers wanted: a later wake then signals anew. */
int fdmux__wake_drain(struct fdmux_loop *loop)
{
    uint64_t buffer[8];
    int r;

    do {
        r = fdmux__sys_read(loop->wake_read_fd, buffer, sizeof buffer);
    } while (r == (int)sizeof buffer || r == -EINTR);
    atomic_store(&loop->is_signalled, false);
    return r == -EAGAIN || r > 0 ? 0 : r;
}

int fdmux_loop_wake(struct fdmux_loop *loop)
{
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    atomic_store(&loop->is_wake_wanted, true);
    return fdmux__wake_signal(loop);
}

int fdmux_loop_stop(struct fdmux_loop *loop)
{
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    atomic_store(&loop->is_stop_wanted, true);
    return fdmux__wake_signal(loop);
}
