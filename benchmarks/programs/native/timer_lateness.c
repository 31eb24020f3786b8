/* How late a native timer fires in a loop that Python runs. The runner loads this file,
 * and passes fdmux's function table and the loop as an extension gets them.
 *
 * The function arms the next expiry itself, so that each is TIMEOUT later. */
#include <errno.h>
#include <fdmux_api.h>
#include <stdlib.h>
#include <sys/eventfd.h>

enum { LATENESS_MAX = 100000 };

int bench_lateness_start(const struct fdmux_api *api, struct fdmux_loop *loop,
                         int64_t timeout_ns, int count, int done_fd);
int bench_lateness_left(void);
int64_t bench_lateness_at(int index);

static const struct fdmux_api *api;
static int64_t timeout_ns;
static int64_t deadline_ns;
static int64_t lateness_ns[LATENESS_MAX];
static int left_count;
static int end_fd;

static int arm(struct fdmux_loop *loop, uint64_t timer)
{
    deadline_ns = api->loop_now(loop) + timeout_ns;
    return api->timer_arm(loop, timer, deadline_ns, 0);
}

static int on_expired(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)userdata;
    lateness_ns[--left_count] = api->loop_now(loop) - deadline_ns;
    if (left_count > 0)
        return arm(loop, timer);
    if (end_fd >= 0 && eventfd_write(end_fd, 1) < 0)
        return -errno;
    return api->loop_wake(loop);
}

/* Returns 0 or -errno; the loop must run from then on. At the end the timer's function
 * wakes the loop and writes one to the eventfd `done_fd`, unless that is -1. */
int bench_lateness_start(const struct fdmux_api *table, struct fdmux_loop *loop,
                         int64_t timeout, int count, int done_fd)
{
    struct fdmux_timer_options options = {.struct_size = sizeof options,
                                          .fn = on_expired};
    uint64_t timer;
    int r;

    if (count < 1 || count > LATENESS_MAX)
        return -EINVAL;
    api = table;
    timeout_ns = timeout;
    left_count = count;
    end_fd = done_fd;
    r = api->timer_add(loop, &options, &timer);
    return r < 0 ? r : arm(loop, timer);
}

int bench_lateness_left(void)
{
    return left_count;
}

/* Negative if the timer was early. */
int64_t bench_lateness_at(int index)
{
    return lateness_ns[index];
}
