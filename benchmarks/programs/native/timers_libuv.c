/* A million timers on libuv. Its clock counts whole milliseconds, so a timer may fire
 * early by less than one. */
#include "timers.h"

#include <uv.h>

static struct timers *timers;
static uv_loop_t loop;
static uv_timer_t *handles;

static void on_expired(uv_timer_t *handle)
{
    (void)timers_on_fired(timers, (int)(handle - handles)); /* uv_run ends by itself */
}

static int open_timers(struct timers *all)
{
    int r = uv_loop_init(&loop);

    timers = all;
    handles = calloc((size_t)timers->count, sizeof *handles);
    if (handles == NULL)
        return UV_ENOMEM;
    for (int i = 0; i < timers->count && r == 0; i++)
        r = uv_timer_init(&loop, &handles[i]);
    return r;
}

static int64_t start(void)
{
    uv_update_time(&loop);
    return now_ns();
}

static int arm(int index, int timeout_ms)
{
    return uv_timer_start(&handles[index], on_expired, (uint64_t)timeout_ms, 0);
}

static int cancel(int index)
{
    return uv_timer_stop(&handles[index]);
}

static int run(void)
{
    return uv_run(&loop, UV_RUN_DEFAULT);
}

int main(int argc, char **argv)
{
    return timers_main(argc, argv,
                       &(struct timers_peer){open_timers, start, arm, cancel, run});
}
