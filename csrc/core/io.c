/* io.c: watchers of descriptors, and the nodes they share.
 *
 * A node is one descriptor as the kernel knows it, with the union of what its watchers
 * want; the kernel's events carry the node's token. Watchers of a node form a list in
 * the order of adding, which the dispatching thread walks without the lock: it is
 * changed by single atomic stores, and a removed watcher keeps its link (retire.c). */
#include "internal.h"

#include <errno.h>
#include <string.h>

#include "../backends/backend.h"
#include "sys.h"

static struct fdmux__io *io_at(struct fdmux_loop *loop, uint32_t index)
{
    return fdmux__slots_at(&loop->ios, index);
}

static struct fdmux__node *node_at(struct fdmux_loop *loop, uint32_t index)
{
    return fdmux__slots_at(&loop->nodes, index);
}

/* What the kernel must know of a watcher's events: nothing, if it wants none. */
static uint32_t kernel_mask(uint32_t events)
{
    if ((events & FDMUX__EVENT_MASK) == 0)
        return 0;
    return events & (FDMUX__EVENT_MASK | FDMUX__KERNEL_OPTIONS);
}

/* The union of a node's watchers. O(watchers of the node). */
static uint32_t wanted_mask(struct fdmux_loop *loop, const struct fdmux__node *node)
{
    uint32_t index = fdmux__load(&node->first);
    uint32_t mask = 0;

    while (index != FDMUX__SLOT_NONE) {
        mask |= kernel_mask(fdmux__load(&io_at(loop, index)->events));
        index = fdmux__load(&io_at(loop, index)->next);
    }
    return mask;
}

/* May `mask` join what the kernel already holds for this descriptor? */
static bool options_agree(uint32_t held, uint32_t mask)
{
    return held == 0 || mask == 0 || ((held ^ mask) & FDMUX__KERNEL_OPTIONS) == 0;
}

/* Another file has taken the number. The old one may live on as a dup and stay in the
 * kernel's set, so from now on its events find nothing. */
static void renew_token(struct fdmux_loop *loop, struct fdmux__node *node)
{
    node->mask = 0;
    node->changed = loop->batch;
    fdmux__slots_renew(&loop->nodes, node->index);
}

/* Tell the kernel a node's interest, even if it is not new; remembered only if it
 * agreed. A number that another file has taken since is registered anew: the caller
 * says it is current. */
static int tell_anyway(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask)
{
    int r = loop->backend->update(loop, node, mask);

    if (r == -ENOENT) {
        renew_token(loop, node);
        r = loop->backend->update(loop, node, mask);
    }
    if (r == 0)
        node->mask = mask;
    return r;
}

static int tell(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask)
{
    return mask == node->mask ? 0 : tell_anyway(loop, node, mask);
}

/* A watcher has left. A file that is gone is not registered anew for those that stay. A
 * closed loop tells nothing: in a child of fork() the set is the parent's. */
static void tell_less(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask)
{
    int r;

    if (mask == node->mask || node->mask == 0 || fdmux__load(&loop->is_closed))
        return;
    r = loop->backend->update(loop, node, mask);
    if (r == 0 || r == -ENOENT || r == -EBADF)
        node->mask = r == 0 ? mask : 0;
}

/* ---- descriptor numbers -------------------------------------------------------- */

static struct fdmux__node *node_of_fd(struct fdmux_loop *loop, int fd)
{
    if ((uint32_t)fd >= loop->node_by_fd_capacity || loop->node_by_fd[fd] == 0)
        return NULL;
    return node_at(loop, loop->node_by_fd[fd] - 1);
}

static int reserve_fd(struct fdmux_loop *loop, int fd)
{
    uint32_t capacity = loop->node_by_fd_capacity == 0 ? 64 : loop->node_by_fd_capacity;
    uint32_t *table;

    if ((uint32_t)fd < loop->node_by_fd_capacity)
        return 0;
    while (capacity <= (uint32_t)fd)
        capacity *= 2;
    table = fdmux__sys_realloc(loop->node_by_fd, capacity * sizeof *table);
    if (table == NULL)
        return -ENOMEM;
    memset(table + loop->node_by_fd_capacity, 0,
           (capacity - loop->node_by_fd_capacity) * sizeof *table);
    loop->node_by_fd = table;
    loop->node_by_fd_capacity = capacity;
    return 0;
}

/* poll(2) reports POLLNVAL for a number that is not open: without this, a wild number
 * would cost a table of its size. */
static int check_fd(int fd)
{
    struct pollfd probe = {.fd = fd};
    int r = fdmux__sys_ppoll(&probe, 1, 0);

    return r > 0 && (probe.revents & POLLNVAL) != 0 ? -EBADF : 0;
}

/* ---- nodes --------------------------------------------------------------------- */

