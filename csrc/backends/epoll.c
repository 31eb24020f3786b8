/* epoll.c: the Linux backend, over epoll(7).
 *
 * The only file that knows epoll. The loop's own wait uses the inner set, with its
 * deadline as the timeout. A foreign host watches an outer set with two members: the
 * inner set, and a timerfd for the deadline. So the inner set can be replaced without
 * the host noticing. */
#include "backend.h"

#if defined(__linux__)

#include <errno.h>
#include <stdbool.h>
#include <sys/epoll.h>

#include "../core/node.h"
#include "../platform/sys.h"
#include "../platform/sys_linux.h"

#define PARK_TOKEN UINT64_C(2) /* no node has this token; FDMUX__WAKE_TOKEN is 1 */

struct epoll_data_of_loop {
    int set_fd;
    int host_fd;  /* -1 until fdmux_loop_fd is called */
    int timer_fd; /* -1 if the kernel refused one */
    int park_fd;  /* a timerfd in the inner set; -1 until it is needed */
    bool has_no_park;
    bool has_pwait2;
    struct epoll_event *events;
    int capacity;
};

static struct epoll_data_of_loop *data_of(const struct fdmux_loop *loop)
{
    return loop->backend_data;
}

static uint32_t epoll_from_mask(uint32_t mask)
{
    return ((mask & FDMUX_READ) != 0 ? (uint32_t)EPOLLIN : 0) |
           ((mask & FDMUX_WRITE) != 0 ? (uint32_t)EPOLLOUT : 0) |
           ((mask & FDMUX_PRIORITY) != 0 ? (uint32_t)EPOLLPRI : 0) |
           ((mask & FDMUX_PEER_CLOSED) != 0 ? (uint32_t)EPOLLRDHUP : 0) |
           ((mask & FDMUX_EDGE) != 0 ? (uint32_t)EPOLLET : 0) |
           ((mask & FDMUX_EXCLUSIVE) != 0 ? (uint32_t)EPOLLEXCLUSIVE : 0);
}

static uint32_t mask_from_epoll(uint32_t events)
{
    uint32_t mask = ((events & EPOLLIN) != 0 ? (uint32_t)FDMUX_READ : 0) |
                    ((events & EPOLLOUT) != 0 ? (uint32_t)FDMUX_WRITE : 0);

    if ((events & ~(uint32_t)(EPOLLIN | EPOLLOUT)) == 0)
        return mask;
    mask |= ((events & EPOLLPRI) != 0 ? (uint32_t)FDMUX_PRIORITY : 0) |
            ((events & EPOLLRDHUP) != 0 ? (uint32_t)FDMUX_PEER_CLOSED : 0) |
            ((events & EPOLLHUP) != 0 ? (uint32_t)FDMUX_HANGUP : 0) |
            ((events & EPOLLERR) != 0 ? (uint32_t)FDMUX_ERROR : 0);
    if ((mask & (FDMUX_HANGUP | FDMUX_ERROR)) != 0)
        mask |= FDMUX_READ | FDMUX_WRITE;
    return mask;
}

static int watch(int set_fd, int fd, uint64_t token)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = token};

    return fdmux__sys_epoll_ctl(set_fd, EPOLL_CTL_ADD, fd, &event);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)fdmux__sys_close(*fd); /* close(2) releases it whatever it returns */
    *fd = -1;
}

static void epoll_close(struct fdmux_loop *loop)
{
    struct epoll_data_of_loop *data = data_of(loop);

    if (data == NULL)
        return;
    close_fd(&data->host_fd);
    close_fd(&data->timer_fd);
    close_fd(&data->park_fd);
    close_fd(&data->set_fd);
    fdmux__sys_free(data->events);
    fdmux__sys_free(data);
    loop->backend_data = NULL;
}

/* Open an inner set that watches the wake descriptor. */
static int open_set(const struct fdmux_loop *loop)
{
    int set_fd = fdmux__sys_epoll_create();
    int r;

    if (set_fd < 0)
        return set_fd;
    r = watch(set_fd, loop->bell.read_fd, FDMUX__WAKE_TOKEN);
    if (r < 0)
        close_fd(&set_fd);
    return r < 0 ? r : set_fd;
}

