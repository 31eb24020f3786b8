#include <errno.h>
#include <stdlib.h>

#include <fdmux.h>

struct lines_adapter {
    struct fdmux_loop *loop;
    struct lines *lines;
    uint64_t io, hook;
    uint32_t events;
};

static inline uint32_t lines_wanted(const struct lines *lines)
{
    return lines_wants_write(lines) ? FDMUX_READ | FDMUX_WRITE : FDMUX_READ;
}

/* Watch the library's socket anew: another one under the same number, or none, -1. */
static inline int lines_update(struct lines_adapter *adapter)
{
    adapter->events = lines_wanted(adapter->lines);
    return fdmux_io_replace_fd(adapter->loop, adapter->io, lines_fd(adapter->lines),
                               adapter->events);
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

    (void)loop, (void)hook;
    return lines_wanted(adapter->lines) == adapter->events ? 0 : lines_update(adapter);
}

/* Called at the end of the batch, when the library has returned. */
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

/* On failure `lines` is still the caller's. */
static inline int lines_attach(struct fdmux_loop *loop, struct lines *lines,
                               struct lines_adapter **ret_adapter)
{
    struct lines_adapter *adapter = (struct lines_adapter *)calloc(1, sizeof *adapter);
    struct fdmux_hook_options hook = {sizeof hook, lines_on_hook, adapter, NULL};
    struct fdmux_io_options io = {.struct_size = sizeof io, .fd = lines_fd(lines)};
    int r;

    if (adapter == NULL)
        return -ENOMEM;
    *adapter = (struct lines_adapter){loop, lines, 0, 0, lines_wanted(lines)};
    io.events = adapter->events;
    io.fn = lines_on_ready;
    io.userdata = adapter;
    io.destroyed = lines_destroyed;
    r = fdmux_hook_add(loop, &hook, &adapter->hook);
    if (r == 0)
        r = fdmux_io_add(loop, &io, &adapter->io);
    if (r < 0) {
        (void)fdmux_hook_remove(loop, adapter->hook); /* 0 is no hook */
        free(adapter);
    } else {
        *ret_adapter = adapter;
    }
    return r;
}
