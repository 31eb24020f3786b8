/* poll.c: the portable backend, over poll(2).
 *
 * Every descriptor is in the array of polled.h. poll(2) has no descriptor of its own,
 * so there is no host_fd. */
#include "backend.h"

#include <errno.h>

#include "polled.h"

static struct fdmux__polled *data_of(const struct fdmux_loop *loop)
{
    return loop->backend_data;
}

static void poll_close(struct fdmux_loop *loop)
{
    struct fdmux__polled *polled = data_of(loop);

    if (polled == NULL)
        return;
    fdmux__polled_close(polled);
    fdmux__sys_free(polled);
    loop->backend_data = NULL;
}

static int poll_open(struct fdmux_loop *loop)
{
    struct fdmux__polled *polled = fdmux__sys_calloc(1, sizeof *polled);

    if (polled == NULL)
        return -ENOMEM;
    loop->backend_data = polled;
    if (fdmux__polled_open(polled, loop->bell.read_fd, FDMUX__WAKE_TOKEN) == 0)
        return 0;
    poll_close(loop);
    return -ENOMEM;
}

static int poll_update(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask)
{
    if ((mask & FDMUX__KERNEL_OPTIONS) != 0)
        return -EOPNOTSUPP;
    /* epoll_ctl(2) reports this at once; poll(2) would only report it at each wait. */
    if (mask != 0 && fdmux__sys_check_fd(node->fd) < 0) {
        (void)fdmux__polled_update(loop, data_of(loop), node, 0); /* cannot fail */
        return -EBADF;
    }
    return fdmux__polled_update(loop, data_of(loop), node, mask);
}

static int poll_prepare(struct fdmux_loop *loop, int capacity)
{
    (void)capacity;
    return fdmux__polled_prepare(data_of(loop));
}

static int poll_wait(struct fdmux_loop *loop, int64_t timeout_ns, int capacity)
{
    struct fdmux__polled *polled = data_of(loop);
    int ready = fdmux__sys_poll(polled->copy.fds, polled->copy.count, timeout_ns);

    if (ready <= 0)
        return ready == -EINTR ? 0 : ready;
    return fdmux__polled_scan(polled, 0, loop->events, capacity);
}

static uint32_t poll_features(const struct fdmux_loop *loop)
{
    (void)loop;
    return fdmux__sys_poll_is_exact() ? FDMUX_FEATURE_NANOSECONDS : 0;
}

const struct fdmux__backend fdmux__backend_poll = {
    .name = "poll",
    .open = poll_open,
    .close = poll_close,
    .update = poll_update,
    .prepare = poll_prepare,
    .wait = poll_wait,
    .features = poll_features,
};
