/* module.c: the Python module udp_digest, a thin wrapper of service.c.
 *
 * Uses the limited API and the headers of the installed fdmux, so one build works with
 * every CPython from 3.11 on and every fdmux of this ABI. Its one rule: a Service keeps
 * the Python object of its loop alive, so that the C loop's memory exists as long as
 * close() may be called. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fdmux_python.h>

#include "service.h"

struct service_object {
    PyObject ob_base; /* as PyObject_HEAD declares */
    struct service *service;
    PyObject *owner; /* of the loop */
};

static PyTypeObject *service_type;

/* Raise the OSError (or its subclass) for a negative result. */
static PyObject *raise_error(int result, const char *attempted)
{
    PyObject *error = PyObject_CallFunction(PyExc_OSError, "is", -result, attempted);

    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

/* Call fdmux.current(): the loop that runs here. */
static PyObject *find_current(void)
{
    PyObject *fdmux = PyImport_ImportModule("fdmux");
    PyObject *current;

    if (fdmux == NULL)
        return NULL;
    current = PyObject_CallMethod(fdmux, "current", NULL);
    Py_DECREF(fdmux);
    return current;
}

/* Steals the reference to `owner`. */
static PyObject *attach_to(PyObject *owner)
{
    struct fdmux_loop *loop = fdmux_from_object(owner);
    struct service_object *self = NULL;
    int r;

    if (loop != NULL)
        self = PyObject_New(struct service_object, service_type);
    if (self == NULL) {
        Py_DECREF(owner);
        return NULL;
    }
    self->owner = owner;
    self->service = NULL;
    r = service_start(fdmux_table, loop, &self->service);
    if (r < 0) {
        Py_DECREF(self);
        return raise_error(r, "start a UDP service in the loop");
    }
    return (PyObject *)self;
}

static PyObject *attach(PyObject *module, PyObject *args)
{
    PyObject *object = Py_None;

    (void)module;
    if (!PyArg_ParseTuple(args, "|O:attach", &object))
        return NULL;
    if (object == Py_None)
        object = find_current();
    else
        Py_INCREF(object);
    return object == NULL ? NULL : attach_to(object);
}

static PyObject *service_close(PyObject *object, PyObject *unused)
{
    struct service *service = ((struct service_object *)object)->service;

    PyThreadState *state;

    (void)unused;
    state = PyEval_SaveThread(); /* it joins a thread: release the GIL */
    service_stop(service);
    PyEval_RestoreThread(state);
    return Py_NewRef(Py_None); /* Py_RETURN_NONE of 3.12 is wrong on 3.11 */
}

static void service_dealloc(PyObject *object)
{
    struct service_object *self = (struct service_object *)object;
    PyTypeObject *type = Py_TYPE(object);

    if (self->service != NULL) {
        service_stop(self->service);
        service_release(self->service);
    }
    Py_DECREF(self->owner);
    PyObject_Free(object);
    Py_DECREF(type); /* instances own a reference to a heap type */
}

static PyObject *get_port(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(service_port(((struct service_object *)object)->service));
}

static PyObject *get_counts(PyObject *object, PyObject *unused)
{
    struct service_counts counts =
        service_count(((struct service_object *)object)->service);

    (void)unused;
    return Py_BuildValue("{sKsKsKsK}", "requests", (unsigned long long)counts.requests,
                         "replies", (unsigned long long)counts.replies, "dropped",
                         (unsigned long long)counts.dropped, "ticks",
                         (unsigned long long)counts.ticks);
}

static PyObject *has_ended(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(
        service_has_ended(((struct service_object *)object)->service));
}

static PyMethodDef service_methods[] = {
    {"port", get_port, METH_NOARGS, "port() -> int: The UDP port on 127.0.0.1."},
    {"counts", get_counts, METH_NOARGS, "counts() -> dict: What has happened so far."},
    {"has_ended", has_ended, METH_NOARGS,
     "has_ended() -> bool: Whether the socket is closed and the thread joined."},
    {"close", service_close, METH_NOARGS, "close(): End the service. Idempotent."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot service_slots[] = {
    {Py_tp_dealloc, (void *)service_dealloc},
    {Py_tp_methods, service_methods},
    {Py_tp_doc, (void *)"A UDP service in C that runs in a Python program's loop."},
    {0, NULL},
};

static PyType_Spec service_spec = {
    .name = "udp_digest.Service",
    .basicsize = sizeof(struct service_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = service_slots,
};

static PyMethodDef module_methods[] = {
    {"attach", attach, METH_VARARGS,
     "attach(loop=None) -> Service: Start a service in the loop of `loop`, or of what "
     "runs here."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "udp_digest",
    .m_doc = "Answers datagrams with their hash, from C, in Python's loop.",
    .m_size = -1,
    .m_methods = module_methods,
};

PyMODINIT_FUNC PyInit_udp_digest(void)
{
    if (fdmux_import() < 0)
        return NULL;
    service_type = (PyTypeObject *)PyType_FromSpec(&service_spec);
    if (service_type == NULL)
        return NULL;
    return PyModule_Create(&module_definition);
}
