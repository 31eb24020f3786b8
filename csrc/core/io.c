/* io.c: watchers of descriptors: the public functions fdmux_io_*.
 *
 * What watchers of the same descriptor share is in node.c. */
#include "io.h"

#include <errno.h>

#include "gate.h"
#include "host.h"

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
    r = options->fd == FDMUX_NO_FD
            ? 0
            : fdmux__node_attach(loop, index, options->fd, options->events);
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
    if (r == 0)
        fdmux__host_notify(loop);
    fdmux__loop_unlock(loop);
    return r;
}

int fdmux_io_add(struct fdmux_loop *loop, const struct fdmux_io_options *options,
                 uint64_t *ret_io)
{
    int r = fdmux__arguments_check(options, sizeof *options, ret_io);

    if (r == 0)
        r = fdmux__collect_check(options->flags, options->fn == NULL);
    if (r == 0)
        r = check_events(options->events);
    return r < 0 ? r : fdmux__io_add(loop, options, 0, ret_io);
}

/* Change one watcher's interest. If the caller says that the descriptor number is
 * current, the kernel is asked even if nothing changes: the number may mean another
 * file by now. */
static int set_events(struct fdmux_loop *loop, struct fdmux__io *io, uint32_t events,
                      bool is_current)
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
    if (r == 0 && (is_current || (mask & FDMUX_EDGE) != 0))
        r = fdmux__node_tell_anyway(loop, node, mask); /* re-arms the edge, too */
    else if (r == 0)
        r = fdmux__node_tell(loop, node, mask);
    fdmux__store(&io->events, r < 0 ? before : events);
    return r;
}

int fdmux__io_set_events(struct fdmux_loop *loop, struct fdmux__io *io, uint32_t events)
{
    return set_events(loop, io, events, false);
}

/* Lock the loop and find a watcher; -EIDRM leaves it unlocked. */
static int lock_io(struct fdmux_loop *loop, uint64_t token, struct fdmux__io **ret_io)
{
    struct fdmux__io *io;
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    io = fdmux__slots_find(&loop->ios, token);
    if (io == NULL) {
        fdmux__loop_unlock(loop);
        return -EIDRM;
    }
    *ret_io = io;
    return 0;
}

/* Returns `result`. */
static int unlock_io(struct fdmux_loop *loop, int result)
{
    if (result == 0)
        fdmux__host_notify(loop);
    fdmux__loop_unlock(loop);
    return result;
}

int fdmux_io_update(struct fdmux_loop *loop, uint64_t token, uint32_t events)
{
    struct fdmux__io *io;
    int r = check_events(events);

    if (r == 0)
        r = lock_io(loop, token, &io);
    return r < 0 ? r : unlock_io(loop, set_events(loop, io, events, true));
}

/* Move a watcher to the node of another descriptor. First a temporary watcher takes its
 * place there, so a failure changes nothing. */
static int move_to(struct fdmux_loop *loop, uint32_t index, fdmux_fd fd,
                   uint32_t events)
{
    struct fdmux__io *place;
    uint32_t place_index;
    int r = fdmux__slots_take(&loop->ios, &place_index);

    if (r < 0)
        return r;
    place = fdmux__io_at(loop, place_index);
    place->node = FDMUX__SLOT_NONE;
    fdmux__store(&place->events, events);
    r = fdmux__node_attach(loop, place_index, fd, events);
    if (r == 0) {
        fdmux__node_detach(loop, index);
        fdmux__store(&fdmux__io_at(loop, index)->events, events);
        fdmux__node_append(loop, fdmux__node_at(loop, place->node), index);
        fdmux__node_detach(loop, place_index);
    }
    fdmux__retire(loop, &loop->ios, place_index);
    fdmux__reap(loop);
    return r;
}

/* The same number, which may mean another file: the kernel finds out. */
static int register_again(struct fdmux_loop *loop, struct fdmux__io *io, fdmux_fd fd,
                          uint32_t events)
{
    int r = fdmux__sys_check_fd(fd);

    return r < 0 ? r : set_events(loop, io, events, true);
}

static int replace_fd(struct fdmux_loop *loop, uint32_t index, fdmux_fd fd,
                      uint32_t events)
{
    struct fdmux__io *io = fdmux__io_at(loop, index);

    if (io->node != FDMUX__SLOT_NONE && fdmux__node_at(loop, io->node)->fd == fd)
        return register_again(loop, io, fd, events);
    if (fd != FDMUX_NO_FD)
        return move_to(loop, index, fd, events);
    fdmux__node_detach(loop, index);
    fdmux__store(&io->events, events);
    return 0;
}

int fdmux_io_replace_fd(struct fdmux_loop *loop, uint64_t token, fdmux_fd fd,
                        uint32_t events)
{
    struct fdmux__io *io;
    int r = check_events(events);

    if (r == 0)
        r = lock_io(loop, token, &io);
    return r < 0 ? r
                 : unlock_io(loop,
                             replace_fd(loop, fdmux__token_slot(token), fd, events));
}

int fdmux_io_fd(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__io *io;
    int r = lock_io(loop, token, &io);

    if (r < 0)
        return r;
    r = io->node == FDMUX__SLOT_NONE
            ? -EBADF
            : fdmux__fd_result(fdmux__node_at(loop, io->node)->fd);
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
    struct fdmux__io *io;
    int r = lock_io(loop, token, &io);

    if (r < 0)
        return r;
    fdmux__host_notify(loop);
    retire_io(loop, fdmux__token_slot(token));
    fdmux__reap(loop);
    fdmux__loop_unlock(loop);
    return 0;
}

void fdmux__io_kill_all(struct fdmux_loop *loop)
{
    for (uint32_t i = 0; i < fdmux__load(&loop->ios.slot_count); i++) {
        if (fdmux__slot_is_live(&fdmux__io_at(loop, i)->base.slot))
            retire_io(loop, i);
    }
}
