/* The chain benchmark on fdmux: one io watcher with a function for each pair. */
#include "chain.h"

#include <fdmux.h>

static struct chain *chain;
static struct fdmux_loop *loop;

static int on_readable(struct fdmux_loop *caller, uint64_t io, uint32_t events,
                       void *userdata)
{
    (void)caller;
    (void)io;
    (void)events;
    chain_on_readable(chain, (int)(intptr_t)userdata);
    return 0;
}

static int watch(struct chain *all)
{
    int r = fdmux_loop_create(NULL, &loop);

    chain = all;
    for (int i = 0; i < chain->pair_count && r == 0; i++) {
        struct fdmux_io_options options = {
            .struct_size = sizeof options,
            .fd = chain->read_fds[i],
            .events = FDMUX_READ,
            .fn = on_readable,
            .userdata = (void *)(intptr_t)i,
        };
        uint64_t io;

        r = fdmux_io_add(loop, &options, &io);
    }
    return r;
}

static int poll_once(void)
{
    return fdmux_loop_dispatch(loop, 0, NULL, 0);
}

int main(int argc, char **argv)
{
    return chain_main(argc, argv, &(struct chain_peer){watch, poll_once});
}
