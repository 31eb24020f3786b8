/* fdmux_python.h: use fdmux from a Python extension that does not link it.
 *
 * Call fdmux_import() once, in the init function of your module. After that the
 * functions of fdmux.h and of the headers below can be called by their names.
 * fdmux_from_object() and fdmux_current() get a loop, fdmux_queue_from_object() gets a
 * queue, fdmux_raise() makes an exception of an error, fdmux_complete() completes what
 * a task awaits. These need the GIL; nothing else here does.
 *
 * Include Python.h first, with or without Py_LIMITED_API. Each C file that includes
 * this header has its own table pointer, which only fdmux_import() in that file sets,
 * and its own hold for the GIL. Holds of several files in one batch count as different
 * ones: after FDMUX_HOLD_MAX of them fdmux_hold_gil returns -ENOSPC. To share both in
 * your extension, define FDMUX_TABLE_SHARED in one file and FDMUX_TABLE_EXTERN in the
 * others, before the include. Do not link the static core as well: it would be a second
 * core. */
#ifndef FDMUX_PYTHON_H
#define FDMUX_PYTHON_H

#include "fdmux_api.h"
#include "fdmux_datagram.h"
#include "fdmux_stream.h"
#include "fdmux_tls.h"

#include <errno.h>

#ifndef Py_PYTHON_H
#error "include Python.h before fdmux_python.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The function table; NULL until fdmux_import has succeeded. */
#if defined(FDMUX_TABLE_EXTERN)
extern const struct fdmux_api *fdmux_table;
#elif defined(FDMUX_TABLE_SHARED)
const struct fdmux_api *fdmux_table;
#else
static const struct fdmux_api *fdmux_table;
#endif

/* Can code that was compiled with this header use `api`? Returns 0, or -1 with
 * ImportError set. Needs the GIL. */
static inline int fdmux_check_api(const struct fdmux_api *api)
{
    if (api->abi_major == FDMUX_ABI_MAJOR && api->abi_minor + 1 > FDMUX_ABI_MINOR &&
        api->struct_size >= sizeof(struct fdmux_api))
        return 0;
    PyErr_Format(PyExc_ImportError,
                 "fdmux: this extension was compiled for ABI %d.%d, the installed "
                 "fdmux has %u.%u: upgrade fdmux, or rebuild the extension",
                 FDMUX_ABI_MAJOR, FDMUX_ABI_MINOR, (unsigned)api->abi_major,
                 (unsigned)api->abi_minor);
    return -1;
}

/* Import fdmux and set the function table.
 *
 * Returns 0, or -1 with an exception set. Needs the GIL. */
static inline int fdmux_import(void)
{
    const struct fdmux_api *api =
        (const struct fdmux_api *)PyCapsule_Import("fdmux._C_API", 0);

    if (api == NULL || fdmux_check_api(api) < 0)
        return -1;
    fdmux_table = api;
    return 0;
}

/* Take the loop out of an object that has __fdmux_loop__(). For fdmux_from_object. */
static inline struct fdmux_loop *fdmux_adopt(PyObject *owner)
{
    struct fdmux_loop *loop = NULL;
    PyObject *capsule = PyObject_CallMethod(owner, "__fdmux_loop__", NULL);
    const struct fdmux_loop_handle *handle;

    if (capsule == NULL)
        return NULL;
    handle =
        (const struct fdmux_loop_handle *)PyCapsule_GetPointer(capsule, "fdmux.loop");
    if (handle != NULL && fdmux_check_api(handle->api) == 0) {
        fdmux_table = handle->api;
        loop = handle->loop;
    }
    Py_DECREF(capsule);
    return loop;
}

/* Take the loop out of `owner`, a new reference or NULL. For fdmux_from_object. */
static inline struct fdmux_loop *fdmux_adopt_new(PyObject *owner)
{
    struct fdmux_loop *loop = owner == NULL ? NULL : fdmux_adopt(owner);

    Py_XDECREF(owner);
    return loop;
}

/* Call a function of the package fdmux. Returns a new reference, or NULL with an
 * exception set. For the functions below. */
static inline PyObject *fdmux_call(const char *name, PyObject *argument)
{
    PyObject *module = PyImport_ImportModule("fdmux");
    PyObject *result = NULL;

    if (module != NULL && argument != NULL)
        result = PyObject_CallMethod(module, name, "(O)", argument);
    else if (module != NULL)
        result = PyObject_CallMethod(module, name, NULL);
    Py_XDECREF(module);
    return result;
}

