/* module.c: the Python module native_echo, a thin wrapper of echo.c.
 *
 * Uses the limited API and the headers of the installed fdmux. Its one rule: a Server
 * keeps the Python object of its loop alive, so that the C loop's memory exists as long
 * as close() may be called. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fdmux_python.h>

#include <errno.h>

#include "echo.h"

struct server_object {
    PyObject ob_base; /* as PyObject_HEAD declares */
    struct echo *echo;
    PyObject *owner; /* of the loop */
};

static PyTypeObject *server_type;

static PyObject *serve(PyObject *module, PyObject *owner)
{
    struct fdmux_loop *loop = fdmux_from_object(owner);
    struct server_object *self;

    (void)module;
    if (loop == NULL)
        return NULL;
    self = PyObject_New(struct server_object, server_type);
    if (self == NULL)
        return NULL;
    Py_INCREF(owner);
    self->owner = owner;
    self->echo = NULL;
    errno = -echo_start(fdmux_table, loop, &self->echo);
    if (errno == 0)
        return (PyObject *)self;
    PyErr_SetFromErrno(PyExc_OSError);
    Py_DECREF(self);
    return NULL;
}

static struct echo *echo_of(PyObject *object)
{
    return ((struct server_object *)object)->echo;
}

static PyObject *server_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    echo_stop(echo_of(object));
    return Py_NewRef(Py_None); /* Py_RETURN_NONE of 3.12 is wrong on 3.11 */
}

static void server_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);

    if (echo_of(object) != NULL) {
        echo_stop(echo_of(object));
        echo_release(echo_of(object));
    }
    Py_DECREF(((struct server_object *)object)->owner);
    PyObject_Free(object);
    Py_DECREF(type); /* instances own a reference to a heap type */
}

static PyObject *get_port(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(echo_port(echo_of(object)));
}

static PyObject *get_counts(PyObject *object, PyObject *unused)
{
    struct echo_counts counts = echo_count(echo_of(object));

    (void)unused;
    return Py_BuildValue(
        "{sKsKsKsKsK}", "connections", (unsigned long long)counts.connections,
        "accepted", (unsigned long long)counts.accepted, "bytes",
        (unsigned long long)counts.bytes, "kept", (unsigned long long)counts.kept,
        "failed", (unsigned long long)counts.failed);
}

static PyMethodDef server_methods[] = {
    {"port", get_port, METH_NOARGS, "port() -> int: The TCP port on 127.0.0.1."},
    {"counts", get_counts, METH_NOARGS, "counts() -> dict: What has happened so far."},
    {"close", server_close, METH_NOARGS,
     "close(): Close the listener and all connections. Idempotent."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot server_slots[] = {
    {Py_tp_dealloc, (void *)server_dealloc},
    {Py_tp_methods, server_methods},
    {Py_tp_doc, (void *)"An echo server in C that runs in a Python program's loop."},
    {0, NULL},
};

static PyType_Spec server_spec = {
    .name = "native_echo.Server",
    .basicsize = sizeof(struct server_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = server_slots,
};

static PyMethodDef module_methods[] = {
    {"serve", serve, METH_O,
     "serve(loop) -> Server: Echo on loopback, in any object's loop."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "native_echo",
    .m_doc = "Echoes TCP from C, in Python's loop, without the GIL.",
    .m_size = -1,
    .m_methods = module_methods,
};

PyMODINIT_FUNC PyInit_native_echo(void)
{
    if (fdmux_import() < 0)
        return NULL;
    server_type = (PyTypeObject *)PyType_FromSpec(&server_spec);
    return server_type == NULL ? NULL : PyModule_Create(&module_definition);
}