static void drop_node(struct fdmux_loop *loop, struct fdmux__node *node)
{
    node->changed = loop->batch;
    if (node_of_fd(loop, node->fd) == node)
        loop->node_by_fd[node->fd] = 0;
    fdmux__retire(loop, &loop->nodes, node->index);
}

static int new_node(struct fdmux_loop *loop, int fd, struct fdmux__node **ret_node)
{
    struct fdmux__node *node;
    uint32_t index;
    int r = 0;

    if ((uint32_t)fd >= loop->node_by_fd_capacity)
        r = check_fd(fd);
    if (r == 0)
        r = reserve_fd(loop, fd);
    if (r == 0)
        r = fdmux__slots_take(&loop->nodes, &index);
    if (r != 0)
        return r;
    node = node_at(loop, index);
    node->fd = fd;
    node->index = index;
    node->changed = loop->batch;
    fdmux__store(&node->first, FDMUX__SLOT_NONE);
    loop->node_by_fd[fd] = index + 1;
    *ret_node = node;
    return 0;
}

/* The descriptor behind this node was closed and its number reused: its watchers get
 * nothing any more, and stay until they are removed. */
static void orphan(struct fdmux_loop *loop, struct fdmux__node *node)
{
    uint32_t index = fdmux__load(&node->first);

    while (index != FDMUX__SLOT_NONE) {
        io_at(loop, index)->node = FDMUX__SLOT_NONE;
        index = fdmux__load(&io_at(loop, index)->next);
    }
    fdmux__store(&node->first, FDMUX__SLOT_NONE);
    drop_node(loop, node);
}

static _Atomic uint32_t *link_to(struct fdmux_loop *loop, struct fdmux__node *node,
                                 uint32_t index)
{
    _Atomic uint32_t *link = &node->first;

    while (fdmux__load(link) != index && fdmux__load(link) != FDMUX__SLOT_NONE)
        link = &io_at(loop, fdmux__load(link))->next;
    return link;
}

static void append(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t index)
{
    struct fdmux__io *io = io_at(loop, index);

    io->node = node->index;
    fdmux__store(&io->born, loop->batch);
    fdmux__store(&io->next, FDMUX__SLOT_NONE);
    fdmux__store(link_to(loop, node, FDMUX__SLOT_NONE), index);
}

/* Take a watcher off its node. Never fails: the kernel's refusal to forget something is
 * of no consequence, since the token of a dropped node finds nothing. */
static void detach(struct fdmux_loop *loop, uint32_t index)
{
    struct fdmux__io *io = io_at(loop, index);
    struct fdmux__node *node;

    if (io->node == FDMUX__SLOT_NONE)
        return;
    node = node_at(loop, io->node);
    io->node = FDMUX__SLOT_NONE;
    fdmux__store(link_to(loop, node, index), fdmux__load(&io->next));
    tell_less(loop, node, wanted_mask(loop, node));
    if (fdmux__load(&node->first) == FDMUX__SLOT_NONE)
        drop_node(loop, node);
}

/* A new descriptor. */
static int attach_first(struct fdmux_loop *loop, uint32_t index, int fd, uint32_t mask)
{
    struct fdmux__node *node;
    int r = new_node(loop, fd, &node);

    if (r != 0)
        return r;
    append(loop, node, index);
    r = mask == 0 ? check_fd(fd) : tell(loop, node, mask);
    if (r < 0) {
        io_at(loop, index)->node = FDMUX__SLOT_NONE;
        fdmux__store(&node->first, FDMUX__SLOT_NONE);
        drop_node(loop, node);
    }
    return r;
}

/* One more watcher of a descriptor. The kernel is told even if the union stays the
 * same: that is how it says whether the number still means the same file. -ENOENT if it
 * does not, or if the file was found closed before. */
static int attach_another(struct fdmux_loop *loop, struct fdmux__node *node,
                          uint32_t index, uint32_t mask)
{
    uint32_t held = node->mask;
    int r;

    if (held == 0 && wanted_mask(loop, node) != 0)
        return -ENOENT;
    if (!options_agree(held, mask))
        return -EEXIST;
    r = (held | mask) == 0 ? check_fd(node->fd)
                           : loop->backend->update(loop, node, held | mask);
    if (r < 0)
        return r;
    node->mask = held | mask;
    append(loop, node, index); /* the lock keeps back what the kernel may say now */
    return 0;
}

static int attach(struct fdmux_loop *loop, uint32_t index, int fd, uint32_t events)
{
    uint32_t mask = kernel_mask(events);
    struct fdmux__node *node = fd < 0 ? NULL : node_of_fd(loop, fd);
    int r = -ENOENT;

    if (fd < 0)
        return -EBADF;
    if (node != NULL)
        r = attach_another(loop, node, index, mask);
    if (r != -ENOENT)
        return r;
    if (node != NULL) {
        node->mask = 0; /* the kernel has forgotten it already */
        orphan(loop, node);
    }
    return attach_first(loop, index, fd, mask);
}