/* Get the loop of a Python object. Sets the function table too.
 *
 * The object has a loop (fdmux.Selector, NativeLoop, SelectorEventLoop, what
 * fdmux.mount() returns), or it is a loop of another kind: of asyncio, uvloop, tornado,
 * trio, gevent, or whatever fdmux.mount() accepts, which this mounts. Call it on that
 * loop's thread then. None stands for the loop that runs in this thread.
 *
 * The loop's memory lives as long as `object` does, or until the loop of another kind
 * ends. The end calls the functions of fdmux_loop_at_close, and the `destroyed` of your
 * watchers; fdmux_loop_ref keeps the memory beyond it. Returns NULL with an exception
 * set. */
static inline struct fdmux_loop *fdmux_from_object(PyObject *object)
{
    if (PyObject_HasAttrString(object, "__fdmux_loop__"))
        return fdmux_adopt(object);
    return fdmux_adopt_new(fdmux_call("mount", object));
}

/* Get the loop of the Python loop that runs in this thread, as fdmux.current() does;
 * the first call mounts it. Otherwise as fdmux_from_object. Costs 40 microseconds, so
 * keep the loop where speed matters. */
static inline struct fdmux_loop *fdmux_current(void)
{
    return fdmux_adopt_new(fdmux_call("current", NULL));
}

/* Raise the exception that fits `result`, an error of a function of fdmux, with the
 * text of what was attempted: fdmux_raise(r, "watch the socket of the server").
 *
 * fdmux.LoopClosed for -ESTALE, fdmux.ForkedLoop for -ECHILD, fdmux.NotRegistered for
 * -EIDRM, RuntimeError for -EBUSY, MemoryError for -ENOMEM, and otherwise the OSError
 * of its errno. An exception that is set already stays. Returns NULL, always. */
static inline PyObject *fdmux_raise(int result, const char *attempted)
{
    PyObject *module;

    if (PyErr_Occurred() != NULL)
        return NULL;
    module = PyImport_ImportModule("fdmux");
    if (module == NULL)
        return NULL;
    Py_XDECREF(PyObject_CallMethod(module, "_raise", "is", result, attempted));
    Py_DECREF(module);
    return NULL;
}

/* Get the queue of an object that has __fdmux_queue__(): fdmux.NativeQueue. Sets the
 * function table too.
 *
 * The queue lives at least as long as `object`, which closes it when it is freed. A
 * thread that puts needs its own reference, from fdmux_queue_ref. Returns NULL with an
 * exception set. */
static inline struct fdmux_queue *fdmux_queue_from_object(PyObject *object)
{
    struct fdmux_queue *queue = NULL;
    PyObject *capsule = PyObject_CallMethod(object, "__fdmux_queue__", NULL);
    const struct fdmux_queue_handle *handle;

    if (capsule == NULL)
        return NULL;
    handle =
        (const struct fdmux_queue_handle *)PyCapsule_GetPointer(capsule, "fdmux.queue");
    if (handle != NULL && fdmux_check_api(handle->api) == 0) {
        fdmux_table = handle->api;
        queue = handle->queue;
    }
    Py_DECREF(capsule);
    return queue;
}

