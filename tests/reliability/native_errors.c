/* native_errors.c: native functions, some of which return an error once.
 *
 * Each counts its calls and its end. One that watches a descriptor removes itself when
 * it is called and returns no error. */
#include <fdmux_api.h>

#include <errno.h>
#include <stdlib.h>

struct counts {
    int64_t called;
    int64_t destroyed;
};

struct one {
    const struct fdmux_api *api;
    struct counts *counts;
    int result; /* of the next call only */
};

static struct one *make(const struct fdmux_api *api, int result, struct counts *counts)
{
    struct one *one = malloc(sizeof *one);

    if (one != NULL)
        *one = (struct one){.api = api, .counts = counts, .result = result};
    return one;
}

static int call(struct one *one)
{
    int result = one->result;

    one->counts->called++;
    one->result = 0;
    return result;
}

static void destroy(void *userdata)
{
    struct one *one = userdata;

    one->counts->destroyed++;
    free(one);
}

static int on_ready(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                    void *userdata)
{
    struct one *one = userdata;
    int result = call(one);

    (void)events;
    return result < 0 ? result : one->api->io_remove(loop, io);
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)loop, (void)timer;
    return call(userdata);
}

static int on_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    (void)loop, (void)hook;
    return call(userdata);
}

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    int result = loop == NULL ? 0 : call(userdata);

    destroy(userdata);
    return result;
}

int64_t errors_watch(const struct fdmux_api *api, struct fdmux_loop *loop, int fd,
                     int result, struct counts *counts)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = fd,
        .events = FDMUX_READ,
        .fn = on_ready,
        .userdata = make(api, result, counts),
        .destroyed = destroy,
    };
    uint64_t token;

    return options.userdata == NULL ? -ENOMEM : api->io_add(loop, &options, &token);
}

int64_t errors_timer(const struct fdmux_api *api, struct fdmux_loop *loop, int fd,
                     int result, struct counts *counts)
{
    struct fdmux_timer_options options = {
        .struct_size = sizeof options,
        .fn = on_timer,
        .userdata = make(api, result, counts),
        .destroyed = destroy,
    };
    uint64_t token;
    int r;

    (void)fd;
    if (options.userdata == NULL)
        return -ENOMEM;
    r = api->timer_add(loop, &options, &token);
    return r < 0 ? r : api->timer_arm(loop, token, api->loop_now(loop), 0);
}

int64_t errors_hook(const struct fdmux_api *api, struct fdmux_loop *loop, int fd,
                    int result, struct counts *counts)
{
    struct fdmux_hook_options options = {
        .struct_size = sizeof options,
        .fn = on_hook,
        .userdata = make(api, result, counts),
        .destroyed = destroy,
    };
    uint64_t token;

    (void)fd;
    return options.userdata == NULL ? -ENOMEM : api->hook_add(loop, &options, &token);
}

int64_t errors_post(const struct fdmux_api *api, struct fdmux_loop *loop, int fd,
                    int result, struct counts *counts)
{
    struct one *one = make(api, result, counts);

    (void)fd;
    return one == NULL ? -ENOMEM : api->post(loop, on_post, one);
}