/* ---- the public functions ------------------------------------------------------ */

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
    io = io_at(loop, index);
    io->base.userdata = options->userdata;
    io->base.destroyed = options->destroyed;
    io->fn = options->fn;
    io->tag = options->tag;
    io->compact = compact;
    io->node = FDMUX__SLOT_NONE;
    fdmux__store(&io->events, options->events);
    r = attach(loop, index, options->fd, options->events);
    if (r < 0) {
        io->base.destroyed = NULL; /* its userdata is still the caller's */
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
    node = node_at(loop, io->node);
    fdmux__store(&io->events, 0); /* what the others want */
    mask = wanted_mask(loop, node);
    r = options_agree(mask, kernel_mask(events)) ? 0 : -EEXIST;
    mask |= kernel_mask(events);
    if (r == 0 && mask == node->mask && (mask & FDMUX_EDGE) != 0)
        r = tell_anyway(loop, node, mask); /* re-arms the edge */
    else if (r == 0)
        r = tell(loop, node, mask);
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

/* The same number again: the kernel says whether the file behind it is another. */
static int register_anew(struct fdmux_loop *loop, struct fdmux__node *node)
{
    uint32_t mask = wanted_mask(loop, node);

    return mask == 0 ? check_fd(node->fd) : tell_anyway(loop, node, mask);
}

static int replace_fd(struct fdmux_loop *loop, uint32_t index, int fd)
{
    struct fdmux__io *io = io_at(loop, index);
    uint32_t old_node = io->node;
    uint32_t new_index;
    int r;

    if (old_node != FDMUX__SLOT_NONE && node_at(loop, old_node)->fd == fd)
        return register_anew(loop, node_at(loop, old_node));
    /* Join the new node under a passing slot, so that a failure changes nothing. */
    r = fdmux__slots_take(&loop->ios, &new_index);
    if (r < 0)
        return r;
    io_at(loop, new_index)->node = FDMUX__SLOT_NONE;
    fdmux__store(&io_at(loop, new_index)->events, fdmux__load(&io->events));
    r = attach(loop, new_index, fd, fdmux__load(&io->events));
    if (r == 0) {
        struct fdmux__node *node = node_at(loop, io_at(loop, new_index)->node);

        detach(loop, index);
        append(loop, node, index);
        detach(loop, new_index);
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

static void end(struct fdmux_loop *loop, uint32_t index)
{
    detach(loop, index);
    loop->collected_live -= io_at(loop, index)->fn == NULL ? 1 : 0;
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
        end(loop, fdmux__token_slot(token));
        fdmux__reap(loop);
    }
    fdmux__loop_unlock(loop);
    return r;
}

/* ---- all at once --------------------------------------------------------------- */

static bool is_live(const struct fdmux__slot *slot)
{
    return (fdmux__load(&slot->generation) & 1) != 0;
}

/* A node that was closed meanwhile, and perhaps reused for a file, is left out. One
 * that the kernel has no memory for keeps its mask: telling all again tries again. */
static int tell_new_set(struct fdmux_loop *loop, struct fdmux__node *node)
{
    uint32_t mask = node->mask;
    int r;

    node->mask = 0;
    r = mask == 0 ? 0 : tell(loop, node, mask);
    if (r == -EBADF || r == -EPERM)
        return 0;
    node->mask = mask;
    return r;
}

int fdmux__io_tell_again(struct fdmux_loop *loop)
{
    int error = 0;

    for (uint32_t i = 0; i < fdmux__load(&loop->nodes.slot_count); i++) {
        struct fdmux__node *node = node_at(loop, i);
        int r = is_live(&node->slot) ? tell_new_set(loop, node) : 0;

        if (r < 0)
            error = r;
    }
    loop->is_set_incomplete = error < 0;
    return error;
}

/* A number that was closed and reused must not come back to life in the new set: the
 * old one still knows which those are. */
static void forget_reused(struct fdmux_loop *loop)
{
    for (uint32_t i = 0; i < fdmux__load(&loop->nodes.slot_count); i++) {
        struct fdmux__node *node = node_at(loop, i);
        int r = is_live(&node->slot) && node->mask != 0
                    ? loop->backend->update(loop, node, node->mask)
                    : 0;

        if (r == -ENOENT || r == -EBADF)
            node->mask = 0;
    }
}

int fdmux__io_rebuild(struct fdmux_loop *loop)
{
    int r;

    if (loop->backend->reopen == NULL)
        return 0;
    forget_reused(loop);
    r = loop->backend->reopen(loop);
    if (r < 0)
        return r; /* the old set goes on; the next stale event tries again */
    fdmux__count(&loop->counters.rebuilds, 1);
    return fdmux__io_tell_again(loop);
}

void fdmux__io_kill_all(struct fdmux_loop *loop)
{
    for (uint32_t i = 0; i < fdmux__load(&loop->ios.slot_count); i++) {
        if (!is_live(&io_at(loop, i)->base.slot))
            continue;
        end(loop, i);
    }
}