/* The functions of fdmux.h and of the headers above, called through the table. */
#define fdmux_loop_create(...) fdmux_table->loop_create(__VA_ARGS__)
#define fdmux_loop_destroy(...) fdmux_table->loop_destroy(__VA_ARGS__)
#define fdmux_loop_ref(...) fdmux_table->loop_ref(__VA_ARGS__)
#define fdmux_loop_unref(...) fdmux_table->loop_unref(__VA_ARGS__)
#define fdmux_loop_at_close(...) fdmux_table->loop_at_close(__VA_ARGS__)
#define fdmux_loop_fd(...) fdmux_table->loop_fd(__VA_ARGS__)
#define fdmux_loop_handle(...) fdmux_table->loop_handle(__VA_ARGS__)
#define fdmux_loop_next_deadline(...) fdmux_table->loop_next_deadline(__VA_ARGS__)
#define fdmux_loop_dispatch(...) fdmux_table->loop_dispatch(__VA_ARGS__)
#define fdmux_loop_run(...) fdmux_table->loop_run(__VA_ARGS__)
#define fdmux_loop_stop(...) fdmux_table->loop_stop(__VA_ARGS__)
#define fdmux_loop_wake(...) fdmux_table->loop_wake(__VA_ARGS__)
#define fdmux_loop_now(...) fdmux_table->loop_now(__VA_ARGS__)
#define fdmux_loop_backend(...) fdmux_table->loop_backend(__VA_ARGS__)
#define fdmux_loop_stats(...) fdmux_table->loop_stats(__VA_ARGS__)
#define fdmux_loop_after_fork(...) fdmux_table->loop_after_fork(__VA_ARGS__)
#define fdmux_loop_hold(...) fdmux_table->loop_hold(__VA_ARGS__)
#define fdmux_loop_set_return(...) fdmux_table->loop_set_return(__VA_ARGS__)
#define fdmux_io_add(...) fdmux_table->io_add(__VA_ARGS__)
#define fdmux_io_update(...) fdmux_table->io_update(__VA_ARGS__)
#define fdmux_io_replace_fd(...) fdmux_table->io_replace_fd(__VA_ARGS__)
#define fdmux_io_fd(...) fdmux_table->io_fd(__VA_ARGS__)
#define fdmux_io_remove(...) fdmux_table->io_remove(__VA_ARGS__)
#define fdmux_timer_add(...) fdmux_table->timer_add(__VA_ARGS__)
#define fdmux_timer_arm(...) fdmux_table->timer_arm(__VA_ARGS__)
#define fdmux_timer_arm_in(...) fdmux_table->timer_arm_in(__VA_ARGS__)
#define fdmux_timer_cancel(...) fdmux_table->timer_cancel(__VA_ARGS__)
#define fdmux_timer_remove(...) fdmux_table->timer_remove(__VA_ARGS__)
#define fdmux_post(...) fdmux_table->post(__VA_ARGS__)
#define fdmux_hook_add(...) fdmux_table->hook_add(__VA_ARGS__)
#define fdmux_hook_remove(...) fdmux_table->hook_remove(__VA_ARGS__)
#define fdmux_queue_create(...) fdmux_table->queue_create(__VA_ARGS__)
#define fdmux_queue_ref(...) fdmux_table->queue_ref(__VA_ARGS__)
#define fdmux_queue_unref(...) fdmux_table->queue_unref(__VA_ARGS__)
#define fdmux_queue_set_drop(...) fdmux_table->queue_set_drop(__VA_ARGS__)
#define fdmux_queue_fd(...) fdmux_table->queue_fd(__VA_ARGS__)
#define fdmux_queue_put(...) fdmux_table->queue_put(__VA_ARGS__)
#define fdmux_queue_take(...) fdmux_table->queue_take(__VA_ARGS__)
#define fdmux_queue_close(...) fdmux_table->queue_close(__VA_ARGS__)
#define fdmux_stream_total_max(...) fdmux_table->stream->total_max(__VA_ARGS__)
#define fdmux_stream_add(...) fdmux_table->stream->add(__VA_ARGS__)
#define fdmux_stream_listen(...) fdmux_table->stream->listen(__VA_ARGS__)
#define fdmux_stream_connect(...) fdmux_table->stream->connect(__VA_ARGS__)
#define fdmux_stream_listen_at(...) fdmux_table->stream->listen_at(__VA_ARGS__)
#define fdmux_stream_connect_to(...) fdmux_table->stream->connect_to(__VA_ARGS__)
#define fdmux_stream_set_handler(...) fdmux_table->stream->set_handler(__VA_ARGS__)
#define fdmux_stream_write(...) fdmux_table->stream->write(__VA_ARGS__)
#define fdmux_stream_write_batch(...) fdmux_table->stream->write_batch(__VA_ARGS__)
#define fdmux_stream_shutdown(...) fdmux_table->stream->shutdown(__VA_ARGS__)
#define fdmux_stream_pause(...) fdmux_table->stream->pause(__VA_ARGS__)
#define fdmux_stream_resume(...) fdmux_table->stream->resume(__VA_ARGS__)
#define fdmux_stream_close(...) fdmux_table->stream->close(__VA_ARGS__)
#define fdmux_stream_fd(...) fdmux_table->stream->fd(__VA_ARGS__)
#define fdmux_stream_stats(...) fdmux_table->stream->stats(__VA_ARGS__)
#define fdmux_stream_await_writable(...)                                               \
    fdmux_table->stream->await_writable(__VA_ARGS__)
