/* io.c: watchers of descriptors: the public functions fdmux_io_*.
 *
 * What watchers of the same descriptor share is in node.c. */
#include "io.h"

#include <errno.h>

#include "gate.h"

static int check_events(uint32_t events)
{
    uint32_t known = FDMUX__EVENT_MASK | FDMUX__OPTION_MASK;

    return (events & ~known) != 0 ? -EINVAL : 0;
}

static int add_io(struct fdmux_loop *loop, const struct fdmux_io_options *options,
                  uint32_t compact, uint64_t *ret_io)
{
    struct fdmux__io *io;
    uint32_t index;
    int r = fdmux__slots_take(&loop->ios, &index);

    if (r < 0)
        return r;
    io = fdmux__io_at(loop, index);
    io->base.userdata = options->userdata;
    io->base.destroyed = options->destroyed;
    io->fn = options->fn;
    io->tag = options->tag;
    io->compact = compact;
    io->node = FDMUX__SLOT_NONE;
    fdmux__store(&io->events, options->events);
    r = fdmux__node_attach(loop, index, options->fd, options->events);
    if (r < 0) {
        io->base.destroyed = NULL; /* the caller still owns its userdata */
        fdmux__retire(loop, &loop->ios, index);
        fdmux__reap(loop);
        return r;
    }
    loop->collected_live += io->fn == NULL ? 1 : 0;
    *ret_io = fdmux__slots_token(&loop->ios, index);
    return 0;
}

int fdmux__io_add(struct fdmux_loop *loop, const struct fdmux_io_options *options,
                  uint32_t compact, uint64_t *ret_io)
{
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    r = add_io(loop, options, compact, ret_io);
    fdmux__loop_unlock(loop);
    return r;
}

int fdmux_io_add(struct fdmux_loop *loop, const struct fdmux_io_options *options,
                 uint64_t *ret_io)
{
    if (fdmux__options_check(options, sizeof *options) < 0 || ret_io == NULL ||
        options->reserved != 0 || check_events(options->events) < 0)
        return -EINVAL;
    return fdmux__io_add(loop, options, 0, ret_io);
}

int fdmux__io_set_events(struct fdmux_loop *loop, struct fdmux__io *io, uint32_t events)
{
    uint32_t before = fdmux__load(&io->events);
    struct fdmux__node *node;
    uint32_t mask;
    int r;

    if (io->node == FDMUX__SLOT_NONE)
        return -EBADF;
    node = fdmux__node_at(loop, io->node);
    fdmux__store(&io->events, 0);
    mask = fdmux__node_wanted(loop, node); /* what the other watchers want */
    r = fdmux__node_options_agree(mask, fdmux__node_kernel_mask(events)) ? 0 : -EEXIST;
    mask |= fdmux__node_kernel_mask(events);
    if (r == 0 && mask == node->mask && (mask & FDMUX_EDGE) != 0)
        r = fdmux__node_tell_anyway(loop, node, mask); /* re-arms the edge */
    else if (r == 0)
        r = fdmux__node_tell(loop, node, mask);
    fdmux__store(&io->events, r < 0 ? before : events);
    return r;
}

int fdmux_io_update(struct fdmux_loop *loop, uint64_t token, uint32_t events)
{
    struct fdmux__io *io;
    int r = check_events(events);

    if (r < 0)
        return r;
    r = fdmux__loop_lock(loop);
    if (r < 0)
        return r;
    io = fdmux__slots_find(&loop->ios, token);
    r = io == NULL ? -ENOENT : fdmux__io_set_events(loop, io, events);
    fdmux__loop_unlock(loop);
    return r;
}

/* The number has not changed, but it may mean another file: the kernel finds out. */
static int register_again(struct fdmux_loop *loop, struct fdmux__node *node)
{
    uint32_t mask = fdmux__node_wanted(loop, node);

    return mask == 0 ? fdmux__node_check_fd(node->fd)
                     : fdmux__node_tell_anyway(loop, node, mask);
}

static int replace_fd(struct fdmux_loop *loop, uint32_t index, int fd)
{
    struct fdmux__io *io = fdmux__io_at(loop, index);
    uint32_t old_node = io->node;
    uint32_t new_index;
    int r;

    if (old_node != FDMUX__SLOT_NONE && fdmux__node_at(loop, old_node)->fd == fd)
        return register_again(loop, fdmux__node_at(loop, old_node));
    /* First put a temporary watcher on the new node: a failure then changes nothing. */
    r = fdmux__slots_take(&loop->ios, &new_index);
    if (r < 0)
        return r;
    fdmux__io_at(loop, new_index)->node = FDMUX__SLOT_NONE;
    fdmux__store(&fdmux__io_at(loop, new_index)->events, fdmux__load(&io->events));
    r = fdmux__node_attach(loop, new_index, fd, fdmux__load(&io->events));
    if (r == 0) {
        struct fdmux__node *node =
            fdmux__node_at(loop, fdmux__io_at(loop, new_index)->node);

        fdmux__node_detach(loop, index);
        fdmux__node_append(loop, node, index);
        fdmux__node_detach(loop, new_index);
    }
    fdmux__retire(loop, &loop->ios, new_index);
    fdmux__reap(loop);
    return r;
}

int fdmux_io_replace_fd(struct fdmux_loop *loop, uint64_t token, int fd)
{
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    if (fdmux__slots_find(&loop->ios, token) == NULL)
        r = -ENOENT;
    else
        r = replace_fd(loop, fdmux__token_slot(token), fd);
    fdmux__loop_unlock(loop);
    return r;
}

static void retire_io(struct fdmux_loop *loop, uint32_t index)
{
    fdmux__node_detach(loop, index);
    loop->collected_live -= fdmux__io_at(loop, index)->fn == NULL ? 1 : 0;
    fdmux__retire(loop, &loop->ios, index);
}

int fdmux_io_remove(struct fdmux_loop *loop, uint64_t token)
{
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    if (fdmux__slots_find(&loop->ios, token) == NULL) {
        r = -ENOENT;
    } else {
        retire_io(loop, fdmux__token_slot(token));
        fdmux__reap(loop);
    }
    fdmux__loop_unlock(loop);
    return r;
}

void fdmux__io_kill_all(struct fdmux_loop *loop)
{
    for (uint32_t i = 0; i < fdmux__load(&loop->ios.slot_count); i++) {
        if (fdmux__slot_is_live(&fdmux__io_at(loop, i)->base.slot))
            retire_io(loop, i);
    }
}
