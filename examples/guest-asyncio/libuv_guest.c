/* libuv_guest.c: a libuv loop that drives asyncio coroutines.
 *
 * The guest is one uv_poll_t. The host's own timer shows that neither blocks the
 * other. */
#define _GNU_SOURCE
#include <stdio.h>
#include <uv.h>

#include "embedded.h"

#define TICK_MS 5
#define TICKS_MAX 2000 /* ten seconds: a service that hangs fails */

static uv_poll_t poll_handle;
static uv_timer_t timer;
static int tick_count;

static void end(void)
{
    uv_close((uv_handle_t *)&poll_handle, NULL);
    uv_close((uv_handle_t *)&timer, NULL);
}

static void on_readable(uv_poll_t *handle, int status, int events)
{
    (void)handle, (void)events;
    if (status < 0 || embedded_dispatch())
        end();
}

static void on_tick(uv_timer_t *handle)
{
    (void)handle;
    if (++tick_count == TICKS_MAX)
        end();
}

int main(void)
{
    uv_loop_t *loop = uv_default_loop();
    int fd = embedded_start();

    if (fd < 0 || uv_poll_init(loop, &poll_handle, fd) < 0 ||
        uv_poll_start(&poll_handle, UV_READABLE, on_readable) < 0 ||
        uv_timer_init(loop, &timer) < 0 ||
        uv_timer_start(&timer, on_tick, TICK_MS, TICK_MS) < 0)
        return 1;
    (void)uv_run(loop, UV_RUN_DEFAULT); /* until both handles are closed */
    (void)uv_loop_close(loop);
    printf("the host's timer: %s\n", tick_count > 0 ? "served" : "starved");
    return embedded_finish("libuv") != 0 || tick_count == 0;
}
