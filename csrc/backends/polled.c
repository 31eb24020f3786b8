/* polled.c: see polled.h. */
#define _GNU_SOURCE /* POLLRDHUP */
#include "polled.h"

#include <errno.h>
#include <string.h>

#include "../core/wake.h"
#include "backend.h"

static short poll_from_mask(uint32_t mask)
{
    int events = ((mask & FDMUX_READ) != 0 ? POLLIN : 0) |
                 ((mask & FDMUX_WRITE) != 0 ? POLLOUT : 0) |
                 ((mask & FDMUX_PRIORITY) != 0 ? POLLPRI : 0);

#if defined(POLLRDHUP)
    events |= (mask & FDMUX_PEER_CLOSED) != 0 ? POLLRDHUP : 0;
#endif
    return (short)events;
}

static uint32_t mask_from_poll(short revents)
{
    uint32_t mask = ((revents & POLLIN) != 0 ? (uint32_t)FDMUX_READ : 0) |
                    ((revents & POLLOUT) != 0 ? (uint32_t)FDMUX_WRITE : 0) |
                    ((revents & POLLPRI) != 0 ? (uint32_t)FDMUX_PRIORITY : 0) |
                    ((revents & POLLHUP) != 0 ? (uint32_t)FDMUX_HANGUP : 0) |
                    ((revents & POLLERR) != 0 ? (uint32_t)FDMUX_ERROR : 0);

#if defined(POLLRDHUP)
    mask |= (revents & POLLRDHUP) != 0 ? (uint32_t)FDMUX_PEER_CLOSED : 0;
#endif
    if ((mask & (FDMUX_HANGUP | FDMUX_ERROR)) != 0)
        mask |= FDMUX_READ | FDMUX_WRITE;
    return mask;
}

static int reserve(struct fdmux__poll_set *set, uint32_t count)
{
    uint32_t capacity = set->capacity == 0 ? 16 : set->capacity;
    fdmux__pollfd *fds;
    uint64_t *tokens;

    if (count <= set->capacity)
        return 0;
    while (capacity < count)
        capacity *= 2;
    fds = fdmux__sys_realloc(set->fds, capacity * sizeof *fds);
    if (fds == NULL)
        return -ENOMEM;
    set->fds = fds; /* it may be larger than the capacity says */
    tokens = fdmux__sys_realloc(set->tokens, capacity * sizeof *tokens);
    if (tokens == NULL)
        return -ENOMEM;
    set->tokens = tokens;
    set->capacity = capacity;
    return 0;
}

static void free_set(struct fdmux__poll_set *set)
{
    fdmux__sys_free(set->fds);
    fdmux__sys_free(set->tokens);
}

static void append(struct fdmux__poll_set *set, fdmux_fd fd, short events,
                   uint64_t token)
{
    set->fds[set->count] = (fdmux__pollfd){.fd = fd, .events = events};
    set->tokens[set->count] = token;
    set->count++;
}

int fdmux__polled_open(struct fdmux__polled *polled, fdmux_fd fd, uint64_t token)
{
    if (reserve(&polled->master, 1) < 0)
        return -ENOMEM;
    append(&polled->master, fd, POLLIN, token);
    polled->is_copy_stale = true;
    return 0;
}

void fdmux__polled_close(struct fdmux__polled *polled)
{
    free_set(&polled->master);
    free_set(&polled->copy);
}

/* Move the last entry into the place of the removed one. */
static void drop_entry(struct fdmux_loop *loop, struct fdmux__poll_set *set,
                       struct fdmux__node *node)
{
    uint32_t index = node->backend_index;
    uint32_t last = --set->count;
    struct fdmux__node *moved = fdmux__slots_find(&loop->nodes, set->tokens[last]);

    set->fds[index] = set->fds[last];
    set->tokens[index] = set->tokens[last];
    if (moved != NULL)
        moved->backend_index = index;
    node->backend_index = 0;
}

static int add_entry(struct fdmux_loop *loop, struct fdmux__poll_set *set,
                     struct fdmux__node *node, uint32_t mask)
{
    if (reserve(set, set->count + 1) < 0)
        return -ENOMEM;
    node->backend_index = set->count;
    append(set, node->fd, poll_from_mask(mask),
           fdmux__slots_token(&loop->nodes, node->index));
    return 0;
}

int fdmux__polled_update(struct fdmux_loop *loop, struct fdmux__polled *polled,
                         struct fdmux__node *node, uint32_t mask)
{
    struct fdmux__poll_set *set = &polled->master;
    int r = 0;

    if (mask == 0 && node->backend_index != 0)
        drop_entry(loop, set, node);
    else if (mask != 0 && node->backend_index == 0)
        r = add_entry(loop, set, node, mask);
    else if (mask != 0)
        set->fds[node->backend_index].events = poll_from_mask(mask);
    polled->is_copy_stale = true;
    if (loop->is_waiting)
        (void)fdmux__wake_ring(loop); /* so that the waiter takes a new copy */
    return r;
}

int fdmux__polled_prepare(struct fdmux__polled *polled)
{
    const struct fdmux__poll_set *master = &polled->master;
    struct fdmux__poll_set *copy = &polled->copy;

    if (!polled->is_copy_stale)
        return 0;
    if (reserve(copy, master->count) < 0)
        return -ENOMEM;
    copy->count = master->count;
    memcpy(copy->fds, master->fds, copy->count * sizeof *copy->fds);
    memcpy(copy->tokens, master->tokens, copy->count * sizeof *copy->tokens);
    polled->is_copy_stale = false;
    return 0;
}

static void read_event(struct fdmux__event *event, const struct fdmux__poll_set *set,
                       uint32_t index)
{
    short revents = set->fds[index].revents;

    event->token = set->tokens[index];
    /* poll(2): POLLNVAL means that the descriptor is not open. It would be reported
     * each time. */
    event->events = (revents & POLLNVAL) != 0 ? FDMUX__GONE : mask_from_poll(revents);
}

int fdmux__polled_scan(struct fdmux__polled *polled, uint32_t first,
                       struct fdmux__event *events, int capacity)
{
    const struct fdmux__poll_set *set = &polled->copy;
    uint32_t size = set->count - first;
    int count = 0;

    for (uint32_t i = 0; i < size && count < capacity; i++) {
        uint32_t index = first + polled->next++ % size;

        if (set->fds[index].revents != 0)
            read_event(&events[count++], set, index);
    }
    if (count < capacity)
        polled->next = 0; /* all were reported: scan in the order of registration */
    return count;
}
