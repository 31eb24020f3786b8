/* GETs of Redis in an fdmux loop, by our adapter for hiredis. */
#include "redis_gets.h"

#include <fdmux/adapters/hiredis.h>
#include <hiredis/async.h>

static struct fdmux_loop *loop;

static int attach(void)
{
    int r = fdmux_loop_create(NULL, &loop);

    return r < 0 ? r : fdmux_hiredis_attach(loop, redis_gets.context);
}

static int run(void)
{
    return fdmux_loop_run(loop);
}

static void stop(void)
{
    (void)fdmux_loop_stop(loop); /* fails for a closed loop, and this one runs */
}

int main(int argc, char **argv)
{
    return gets_main(argc, argv, &(struct gets_peer){attach, run, stop, 0});
}
