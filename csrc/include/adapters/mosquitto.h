/* mosquitto.h: MQTT, by libmosquitto, in an fdmux loop.
 *
 *     struct mosquitto *mosq = mosquitto_new(NULL, true, userdata);
 *     mosquitto_connect_async(mosq, host, port, keepalive);
 *     r = fdmux_mosquitto_attach(loop, mosq, &adapter);
 *
 * The adapter calls mosquitto_loop_read, _write and _misc; use none of the
 * mosquitto_loop functions yourself. After mosquitto_connect, mosquitto_reconnect and
 * the like, also in a callback, call fdmux_mosquitto_update: the new socket may have
 * the old number.
 *
 * Ownership: the client is yours. End with fdmux_mosquitto_destroy, also inside a
 *   callback: it calls mosquitto_destroy when no function of libmosquitto is
 *   running. To keep the client, call fdmux_mosquitto_detach instead, outside of its
 *   callbacks.
 * Threads: the loop's.
 * End of the loop: the client stays as it is; destroy it as usual. To disconnect
 *   while the loop works, add a function of your own with fdmux_loop_at_close after
 *   attach: it runs before the adapter's.
 * Hosts: after you have used the client outside of the loop's functions, and a host
 *   runs the loop (fdmux_loop_fd), call fdmux_loop_wake: a message may wait to be
 *   sent.
 * Timeouts: libmosquitto's keepalive, looked at each second.
 * Tested with libmosquitto 2.0.11.
 *
 * In a Python extension include Python.h and fdmux_python.h first. */
#ifndef FDMUX_ADAPTERS_MOSQUITTO_H
#define FDMUX_ADAPTERS_MOSQUITTO_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <fdmux.h>
#include <mosquitto.h>

struct fdmux_mosquitto {
    struct fdmux_loop *loop; /* NULL after its end */
    struct mosquitto *mosq;  /* NULL after detach */
    uint64_t io, timer, hook, close_hook;
    int fd; /* that is watched, or -1 */
    uint32_t events;
    int is_gone; /* destroyed, inside a callback */
    int depth;   /* how many functions below use this struct */
};

static inline uint32_t fdmux_mosquitto_wanted(struct fdmux_mosquitto *adapter)
{
    return FDMUX_READ |
           (mosquitto_want_write(adapter->mosq) ? (uint32_t)FDMUX_WRITE : 0U);
}

/* Watch the client's socket, which is another one since the last call. Returns 0 or as
 * fdmux_io_replace_fd. */
static inline int fdmux_mosquitto_update(struct fdmux_mosquitto *adapter)
{
    if (adapter->loop == NULL)
        return 0;
    adapter->fd = mosquitto_socket(adapter->mosq);
    adapter->events = fdmux_mosquitto_wanted(adapter);
    return fdmux_io_replace_fd(adapter->loop, adapter->io, adapter->fd,
                               adapter->fd < 0 ? 0 : adapter->events);
}

/* Before each wait: a callback may have published, or connected again. */
static inline int fdmux_mosquitto_on_hook(struct fdmux_loop *loop, uint64_t hook,
                                          void *userdata)
{
    struct fdmux_mosquitto *adapter = (struct fdmux_mosquitto *)userdata;
    uint32_t events = fdmux_mosquitto_wanted(adapter);

    (void)hook;
    if (mosquitto_socket(adapter->mosq) != adapter->fd)
        return fdmux_mosquitto_update(adapter);
    if (adapter->fd < 0 || events == adapter->events)
        return 0;
    adapter->events = events;
    return fdmux_io_update(loop, adapter->io, events);
}

/* libmosquitto has returned `result`. On an error it has closed its socket, and a
 * callback may have opened another. */
static inline void fdmux_mosquitto_leave(struct fdmux_mosquitto *adapter, int result)
{
    if (--adapter->depth > 0)
        return;
    if (adapter->is_gone) {
        mosquitto_destroy(adapter->mosq);
        free(adapter);
    } else if (result != MOSQ_ERR_SUCCESS && adapter->fd >= 0) {
        (void)fdmux_mosquitto_update(adapter);
    }
}

static inline int fdmux_mosquitto_on_ready(struct fdmux_loop *loop, uint64_t io,
                                           uint32_t events, void *userdata)
{
    struct fdmux_mosquitto *adapter = (struct fdmux_mosquitto *)userdata;
    int result = MOSQ_ERR_SUCCESS;

    (void)loop;
    (void)io;
    adapter->depth++;
    if (events & FDMUX_READ)
        result = mosquitto_loop_read(adapter->mosq, 1);
    if ((events & FDMUX_WRITE) && result == MOSQ_ERR_SUCCESS && !adapter->is_gone)
        result = mosquitto_loop_write(adapter->mosq, 1);
    fdmux_mosquitto_leave(adapter, result);
    return 0;
}

