/* core_guest.c: a C program whose own fdmux loop drives asyncio coroutines.
 *
 * The guest is one io watcher. The program links the static core; Python imports
 * another copy of fdmux, and the two are independent. */
#include <fdmux.h>
#include <stdio.h>

#include "embedded.h"

#define TICK_NS 5000000
#define TICKS_MAX 2000 /* ten seconds: a service that hangs fails */

static int tick_count;

static int on_readable(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    (void)io, (void)events, (void)userdata;
    return embedded_dispatch() ? fdmux_loop_stop(loop) : 0;
}

static int on_tick(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)timer, (void)userdata;
    return ++tick_count == TICKS_MAX ? fdmux_loop_stop(loop) : 0;
}

static int watch(struct fdmux_loop *loop, int fd)
{
    struct fdmux_io_options io_options = {
        .struct_size = sizeof io_options,
        .fd = fd,
        .events = FDMUX_READ,
        .fn = on_readable,
    };
    struct fdmux_timer_options timer_options = {
        .struct_size = sizeof timer_options,
        .fn = on_tick,
    };
    uint64_t io, timer;
    int r = fdmux_io_add(loop, &io_options, &io);

    if (r == 0)
        r = fdmux_timer_add(loop, &timer_options, &timer);
    if (r == 0)
        r = fdmux_timer_arm(loop, timer, fdmux_loop_now(loop) + TICK_NS, TICK_NS);
    return r;
}

int main(void)
{
    struct fdmux_loop *loop;
    int fd = embedded_start();
    int r;

    if (fd < 0 || fdmux_loop_create(NULL, &loop) < 0)
        return 1;
    r = watch(loop, fd);
    if (r == 0)
        r = fdmux_loop_run(loop);
    fdmux_loop_destroy(loop); /* before the guest's descriptor is closed */
    printf("the host's timer: %s\n", tick_count > 0 ? "served" : "starved");
    return embedded_finish("core") != 0 || r < 0 || tick_count == 0;
}
