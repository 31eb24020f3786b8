/* demo.c: native code with a pipe, a timer and a thread of its own (demo.h).
 *
 * It uses the loop only through fdmux.h, as any extension does. */
#include "demo.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "sys.h"

/* One posted call, and its place in the order of posting. */
struct demo_call {
    struct fdmux_py_demo *demo;
    uint64_t index;
};

struct fdmux_py_demo {
    struct fdmux_loop *loop;
    uint64_t io;
    uint64_t timer;
    struct fdmux__thread thread;
    bool has_thread;
    fdmux_fd read_fd;
    fdmux_fd write_fd;
    struct demo_call calls[FDMUX_PY_DEMO_CALLS];
    atomic_uint_least64_t posted; /* accepted by the loop */
    atomic_uint_least64_t bytes;
    atomic_uint_least64_t ticks;
    atomic_uint_least64_t called;
    atomic_uint_least64_t in_order;
    atomic_uint_least64_t dropped;
    atomic_uint_least64_t destroyed;
};

static int read_pipe(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                     void *userdata)
{
    struct fdmux_py_demo *demo = userdata;
    char buffer[FDMUX_PY_DEMO_CALLS];
    int count = fdmux__sys_read(demo->read_fd, buffer, sizeof buffer);

    (void)events;
    if (count > 0)
        atomic_fetch_add(&demo->bytes, (uint64_t)count);
    if (count == 0) /* the thread has closed its end */
        return fdmux_io_update(loop, io, 0);
    return count == -EAGAIN || count > 0 ? 0 : count;
}

static int count_tick(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct fdmux_py_demo *demo = userdata;

    if (atomic_fetch_add(&demo->ticks, 1) + 1 < FDMUX_PY_DEMO_TICKS)
        return 0;
    return fdmux_timer_cancel(loop, timer);
}

static int run_call(struct fdmux_loop *loop, void *userdata)
{
    const struct demo_call *call = userdata;
    struct fdmux_py_demo *demo = call->demo;

    if (loop == NULL) {
        atomic_fetch_add(&demo->dropped, 1);
        return 0;
    }
    if (atomic_fetch_add(&demo->called, 1) == call->index)
        atomic_fetch_add(&demo->in_order, 1);
    return 0;
}

static void count_destroyed(void *userdata)
{
    struct fdmux_py_demo *demo = userdata;

    atomic_fetch_add(&demo->destroyed, 1);
}

/* The thread. It writes a byte before each posted call, so that both kinds of events
 * come in turn. */
static void write_and_post(void *userdata)
{
    struct fdmux_py_demo *demo = userdata;

    for (uint64_t i = 0; i < FDMUX_PY_DEMO_CALLS; i++) {
        demo->calls[i] = (struct demo_call){demo, i};
        if (fdmux__sys_write(demo->write_fd, "x", 1) != 1)
            break; /* never: a pipe has room for all of them */
        if (fdmux_post(demo->loop, run_call, &demo->calls[i]) < 0)
            break; /* the loop was closed */
        atomic_fetch_add(&demo->posted, 1);
    }
    (void)fdmux__sys_close(demo->write_fd); /* nothing is left to flush */
    demo->write_fd = FDMUX_NO_FD;
}

static int watch_pipe(struct fdmux_py_demo *demo)
{
    fdmux_fd fds[2];
    int r = fdmux__sys_pipe(fds);

    if (r < 0)
        return r;
    demo->read_fd = fds[0];
    demo->write_fd = fds[1];
    return fdmux_io_add(demo->loop,
                        &(struct fdmux_io_options){
                            .struct_size = sizeof(struct fdmux_io_options),
                            .fd = demo->read_fd,
                            .events = FDMUX_READ,
                            .fn = read_pipe,
                            .userdata = demo,
                            .destroyed = count_destroyed,
                        },
                        &demo->io);
}

static int start_timer(struct fdmux_py_demo *demo)
{
    int64_t now_ns = fdmux_loop_now(demo->loop);
    int r = fdmux_timer_add(demo->loop,
                            &(struct fdmux_timer_options){
                                .struct_size = sizeof(struct fdmux_timer_options),
                                .fn = count_tick,
                                .userdata = demo,
                                .destroyed = count_destroyed,
                            },
                            &demo->timer);

    if (r < 0)
        return r;
    return fdmux_timer_arm(demo->loop, demo->timer, now_ns + FDMUX__NS_PER_MS,
                           FDMUX__NS_PER_MS);
}

static int start_thread(struct fdmux_py_demo *demo)
{
    int r = fdmux__sys_thread_start(&demo->thread, write_and_post, demo);

    demo->has_thread = r == 0;
    return r;
}

int fdmux_py_demo_start(struct fdmux_loop *loop, struct fdmux_py_demo **ret_demo)
{
    struct fdmux_py_demo *demo = fdmux__sys_calloc(1, sizeof *demo);
    int r;

    if (demo == NULL)
        return -ENOMEM;
    demo->loop = loop;
    demo->read_fd = FDMUX_NO_FD;
    demo->write_fd = FDMUX_NO_FD;
    r = watch_pipe(demo);
    if (r >= 0)
        r = start_timer(demo);
    if (r >= 0)
        r = start_thread(demo);
    if (r < 0) {
        (void)fdmux_py_demo_stop(demo); /* 0: nothing was posted */
        return r;
    }
    *ret_demo = demo;
    return 0;
}

void fdmux_py_demo_count(struct fdmux_py_demo *demo,
                         struct fdmux_py_demo_counts *ret_counts)
{
    *ret_counts = (struct fdmux_py_demo_counts){
        .bytes = atomic_load(&demo->bytes),
        .ticks = atomic_load(&demo->ticks),
        .calls = atomic_load(&demo->called),
        .in_order = atomic_load(&demo->in_order),
        .dropped = atomic_load(&demo->dropped),
        .destroyed = atomic_load(&demo->destroyed),
    };
}

int fdmux_py_demo_stop(struct fdmux_py_demo *demo)
{
    if (demo->has_thread)
        fdmux__sys_thread_join(&demo->thread);
    demo->has_thread = false;
    if (atomic_load(&demo->called) + atomic_load(&demo->dropped) <
        atomic_load(&demo->posted))
        return -EBUSY;
    (void)fdmux_timer_remove(demo->loop, demo->timer); /* closed: removed already */
    (void)fdmux_io_remove(demo->loop, demo->io);
    if (fdmux__is_fd(demo->read_fd))
        (void)fdmux__sys_close(demo->read_fd); /* nothing is left to flush */
    if (fdmux__is_fd(demo->write_fd))
        (void)fdmux__sys_close(demo->write_fd);
    fdmux__sys_free(demo);
    return 0;
}
