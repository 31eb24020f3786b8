/* hiredis.h: Redis, by hiredis' asynchronous API, in an fdmux loop.
 *
 *     redisAsyncContext *context = redisAsyncConnect("127.0.0.1", 6379);
 *     r = fdmux_hiredis_attach(loop, context);
 *     redisAsyncCommand(context, on_reply, userdata, "GET %s", key);
 *
 * Ownership: the context owns the adapter, and hiredis frees both when the connection
 *   ends. So use redisAsyncDisconnect or redisAsyncFree, and nothing of the adapter.
 *   Both may be called inside any callback.
 * Threads: those that hiredis allows for a context: the loop's.
 * End of the loop: the context is freed as by redisAsyncFree: each command in flight
 *   gets a NULL reply, and the disconnect callback runs.
 * Timeouts: hiredis 1.0 and later, as redisAsyncSetTimeout says. Before that, hiredis
 *   has none: free the context in a timer of yours.
 * Tested with hiredis 0.14.1 and 1.4.1.
 *
 * In a Python extension include Python.h and fdmux_python.h first. */
#ifndef FDMUX_ADAPTERS_HIREDIS_H
#define FDMUX_ADAPTERS_HIREDIS_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <fdmux.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>

struct fdmux_hiredis {
    redisAsyncContext *context;
    struct fdmux_loop *loop;
    uint64_t io, timer, soon, close_hook;
    uint32_t events;
    int is_soon;    /* on_soon will write */
    int is_writing; /* within on_soon */
};

/* hiredis may free the context in the first call, and the adapter with it; the token
 * tells. */
static inline int fdmux_hiredis_on_ready(struct fdmux_loop *loop, uint64_t io,
                                         uint32_t events, void *userdata)
{
    redisAsyncContext *context = ((struct fdmux_hiredis *)userdata)->context;

    if (events & FDMUX_READ)
        redisAsyncHandleRead(context);
    if ((events & FDMUX_WRITE) && fdmux_io_fd(loop, io) >= 0)
        redisAsyncHandleWrite(context);
    return 0;
}

/* The commands of a batch leave here, once, and without a question to the kernel: the
 * socket has room almost always. If it has not, hiredis asks to be told when. */
static inline int fdmux_hiredis_on_soon(struct fdmux_loop *loop, uint64_t timer,
                                        void *userdata)
{
    struct fdmux_hiredis *hiredis = (struct fdmux_hiredis *)userdata;
    uint64_t io = hiredis->io;

    (void)timer;
    hiredis->is_soon = 0;
    hiredis->is_writing = 1;
    redisAsyncHandleWrite(hiredis->context);
    if (fdmux_io_fd(loop, io) >= 0) /* otherwise both were freed */
        hiredis->is_writing = 0;
    return 0;
}

static inline int fdmux_hiredis_on_timer(struct fdmux_loop *loop, uint64_t timer,
                                         void *userdata)
{
    (void)loop;
    (void)timer;
#if HIREDIS_MAJOR >= 1
    redisAsyncHandleTimeout(((struct fdmux_hiredis *)userdata)->context);
#else
    (void)userdata;
#endif
    return 0;
}

static inline void fdmux_hiredis_watch(struct fdmux_hiredis *hiredis, uint32_t events)
{
    if (events == hiredis->events)
        return; /* hiredis asks again and again */
    if (fdmux_io_update(hiredis->loop, hiredis->io, events) == 0)
        hiredis->events = events;
}

static inline void fdmux_hiredis_add_read(void *data)
{
    struct fdmux_hiredis *hiredis = (struct fdmux_hiredis *)data;

    fdmux_hiredis_watch(hiredis, hiredis->events | FDMUX_READ);
}

static inline void fdmux_hiredis_del_read(void *data)
{
    struct fdmux_hiredis *hiredis = (struct fdmux_hiredis *)data;

    fdmux_hiredis_watch(hiredis, hiredis->events & ~(uint32_t)FDMUX_READ);
}

static inline void fdmux_hiredis_add_write(void *data)
{
    struct fdmux_hiredis *hiredis = (struct fdmux_hiredis *)data;

    if (hiredis->is_soon || (hiredis->events & FDMUX_WRITE))
        return; /* hiredis asks for each command */
    if (hiredis->is_writing || !(hiredis->context->c.flags & REDIS_CONNECTED) ||
        fdmux_timer_arm(hiredis->loop, hiredis->soon, FDMUX_SOON, 0) < 0)
        fdmux_hiredis_watch(hiredis, hiredis->events | FDMUX_WRITE);
    else
        hiredis->is_soon = 1;
}

