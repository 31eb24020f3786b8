/* kqueue_wait.c: waits, and what the kernel reports.
 *
 * The filters of a node report on their own; a wait merges them into one event. */
#include "kqueue.h"

#if FDMUX__HAS_KQUEUE

#include <errno.h>
#include <string.h>

static struct fdmux__kqueue *data_of(const struct fdmux_loop *loop)
{
    return loop->backend_data;
}

static uint64_t token_of(const struct kevent *entry)
{
    return (uint64_t)(uintptr_t)entry->udata;
}

static bool has_filter(const struct kevent *entry, int filter)
{
    return entry->filter == (__typeof__(entry->filter))filter;
}

static int reserve_entries(struct fdmux__kqueue *data, int capacity)
{
    struct kevent *entries;

    if (capacity <= data->entry_capacity)
        return 0;
    entries = fdmux__sys_realloc(data->entries, (size_t)capacity * sizeof *entries);
    if (entries == NULL)
        return -ENOMEM;
    data->entries = entries;
    data->entry_capacity = capacity;
    return 0;
}

static int reserve_positions(struct fdmux__kqueue *data, uint32_t count)
{
    uint32_t *positions;

    if (count <= data->position_count)
        return 0;
    positions = fdmux__sys_realloc(data->positions, count * sizeof *positions);
    if (positions == NULL)
        return -ENOMEM;
    memset(positions + data->position_count, 0,
           (count - data->position_count) * sizeof *positions);
    data->positions = positions;
    data->position_count = count;
    return 0;
}

/* A wait for all nodes takes the entries of all their filters, so that a node that is
 * ready for reading and writing is reported once. */
int fdmux__kqueue_prepare(struct fdmux_loop *loop, int capacity)
{
    struct fdmux__kqueue *data = data_of(loop);
    bool is_for_all = (uint32_t)capacity > loop->nodes.live_count;
    int r;

    data->room = is_for_all ? loop->event_capacity : capacity;
    r = reserve_entries(data, loop->event_capacity); /* grows by doubling */
    if (r == 0)
        r = reserve_positions(data, loop->nodes.capacity);
    if (r == 0 && data->devices.master.count > 0)
        r = fdmux__polled_prepare(&data->devices);
    return r;
}

/* Has the other direction ended, too? poll(2) says POLLHUP if both have; on macOS, if
 * the direction has that it is asked for. */
static bool has_ended(int fd, short other_direction)
{
    fdmux__pollfd probe = {.fd = fd, .events = other_direction};

    return fdmux__sys_poll(&probe, 1, 0) > 0 && (probe.revents & POLLHUP) != 0;
}

/* kqueue(2): EV_EOF of READ means that the peer has shut down, or that no writer of a
 * pipe is left; of WRITE, that the own side of a socket was shut down, too, or that no
 * reader is left. `fflags` is then the error of a socket. */
static uint32_t mask_from_end(const struct kevent *entry)
{
    bool is_write = has_filter(entry, (int)EVFILT_WRITE);
    uint32_t mask = 0;
    int fd = (int)entry->ident;

    if (!has_filter(entry, (int)FDMUX__FILTER_PRIORITY) && entry->fflags != 0)
        mask |= FDMUX_ERROR;
    if ((entry->flags & EV_EOF) != 0 && fdmux__sys_kind(fd) != FDMUX__KIND_SOCKET)
        mask |= is_write ? FDMUX_ERROR : FDMUX_HANGUP;
    else if ((entry->flags & EV_EOF) != 0 && has_ended(fd, is_write ? POLLIN : POLLOUT))
        mask |= FDMUX_HANGUP;
    if ((entry->flags & EV_EOF) != 0 && !is_write)
        mask |= FDMUX_PEER_CLOSED | FDMUX_READ;
    if ((mask & (FDMUX_HANGUP | FDMUX_ERROR)) != 0)
        mask |= FDMUX_READ | FDMUX_WRITE;
    return mask;
}

