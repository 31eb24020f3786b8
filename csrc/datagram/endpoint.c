/* endpoint.c: creates endpoints, and reacts when their sockets are ready.
 *
 * Their end is in ending.c, the public functions in verbs.c and address.c. */
#include "datagram.h"

#include <errno.h>

#define SIZE_DEFAULT 65536
#define QUEUE_MAX_DEFAULT (256 << 10)
#define QUEUE_LOW_DEFAULT (16 << 10)
#define FLAGS_ALL                                                                      \
    (FDMUX_DATAGRAM_BORROW | FDMUX_DATAGRAM_LOCAL | FDMUX_DATAGRAM_ECN |               \
     FDMUX_DATAGRAM_ERRORS | FDMUX_DATAGRAM_GRO)

int fdmux__endpoint_find(struct fdmux_loop *loop, uint64_t token,
                         struct fdmux__endpoint **ret_endpoint)
{
    struct fdmux__datagrams *shared;
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    shared = fdmux__datagrams_of(loop);
    *ret_endpoint =
        shared == NULL ? NULL : fdmux__slots_find(&shared->endpoints, token);
    return *ret_endpoint == NULL ? -EIDRM : 0;
}

/* ---- events to wait for -------------------------------------------------------- */

static uint32_t wanted(const struct fdmux__endpoint *endpoint)
{
    uint32_t state = endpoint->state;
    uint32_t events = (state & (FDMUX__ENDPOINT_CLOSING | FDMUX__ENDPOINT_PAUSED)) == 0
                          ? FDMUX_READ | FDMUX_PEER_CLOSED
                          : 0;

    if ((state & FDMUX__ENDPOINT_FAILED) != 0)
        return 0;
    if ((state & (FDMUX__ENDPOINT_SENDING | FDMUX__ENDPOINT_RETRYING)) ==
        FDMUX__ENDPOINT_SENDING)
        events |= FDMUX_WRITE;
    return events;
}

void fdmux__endpoint_watch(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    uint32_t events = wanted(endpoint);
    int r;

    if (events == endpoint->interest || !fdmux__is_fd(endpoint->fd))
        return;
    r = fdmux_io_update(loop, endpoint->io, events);
    if (r == 0)
        endpoint->interest = events;
    else if (!atomic_load(&loop->is_closed) && r != -ECHILD)
        fdmux__endpoint_mark_failed(loop, endpoint, -r); /* no event would reach it */
}

/* ---- readiness ----------------------------------------------------------------- */

static int ready(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata)
{
    struct fdmux__endpoint *endpoint = userdata;
    int r = 0;

    (void)io;
    if ((endpoint->state & FDMUX__ENDPOINT_FAILED) != 0)
        return 0;
    /* After shutdown(2) on our own side: readable for ever, with nothing to read. */
    if ((events & (FDMUX_PEER_CLOSED | FDMUX_HANGUP)) != 0) {
        fdmux__endpoint_fail(loop, endpoint, ESHUTDOWN);
        return 0;
    }
    if ((events & FDMUX_ERROR) != 0)
        r = fdmux__endpoint_read_errors(loop, endpoint);
    /* What is wanted now: the interest may be an older one, if it cannot be changed. */
    if (r >= 0 && (events & wanted(endpoint) & FDMUX_WRITE) != 0)
        r = fdmux__endpoint_flush(loop, endpoint);
    if (r < 0 || (events & FDMUX_READ) == 0 ||
        !fdmux__endpoint_is_reading(loop, endpoint))
        return r;
    return fdmux__endpoint_receive(loop, endpoint);
}

/* ---- creation ------------------------------------------------------------------ */

int fdmux__endpoint_check_options(const struct fdmux_datagram_options *options)
{
    int r = fdmux__options_check(options, sizeof *options);

    if (r < 0)
        return r;
    if (options->fn == NULL || (options->flags & ~(uint32_t)FLAGS_ALL) != 0 ||
        options->size_max > FDMUX__DATAGRAM_SIZE_MAX || options->queue_max > INT32_MAX)
        return -EINVAL;
    return 0;
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value == 0 ? otherwise : value;
}

static void apply_options(struct fdmux__endpoint *endpoint,
                          const struct fdmux_datagram_options *options)
{
    endpoint->fn = options->fn;
    endpoint->base.userdata = options->userdata;
    endpoint->base.destroyed = options->destroyed;
    endpoint->flags = options->flags;
    endpoint->size_max = or_default(options->size_max, SIZE_DEFAULT);
    endpoint->queue_max = or_default(options->queue_max, QUEUE_MAX_DEFAULT);
    endpoint->queue_low = or_default(options->queue_low, QUEUE_LOW_DEFAULT);
}

