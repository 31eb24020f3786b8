/* completion_port.c: the type fdmux._delivery.CompletionPort: the queue through which
 * native threads announce the completions of one loop.
 *
 * Its one rule: an address that was given to native code stays valid until native code
 * has put it into the queue. So a completion whose address is out is kept alive here,
 * and an address that is not out is ignored. */
#include "completion.h"

#include <stddef.h>
#include <structmember.h>

#define ITEMS_MAX 256 /* taken at once: 50 us for the other callbacks to wait */

/* The port that was used last, in the main interpreter. Its loop may be compared while
 * the port is open, since the end of the loop closes the port. */
static PyObject *last_port;

static void forget(const struct completion_port *port)
{
    if (last_port == (const PyObject *)port)
        Py_CLEAR(last_port);
}

PyObject *completion_forget_port(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    Py_CLEAR(last_port);
    return delivery_new_ref(Py_None);
}

/* trio may run as a guest of asyncio, and is asked first where it was imported. */
static bool is_trio_here(const struct completion_port *port)
{
    return PyDict_Contains(port->modules, port->trio) != 0;
}

struct completion_port *completion_port_here(void)
{
    struct completion_port *port = (struct completion_port *)last_port;
    PyObject *loop;

    if (port == NULL || is_trio_here(port))
        return NULL;
    loop = PyObject_CallNoArgs(port->get_running);
    if (loop == NULL)
        PyErr_Clear(); /* Python finds out why */
    Py_XDECREF(loop);
    return loop != NULL && loop == port->loop ? port : NULL;
}

/* ---- memory ---------------------------------------------------------------------- */

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    const struct completion_port *port = (struct completion_port *)self;
    PyObject *const held[] = {(PyObject *)Py_TYPE(self), port->outstanding,
                              port->get_running,         port->new_event,
                              port->set_result,          port->create_future,
                              port->queue_owner};

    return delivery_visit(held, sizeof held / sizeof held[0], visit, arg);
}

static int clear(PyObject *self)
{
    struct completion_port *port = (struct completion_port *)self;
    PyObject **const held[] = {
        &port->outstanding,   &port->get_running, &port->new_event, &port->set_result,
        &port->create_future, &port->queue_owner, &port->modules,   &port->trio};

    for (size_t i = 0; i < sizeof held / sizeof held[0]; i++) {
        PyObject *object = *held[i];

        *held[i] = NULL;
        Py_XDECREF(object);
    }
    return 0;
}

static void dealloc(PyObject *self)
{
    struct completion_port *port = (struct completion_port *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(self);
    (void)clear(self); /* always 0 */
    if (port->queue != NULL)
        fdmux_queue_unref(port->queue);
    release(self);
    Py_DECREF((PyObject *)type);
}

/* CompletionPort(queue, get_running, new_event): one of the last two is None. */
static PyObject *create(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *queue, *get_running, *new_event;
    struct completion_port *port;

    (void)kwargs;
    if (!PyArg_ParseTuple(args, "OOO:CompletionPort", &queue, &get_running, &new_event))
        return NULL;
    port = (struct completion_port *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(
        type, 0);
    if (port == NULL)
        return NULL;
    port->get_running = get_running == Py_None ? NULL : delivery_new_ref(get_running);
    port->new_event = new_event == Py_None ? NULL : delivery_new_ref(new_event);
    port->is_asyncio = port->get_running != NULL;
    port->queue_owner = delivery_new_ref(queue);
    port->outstanding = PyDict_New();
    port->set_result = PyUnicode_InternFromString("set_result");
    port->create_future = PyUnicode_InternFromString("create_future");
    port->trio = PyUnicode_InternFromString("trio");
    port->modules = delivery_new_ref(PySys_GetObject("modules"));
    port->queue = fdmux_queue_from_object(queue); /* sets the table */
    if (port->queue != NULL)
        (void)fdmux_queue_ref(port->queue); /* returns it */
    if (port->outstanding == NULL || port->set_result == NULL ||
        port->create_future == NULL || port->trio == NULL || port->modules == NULL ||
        port->queue == NULL) {
        Py_DECREF((PyObject *)port);
        return NULL;
    }
    return (PyObject *)port;
}

/* ---- methods --------------------------------------------------------------------- */

/* Complete the one whose cell is at `address`. One that is not out, or was put twice,
 * is ignored. */
static int finish(struct completion_port *port, void *address)
{
    PyObject *key = PyLong_FromVoidPtr(address);
    PyObject *completion =
        key == NULL ? NULL
                    : delivery_new_ref(PyDict_GetItemWithError(port->outstanding, key));
    int r = completion == NULL ? 0 : PyDict_DelItem(port->outstanding, key);

    Py_XDECREF(key);
    if (r == 0 && completion != NULL)
        r = completion_finish(completion);
    Py_XDECREF(completion);
    return PyErr_Occurred() != NULL ? -1 : r;
}

/* serve(): complete one batch; the descriptor stays readable if there are more. */
static PyObject *serve(PyObject *self, PyObject *unused)
{
    struct completion_port *port = (struct completion_port *)self;
    void *items[ITEMS_MAX];
    int count = fdmux_queue_take(port->queue, items, ITEMS_MAX);

    (void)unused;
    if (count < 0)
        return fdmux_raise(count, "take completions");
    for (int i = 0; i < count; i++) {
        if (port->outstanding != NULL && finish(port, items[i]) < 0)
            PyErr_WriteUnraisable(self); /* the others are completed all the same */
    }
    return delivery_new_ref(Py_None);
}

/* remember(loop): completions that are made in this loop of asyncio use this port. */
static PyObject *remember(PyObject *self, PyObject *loop)
{
    struct completion_port *port = (struct completion_port *)self;

    PyObject *old = last_port;

    port->loop = loop;
    if (!DELIVERY_HAS_CACHES || !delivery_is_main_interpreter())
        return delivery_new_ref(Py_None); /* it may end before the main one */
    last_port = delivery_new_ref(self);
    Py_XDECREF(old);
    return delivery_new_ref(Py_None);
}

/* close(): the loop has ended. Returns the completions whose memory native code may
 * still write to. */
static PyObject *close_port(PyObject *self, PyObject *unused)
{
    struct completion_port *port = (struct completion_port *)self;
    PyObject *left;

    (void)unused;
    forget(port);
    port->loop = NULL;
    left = PyDict_Values(port->outstanding);
    for (Py_ssize_t i = 0; left != NULL && i < PyList_Size(left); i++)
        completion_abandon(PyList_GetItem(left, i));
    if (left != NULL)
        PyDict_Clear(port->outstanding);
    return left;
}

/* count(): completions whose address is out. */
static PyObject *count_outstanding(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(
        PyDict_Size(((struct completion_port *)self)->outstanding));
}

static PyMethodDef methods[] = {
    {"serve", serve, METH_NOARGS, NULL},
    {"remember", remember, METH_O, NULL},
    {"close", close_port, METH_NOARGS, NULL},
    {"count", count_outstanding, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"queue_owner", T_OBJECT, offsetof(struct completion_port, queue_owner), READONLY,
     NULL},
    {"is_asyncio", T_BOOL, offsetof(struct completion_port, is_asyncio), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, create},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {
    "fdmux._delivery.CompletionPort",
    sizeof(struct completion_port),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    slots,
};

int completion_port_register(PyObject *module, bool is_main)
{
    PyObject *type = PyType_FromSpec(&spec);

    if (is_main)
        last_port = NULL; /* of an interpreter that has ended */
    return type == NULL ? -1 : PyModule_AddObjectRef(module, "CompletionPort", type);
}