static int epoll_open(struct fdmux_loop *loop)
{
    struct epoll_data_of_loop *data = fdmux__sys_calloc(1, sizeof *data);

    if (data == NULL)
        return -ENOMEM;
    loop->backend_data = data;
    data->host_fd = data->timer_fd = data->park_fd = -1;
    data->has_pwait2 = true;
    data->set_fd = open_set(loop);
    if (data->set_fd < 0) {
        int r = data->set_fd;

        epoll_close(loop);
        return r;
    }
    return 0;
}

/* epoll_ctl(2): EEXIST means that the same file is still in the set under this number,
 * from a node that was dropped. ENOENT for MOD means that the number now means another
 * file. */
static int set_interest(int set_fd, struct fdmux__node *node, struct epoll_event *event)
{
    int operation = node->mask == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    int r = fdmux__sys_epoll_ctl(set_fd, operation, node->fd, event);

    if (r == -EEXIST)
        r = fdmux__sys_epoll_ctl(set_fd, EPOLL_CTL_MOD, node->fd, event);
    return r;
}

/* epoll_ctl(2): an EPOLLEXCLUSIVE entry cannot be modified, only replaced. */
static int replace_entry(int set_fd, const struct fdmux__node *node,
                         struct epoll_event *event)
{
    struct epoll_event old = {
        .events = epoll_from_mask(node->mask),
        .data = event->data,
    };
    int r = fdmux__sys_epoll_ctl(set_fd, EPOLL_CTL_DEL, node->fd, event);

    if (r < 0)
        return r;
    r = fdmux__sys_epoll_ctl(set_fd, EPOLL_CTL_ADD, node->fd, event);
    if (r < 0) /* restore it; if that fails too, the next update gets ENOENT */
        (void)fdmux__sys_epoll_ctl(set_fd, EPOLL_CTL_ADD, node->fd, &old);
    return r;
}

static int epoll_update(struct fdmux_loop *loop, struct fdmux__node *node,
                        uint32_t mask)
{
    struct epoll_event event = {
        .events = epoll_from_mask(mask),
        .data.u64 = fdmux__slots_token(&loop->nodes, node->index),
    };
    int set_fd = data_of(loop)->set_fd;

    if (mask == 0 && node->mask != 0) /* a closed one is no longer in the set */
        (void)fdmux__sys_epoll_ctl(set_fd, EPOLL_CTL_DEL, node->fd, &event);
    if (mask == 0)
        return 0;
    return (node->mask & FDMUX_EXCLUSIVE) != 0 ? replace_entry(set_fd, node, &event)
                                               : set_interest(set_fd, node, &event);
}

static int epoll_prepare(struct fdmux_loop *loop, int capacity)
{
    struct epoll_data_of_loop *data = data_of(loop);
    struct epoll_event *events;

    if (capacity <= data->capacity)
        return 0;
    capacity = loop->event_capacity; /* grows by doubling */
    events = fdmux__sys_realloc(data->events, (size_t)capacity * sizeof *events);
    if (events == NULL)
        return -ENOMEM;
    data->events = events;
    data->capacity = capacity;
    return 0;
}

static bool is_unsupported(int r)
{
    return r == -ENOSYS || r == -EPERM;
}

static int wait_in_kernel(struct epoll_data_of_loop *data, int64_t timeout_ns,
                          int capacity)
{
    /* For whole milliseconds, polls and endless waits the older call is as exact, and
     * cheaper. */
    if (data->has_pwait2 && timeout_ns > 0 && timeout_ns % FDMUX__NS_PER_MS != 0) {
        int r =
            fdmux__sys_epoll_pwait2(data->set_fd, data->events, capacity, timeout_ns);

        if (!is_unsupported(r))
            return r;
        data->has_pwait2 = false;
    }
    return fdmux__sys_epoll_wait(data->set_fd, data->events, capacity, timeout_ns);
}

