/* An extension whose loop functions call Python, made with fdmux_python.h alone. It has
 * two ways to take the GIL: fdmux_hold_gil, once per batch, and PyGILState_Ensure, once
 * per call.
 *
 *     watch(fds, function, way)   "hold", "ensure", or "none": Python is not called
 *     run(events, seconds)        serve that many, and all of the last batch; returns
 *                                 how many, CPU and elapsed nanoseconds of the loop
 *
 * The function peeks at the received byte without the GIL and leaves it there, so the
 * descriptor stays ready; then it calls Python. Each process has one loop and one
 * thread, which runs the loop without the GIL. */
#include <Python.h>
/* Python.h comes first. */
#include <fdmux_python.h>

#include "rounds.h"

#include <sys/socket.h>

PyMODINIT_FUNC PyInit_fdmux_benchmarks_hold(void);

struct watched {
    int fd;
    PyObject *object; /* the descriptor as a Python int */
};

static struct fdmux_loop *loop;
static PyObject *function;
static int64_t served_count;

/* The part of the function that needs no GIL. Leaves the byte in the socket. */
static int receive(const struct watched *watched)
{
    char byte;

    return recv(watched->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1 ? 0 : -EPROTO;
}

/* Needs the GIL. */
static int call_python(const struct watched *watched)
{
    PyObject *result = PyObject_CallFunctionObjArgs(function, watched->object, NULL);

    served_count++;
    if (result == NULL) {
        PyErr_WriteUnraisable(function); /* run() raises OSError */
        return -EIO;
    }
    Py_DECREF(result);
    return 0;
}

static int on_ready_hold(struct fdmux_loop *of, uint64_t io, uint32_t events,
                         void *userdata)
{
    int r = receive(userdata);

    (void)io;
    (void)events;
    if (r == 0)
        r = fdmux_hold_gil(of);
    return r < 0 ? r : call_python(userdata);
}

static int on_ready_ensure(struct fdmux_loop *of, uint64_t io, uint32_t events,
                           void *userdata)
{
    PyGILState_STATE state;
    int r = receive(userdata);

    (void)of;
    (void)io;
    (void)events;
    if (r < 0)
        return r;
    state = PyGILState_Ensure();
    r = call_python(userdata);
    PyGILState_Release(state);
    return r;
}

static int on_ready_none(struct fdmux_loop *of, uint64_t io, uint32_t events,
                         void *userdata)
{
    (void)of;
    (void)io;
    (void)events;
    served_count++;
    return receive(userdata);
}

static PyObject *raise_errno(int r)
{
    errno = -r;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static fdmux_io_fn find_way(const char *name)
{
    if (strcmp(name, "hold") == 0)
        return on_ready_hold;
    if (strcmp(name, "ensure") == 0)
        return on_ready_ensure;
    return strcmp(name, "none") == 0 ? on_ready_none : NULL;
}

/* Watchers are never removed: the loop ends with the process. */
static int watch_one(PyObject *object, fdmux_io_fn fn)
{
    struct watched *watched = calloc(1, sizeof *watched);
    struct fdmux_io_options options = {.struct_size = sizeof options,
                                       .events = FDMUX_READ,
                                       .fn = fn,
                                       .userdata = watched};
    uint64_t io;
    int r;

    if (watched == NULL)
        return -ENOMEM;
    watched->object = object;
    watched->fd = (int)PyLong_AsLong(object);
    options.fd = watched->fd;
    r = fdmux_io_add(loop, &options, &io);
    if (r < 0)
        free(watched);
    return r;
}

static PyObject *watch(PyObject *module, PyObject *arguments)
{
    PyObject *fds;
    const char *way;
    int r = 0;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOs", &fds, &function, &way))
        return NULL;
    if (find_way(way) == NULL || loop != NULL)
        return raise_errno(-EINVAL);
    Py_INCREF(function);
    r = fdmux_loop_create(NULL, &loop);
    for (Py_ssize_t i = 0; r == 0 && i < PySequence_Size(fds); i++) {
        PyObject *object = PySequence_GetItem(fds, i);

        if (object == NULL)
            return NULL;
        r = watch_one(object, find_way(way));
    }
    if (r < 0)
        return raise_errno(r);
    return Py_NewRef(Py_None); /* Py_RETURN_NONE of 3.12 is wrong on 3.11 */
}

/* Poll once per batch, to check for the end after each. */
static int serve(int64_t events, int64_t end_ns)
{
    int64_t end_count = served_count + events;
    int r = 0;

    while (r >= 0 && served_count < end_count && now_ns() < end_ns) {
        r = fdmux_loop_dispatch(loop, 0, NULL, 0);
        if (r == -EINTR)
            r = 0; /* returned every 50 ms (fdmux.h) */
    }
    return r;
}

static PyObject *run(PyObject *module, PyObject *arguments)
{
    long long events;
    double seconds;
    int64_t count = served_count;
    int64_t cpu;
    int64_t elapsed;
    int r;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Ld", &events, &seconds))
        return NULL;
    if (loop == NULL)
        return raise_errno(-EINVAL);
    Py_BEGIN_ALLOW_THREADS
    cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    elapsed = now_ns();
    r = serve(events, elapsed + (int64_t)(seconds * 1e9));
    elapsed = now_ns() - elapsed;
    cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    Py_END_ALLOW_THREADS
    if (r < 0)
        return raise_errno(r);
    return Py_BuildValue("LLL", (long long)(served_count - count), (long long)cpu,
                         (long long)elapsed);
}

static PyMethodDef methods[] = {
    {"watch", watch, METH_VARARGS, "Watch descriptors."},
    {"run", run, METH_VARARGS, "Serve what is ready."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fdmux_benchmarks_hold",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_fdmux_benchmarks_hold(void)
{
    return fdmux_import() < 0 ? NULL : PyModule_Create(&definition);
}
