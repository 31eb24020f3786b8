/* node.c: descriptors as the kernel knows them.
 *
 * A node is one descriptor, with the union of what its watchers want; the kernel's
 * events carry the node's token. The watchers of a node form a list in the order of
 * adding. The dispatching thread walks it without the lock: it is changed by single
 * atomic stores, and a removed watcher keeps its link (retire.h). */
#include "node.h"

#include <errno.h>
#include <string.h>

#include "../backends/backend.h"
#include "../platform/sys.h"

uint32_t fdmux__node_kernel_mask(uint32_t events)
{
    if ((events & FDMUX__EVENT_MASK) == 0)
        return 0;
    return events & (FDMUX__EVENT_MASK | FDMUX__KERNEL_OPTIONS);
}

uint32_t fdmux__node_wanted(struct fdmux_loop *loop, const struct fdmux__node *node)
{
    uint32_t index = fdmux__load(&node->first);
    uint32_t mask = 0;

    while (index != FDMUX__SLOT_NONE) {
        mask |=
            fdmux__node_kernel_mask(fdmux__load(&fdmux__io_at(loop, index)->events));
        index = fdmux__load(&fdmux__io_at(loop, index)->next);
    }
    return mask;
}

bool fdmux__node_options_agree(uint32_t told, uint32_t mask)
{
    return told == 0 || mask == 0 || ((told ^ mask) & FDMUX__KERNEL_OPTIONS) == 0;
}

/* The number means another file now. The old file may still be open under another
 * number, and so stay in the kernel's set. A new token makes its events find nothing.
 */
static void renew_token(struct fdmux_loop *loop, struct fdmux__node *node)
{
    node->mask = 0;
    node->changed = loop->batch;
    fdmux__slots_renew(&loop->nodes, node->index);
}

int fdmux__node_tell_anyway(struct fdmux_loop *loop, struct fdmux__node *node,
                            uint32_t mask)
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

int fdmux__node_tell(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask)
{
    return mask == node->mask ? 0 : fdmux__node_tell_anyway(loop, node, mask);
}

/* Tell the kernel that a watcher has left. If the file is gone, it is not registered
 * again for the other watchers. A closed loop tells the kernel nothing: in a child of
 * fork(2) the set is the parent's. */
static void tell_less(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask)
{
    int r;

    if (mask == node->mask || node->mask == 0 || fdmux__load(&loop->is_closed))
        return;
    r = loop->backend->update(loop, node, mask);
    if (r == 0 || r == -ENOENT || r == -EBADF)
        node->mask = r == 0 ? mask : 0;
}

static struct fdmux__node *node_of_fd(struct fdmux_loop *loop, fdmux_fd fd)
{
    uint32_t index = fdmux__fd_table_find(&loop->fds, fd);

    return index == FDMUX__SLOT_NONE ? NULL : fdmux__node_at(loop, index);
}

/* ---- nodes --------------------------------------------------------------------- */

static void drop_node(struct fdmux_loop *loop, struct fdmux__node *node)
{
    node->changed = loop->batch;
    if (node_of_fd(loop, node->fd) == node)
        fdmux__fd_table_clear(&loop->fds, node->fd);
    fdmux__retire(loop, &loop->nodes, node->index);
}

static int new_node(struct fdmux_loop *loop, fdmux_fd fd, struct fdmux__node **ret_node)
{
    struct fdmux__node *node;
    uint32_t index;
    int r = fdmux__fd_table_reserve(&loop->fds, fd);

    if (r == 0)
        r = fdmux__slots_take(&loop->nodes, &index);
    if (r != 0)
        return r;
    node = fdmux__node_at(loop, index);
    node->fd = fd;
    node->index = index;
    node->changed = loop->batch;
    fdmux__store(&node->first, FDMUX__SLOT_NONE);
    fdmux__fd_table_set(&loop->fds, fd, index);
    *ret_node = node;
    return 0;
}

/* The descriptor of this node was closed and its number reused: its watchers get no
 * more events, and stay until they are removed. */
static void orphan(struct fdmux_loop *loop, struct fdmux__node *node)
{
    uint32_t index = fdmux__load(&node->first);

    while (index != FDMUX__SLOT_NONE) {
        fdmux__io_at(loop, index)->node = FDMUX__SLOT_NONE;
        index = fdmux__load(&fdmux__io_at(loop, index)->next);
    }
    fdmux__store(&node->first, FDMUX__SLOT_NONE);
    drop_node(loop, node);
}

static _Atomic uint32_t *link_to(struct fdmux_loop *loop, struct fdmux__node *node,
                                 uint32_t index)
{
    _Atomic uint32_t *link = &node->first;

    while (fdmux__load(link) != index && fdmux__load(link) != FDMUX__SLOT_NONE)
        link = &fdmux__io_at(loop, fdmux__load(link))->next;
    return link;
}

void fdmux__node_append(struct fdmux_loop *loop, struct fdmux__node *node,
                        uint32_t index)
{
    struct fdmux__io *io = fdmux__io_at(loop, index);

    io->node = node->index;
    fdmux__store(&io->born, loop->batch);
    fdmux__store(&io->next, FDMUX__SLOT_NONE);
    fdmux__store(link_to(loop, node, FDMUX__SLOT_NONE), index);
}

