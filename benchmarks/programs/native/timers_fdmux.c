/* A million timers on fdmux. */
#include "timers.h"

#include <fdmux.h>

static struct timers *timers;
static struct fdmux_loop *loop;
static uint64_t *tokens;

static int on_expired(struct fdmux_loop *caller, uint64_t timer, void *userdata)
{
    (void)timer;
    return timers_on_fired(timers, (int)(intptr_t)userdata) ? fdmux_loop_stop(caller)
                                                            : 0;
}

static int open_timers(struct timers *all)
{
    int r = fdmux_loop_create(NULL, &loop);

    timers = all;
    tokens = calloc((size_t)timers->count, sizeof *tokens);
    if (tokens == NULL)
        return -ENOMEM;
    for (int i = 0; i < timers->count && r == 0; i++) {
        struct fdmux_timer_options options = {
            .struct_size = sizeof options,
            .fn = on_expired,
            .userdata = (void *)(intptr_t)i,
        };

        r = fdmux_timer_add(loop, &options, &tokens[i]);
    }
    return r;
}

static int64_t start(void)
{
    return fdmux_loop_now(loop);
}

static int arm(int index, int timeout_ms)
{
    return fdmux_timer_arm(loop, tokens[index],
                           timers->start_ns + (int64_t)timeout_ms * 1000000, 0);
}

static int cancel(int index)
{
    return fdmux_timer_cancel(loop, tokens[index]);
}

static int run(void)
{
    return fdmux_loop_run(loop);
}

int main(int argc, char **argv)
{
    return timers_main(argc, argv,
                       &(struct timers_peer){open_timers, start, arm, cancel, run});
}
