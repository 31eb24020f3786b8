/* The chain benchmark on libevent: one persistent event for each pair. */
#include "chain.h"

#include <event2/event.h>

static struct chain *chain;
static struct event_base *base;

static void on_readable(evutil_socket_t fd, short events, void *userdata)
{
    (void)fd;
    (void)events;
    chain_on_readable(chain, (int)(intptr_t)userdata);
}

static int watch(struct chain *all)
{
    chain = all;
    base = event_base_new();
    if (base == NULL)
        return -ENOMEM;
    for (int i = 0; i < chain->pair_count; i++) {
        struct event *event = event_new(base, chain->read_fds[i], EV_READ | EV_PERSIST,
                                        on_readable, (void *)(intptr_t)i);

        if (event == NULL || event_add(event, NULL) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int poll_once(void)
{
    return event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK) < 0 ? -EIO : 0;
}

int main(int argc, char **argv)
{
    return chain_main(argc, argv, &(struct chain_peer){watch, poll_once});
}
