/* meter.c: measures in C how many bytes per second arrive at a descriptor, and tells
 * Python the rate. docs/tutorials/extension.md writes it step by step. */
#include <Python.h>
#include <fdmux_python.h>

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- what one meter keeps ------------------------------------------------------ */

struct meter {
    int fd;
    int user_count; /* the watcher, the timer, and start() while it runs */
    long long byte_count; /* since the last tick */
    int64_t period_ns;
    uint64_t io; /* a token: the number that names the watcher */
    PyObject *function; /* called with the rate */
};

/* ---- functions of the loop: called without the GIL ------------------------------ */

static int on_readable(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    struct meter *meter = userdata;
    char buffer[65536];
    ssize_t count = read(meter->fd, buffer, sizeof buffer);

    (void)events;
    if (count > 0)
        meter->byte_count += count;
    if (count == 0)
        return fdmux_io_remove(loop, io); /* the end: do not call this again */
    return count < 0 && errno != EAGAIN ? -errno : 0;
}

/* Returns whether to go on: the function neither raised nor returned False. */
static int tell(PyObject *function, double rate)
{
    PyObject *result = PyObject_CallFunction(function, "d", rate);
    int goes_on = result != NULL && result != Py_False;

    if (result == NULL)
        PyErr_WriteUnraisable(function); /* a function of a loop cannot raise */
    Py_XDECREF(result);
    return goes_on;
}

static int on_tick(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct meter *meter = userdata;
    double rate = (double)meter->byte_count * 1e9 / (double)meter->period_ns;
    int r = fdmux_hold_gil(loop); /* from here on this function may use Python */

    if (r < 0)
        return r;
    meter->byte_count = 0;
    if (!tell(meter->function, rate)) {
        (void)fdmux_io_remove(loop, meter->io); /* may have ended: then it fails */
        (void)fdmux_timer_remove(loop, timer);
    }
    return 0;
}

/* The last call for each of the two, whether they were removed or their loop ended. */
static void release(void *userdata)
{
    struct meter *meter = userdata;
    PyGILState_STATE state = PyGILState_Ensure();

    if (--meter->user_count == 0) {
        Py_DECREF(meter->function);
        free(meter);
    }
    PyGILState_Release(state);
}

/* ---- the function for Python ---------------------------------------------------- */

/* Returns 0, or -errno and leaves nothing in the loop. */
static int add_to_loop(struct fdmux_loop *loop, struct meter *meter)
{
    struct fdmux_io_options io = {.struct_size = sizeof io,
                                  .fd = meter->fd,
                                  .events = FDMUX_READ,
                                  .fn = on_readable,
                                  .userdata = meter,
                                  .destroyed = release};
    struct fdmux_timer_options timer = {.struct_size = sizeof timer,
                                        .fn = on_tick,
                                        .userdata = meter,
                                        .destroyed = release};
    uint64_t timer_token;
    int r = fdmux_io_add(loop, &io, &meter->io);

    if (r < 0)
        return r;
    meter->user_count++;
    r = fdmux_timer_add(loop, &timer, &timer_token);
    if (r < 0) {
        (void)fdmux_io_remove(loop, meter->io); /* it is there: added just now */
        return r;
    }
    meter->user_count++;
    return fdmux_timer_arm_in(loop, timer_token, meter->period_ns, meter->period_ns);
}

static PyObject *start(PyObject *module, PyObject *args)
{
    PyObject *object, *function;
    struct fdmux_loop *loop;
    struct meter *meter;
    double period;
    int fd, r;

    (void)module;
    if (!PyArg_ParseTuple(args, "OidO:start", &object, &fd, &period, &function))
        return NULL;
    if (!(period >= 0.001 && period <= 3600.0))
        return PyErr_Format(PyExc_ValueError, "start: the period is 0.001 to 3600 s");
    loop = fdmux_from_object(object); /* any loop, or None for the running one */
    if (loop == NULL)
        return NULL;
    meter = malloc(sizeof *meter);
    if (meter == NULL)
        return PyErr_NoMemory();
    Py_INCREF(function);
    *meter = (struct meter){.fd = fd,
                            .user_count = 1,
                            .period_ns = (int64_t)(period * 1e9),
                            .function = function};
    r = add_to_loop(loop, meter);
    release(meter);
    return r < 0 ? fdmux_raise(r, "start a meter") : Py_BuildValue("");
}

static PyMethodDef methods[] = {
    {"start", start, METH_VARARGS,
     "start(loop, fd, period, function): Read fd, and call function(rate) with the "
     "bytes per second every period seconds, until it raises or returns False."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "meter", .m_methods = methods};

PyMODINIT_FUNC PyInit_meter(void)
{
    return fdmux_import() < 0 ? NULL : PyModule_Create(&definition);
}
