#include <errno.h>
#include <stdlib.h>

#include <fdmux.h>

struct lines_adapter {
    struct fdmux_loop *loop;
    struct lines *lines;
    uint64_t io, hook;
    uint32_t events; /* 0: there is no socket to watch */
};

/* Watch the library's socket anew: it may be another one under the same number. */
static inline int lines_update(struct lines_adapter *adapter)
{
    int fd = lines_fd(adapter->lines);

    adapter->events = fd < 0 ? 0 : FDMUX_READ;
    if (fd >= 0 && lines_wants_write(adapter->lines))
        adapter->events |= FDMUX_WRITE;
    return fdmux_io_replace_fd(adapter->loop, adapter->io, fd, adapter->events);
}

static inline int lines_on_ready(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                                 void *userdata)
{
    struct lines_adapter *adapter = (struct lines_adapter *)userdata;

    (void)loop, (void)io, (void)events;
    if (lines_process(adapter->lines) < 0) /* a callback may have closed the adapter */
        (void)lines_update(adapter);
    return 0;
}

/* Before each wait: has the program sent something, or has all been sent? */
static inline int lines_on_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    struct lines_adapter *adapter = (struct lines_adapter *)userdata;
    int is_writing = (adapter->events & FDMUX_WRITE) != 0;

    (void)loop, (void)hook;
    if (adapter->events == 0 || is_writing == lines_wants_write(adapter->lines))
        return 0;
    return lines_update(adapter);
}

/* Called when the batch is over in which the watcher was removed: the library has
 * returned. */
static inline void lines_destroyed(void *userdata)
{
    lines_free(((struct lines_adapter *)userdata)->lines);
    free(userdata);
}

/* Free both, also inside a callback. Not after the end of the loop, which does it. */
static inline void lines_close(struct lines_adapter *adapter)
{
    (void)fdmux_hook_remove(adapter->loop, adapter->hook);
    (void)fdmux_io_remove(adapter->loop, adapter->io);
}

static inline int lines_attach(struct fdmux_loop *loop, struct lines *lines,
                               struct lines_adapter **ret_adapter)
{
    struct lines_adapter *adapter = (struct lines_adapter *)calloc(1, sizeof *adapter);
    struct fdmux_hook_options hook = {sizeof hook, lines_on_hook, adapter, NULL};
    struct fdmux_io_options io = {.struct_size = sizeof io, .fd = -1};
    int r = adapter == NULL ? -ENOMEM : fdmux_hook_add(loop, &hook, &adapter->hook);

    if (r < 0) {
        free(adapter);
        return r;
    }
    *ret_adapter = adapter;
    adapter->loop = loop;
    adapter->lines = lines;
    io.fn = lines_on_ready;
    io.userdata = adapter;
    io.destroyed = lines_destroyed;
    r = fdmux_io_add(loop, &io, &adapter->io);
    if (r == 0)
        return lines_update(adapter);
    (void)fdmux_hook_remove(loop, adapter->hook);
    free(adapter);
    return r;
}