static inline int fdmux_mosquitto_on_timer(struct fdmux_loop *loop, uint64_t timer,
                                           void *userdata)
{
    struct fdmux_mosquitto *adapter = (struct fdmux_mosquitto *)userdata;

    (void)loop;
    (void)timer;
    adapter->depth++;
    fdmux_mosquitto_leave(adapter, mosquitto_loop_misc(adapter->mosq));
    return 0;
}

/* Let go of the loop. */
static inline void fdmux_mosquitto_on_close(struct fdmux_loop *loop, void *userdata)
{
    struct fdmux_mosquitto *adapter = (struct fdmux_mosquitto *)userdata;

    (void)fdmux_io_remove(loop, adapter->io);
    (void)fdmux_timer_remove(loop, adapter->timer);
    (void)fdmux_hook_remove(loop, adapter->hook);
    (void)fdmux_hook_remove(loop, adapter->close_hook);
    adapter->loop = NULL;
}

/* Let go of the loop and of the client, and free the adapter. Not in a callback of the
 * client. Accepts NULL. */
static inline void fdmux_mosquitto_detach(struct fdmux_mosquitto *adapter)
{
    if (adapter == NULL)
        return;
    if (adapter->loop != NULL)
        fdmux_mosquitto_on_close(adapter->loop, adapter);
    free(adapter);
}

/* Detach and destroy the client. Inside a callback of the client, both happen when
 * libmosquitto returns; until then it may call back once more. Accepts NULL. */
static inline void fdmux_mosquitto_destroy(struct fdmux_mosquitto *adapter)
{
    if (adapter == NULL)
        return;
    if (adapter->loop != NULL)
        fdmux_mosquitto_on_close(adapter->loop, adapter);
    adapter->is_gone = 1;
    adapter->depth++;
    fdmux_mosquitto_leave(adapter, MOSQ_ERR_SUCCESS);
}

static inline int fdmux_mosquitto_register(struct fdmux_mosquitto *adapter)
{
    struct fdmux_loop *loop = adapter->loop;
    struct fdmux_io_options io;
    struct fdmux_timer_options timer;
    struct fdmux_hook_options hook;
    int r;

    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    io.fd = -1;
    io.fn = fdmux_mosquitto_on_ready;
    memset(&timer, 0, sizeof timer);
    timer.struct_size = sizeof timer;
    timer.fn = fdmux_mosquitto_on_timer;
    memset(&hook, 0, sizeof hook);
    hook.struct_size = sizeof hook;
    hook.fn = fdmux_mosquitto_on_hook;
    io.userdata = timer.userdata = hook.userdata = adapter;
    r = fdmux_io_add(loop, &io, &adapter->io);
    if (r == 0)
        r = fdmux_timer_add(loop, &timer, &adapter->timer);
    if (r == 0)
        r = fdmux_timer_arm_in(loop, adapter->timer, INT64_C(1000000000),
                               INT64_C(1000000000));
    if (r == 0)
        r = fdmux_hook_add(loop, &hook, &adapter->hook);
    if (r == 0)
        r = fdmux_loop_at_close(loop, fdmux_mosquitto_on_close, adapter,
                                &adapter->close_hook);
    return r == 0 ? fdmux_mosquitto_update(adapter) : r;
}

/* Let `loop` serve `mosq`, before or after it connects. Returns 0, or as fdmux_io_add.
 */
static inline int fdmux_mosquitto_attach(struct fdmux_loop *loop,
                                         struct mosquitto *mosq,
                                         struct fdmux_mosquitto **ret_adapter)
{
    struct fdmux_mosquitto *adapter =
        (struct fdmux_mosquitto *)calloc(1, sizeof *adapter);
    int r;

    if (adapter == NULL)
        return -ENOMEM;
    adapter->loop = loop;
    adapter->mosq = mosq;
    adapter->fd = -1;
    r = fdmux_mosquitto_register(adapter);
    if (r < 0) {
        fdmux_mosquitto_detach(adapter);
        return r;
    }
    *ret_adapter = adapter;
    return 0;
}

#endif /* FDMUX_ADAPTERS_MOSQUITTO_H */
