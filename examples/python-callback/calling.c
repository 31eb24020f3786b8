/* calling.c: functions of the loop that call Python functions.
 *
 * They run without the GIL, and take it when they have something for Python: the first
 * one in a batch takes it, and the core releases it at the end of the batch.
 *
 * Links nothing of fdmux. One exception is kept at a time: this is an example. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fdmux_python.h>

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct watch {
    PyObject *function;
    int fd; /* -1: a timer */
};

/* Used only with the GIL. */
static struct {
    PyObject *type;
    PyObject *value;
    PyObject *traceback;
} kept; /* the exception, until check() raises it */
static unsigned long long call_count;
static unsigned long long batch_count;

/* ---- functions of the loop ----------------------------------------------------- */

static void *count_batch(void *unused)
{
    batch_count++;
    return unused;
}

static void do_nothing(void *held, void *unused)
{
    (void)held, (void)unused;
}

/* Entered once per batch, like the GIL. Any lock may be a hold. */
static const struct fdmux_hold batch_counter = {count_batch, do_nothing, NULL};

/* After this the function may use Python. Returns 0 or -errno. */
static int begin_python(struct fdmux_loop *loop)
{
    int r = fdmux_hold_gil(loop);

    return r < 0 ? r : fdmux_loop_hold(loop, &batch_counter);
}

/* A function of the loop cannot raise, and must not leave an exception set. */
static void keep_exception(struct fdmux_loop *loop, PyObject *function)
{
    if (kept.type != NULL) {
        PyErr_WriteUnraisable(function);
        return;
    }
    PyErr_Fetch(&kept.type, &kept.value, &kept.traceback);
    (void)fdmux_loop_wake(loop); /* dispatch returns after this batch; cannot fail */
}

/* Call the function. Steals `argument`, which may be NULL for none. Returns whether to
 * call it again: it neither raised nor returned False. */
static int call(struct fdmux_loop *loop, PyObject *function, PyObject *argument)
{
    PyObject *result = PyObject_CallFunctionObjArgs(function, argument, NULL);
    int is_wanted = result != NULL && result != Py_False;

    call_count++;
    if (result == NULL)
        keep_exception(loop, function);
    Py_XDECREF(result);
    Py_XDECREF(argument);
    return is_wanted;
}

static int on_readable(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    const struct watch *watch = userdata;
    char bytes[4096];
    ssize_t size = read(watch->fd, bytes, sizeof bytes); /* needs no GIL */
    PyObject *data;
    int r;

    (void)events;
    if (size < 0 && errno == EAGAIN)
        return 0;
    if (size <= 0)
        return fdmux_io_remove(loop, io);
    r = begin_python(loop);
    if (r < 0)
        return r;
    data = PyBytes_FromStringAndSize(bytes, size);
    if (data == NULL)
        keep_exception(loop, watch->function);
    else if (!call(loop, watch->function, data))
        (void)fdmux_io_remove(loop, io); /* fails if the function has closed the loop */
    return 0;
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    const struct watch *watch = userdata;
    int r = begin_python(loop);

    if (r < 0)
        return r;
    if (!call(loop, watch->function, NULL))
        (void)fdmux_timer_remove(loop, timer); /* as above */
    return 0;
}

/* The last call, in a batch or outside of one, with or without the GIL. */
static void destroy(void *userdata)
{
    struct watch *watch = userdata;
    PyGILState_STATE state = PyGILState_Ensure();

    Py_DECREF(watch->function);
    PyGILState_Release(state);
    free(watch);
}

/* ---- functions for Python ------------------------------------------------------ */

static struct watch *make_watch(PyObject *function, int fd)
{
    struct watch *watch = malloc(sizeof *watch);

    if (watch == NULL)
        return NULL;
    Py_INCREF(function);
    *watch = (struct watch){function, fd};
    return watch;
}

static int add_io(struct fdmux_loop *loop, int fd, PyObject *function)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = fd,
        .events = FDMUX_READ,
        .fn = on_readable,
        .userdata = make_watch(function, fd),
        .destroyed = destroy,
    };
    uint64_t io;
    int r = -ENOMEM;

    if (options.userdata != NULL)
        r = fdmux_io_add(loop, &options, &io);
    if (r < 0 && options.userdata != NULL)
        destroy(options.userdata); /* not registered, so free it here */
    return r;
}

static int add_timer(struct fdmux_loop *loop, int64_t period_ns, PyObject *function)
{
    struct fdmux_timer_options options = {
        .struct_size = sizeof options,
        .fn = on_timer,
        .userdata = make_watch(function, -1),
        .destroyed = destroy,
    };
    uint64_t timer;
    int r = -ENOMEM;

    if (options.userdata != NULL)
        r = fdmux_timer_add(loop, &options, &timer);
    if (r < 0 && options.userdata != NULL)
        destroy(options.userdata); /* not registered, so free it here */
    if (r < 0)
        return r;
    return fdmux_timer_arm(loop, timer, fdmux_loop_now(loop) + period_ns, period_ns);
}

static PyObject *none_or_error(int r)
{
    errno = -r;
    return r < 0 ? PyErr_SetFromErrno(PyExc_OSError) : Py_BuildValue("");
}

static PyObject *watch(PyObject *module, PyObject *args)
{
    struct fdmux_loop *loop;
    PyObject *object, *function;
    int fd;

    (void)module;
    if (!PyArg_ParseTuple(args, "OiO:watch", &object, &fd, &function))
        return NULL;
    loop = fdmux_from_object(object);
    return loop == NULL ? NULL : none_or_error(add_io(loop, fd, function));
}

static PyObject *every(PyObject *module, PyObject *args)
{
    struct fdmux_loop *loop;
    PyObject *object, *function;
    int milliseconds;

    (void)module;
    if (!PyArg_ParseTuple(args, "OiO:every", &object, &milliseconds, &function))
        return NULL;
    if (milliseconds < 1)
        return PyErr_Format(PyExc_ValueError, "every %d ms", milliseconds);
    loop = fdmux_from_object(object);
    return loop == NULL
               ? NULL
               : none_or_error(add_timer(loop, milliseconds * 1000000LL, function));
}

static PyObject *check(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (kept.type == NULL)
        return Py_BuildValue("");
    PyErr_Restore(kept.type, kept.value, kept.traceback);
    kept.type = kept.value = kept.traceback = NULL;
    return NULL;
}

static PyObject *counts(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return Py_BuildValue("KK", call_count, batch_count);
}

static PyMethodDef methods[] = {
    {"watch", watch, METH_VARARGS,
     "watch(loop, fd, function): Call function(data) with what arrives at fd, until "
     "the end, or until it raises or returns False."},
    {"every", every, METH_VARARGS,
     "every(loop, milliseconds, function): Call function() until it raises or returns "
     "False."},
    {"check", check, METH_NOARGS, "check(): Raise what a function has raised."},
    {"counts", counts, METH_NOARGS,
     "counts() -> (int, int): Calls of Python, and batches in which there were any."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef calling = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "calling",
    .m_size = -1, /* process-wide state: the exception and the counts */
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_calling(void)
{
    return fdmux_import() < 0 ? NULL : PyModule_Create(&calling);
}
