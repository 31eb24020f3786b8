/* GETs of Redis in a loop of libuv, by hiredis' own adapter. */
#include "redis_gets.h"

#include <hiredis/async.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunused-function"
#include <hiredis/adapters/libuv.h>
#pragma GCC diagnostic pop

static int attach(void)
{
    return redisLibuvAttach(redis_gets.context, uv_default_loop()) == REDIS_OK ? 0
                                                                               : -EIO;
}

static int run(void)
{
    (void)uv_run(uv_default_loop(), UV_RUN_DEFAULT); /* the socket is left */
    return 0;
}

static void stop(void)
{
    uv_stop(uv_default_loop());
}

int main(int argc, char **argv)
{
    return gets_main(argc, argv, &(struct gets_peer){attach, run, stop, 0});
}
