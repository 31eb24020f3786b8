/* zmq.h: a ZeroMQ socket in an fdmux loop.
 *
 *     r = fdmux_zmq_attach(loop, socket, ZMQ_POLLIN, on_ready, userdata, &zmq);
 *
 * on_ready is called while the socket is ready, as poll(2) would say: ZeroMQ's own
 * descriptor changes once and then says no more, which the adapter hides.
 *
 * Ownership: the socket is yours. Call fdmux_zmq_detach once, before zmq_close; both
 *   may be called inside on_ready.
 * Threads: the one that uses the socket, which must be the loop's.
 * End of the loop: the socket stays as it is; detach and close it as usual. To close it
 *   while the loop works, add a function of your own with fdmux_loop_at_close after
 *   attach: it runs before the adapter's.
 * Hosts: after you have used the socket outside of the loop's functions, and a host
 *   runs the loop (fdmux_loop_fd), call fdmux_loop_wake: sending may make it readable.
 * Timeouts: ZeroMQ's own, in its thread; a monitor, attached as another socket, reports
 *   them. Stop it (zmq_socket_monitor with NULL) before you close either socket, or
 *   ZeroMQ's thread may wait for ever.
 * Tested with libzmq 4.3.4.
 *
 * In a Python extension include Python.h and fdmux_python.h first. */
#ifndef FDMUX_ADAPTERS_ZMQ_H
#define FDMUX_ADAPTERS_ZMQ_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <fdmux.h>
#include <zmq.h>

/* `events`: what is ready of what was asked for, ZMQ_POLLIN | ZMQ_POLLOUT. */
typedef void (*fdmux_zmq_fn)(void *socket, int events, void *userdata);

struct fdmux_zmq {
    struct fdmux_loop *loop; /* NULL after its end */
    void *socket;            /* NULL after detach */
    fdmux_zmq_fn fn;
    void *userdata;
    uint64_t io, timer, hook, close_hook;
    int events;
    int depth; /* how many functions below use this struct */
};

/* What is ready now, of what was asked for. This also makes ZeroMQ look at its pipes,
 * which silences the descriptor (zmq_getsockopt(3), ZMQ_EVENTS). */
static inline int fdmux_zmq_ready(struct fdmux_zmq *zmq)
{
    int events = 0;
    size_t size = sizeof events;

    if (zmq->socket == NULL || zmq_getsockopt(zmq->socket, ZMQ_EVENTS, &events, &size))
        return 0;
    return events & zmq->events;
}

/* Before each wait: is there more, which the descriptor does not say? */
static inline int fdmux_zmq_on_hook(struct fdmux_loop *loop, uint64_t hook,
                                    void *userdata)
{
    struct fdmux_zmq *zmq = (struct fdmux_zmq *)userdata;

    (void)hook;
    return fdmux_zmq_ready(zmq) == 0 ? 0
                                     : fdmux_timer_arm(loop, zmq->timer, FDMUX_SOON, 0);
}

static inline void fdmux_zmq_serve(struct fdmux_zmq *zmq)
{
    int events = fdmux_zmq_ready(zmq);

    zmq->depth++;
    if (events != 0)
        zmq->fn(zmq->socket, events, zmq->userdata);
    if (--zmq->depth == 0 && zmq->socket == NULL)
        free(zmq);
}

static inline int fdmux_zmq_on_ready(struct fdmux_loop *loop, uint64_t io,
                                     uint32_t events, void *userdata)
{
    (void)loop;
    (void)io;
    (void)events;
    fdmux_zmq_serve((struct fdmux_zmq *)userdata);
    return 0;
}

static inline int fdmux_zmq_on_timer(struct fdmux_loop *loop, uint64_t timer,
                                     void *userdata)
{
    (void)loop;
    (void)timer;
    fdmux_zmq_serve((struct fdmux_zmq *)userdata);
    return 0;
}

/* Ask for other events. */
static inline void fdmux_zmq_update(struct fdmux_zmq *zmq, int events)
{
    zmq->events = events;
    if (zmq->loop != NULL)
        (void)fdmux_timer_arm(zmq->loop, zmq->timer, FDMUX_SOON, 0);
}

/* Let go of the loop. */
static inline void fdmux_zmq_on_close(struct fdmux_loop *loop, void *userdata)
{
    struct fdmux_zmq *zmq = (struct fdmux_zmq *)userdata;

    (void)fdmux_io_remove(loop, zmq->io);
    (void)fdmux_timer_remove(loop, zmq->timer);
    (void)fdmux_hook_remove(loop, zmq->hook);
    (void)fdmux_hook_remove(loop, zmq->close_hook);
    zmq->loop = NULL;
}

/* Let go of the loop and of the socket, and free the adapter. Accepts NULL. */
static inline void fdmux_zmq_detach(struct fdmux_zmq *zmq)
{
    if (zmq == NULL)
        return;
    if (zmq->loop != NULL)
        fdmux_zmq_on_close(zmq->loop, zmq);
    zmq->socket = NULL;
    if (zmq->depth == 0)
        free(zmq);
}

static inline int fdmux_zmq_register(struct fdmux_zmq *zmq)
{
    struct fdmux_io_options io;
    struct fdmux_timer_options timer;
    struct fdmux_hook_options hook;
    size_t size = sizeof io.fd;
    int r;

    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    if (zmq_getsockopt(zmq->socket, ZMQ_FD, &io.fd, &size) != 0)
        return -EINVAL;
    io.events = FDMUX_READ;
    io.fn = fdmux_zmq_on_ready;
    memset(&timer, 0, sizeof timer);
    timer.struct_size = sizeof timer;
    timer.fn = fdmux_zmq_on_timer;
    memset(&hook, 0, sizeof hook);
    hook.struct_size = sizeof hook;
    hook.fn = fdmux_zmq_on_hook;
    io.userdata = timer.userdata = hook.userdata = zmq;
    r = fdmux_io_add(zmq->loop, &io, &zmq->io);
    if (r == 0)
        r = fdmux_timer_add(zmq->loop, &timer, &zmq->timer);
    if (r == 0)
        r = fdmux_hook_add(zmq->loop, &hook, &zmq->hook);
    if (r == 0)
        r = fdmux_loop_at_close(zmq->loop, fdmux_zmq_on_close, zmq, &zmq->close_hook);
    return r;
}

/* Call `fn` in `loop` while `socket` is ready for any of `events`.
 *
 * Returns 0, -EINVAL for something that is not a socket, or as fdmux_io_add. */
static inline int fdmux_zmq_attach(struct fdmux_loop *loop, void *socket, int events,
                                   fdmux_zmq_fn fn, void *userdata,
                                   struct fdmux_zmq **ret_zmq)
{
    struct fdmux_zmq *zmq = (struct fdmux_zmq *)calloc(1, sizeof *zmq);
    int r;

    if (zmq == NULL)
        return -ENOMEM;
    zmq->loop = loop;
    zmq->socket = socket;
    zmq->fn = fn;
    zmq->userdata = userdata;
    zmq->events = events;
    r = fdmux_zmq_register(zmq);
    if (r < 0) {
        fdmux_zmq_detach(zmq);
        return r;
    }
    *ret_zmq = zmq;
    return 0;
}

#endif /* FDMUX_ADAPTERS_ZMQ_H */
