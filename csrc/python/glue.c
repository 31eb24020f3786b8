/* glue.c: functions that Python calls through cffi, beyond fdmux.h (glue.h). */
#include <Python.h>

#include "glue.h"

#include <errno.h>

#include "dispatch.h"
#include "hold.h"
#include "io.h"
#include "loop.h"

/* proc(5), fs.nr_open: Linux allows 2^20 descriptors unless told otherwise. */
#define FD_MAX INT32_C(0x00ffffff)

int64_t fdmux_py_io_add(struct fdmux_loop *loop, fdmux_fd fd, uint32_t events)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = fd,
        .events = events,
    };
    uint64_t token;
    int r;

    if (!fdmux__is_fd(fd))
        return -EBADF;
    if (fd > FD_MAX)
        return -EMFILE;
    r = fdmux__io_add(loop, &options, (uint32_t)fd + 1, &token);
    return r < 0 ? r : (int64_t)token;
}

static int collect(struct fdmux_py_batch *batch, int64_t timeout_ns)
{
    struct fdmux__batch compact = {
        .compact = batch->indices,
        .capacity = batch->capacity,
    };

    return fdmux__loop_dispatch(batch->loop, timeout_ns, &compact);
}

int fdmux_py_select(struct fdmux_py_batch *batch, int64_t timeout_ns)
{
    batch->deadline_ns =
        timeout_ns < 0
            ? INT64_MAX
            : timeout_ns + (timeout_ns > 0 ? fdmux_loop_now(batch->loop) : 0);
    return collect(batch, timeout_ns);
}

int fdmux_py_select_again(struct fdmux_py_batch *batch)
{
    int64_t left_ns = batch->deadline_ns - fdmux_loop_now(batch->loop);

    if (batch->deadline_ns == INT64_MAX)
        left_ns = -1;
    else if (left_ns < 0)
        left_ns = 0;
    return collect(batch, left_ns);
}

int fdmux_py_is_fn_error(const struct fdmux_loop *loop, int error)
{
    return loop != NULL && error < 0 && loop->fn_error == error;
}

void fdmux_py_end_batch(struct fdmux_loop *loop)
{
    if (fdmux__is_calling_thread(loop))
        (void)fdmux_loop_wake(loop); /* -ESTALE: closed, so dispatch returns anyway */
}

int fdmux_py_loop_close(struct fdmux_loop *loop)
{
    return fdmux__loop_close(loop);
}

/* Without the GIL: functions of native code run here, and may wait for a thread that
 * needs it. */
static void destroy_loop(PyObject *capsule)
{
    struct fdmux_loop *loop = PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));

    Py_BEGIN_ALLOW_THREADS
    fdmux_loop_destroy(loop);
    Py_END_ALLOW_THREADS
}

uintptr_t fdmux_py_loop_destructor(void)
{
    return (uintptr_t)destroy_loop;
}

/* Close the queue, even if threads that put still have references. */
static void end_queue(struct fdmux_queue *queue)
{
    (void)fdmux_queue_close(queue); /* 0: it is a queue */
    fdmux_queue_unref(queue);
}

/* Without the GIL: `drop` of native code runs here, and may wait for a thread that
 * needs it. */
static void destroy_queue(PyObject *capsule)
{
    void *queue = PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));

    Py_BEGIN_ALLOW_THREADS
    end_queue(queue);
    Py_END_ALLOW_THREADS
}

uintptr_t fdmux_py_queue_destructor(void)
{
    return (uintptr_t)destroy_queue;
}

const char *fdmux_py_version(void)
{
    return FDMUX_VERSION;
}
