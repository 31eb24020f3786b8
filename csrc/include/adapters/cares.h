/* cares.h: DNS queries of c-ares in an fdmux loop.
 *
 *     r = fdmux_cares_open(loop, &options, optmask, &cares);
 *     ares_gethostbyname(cares->channel, "example.org", AF_INET, on_host, userdata);
 *
 * Ownership: the adapter owns the channel, since c-ares cannot be given another socket
 *   callback later. Call fdmux_cares_close once, also inside a callback of c-ares; do
 *   not call ares_destroy.
 * Threads: the loop's.
 * Close: before the loop sleeps, each query in flight is called back once, with
 *   ARES_EDESTRUCTION, and the channel is freed; inside fdmux_cares_close if the loop
 *   has ended. Until then a query may still be answered.
 * End of the loop: each query in flight is called back with ARES_ECANCELLED. Call
 *   fdmux_cares_close as usual.
 * Timeouts: c-ares' own. A query that begins outside of the loop's functions, while
 *   others are in flight on the same sockets, may time out late if a host runs the loop
 *   (fdmux_loop_fd): call fdmux_loop_wake then.
 * Tested with c-ares 1.18.1.
 *
 * In a Python extension include Python.h and fdmux_python.h first. */
#ifndef FDMUX_ADAPTERS_CARES_H
#define FDMUX_ADAPTERS_CARES_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <ares.h>
#include <fdmux.h>

struct fdmux_cares {
    ares_channel channel;    /* yours to query */
    struct fdmux_loop *loop; /* NULL after its end */
    uint64_t timer, hook, close_hook;
    struct fdmux_cares_socket *sockets;
    int is_closing;
    int depth; /* how many functions below use this struct */
};

/* One socket of c-ares. Its memory is freed by the loop, as `destroyed`. */
struct fdmux_cares_socket {
    struct fdmux_cares *cares;
    uint64_t io;
    ares_socket_t fd;
    struct fdmux_cares_socket *next;
};

static inline int fdmux_cares_on_ready(struct fdmux_loop *loop, uint64_t io,
                                       uint32_t events, void *userdata)
{
    struct fdmux_cares_socket *known = (struct fdmux_cares_socket *)userdata;
    ares_socket_t none = ARES_SOCKET_BAD;

    (void)loop;
    (void)io;
    ares_process_fd(known->cares->channel, events & FDMUX_READ ? known->fd : none,
                    events & FDMUX_WRITE ? known->fd : none);
    return 0;
}

static inline struct fdmux_cares_socket **fdmux_cares_find(struct fdmux_cares *cares,
                                                           ares_socket_t fd)
{
    struct fdmux_cares_socket **link = &cares->sockets;

    while (*link != NULL && (*link)->fd != fd)
        link = &(*link)->next;
    return link;
}

static inline void fdmux_cares_remove_socket(struct fdmux_cares_socket **link)
{
    struct fdmux_cares_socket *known = *link;

    *link = known->next;
    (void)fdmux_io_remove(known->cares->loop, known->io); /* frees it */
}

static inline void fdmux_cares_add_socket(struct fdmux_cares *cares, ares_socket_t fd,
                                          uint32_t events)
{
    struct fdmux_cares_socket *known =
        (struct fdmux_cares_socket *)calloc(1, sizeof *known);
    struct fdmux_io_options io;

    if (known == NULL)
        return; /* the query times out */
    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    io.fd = fd;
    io.events = events;
    io.fn = fdmux_cares_on_ready;
    io.userdata = known;
    io.destroyed = free;
    if (fdmux_io_add(cares->loop, &io, &known->io) < 0) {
        free(known);
        return;
    }
    known->cares = cares;
    known->fd = fd;
    known->next = cares->sockets;
    cares->sockets = known;
}

/* ARES_OPT_SOCK_STATE_CB; neither readable nor writable: c-ares closes the socket. */
static inline void fdmux_cares_on_socket(void *userdata, ares_socket_t fd, int readable,
                                         int writable)
{
    struct fdmux_cares *cares = (struct fdmux_cares *)userdata;
    struct fdmux_cares_socket **link = fdmux_cares_find(cares, fd);
    uint32_t events = (readable ? (uint32_t)FDMUX_READ : 0U) |
                      (writable ? (uint32_t)FDMUX_WRITE : 0U);

    if (cares->loop == NULL)
        return;
    if (*link == NULL && events != 0)
        fdmux_cares_add_socket(cares, fd, events);
    else if (*link != NULL && events != 0)
        (void)fdmux_io_update(cares->loop, (*link)->io, events);
    else if (*link != NULL)
        fdmux_cares_remove_socket(link);
}

