/* The requests of gets.h as an extension, in the loop that Python runs.
 *
 *     start(loop, port)
 *     begin(count, ended)    ended() is called when all were answered
 *     error()                0, or -errno of what went wrong
 *
 * The file that includes this defines attach() and MODULE, and its own `methods`. */
#ifndef FDMUX_BENCHMARKS_GETS_EXTENSION_H
#define FDMUX_BENCHMARKS_GETS_EXTENSION_H

static struct fdmux_loop *loop;
static PyObject *ended_function;
static uint64_t end_timer; /* a batch that has the last answer calls Python once */

static int attach(void);
static void deliver(void); /* to Python, what the batch has for it */

static void call_python(PyObject *function, PyObject *argument)
{
    PyObject *result = PyObject_CallFunctionObjArgs(function, argument, NULL);

    if (result == NULL)
        PyErr_WriteUnraisable(function);
    Py_XDECREF(result);
}

static int on_batch_end(struct fdmux_loop *caller, uint64_t token, void *userdata)
{
    int r = fdmux_hold_gil(caller);

    (void)token;
    (void)userdata;
    if (r < 0)
        return r;
    deliver();
    if (gets.error < 0 || gets.answered == gets.count)
        call_python(ended_function, NULL);
    return 0;
}

/* Before the loop waits, on_batch_end runs once. */
static void end_batch_soon(void)
{
    int r = fdmux_timer_arm(loop, end_timer, FDMUX_SOON, 0);

    if (r < 0)
        abort(); /* the timer lives as long as the loop */
}

static PyObject *none_or_error(int r, const char *attempted)
{
    return r < 0 ? fdmux_raise(r, attempted) : Py_NewRef(Py_None);
}

static PyObject *start(PyObject *module, PyObject *args)
{
    struct fdmux_timer_options options = {.struct_size = sizeof options};
    PyObject *object;
    int port, r;

    (void)module;
    if (!PyArg_ParseTuple(args, "Oi:start", &object, &port))
        return NULL;
    loop = fdmux_from_object(object);
    if (loop == NULL)
        return NULL;
    options.fn = on_batch_end;
    gets.end = end_batch_soon;
    r = fdmux_timer_add(loop, &options, &end_timer);
    if (r == 0)
        r = gets_open(port);
    return none_or_error(r < 0 ? r : attach(), "connect");
}

static PyObject *begin(PyObject *module, PyObject *args)
{
    PyObject *function, *before = ended_function;
    long count;

    (void)module;
    if (!PyArg_ParseTuple(args, "lO:begin", &count, &function))
        return NULL;
    ended_function = Py_NewRef(function);
    Py_XDECREF(before);
    return none_or_error(gets_begin(count), "begin the requests");
}

static PyObject *error(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLong(gets.error);
}

#define GETS_METHODS                                                                   \
    {"start", start, METH_VARARGS, NULL}, {"begin", begin, METH_VARARGS, NULL},        \
    {                                                                                  \
        "error", error, METH_NOARGS, NULL                                              \
    }

#endif