static int epoll_wait_for_events(struct fdmux_loop *loop, int64_t timeout_ns,
                                 int capacity)
{
    struct epoll_data_of_loop *data = data_of(loop);
    int found = wait_in_kernel(data, timeout_ns, capacity);
    int count = 0;

    for (int i = 0; i < found; i++) {
        if (data->events[i].data.u64 == PARK_TOKEN) {
            loop->is_park_over = true;
            continue;
        }
        loop->events[count].token = data->events[i].data.u64;
        loop->events[count++].events = mask_from_epoll(data->events[i].events);
    }
    return found >= 0 || found == -EINTR ? count : found;
}

/* Edge-triggered, so that an expiry is reported once and needs no read(2). */
static int open_park(struct epoll_data_of_loop *data)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = PARK_TOKEN};
    int r;

    data->park_fd = fdmux__sys_timerfd_create();
    r = data->park_fd < 0
            ? data->park_fd
            : fdmux__sys_epoll_ctl(data->set_fd, EPOLL_CTL_ADD, data->park_fd, &event);
    if (r < 0) {
        close_fd(&data->park_fd);
        data->has_no_park = true; /* waits use timeouts instead */
    }
    return r;
}

static int epoll_park(struct fdmux_loop *loop, int64_t deadline_ns)
{
    struct epoll_data_of_loop *data = data_of(loop);
    int r = data->has_no_park ? -EOPNOTSUPP : 0;

    if (r == 0 && data->park_fd < 0)
        r = open_park(data);
    return r < 0 ? r : fdmux__sys_timerfd_settime(data->park_fd, deadline_ns);
}

static int epoll_reopen(struct fdmux_loop *loop)
{
    struct epoll_data_of_loop *data = data_of(loop);
    int set_fd = open_set(loop);
    int r = 0;

    if (set_fd < 0)
        return set_fd;
    if (data->host_fd >= 0)
        r = watch(data->host_fd, set_fd, 0);
    if (r < 0) {
        close_fd(&set_fd);
        return r;
    }
    close_fd(&data->set_fd); /* close(2) removes it from the outer set */
    close_fd(&data->park_fd); /* the new set gets a new one when needed */
    loop->parked_deadline_ns = 0;
    data->set_fd = set_fd;
    return 0;
}

/* Without a timerfd the host has to use fdmux_loop_next_deadline. */
static void open_timer(struct epoll_data_of_loop *data)
{
    data->timer_fd = fdmux__sys_timerfd_create();
    if (data->timer_fd >= 0 && watch(data->host_fd, data->timer_fd, 0) < 0)
        close_fd(&data->timer_fd);
}

static int epoll_host_fd(struct fdmux_loop *loop)
{
    struct epoll_data_of_loop *data = data_of(loop);
    int r;

    if (data->host_fd >= 0)
        return data->host_fd;
    data->host_fd = fdmux__sys_epoll_create();
    if (data->host_fd < 0)
        return data->host_fd;
    r = watch(data->host_fd, data->set_fd, 0);
    if (r < 0) {
        close_fd(&data->host_fd);
        return r;
    }
    open_timer(data);
    return data->host_fd;
}

static int epoll_arm(struct fdmux_loop *loop, int64_t deadline_ns)
{
    int timer_fd = data_of(loop)->timer_fd;

    return timer_fd < 0 ? -EOPNOTSUPP
                        : fdmux__sys_timerfd_settime(timer_fd, deadline_ns);
}

static uint32_t epoll_features(const struct fdmux_loop *loop)
{
    const struct epoll_data_of_loop *data = data_of(loop);
    bool has_timer = data->host_fd < 0 || data->timer_fd >= 0;

    return FDMUX_FEATURE_FD | FDMUX_FEATURE_EDGE | FDMUX_FEATURE_EXCLUSIVE |
           (has_timer ? FDMUX_FEATURE_TIMER_IN_FD : 0) |
           (data->has_pwait2 ? FDMUX_FEATURE_NANOSECONDS : 0);
}

const struct fdmux__backend fdmux__backend_epoll = {
    .name = "epoll",
    .open = epoll_open,
    .close = epoll_close,
    .update = epoll_update,
    .prepare = epoll_prepare,
    .wait = epoll_wait_for_events,
    .reopen = epoll_reopen,
    .host_fd = epoll_host_fd,
    .arm = epoll_arm,
    .park = epoll_park,
    .features = epoll_features,
};

#endif