#define fdmux_stream_peer(...) fdmux_table->stream->peer(__VA_ARGS__)
#define fdmux_stream_set_prefetch(...) fdmux_table->stream->set_prefetch(__VA_ARGS__)
#define fdmux_stream_start_tls(...) fdmux_table->tls->start_tls(__VA_ARGS__)
#define fdmux_stream_tls_error(...) fdmux_table->tls->tls_error(__VA_ARGS__)
#define fdmux_datagram_features(...) fdmux_table->datagram->features(__VA_ARGS__)
#define fdmux_datagram_add(...) fdmux_table->datagram->add(__VA_ARGS__)
#define fdmux_datagram_bind(...) fdmux_table->datagram->bind(__VA_ARGS__)
#define fdmux_datagram_connect(...) fdmux_table->datagram->connect(__VA_ARGS__)
#define fdmux_datagram_set_handler(...) fdmux_table->datagram->set_handler(__VA_ARGS__)
#define fdmux_datagram_send(...) fdmux_table->datagram->send(__VA_ARGS__)
#define fdmux_datagram_send_many(...) fdmux_table->datagram->send_many(__VA_ARGS__)
#define fdmux_datagram_close(...) fdmux_table->datagram->close(__VA_ARGS__)
#define fdmux_datagram_fd(...) fdmux_table->datagram->fd(__VA_ARGS__)
#define fdmux_datagram_pause(...) fdmux_table->datagram->pause(__VA_ARGS__)
#define fdmux_datagram_resume(...) fdmux_table->datagram->resume(__VA_ARGS__)
#define fdmux_datagram_queued(...) fdmux_table->datagram->queued(__VA_ARGS__)
#define fdmux_datagram_stats(...) fdmux_table->datagram->stats(__VA_ARGS__)
#define fdmux_datagram_await_writable(...)                                             \
    fdmux_table->datagram->await_writable(__VA_ARGS__)

/* Take the GIL, with PyGILState_Ensure: so a thread that Python has never seen may
 * dispatch too. */
static inline void *fdmux_gil_enter(void *userdata)
{
    (void)userdata;
    return (void *)(uintptr_t)PyGILState_Ensure();
}

/* Release the GIL; `held` is the result of fdmux_gil_enter. */
static inline void fdmux_gil_leave(void *held, void *userdata)
{
    (void)userdata;
    PyGILState_Release((PyGILState_STATE)(uintptr_t)held);
}

/* The hold of fdmux_hold_gil. */
#if defined(FDMUX_TABLE_EXTERN)
extern const struct fdmux_hold fdmux_gil;
#elif defined(FDMUX_TABLE_SHARED)
extern const struct fdmux_hold fdmux_gil; /* for C++, where a const is static */
const struct fdmux_hold fdmux_gil = {fdmux_gil_enter, fdmux_gil_leave, NULL};
#else
static const struct fdmux_hold fdmux_gil = {fdmux_gil_enter, fdmux_gil_leave, NULL};
#endif

/* Hold the GIL until the end of the batch. Call this in each function of the loop that
 * uses Python, before it does.
 *
 * Only the first call in a batch takes the GIL. Functions that run later in the batch
 * run with the GIL held even if they do not use Python. One that waits for a thread
 * which needs the GIL would wait for ever.
 *
 * While the interpreter shuts down, this call does not return (Python ends the thread;
 * from 3.14 on the thread hangs). Hold no lock of your own when you call it.
 *
 * Returns 0, or as fdmux_loop_hold. For the main interpreter only, like PyGILState. */
static inline int fdmux_hold_gil(struct fdmux_loop *loop)
{
    return fdmux_loop_hold(loop, &fdmux_gil);
}

/* Complete `completion`, a fdmux.aio.Completion, with `result`, any object, or, if that
 * is NULL, with the exception that is set. Steals the reference to `result`, not that
 * to `completion`; one that is done ignores it.
 *
 * For a function of the loop, after fdmux_hold_gil: all results of a batch then cost
 * one acquisition of the GIL. Tasks that await them continue after the batch.
 *
 * Returns 0, or -EINVAL for an object that cannot be completed, which is reported to
 * sys.unraisablehook. */
static inline int fdmux_complete(struct fdmux_loop *loop, PyObject *completion,
                                 PyObject *result)
{
    const char *name = result != NULL ? "set_result" : "set_exception";
    PyObject *type = NULL, *traceback = NULL;
    PyObject *returned = NULL;
    PyObject *method;
    int r = 0;

    if (result == NULL) {
        PyErr_Fetch(&type, &result, &traceback);
        PyErr_NormalizeException(&type, &result, &traceback);
        if (traceback != NULL)
            (void)PyException_SetTraceback(result, traceback); /* it is one */
    }
    method = PyUnicode_InternFromString(name);
    if (method != NULL)
        returned = PyObject_CallMethodObjArgs(completion, method, result, NULL);
    if (returned == NULL) {
        PyErr_WriteUnraisable(completion);
        r = -EINVAL;
    }
    Py_XDECREF(method);
    Py_XDECREF(returned);
    Py_XDECREF(result);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    (void)fdmux_loop_wake(loop); /* fails for a closed loop: nobody waits there */
    return r;
}

#ifdef __cplusplus
}
#endif

#endif /* FDMUX_PYTHON_H */