static uint32_t mask_from_entry(const struct kevent *entry)
{
    uint32_t mask = has_filter(entry, (int)EVFILT_READ)    ? (uint32_t)FDMUX_READ
                    : has_filter(entry, (int)EVFILT_WRITE) ? (uint32_t)FDMUX_WRITE
                    : (entry->fflags & FDMUX__FFLAGS_PRIORITY) != 0
                        ? (uint32_t)FDMUX_PRIORITY
                        : 0;

    if ((entry->flags & EV_EOF) == 0 && entry->fflags == 0)
        return mask;
    return mask | mask_from_end(entry);
}

/* Find the event of this token. A position is right only if it leads there, so that the
 * positions of the last wait need not be erased. Nodes that were added during this wait
 * have none. */
static struct fdmux__event *find_event(const struct fdmux_loop *loop, uint64_t token,
                                       int count)
{
    const struct fdmux__kqueue *data = data_of(loop);
    uint32_t slot = fdmux__token_slot(token);
    uint32_t position;

    if (slot < data->position_count) {
        position = data->positions[slot];
        return position < (uint32_t)count && loop->events[position].token == token
                   ? &loop->events[position]
                   : NULL;
    }
    for (int i = 0; i < count; i++) {
        if (loop->events[i].token == token)
            return &loop->events[i];
    }
    return NULL;
}

/* An EVFILT_USER is reported once. So the next waker must ring again even if the batch
 * ends before this event. */
static int append_wake(struct fdmux_loop *loop, int count)
{
    if (loop->backend->ring != NULL)
        atomic_store(&loop->is_wake_rung, false);
    loop->events[count].token = FDMUX__WAKE_TOKEN;
    loop->events[count].events = FDMUX_READ;
    return count + 1;
}

/* Add what an entry reports to the event of its node, or append an event. Returns the
 * new count. */
static int merge(struct fdmux_loop *loop, const struct kevent *entry, int count)
{
    const struct fdmux__kqueue *data = data_of(loop);
    uint64_t token = token_of(entry);
    uint32_t slot = fdmux__token_slot(token);
    struct fdmux__event *event;

    if (token == FDMUX__WAKE_TOKEN)
        return append_wake(loop, count);
    if (token == FDMUX__PARK_TOKEN || token == FDMUX__HOST_TOKEN) {
        loop->is_park_over = true;
        loop->is_armed_over = loop->is_armed_over || token == FDMUX__HOST_TOKEN;
        return count;
    }
    event = find_event(loop, token, count);
    if (event != NULL) {
        event->events |= mask_from_entry(entry);
        return count;
    }
    if (slot < data->position_count)
        data->positions[slot] = (uint32_t)count;
    loop->events[count].token = token;
    loop->events[count].events = mask_from_entry(entry);
    return count + 1;
}

/* Append to the `count` events that there are. Returns the new count or -errno. */
static int take_entries(struct fdmux_loop *loop, int count, int64_t timeout_ns)
{
    const struct fdmux__kqueue *data = data_of(loop);
    int asked = data->room - count;
    int found;

    if (asked <= 0)
        return count;
    found = fdmux__sys_kevent_wait(data->kq, data->entries, asked, timeout_ns);
    if (found < 0)
        return count > 0 || found == -EINTR ? count : found;
    for (int i = 0; i < found; i++)
        count = merge(loop, &data->entries[i], count);
    return count;
}

int fdmux__kqueue_wait(struct fdmux_loop *loop, int64_t timeout_ns, int capacity)
{
    struct fdmux__kqueue *data = data_of(loop);
    struct fdmux__polled *devices = &data->devices;
    bool is_first = data->is_device_turn;
    int count = 0;
    int r;

    if (devices->copy.count <= 1)
        return take_entries(loop, 0, timeout_ns);
    r = fdmux__sys_poll_devices(devices->copy.fds, devices->copy.count, timeout_ns);
    if (r <= 0)
        return r == -EINTR ? 0 : r;
    data->is_device_turn = !is_first;
    if (is_first)
        count = fdmux__polled_scan(devices, 1, loop->events, capacity);
    if (devices->copy.fds[0].revents != 0)
        count = take_entries(loop, count, 0);
    if (!is_first && count >= 0 && count < capacity)
        count += fdmux__polled_scan(devices, 1, loop->events + count, capacity - count);
    return count;
}

#endif