/* Before each wait: the next timeout. c-ares does not report it. O(queries). */
static inline int fdmux_cares_on_hook(struct fdmux_loop *loop, uint64_t hook,
                                      void *userdata)
{
    struct fdmux_cares *cares = (struct fdmux_cares *)userdata;
    struct timeval left;

    (void)hook;
    if (cares->sockets == NULL || cares->is_closing ||
        ares_timeout(cares->channel, NULL, &left) == NULL)
        return 0;
    return fdmux_timer_arm_in(
        loop, cares->timer,
        left.tv_sec * INT64_C(1000000000) + left.tv_usec * INT64_C(1000), 0);
}

static inline void fdmux_cares_free(struct fdmux_cares *cares);

static inline int fdmux_cares_on_timer(struct fdmux_loop *loop, uint64_t timer,
                                       void *userdata)
{
    struct fdmux_cares *cares = (struct fdmux_cares *)userdata;

    (void)loop;
    (void)timer;
    if (cares->is_closing)
        fdmux_cares_free(cares);
    else
        ares_process_fd(cares->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    return 0;
}

/* Let go of the loop. */
static inline void fdmux_cares_leave_loop(struct fdmux_cares *cares)
{
    while (cares->sockets != NULL)
        fdmux_cares_remove_socket(&cares->sockets);
    (void)fdmux_timer_remove(cares->loop, cares->timer);
    (void)fdmux_hook_remove(cares->loop, cares->hook);
    (void)fdmux_hook_remove(cares->loop, cares->close_hook);
    cares->loop = NULL;
}

static inline void fdmux_cares_free(struct fdmux_cares *cares)
{
    if (cares->channel != NULL)
        ares_destroy(cares->channel); /* calls back, and reports its sockets */
    if (cares->loop != NULL)
        fdmux_cares_leave_loop(cares);
    free(cares);
}

static inline void fdmux_cares_on_close(struct fdmux_loop *loop, void *userdata)
{
    struct fdmux_cares *cares = (struct fdmux_cares *)userdata;

    (void)loop;
    cares->depth++;
    ares_cancel(cares->channel);
    cares->depth--;
    fdmux_cares_leave_loop(cares);
    if (cares->is_closing)
        fdmux_cares_free(cares);
}

/* Close the channel and free the adapter; see above. Accepts NULL. */
static inline void fdmux_cares_close(struct fdmux_cares *cares)
{
    if (cares == NULL)
        return;
    cares->is_closing = 1;
    if (cares->loop != NULL) /* ares_destroy must not run inside a callback */
        (void)fdmux_timer_arm(cares->loop, cares->timer, FDMUX_SOON, 0);
    else if (cares->depth == 0)
        fdmux_cares_free(cares);
}

static inline int fdmux_cares_register(struct fdmux_cares *cares)
{
    struct fdmux_timer_options timer;
    struct fdmux_hook_options hook;
    int r;

    memset(&timer, 0, sizeof timer);
    timer.struct_size = sizeof timer;
    timer.fn = fdmux_cares_on_timer;
    timer.userdata = cares;
    memset(&hook, 0, sizeof hook);
    hook.struct_size = sizeof hook;
    hook.fn = fdmux_cares_on_hook;
    hook.userdata = cares;
    r = fdmux_timer_add(cares->loop, &timer, &cares->timer);
    if (r == 0)
        r = fdmux_hook_add(cares->loop, &hook, &cares->hook);
    if (r == 0)
        r = fdmux_loop_at_close(cares->loop, fdmux_cares_on_close, cares,
                                &cares->close_hook);
    return r;
}

/* Open a channel that `loop` serves, as ares_init_options does with `options` (NULL
 * with an `optmask` of 0) but for its socket callback.
 *
 * Call ares_library_init before. Returns 0; -EINVAL if c-ares refuses the options; or
 * as fdmux_timer_add. */
static inline int fdmux_cares_open(struct fdmux_loop *loop,
                                   const struct ares_options *options, int optmask,
                                   struct fdmux_cares **ret_cares)
{
    struct fdmux_cares *cares = (struct fdmux_cares *)calloc(1, sizeof *cares);
    struct ares_options ours;
    int r;

    if (cares == NULL)
        return -ENOMEM;
    memset(&ours, 0, sizeof ours);
    if (options != NULL)
        ours = *options;
    ours.sock_state_cb = fdmux_cares_on_socket;
    ours.sock_state_cb_data = cares;
    cares->loop = loop;
    r = fdmux_cares_register(cares);
    if (r == 0 && ares_init_options(&cares->channel, &ours,
                                    optmask | ARES_OPT_SOCK_STATE_CB) != ARES_SUCCESS) {
        cares->channel = NULL;
        r = -EINVAL;
    }
    if (r < 0) {
        fdmux_cares_free(cares);
        return r;
    }
    *ret_cares = cares;
    return 0;
}

#endif /* FDMUX_ADAPTERS_CARES_H */