static int set_options(struct fdmux__endpoint *endpoint, int family)
{
    int r = 0;

    if ((endpoint->flags & FDMUX_DATAGRAM_LOCAL) != 0)
        r = fdmux__sys_want_local(endpoint->fd, family);
    if (r == 0 && (endpoint->flags & FDMUX_DATAGRAM_ECN) != 0)
        r = fdmux__sys_want_traffic_class(endpoint->fd, family);
    if (r == 0 && (endpoint->flags & FDMUX_DATAGRAM_ERRORS) != 0)
        r = fdmux__sys_want_reports(endpoint->fd, family);
    if (r == 0 && (endpoint->flags & FDMUX_DATAGRAM_GRO) != 0 &&
        fdmux__sys_want_joined(endpoint->fd) == 0)
        endpoint->state |= FDMUX__ENDPOINT_GRO;
    /* The kernel joins datagrams up to the size of one. */
    if ((endpoint->state & FDMUX__ENDPOINT_GRO) != 0 &&
        endpoint->size_max < SIZE_DEFAULT)
        endpoint->size_max = SIZE_DEFAULT;
    return r;
}

/* Returns the family of the socket; -EPROTOTYPE, unless it is one of datagrams. */
static int check_socket(fdmux_fd fd)
{
    int type = fdmux__sys_get_option(fd, SOL_SOCKET, SO_TYPE);

    if (type < 0)
        return type;
    return type == SOCK_DGRAM ? fdmux__sys_family(fd) : -EPROTOTYPE;
}

static int watch_first(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = endpoint->fd,
        .events = wanted(endpoint),
        .fn = ready,
        .userdata = endpoint, /* slots do not move; the watcher ends before it */
    };

    endpoint->interest = options.events;
    return fdmux_io_add(loop, &options, &endpoint->io);
}

/* See backlog.c. */
static int add_timer(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    unsigned char peer[sizeof(struct sockaddr_in6)];
    struct fdmux_timer_options options = {
        .struct_size = sizeof options,
        .fn = fdmux__endpoint_retry,
        .userdata = endpoint,
    };
    int r;

    if ((endpoint->state & FDMUX__ENDPOINT_UNIX) == 0 ||
        fdmux__sys_peer(endpoint->fd, peer, sizeof peer) >= 0)
        return 0;
    r = fdmux_timer_add(loop, &options, &endpoint->timer);
    if (r == 0)
        endpoint->state |= FDMUX__ENDPOINT_HAS_TIMER;
    return r;
}

static int open_endpoint(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                         int family)
{
    int r = 0;

    if (family == AF_INET || family == AF_INET6)
        r = set_options(endpoint, family);
    if (r == 0)
        r = watch_first(loop, endpoint);
    if (r < 0)
        return r;
    r = add_timer(loop, endpoint);
    if (r < 0)
        (void)fdmux_io_remove(loop, endpoint->io); /* it was added just now */
    return r;
}

static int create(struct fdmux_loop *loop, struct fdmux__datagrams *shared, fdmux_fd fd,
                  const struct fdmux_datagram_options *options, uint64_t *ret_endpoint)
{
    struct fdmux__endpoint *endpoint;
    uint32_t slot;
    int family = check_socket(fd);
    int r = family < 0 ? family : fdmux__slots_take(&shared->endpoints, &slot);

    if (r < 0)
        return r;
    endpoint = fdmux__endpoint_at(shared, slot);
    endpoint->base.slot.next_free = slot;
    endpoint->fd = fd;
    fdmux__sys_adopt(fd);
    apply_options(endpoint, options);
    if (family == AF_UNIX)
        endpoint->state |= FDMUX__ENDPOINT_UNIX;
    r = open_endpoint(loop, endpoint, family);
    if (r < 0) {
        fdmux__slots_kill(&shared->endpoints, slot);
        fdmux__slots_recycle(&shared->endpoints, slot);
        return r;
    }
    *ret_endpoint = fdmux__slots_token(&shared->endpoints, slot);
    return 0;
}

int fdmux_datagram_add(struct fdmux_loop *loop, fdmux_fd fd,
                       const struct fdmux_datagram_options *options,
                       uint64_t *ret_endpoint)
{
    struct fdmux__datagrams *shared;
    int r = fdmux__endpoint_check_options(options);

    if (r == 0 && ret_endpoint == NULL)
        r = -EFAULT;
    if (r == 0)
        r = fdmux__datagrams_get(loop, &shared);
    return r < 0 ? r : create(loop, shared, fd, options, ret_endpoint);
}
