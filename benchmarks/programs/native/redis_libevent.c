/* GETs of Redis in a loop of libevent, by hiredis' own adapter. */
#include "redis_gets.h"

#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>

static struct event_base *base;

static int attach(void)
{
    base = event_base_new();
    if (base == NULL)
        return -ENOMEM;
    return redisLibeventAttach(redis_gets.context, base) == REDIS_OK ? 0 : -EIO;
}

static int run(void)
{
    return event_base_dispatch(base) < 0 ? -EIO : 0;
}

static void stop(void)
{
    (void)event_base_loopbreak(base); /* fails for NULL only */
}

int main(int argc, char **argv)
{
    return gets_main(argc, argv, &(struct gets_peer){attach, run, stop, 0});
}