static inline void fdmux_hiredis_del_write(void *data)
{
    struct fdmux_hiredis *hiredis = (struct fdmux_hiredis *)data;

    fdmux_hiredis_watch(hiredis, hiredis->events & ~(uint32_t)FDMUX_WRITE);
}

#if HIREDIS_MAJOR >= 1
static inline void fdmux_hiredis_schedule(void *data, struct timeval in)
{
    struct fdmux_hiredis *hiredis = (struct fdmux_hiredis *)data;
    int64_t delay_ns = in.tv_sec * INT64_C(1000000000) + in.tv_usec * INT64_C(1000);

    (void)fdmux_timer_arm_in(hiredis->loop, hiredis->timer, delay_ns, 0);
}
#endif

/* hiredis frees the context. */
static inline void fdmux_hiredis_cleanup(void *data)
{
    struct fdmux_hiredis *hiredis = (struct fdmux_hiredis *)data;

    (void)fdmux_io_remove(hiredis->loop, hiredis->io);
    (void)fdmux_timer_remove(hiredis->loop, hiredis->timer);
    (void)fdmux_timer_remove(hiredis->loop, hiredis->soon);
    (void)fdmux_hook_remove(hiredis->loop, hiredis->close_hook);
    free(hiredis);
}

static inline void fdmux_hiredis_on_close(struct fdmux_loop *loop, void *userdata)
{
    (void)loop;
    redisAsyncFree(((struct fdmux_hiredis *)userdata)->context);
}

static inline int fdmux_hiredis_register(struct fdmux_hiredis *hiredis)
{
    struct fdmux_io_options io;
    struct fdmux_timer_options timer;
    int r;

    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    io.fd = hiredis->context->c.fd;
    io.fn = fdmux_hiredis_on_ready;
    io.userdata = hiredis;
    memset(&timer, 0, sizeof timer);
    timer.struct_size = sizeof timer;
    timer.fn = fdmux_hiredis_on_timer;
    timer.userdata = hiredis;
    r = fdmux_io_add(hiredis->loop, &io, &hiredis->io);
    if (r == 0)
        r = fdmux_timer_add(hiredis->loop, &timer, &hiredis->timer);
    timer.fn = fdmux_hiredis_on_soon;
    if (r == 0)
        r = fdmux_timer_add(hiredis->loop, &timer, &hiredis->soon);
    if (r == 0)
        r = fdmux_loop_at_close(hiredis->loop, fdmux_hiredis_on_close, hiredis,
                                &hiredis->close_hook);
    return r;
}

/* Let `loop` serve `context`, which has just been made by redisAsyncConnect and the
 * like. Returns 0; -EINVAL for a context that has an error or a loop; or as
 * fdmux_io_add. On failure the context is still yours to free. */
static inline int fdmux_hiredis_attach(struct fdmux_loop *loop,
                                       redisAsyncContext *context)
{
    struct fdmux_hiredis *hiredis;
    int r;

    if (context == NULL || context->err != 0 || context->ev.data != NULL)
        return -EINVAL;
    hiredis = (struct fdmux_hiredis *)calloc(1, sizeof *hiredis);
    if (hiredis == NULL)
        return -ENOMEM;
    hiredis->context = context;
    hiredis->loop = loop;
    r = fdmux_hiredis_register(hiredis);
    if (r < 0) {
        fdmux_hiredis_cleanup(hiredis);
        return r;
    }
    context->ev.data = hiredis;
    context->ev.addRead = fdmux_hiredis_add_read;
    context->ev.delRead = fdmux_hiredis_del_read;
    context->ev.addWrite = fdmux_hiredis_add_write;
    context->ev.delWrite = fdmux_hiredis_del_write;
    context->ev.cleanup = fdmux_hiredis_cleanup;
#if HIREDIS_MAJOR >= 1
    context->ev.scheduleTimer = fdmux_hiredis_schedule;
#endif
    return 0;
}

#endif /* FDMUX_ADAPTERS_HIREDIS_H */
