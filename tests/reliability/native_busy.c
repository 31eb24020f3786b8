/* native_busy.c: many functions in C that are due at once, each of which takes a while.
 *
 * Its one rule: they call no Python and no function of the loop. */
#include <fdmux_api.h>

#include <stdint.h>
#include <time.h>

#define SPIN_NS 20000

static int64_t cpu_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now); /* it exists on Linux */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void spin(void)
{
    int64_t end = cpu_now() + SPIN_NS;

    while (cpu_now() < end)
        continue;
}

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    if (loop != NULL)
        spin();
    return 0;
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)loop, (void)timer, (void)userdata;
    spin();
    return 0;
}

static int on_ready(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                    void *userdata)
{
    (void)loop, (void)io, (void)events, (void)userdata;
    spin();
    return 0;
}

int64_t busy_posts(const struct fdmux_api *api, struct fdmux_loop *loop, int64_t count)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < count; i++)
        r = api->post(loop, on_post, NULL);
    return r;
}

int64_t busy_timers(const struct fdmux_api *api, struct fdmux_loop *loop, int64_t count)
{
    struct fdmux_timer_options options = {.struct_size = sizeof options,
                                          .fn = on_timer};
    int r = 0;

    for (int64_t i = 0; r == 0 && i < count; i++) {
        uint64_t timer;

        r = api->timer_add(loop, &options, &timer);
        if (r == 0)
            r = api->timer_arm(loop, timer, 0, 0);
    }
    return r;
}

/* Watch `fd`, which stays readable. */
int64_t busy_watch(const struct fdmux_api *api, struct fdmux_loop *loop, int fd)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options, .fd = fd, .events = FDMUX_READ, .fn = on_ready};
    uint64_t io;

    return api->io_add(loop, &options, &io);
}
