/* native_code.c: native code for the Python tests.
 *
 * Links nothing of fdmux: it gets the function table and a loop as plain pointers, as
 * an extension does through the capsules. Counts its calls. */
#include <fdmux_api.h>

#include <string.h>

struct counts {
    int64_t called;
    int64_t destroyed;
    int result; /* what its functions return */
};

static int on_ready(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                    void *userdata)
{
    struct counts *counts = userdata;

    (void)loop, (void)io, (void)events;
    counts->called++;
    return counts->result;
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)loop, (void)timer;
    ((struct counts *)userdata)->called++;
    return 0;
}

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    if (loop != NULL)
        ((struct counts *)userdata)->called++;
    return 0;
}

static void on_destroyed(void *userdata)
{
    ((struct counts *)userdata)->destroyed++;
}

/* Never reads, so it is called in every iteration. */
int64_t native_watch(const struct fdmux_api *api, struct fdmux_loop *loop, int fd,
                     struct counts *counts)
{
    struct fdmux_io_options options;
    uint64_t token;
    int r;

    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.fd = fd;
    options.events = FDMUX_READ;
    options.fn = on_ready;
    options.userdata = counts;
    options.destroyed = on_destroyed;
    r = api->io_add(loop, &options, &token);
    return r < 0 ? r : (int64_t)token;
}

/* This watcher has no function: its events are collected. */
int64_t native_watch_collected(const struct fdmux_api *api, struct fdmux_loop *loop,
                               int fd, struct counts *counts)
{
    struct fdmux_io_options options;
    uint64_t token;
    int r;

    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.fd = fd;
    options.events = FDMUX_READ;
    options.flags = FDMUX_COLLECT;
    options.userdata = counts;
    options.destroyed = on_destroyed;
    r = api->io_add(loop, &options, &token);
    return r < 0 ? r : (int64_t)token;
}

int native_unwatch(const struct fdmux_api *api, struct fdmux_loop *loop, int64_t token)
{
    return api->io_remove(loop, (uint64_t)token);
}

int64_t native_timer(const struct fdmux_api *api, struct fdmux_loop *loop,
                     int64_t delay_ns, struct counts *counts)
{
    struct fdmux_timer_options options;
    uint64_t token;
    int r;

    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.fn = on_timer;
    options.userdata = counts;
    options.destroyed = on_destroyed;
    r = api->timer_add(loop, &options, &token);
    if (r == 0)
        r = api->timer_arm(loop, token, api->loop_now(loop) + delay_ns, 0);
    return r < 0 ? r : (int64_t)token;
}

int native_post(const struct fdmux_api *api, struct fdmux_loop *loop,
                struct counts *counts)
{
    return api->post(loop, on_post, counts);
}

int native_wake(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    return api->loop_wake(loop);
}
