/* lines_extension.c: an extension that uses the library through the worked adapter. It
 * has one client at a time. */
#include <Python.h>
#include <fdmux_python.h>

#include "lines.h"

#include "lines_adapter.h"

#define WAITING_MAX 256

static struct lines_adapter *adapter; /* NULL: closed */
static struct fdmux_loop *loop;
static uint64_t close_hook;
static PyObject *waiting[WAITING_MAX]; /* functions, in the order of the requests */
static int waiting_count;

static PyObject *pop(void)
{
    PyObject *first = waiting[0];

    waiting_count--;
    for (int i = 0; i < waiting_count; i++)
        waiting[i] = waiting[i + 1];
    return first;
}

static void on_line(struct lines *lines, const char *line, void *userdata)
{
    PyObject *function, *result;

    (void)lines, (void)line, (void)userdata;
    if (adapter == NULL || waiting_count == 0 || fdmux_hold_gil(loop) < 0)
        return; /* closed in a callback: the library calls back once more */
    function = pop();
    result = PyObject_CallFunction(function, NULL);
    if (result == NULL)
        PyErr_WriteUnraisable(function);
    Py_XDECREF(result);
    Py_DECREF(function);
}

static void forget_requests(void)
{
    while (waiting_count > 0)
        Py_DECREF(pop());
}

/* The loop frees the adapter after this. */
static void on_close(struct fdmux_loop *closed, void *userdata)
{
    (void)closed, (void)userdata;
    adapter = NULL;
}

static PyObject *result_of(int r)
{
    errno = -r;
    return r < 0 ? PyErr_SetFromErrno(PyExc_OSError) : Py_BuildValue("");
}

static PyObject *open_client(PyObject *module, PyObject *args)
{
    struct lines *lines;
    PyObject *object;
    int port, r;

    (void)module;
    if (!PyArg_ParseTuple(args, "Oi", &object, &port))
        return NULL;
    loop = fdmux_from_object(object);
    if (loop == NULL)
        return NULL;
    lines = lines_new(port, on_line, NULL);
    r = lines == NULL ? -ENOMEM : lines_connect(lines);
    if (r == 0)
        r = lines_attach(loop, lines, &adapter);
    if (r == 0)
        r = fdmux_loop_at_close(loop, on_close, NULL, &close_hook);
    return result_of(r);
}

static PyObject *request(PyObject *module, PyObject *function)
{
    int r = adapter == NULL || waiting_count == WAITING_MAX
                ? -ENOBUFS
                : lines_send(adapter->lines, "question");

    (void)module;
    if (r < 0)
        return result_of(r);
    Py_INCREF(function);
    waiting[waiting_count++] = function;
    return result_of(fdmux_loop_wake(loop)); /* a host may be asleep */
}

static PyObject *reconnect(PyObject *module, PyObject *unused)
{
    int r = lines_connect(adapter->lines);

    (void)module, (void)unused;
    forget_requests();
    return result_of(r < 0 ? r : lines_update(adapter));
}

static PyObject *close_client(PyObject *module, PyObject *unused)
{
    struct lines_adapter *closed = adapter;

    (void)module, (void)unused;
    adapter = NULL;
    forget_requests();
    if (closed != NULL) {
        (void)fdmux_hook_remove(loop, close_hook);
        lines_close(closed);
    }
    return result_of(0);
}

static PyMethodDef methods[] = {
    {"open", open_client, METH_VARARGS, "open(loop, port)"},
    {"request", request, METH_O, "request(done)"},
    {"reconnect", reconnect, METH_NOARGS, "reconnect()"},
    {"close", close_client, METH_NOARGS, "close()"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "lines", .m_methods = methods};

PyMODINIT_FUNC PyInit_lines(void)
{
    return fdmux_import() < 0 ? NULL : PyModule_Create(&definition);
}
