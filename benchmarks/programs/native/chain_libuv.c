/* The chain benchmark on libuv: one uv_poll_t for each pair. */
#include "chain.h"

#include <uv.h>

static struct chain *chain;
static uv_loop_t loop;

static void on_readable(uv_poll_t *handle, int status, int events)
{
    (void)events;
    if (status < 0)
        chain->error = status;
    else
        chain_on_readable(chain, (int)(intptr_t)handle->data);
}

static int watch(struct chain *all)
{
    static uv_poll_t *handles;
    int r = uv_loop_init(&loop);

    chain = all;
    handles = calloc((size_t)all->pair_count, sizeof *handles);
    if (handles == NULL)
        return UV_ENOMEM;
    for (int i = 0; i < chain->pair_count && r == 0; i++) {
        r = uv_poll_init(&loop, &handles[i], chain->read_fds[i]);
        handles[i].data = (void *)(intptr_t)i;
        if (r == 0)
            r = uv_poll_start(&handles[i], UV_READABLE, on_readable);
    }
    return r;
}

static int poll_once(void)
{
    (void)uv_run(&loop, UV_RUN_NOWAIT); /* returns only whether handles are left */
    return 0;
}

int main(int argc, char **argv)
{
    return chain_main(argc, argv, &(struct chain_peer){watch, poll_once});
}
