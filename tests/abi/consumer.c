/* consumer.c: a small extension, compiled against the headers of one release.
 *
 * The installed core must serve it, whatever that release is: a watched pipe, a timer,
 * a thread that posts, and a stream that echoes and calls Python. It uses nothing newer
 * than 1.0, and counts its events. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fdmux_python.h>

#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGE "hello, later core"
#define LENGTH (sizeof MESSAGE - 1)

/* State of the only run at a time; written by the dispatching thread alone. */
static struct {
    struct fdmux_loop *loop;
    int pipe_fds[2];
    int peer_fd; /* of the stream's socket */
    uint64_t timer;
    int io;
    int ticks;
    int posts;
    int echoed;
    int hooks;
    int destroyed;
    pthread_t thread;
} run;

static void on_destroyed(void *userdata)
{
    (void)userdata;
    run.destroyed++;
}

static int on_readable(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    char byte;

    (void)loop, (void)io, (void)userdata;
    if ((events & FDMUX_READ) != 0 && read(run.pipe_fds[0], &byte, 1) == 1)
        run.io++;
    return 0;
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)userdata;
    run.ticks++;
    return timer == run.timer && run.ticks == 3 ? fdmux_timer_cancel(loop, timer) : 0;
}

static int on_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    (void)loop, (void)hook, (void)userdata;
    run.hooks++;
    return 0;
}

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    run.posts += loop != NULL ? 1 : 0;
    return 0;
}

/* The only function that needs Python: it holds the GIL until the batch ends. */
static int on_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                    void *userdata)
{
    int r = fdmux_hold_gil(loop);
    PyObject *length;

    (void)userdata;
    if (r < 0 || event->kind != FDMUX_STREAM_DATA)
        return r;
    length = PyLong_FromUnsignedLong(event->length);
    run.echoed += (int)PyLong_AsLong(length);
    Py_DECREF(length);
    return fdmux_stream_write(loop, event->stream, event->data, event->length);
}

static void *post_and_feed(void *unused)
{
    (void)unused;
    for (int i = 0; i < 10; i++)
        (void)fdmux_post(run.loop, on_post, NULL); /* a failure shows in the count */
    return write(run.pipe_fds[1], "x", 1) == 1 ? NULL : &run;
}

static int add_watcher_and_hook(void)
{
    struct fdmux_io_options io = {sizeof io};
    struct fdmux_hook_options hook = {sizeof hook};
    uint64_t token;
    int r;

    io.fd = run.pipe_fds[0];
    io.events = FDMUX_READ;
    io.fn = on_readable;
    io.destroyed = on_destroyed;
    r = fdmux_io_add(run.loop, &io, &token);
    hook.fn = on_hook;
    hook.destroyed = on_destroyed;
    return r < 0 ? r : fdmux_hook_add(run.loop, &hook, &token);
}

static int add_timer(void)
{
    struct fdmux_timer_options timer = {sizeof timer};
    int r;

    timer.fn = on_timer;
    timer.destroyed = on_destroyed;
    r = fdmux_timer_add(run.loop, &timer, &run.timer);
    return r < 0 ? r : fdmux_timer_arm(run.loop, run.timer, 1, 1000000);
}

static int add_stream(int fd)
{
    struct fdmux_stream_options stream = {sizeof stream};
    uint64_t token;

    stream.fn = on_event;
    stream.destroyed = on_destroyed;
    return fdmux_stream_add(run.loop, fd, &stream, &token);
}

static int register_all(int stream_fd)
{
    int r = add_watcher_and_hook();

    if (r == 0)
        r = add_timer();
    if (r == 0)
        r = add_stream(stream_fd);
    if (r == 0)
        r = -pthread_create(&run.thread, NULL, post_and_feed, NULL);
    return r;
}

/* Py_RETURN_NONE, compiled with the headers of 3.12 or later, takes no reference. On
 * 3.11 that reference would be missing, and None would be freed one day. */
static PyObject *new_none(void)
{
    return Py_NewRef(Py_None);
}

/* start(owner): register everything in the owner's loop. */
static PyObject *start(PyObject *module, PyObject *owner)
{
    int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fds[2];
    int r;

    (void)module;
    memset(&run, 0, sizeof run);
    run.loop = fdmux_from_object(owner);
    if (run.loop == NULL)
        return NULL;
    if (pipe(run.pipe_fds) < 0 || socketpair(AF_UNIX, type, 0, fds) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    run.peer_fd = fds[1];
    r = register_all(fds[0]);
    if (r < 0)
        return PyErr_Format(PyExc_RuntimeError, "registering failed: %d", r);
    if (write(run.peer_fd, MESSAGE, LENGTH) != (ssize_t)LENGTH)
        return PyErr_SetFromErrno(PyExc_OSError);
    return new_none();
}

/* counts(): a tuple of what has happened so far. */
static PyObject *counts(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return Py_BuildValue("iiiiii", run.io, run.ticks, run.posts, run.echoed,
                         run.hooks > 0, run.destroyed);
}

/* finish(): returns the received echo; closes what the consumer owns. */
static PyObject *finish(PyObject *module, PyObject *unused)
{
    char echo[64];
    ssize_t length = read(run.peer_fd, echo, sizeof echo);

    (void)module, (void)unused;
    (void)pthread_join(run.thread, NULL); /* it has posted by now */
    (void)close(run.pipe_fds[0]);
    (void)close(run.pipe_fds[1]);
    (void)close(run.peer_fd);
    return PyBytes_FromStringAndSize(echo, length < 0 ? 0 : length);
}

/* import_core(): an extension calls this first. */
static PyObject *import_core(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (fdmux_import() < 0)
        return NULL;
    return Py_BuildValue("II", (unsigned)FDMUX_ABI_MAJOR, (unsigned)FDMUX_ABI_MINOR);
}

/* adopt(object): whether the object has a loop. */
static PyObject *adopt(PyObject *module, PyObject *object)
{
    (void)module;
    if (fdmux_from_object(object) == NULL)
        return NULL;
    return new_none();
}

/* has_table(): whether some import or adoption has succeeded. */
static PyObject *has_table(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(fdmux_table != NULL);
}

static PyMethodDef methods[] = {
    {"start", start, METH_O, NULL},
    {"counts", counts, METH_NOARGS, NULL},
    {"finish", finish, METH_NOARGS, NULL},
    {"import_core", import_core, METH_NOARGS, NULL},
    {"adopt", adopt, METH_O, NULL},
    {"has_table", has_table, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "consumer", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_consumer(void)
{
    return PyModule_Create(&definition);
}