/* Never fails: if the kernel refuses to remove its entry, the events carry the token of
 * a dropped node and find nothing. */
void fdmux__node_detach(struct fdmux_loop *loop, uint32_t index)
{
    struct fdmux__io *io = fdmux__io_at(loop, index);
    struct fdmux__node *node;

    if (io->node == FDMUX__SLOT_NONE)
        return;
    node = fdmux__node_at(loop, io->node);
    io->node = FDMUX__SLOT_NONE;
    fdmux__store(link_to(loop, node, index), fdmux__load(&io->next));
    tell_less(loop, node, fdmux__node_wanted(loop, node));
    if (fdmux__load(&node->first) == FDMUX__SLOT_NONE)
        drop_node(loop, node);
}

/* Add the first watcher of a descriptor. */
static int attach_first(struct fdmux_loop *loop, uint32_t index, fdmux_fd fd,
                        uint32_t mask)
{
    struct fdmux__node *node;
    int r = new_node(loop, fd, &node);

    if (r != 0)
        return r;
    fdmux__node_append(loop, node, index);
    r = mask == 0 ? fdmux__sys_check_fd(fd) : fdmux__node_tell(loop, node, mask);
    if (r < 0) {
        fdmux__io_at(loop, index)->node = FDMUX__SLOT_NONE;
        fdmux__store(&node->first, FDMUX__SLOT_NONE);
        drop_node(loop, node);
    }
    return r;
}

/* Add another watcher of a descriptor. The kernel is told even if the union stays the
 * same, because its answer says whether the number still means the same file. -ENOENT
 * if it does not, or if the file was found closed before. */
static int attach_another(struct fdmux_loop *loop, struct fdmux__node *node,
                          uint32_t index, uint32_t mask)
{
    uint32_t told = node->mask;
    int r;

    if (told == 0 && fdmux__node_wanted(loop, node) != 0)
        return -ENOENT;
    if (!fdmux__node_options_agree(told, mask)) {
        r = loop->backend->update(loop, node, told); /* -ENOENT: that file was closed */
        return r < 0 ? r : -EEXIST;
    }
    r = (told | mask) == 0 ? fdmux__sys_check_fd(node->fd)
                           : loop->backend->update(loop, node, told | mask);
    if (r < 0)
        return r;
    node->mask = told | mask;
    /* An event that the kernel reports from now on is dispatched after the unlock. */
    fdmux__node_append(loop, node, index);
    return 0;
}

int fdmux__node_attach(struct fdmux_loop *loop, uint32_t index, fdmux_fd fd,
                       uint32_t events)
{
    uint32_t mask = fdmux__node_kernel_mask(events);
    struct fdmux__node *node = fdmux__is_fd(fd) ? node_of_fd(loop, fd) : NULL;
    int r = -ENOENT;

    if (!fdmux__is_fd(fd))
        return -EBADF;
    if (node != NULL)
        r = attach_another(loop, node, index, mask);
    if (r != -ENOENT)
        return r;
    if (node != NULL) {
        node->mask = 0; /* the kernel has removed its entry already */
        orphan(loop, node);
    }
    return attach_first(loop, index, fd, mask);
}

/* ---- all nodes ------------------------------------------------------------------ */

/* Register a node in a new set. If its descriptor was closed meanwhile, and its number
 * perhaps reused for a file or for a descriptor of the loop itself, the node is left
 * out. If the kernel has no memory for it, it keeps its mask, and the next call of
 * fdmux__node_tell_all tries again. */
static int tell_new_set(struct fdmux_loop *loop, struct fdmux__node *node)
{
    uint32_t mask = node->mask;
    int r;

    node->mask = node->backend_index = 0;
    r = mask == 0 ? 0 : fdmux__node_tell(loop, node, mask);
    if (r == -EBADF || r == -EPERM || r == -ELOOP || r == -EINVAL)
        return 0;
    node->mask = mask;
    return r;
}

int fdmux__node_tell_all(struct fdmux_loop *loop)
{
    int error = 0;

    for (uint32_t i = 0; i < fdmux__load(&loop->nodes.slot_count); i++) {
        struct fdmux__node *node = fdmux__node_at(loop, i);
        int r = fdmux__slot_is_live(&node->slot) ? tell_new_set(loop, node) : 0;

        if (r < 0)
            error = r;
    }
    loop->is_set_incomplete = error < 0;
    return error;
}

/* A number that was closed and reused must not be registered in the new set. The old
 * set still knows which numbers these are. */
static void forget_reused(struct fdmux_loop *loop)
{
    for (uint32_t i = 0; i < fdmux__load(&loop->nodes.slot_count); i++) {
        struct fdmux__node *node = fdmux__node_at(loop, i);
        int r = fdmux__slot_is_live(&node->slot) && node->mask != 0
                    ? loop->backend->update(loop, node, node->mask)
                    : 0;

        if (r == -ENOENT || r == -EBADF)
            node->mask = 0;
    }
}

int fdmux__node_rebuild_all(struct fdmux_loop *loop)
{
    int r;

    if (loop->backend->reopen == NULL)
        return 0;
    forget_reused(loop);
    r = loop->backend->reopen(loop);
    if (r < 0)
        return r; /* keep the old set; the next stale event tries again */
    fdmux__count(&loop->counters.rebuilds, 1);
    return fdmux__node_tell_all(loop);
}
