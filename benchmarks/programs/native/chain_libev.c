/* The chain benchmark on libev: one ev_io for each pair. */
#include "chain.h"

#include <ev.h>

static struct chain *chain;
static struct ev_loop *loop;

static void on_readable(struct ev_loop *caller, ev_io *watcher, int events)
{
    (void)caller;
    (void)events;
    chain_on_readable(chain, (int)(intptr_t)watcher->data);
}

static void add(ev_io *watcher, int index)
{
    ev_init(watcher, on_readable);
    ev_io_set(watcher, chain->read_fds[index], EV_READ);
    watcher->data = (void *)(intptr_t)index;
    ev_io_start(loop, watcher);
}

static int watch(struct chain *all)
{
    static ev_io *watchers;

    chain = all;
    watchers = calloc((size_t)all->pair_count, sizeof *watchers);
    loop = ev_loop_new(EVBACKEND_EPOLL);
    if (loop == NULL || watchers == NULL)
        return -ENOMEM;
    for (int i = 0; i < chain->pair_count; i++)
        add(&watchers[i], i);
    return 0;
}

static int poll_once(void)
{
    (void)ev_run(loop, EVRUN_NOWAIT); /* returns only whether watchers are left */
    return 0;
}

int main(int argc, char **argv)
{
    return chain_main(argc, argv, &(struct chain_peer){watch, poll_once});
}
