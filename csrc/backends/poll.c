/* poll.c: the portable backend, over poll(2).
 *
 * There are two arrays: updates change the master, and a wait uses a copy that nothing
 * else touches. So another thread may register at any time; it wakes the waiter, which
 * takes a new copy. A wait is O(descriptors). poll(2) has no descriptor of its own, so
 * there is no host_fd. */
#define _GNU_SOURCE /* POLLRDHUP */
#include "backend.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "../core/node.h"
#include "../core/wake.h"
#include "../platform/sys.h"

struct poll_set {
    fdmux__pollfd *fds;
    uint64_t *tokens;
    uint32_t count;
    uint32_t capacity;
};

struct poll_data_of_loop {
    struct poll_set master; /* entry 0 is the wake descriptor */
    struct poll_set copy;
    bool is_copy_stale;
    uint32_t next; /* where the next scan begins, so that no entry is always last */
};

static struct poll_data_of_loop *data_of(const struct fdmux_loop *loop)
{
    return loop->backend_data;
}

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

static int reserve(struct poll_set *set, uint32_t count)
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

static void free_set(struct poll_set *set)
{
    fdmux__sys_free(set->fds);
    fdmux__sys_free(set->tokens);
}

static void poll_close(struct fdmux_loop *loop)
{
    struct poll_data_of_loop *data = data_of(loop);

    if (data == NULL)
        return;
    free_set(&data->master);
    free_set(&data->copy);
    fdmux__sys_free(data);
    loop->backend_data = NULL;
}

static void append(struct poll_set *set, fdmux_fd fd, short events, uint64_t token)
{
    set->fds[set->count] = (fdmux__pollfd){.fd = fd, .events = events};
    set->tokens[set->count] = token;
    set->count++;
}

static int poll_open(struct fdmux_loop *loop)
{
    struct poll_data_of_loop *data = fdmux__sys_calloc(1, sizeof *data);

    if (data == NULL)
        return -ENOMEM;
    loop->backend_data = data;
    if (reserve(&data->master, 1) < 0) {
        poll_close(loop);
        return -ENOMEM;
    }
    append(&data->master, loop->bell.read_fd, POLLIN, FDMUX__WAKE_TOKEN);
    data->is_copy_stale = true;
    return 0;
}

/* Move the last entry into the place of the removed one. */
static void drop_entry(struct fdmux_loop *loop, uint32_t index)
{
    struct poll_set *set = &data_of(loop)->master;
    uint32_t last = --set->count;
    struct fdmux__node *moved = fdmux__slots_find(&loop->nodes, set->tokens[last]);

    set->fds[index] = set->fds[last];
    set->tokens[index] = set->tokens[last];
    if (moved != NULL)
        moved->backend_index = index;
}

static int add_entry(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask)
{
    struct poll_set *set = &data_of(loop)->master;

    if (reserve(set, set->count + 1) < 0)
        return -ENOMEM;
    node->backend_index = set->count;
    append(set, node->fd, poll_from_mask(mask),
           fdmux__slots_token(&loop->nodes, node->index));
    return 0;
}

static int poll_update(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask)
{
    struct poll_data_of_loop *data = data_of(loop);
    int r = 0;

    if ((mask & FDMUX__KERNEL_OPTIONS) != 0)
        return -EOPNOTSUPP;
    /* epoll_ctl(2) reports this at once; poll(2) would only report it at each wait. */
    if (mask != 0 && fdmux__sys_check_fd(node->fd) < 0)
        return -EBADF;
    if (mask == 0 && node->mask != 0)
        drop_entry(loop, node->backend_index);
    else if (mask != 0 && node->mask == 0)
        r = add_entry(loop, node, mask);
    else if (mask != 0)
        data->master.fds[node->backend_index].events = poll_from_mask(mask);
    data->is_copy_stale = true;
    if (loop->is_waiting)
        (void)fdmux__wake_ring(loop); /* so that the waiter takes a new copy */
    return r;
}

static int poll_prepare(struct fdmux_loop *loop, int capacity)
{
    struct poll_data_of_loop *data = data_of(loop);

    (void)capacity;
    if (!data->is_copy_stale)
        return 0;
    if (reserve(&data->copy, data->master.count) < 0)
        return -ENOMEM;
    data->copy.count = data->master.count;
    memcpy(data->copy.fds, data->master.fds, data->copy.count * sizeof *data->copy.fds);
    memcpy(data->copy.tokens, data->master.tokens,
           data->copy.count * sizeof *data->copy.tokens);
    data->is_copy_stale = false;
    return 0;
}

static void read_event(struct fdmux__event *event, const struct poll_set *set,
                       uint32_t index)
{
    short revents = set->fds[index].revents;

    event->token = set->tokens[index];
    /* poll(2): POLLNVAL means that the descriptor is not open. It would be reported
     * each time. */
    event->events = (revents & POLLNVAL) != 0 ? FDMUX__GONE : mask_from_poll(revents);
}

static int poll_wait(struct fdmux_loop *loop, int64_t timeout_ns, int capacity)
{
    struct poll_data_of_loop *data = data_of(loop);
    struct poll_set *set = &data->copy;
    int ready = fdmux__sys_poll(set->fds, set->count, timeout_ns);
    int count = 0;

    if (ready <= 0)
        return ready == -EINTR ? 0 : ready;
    if (ready > capacity)
        ready = capacity;
    for (uint32_t i = 0; i < set->count && count < ready; i++) {
        uint32_t index = data->next++ % set->count;

        if (set->fds[index].revents != 0)
            read_event(&loop->events[count++], set, index);
    }
    if (count < capacity)
        data->next = 0; /* all were reported: scan in the order of registration */
    return count;
}

static uint32_t poll_features(const struct fdmux_loop *loop)
{
    (void)loop;
    return fdmux__sys_poll_is_exact() ? FDMUX_FEATURE_NANOSECONDS : 0;
}

const struct fdmux__backend fdmux__backend_poll = {
    .name = "poll",
    .open = poll_open,
    .close = poll_close,
    .update = poll_update,
    .prepare = poll_prepare,
    .wait = poll_wait,
    .features = poll_features,
};
