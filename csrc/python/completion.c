/* completion.c: the type fdmux._delivery.Completion: one result of native code, which
 * any number of tasks or greenlets wait for.
 *
 * On asyncio each `await` waits for a future of its own, so cancelling one does not
 * touch the others; on other hosts all share an event. What native code writes to lies
 * inside of the object (completion_port.c says how long it stays valid). */
#include "completion.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>

struct completion {
    PyObject head;
    struct completion_port *port;
    PyObject
        *convert; /* makes the result of what native code wrote; NULL: that is it */
    PyObject *waiters; /* NULL, a future, or a list of them; on other hosts an event */
    PyObject *value; /* the result, once it is there */
    PyObject *error; /* or an exception */
    int64_t cell; /* native code writes here */
};

static struct completion *of(PyObject *self)
{
    return (struct completion *)self;
}

static bool is_done(const struct completion *completion)
{
    return completion->value != NULL || completion->error != NULL;
}

/* ---- memory ---------------------------------------------------------------------- */

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    const struct completion *completion = of(self);
    PyObject *const held[] = {(PyObject *)Py_TYPE(self), (PyObject *)completion->port,
                              completion->convert,       completion->waiters,
                              completion->value,         completion->error};

    return delivery_visit(held, sizeof held / sizeof held[0], visit, arg);
}

static int clear(PyObject *self)
{
    struct completion *completion = of(self);

    Py_CLEAR(completion->port);
    Py_CLEAR(completion->convert);
    Py_CLEAR(completion->waiters);
    Py_CLEAR(completion->value);
    Py_CLEAR(completion->error);
    return 0;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(self);
    (void)clear(self); /* always 0 */
    release(self);
    Py_DECREF((PyObject *)type);
}

/* The port of the loop that runs here: a new reference. The subclass in Python finds
 * it the first time. */
static PyObject *find_port(PyTypeObject *type)
{
    PyObject *port = (PyObject *)completion_port_here();

    if (port != NULL)
        return delivery_new_ref(port);
    return PyErr_Occurred() != NULL
               ? NULL
               : PyObject_CallMethod((PyObject *)type, "_find_port", NULL);
}

static PyObject *create(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"convert", NULL};
    PyObject *convert = Py_None;
    struct completion *completion;
    PyObject *port;

    if ((PyTuple_Size(args) > 0 || kwargs != NULL) &&
        !PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Completion", names, &convert))
        return NULL;
    if (convert != Py_None && !PyCallable_Check(convert))
        return PyErr_Format(PyExc_TypeError,
                            "make a Completion: convert must be callable, not %R",
                            convert);
    port = find_port(type);
    if (port == NULL)
        return NULL;
    completion =
        (struct completion *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (completion == NULL) {
        Py_DECREF(port);
        return NULL;
    }
    completion->port = (struct completion_port *)port;
    completion->convert = convert == Py_None ? NULL : delivery_new_ref(convert);
    return (PyObject *)completion;
}

/* ---- waiters --------------------------------------------------------------------- */

/* Is this future of a task that was cancelled? */
static bool is_over(PyObject *future)
{
    PyObject *done = PyObject_CallMethod(future, "done", NULL);
    bool is_done = done == Py_True;

    if (done == NULL)
        PyErr_Clear(); /* then it is kept */
    Py_XDECREF(done);
    return is_done;
}

static int settle_future(const struct completion *completion, PyObject *future)
{
    PyObject *result =
        completion->error != NULL
            ? PyObject_CallMethod(future, "set_exception", "(O)", completion->error)
            : PyObject_CallMethodObjArgs(future, completion->port->set_result,
                                         completion->value, NULL);
    bool is_settled = result != NULL;

    Py_XDECREF(result);
    if (is_settled)
        return 0;
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *type, *value, *traceback;

        PyErr_Fetch(&type, &value, &traceback);
        if (is_over(future)) { /* its task was cancelled */
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(traceback);
            return 0;
        }
        PyErr_Restore(type, value, traceback);
    }
    return -1;
}

static int wake_all(const struct completion *completion, PyObject *waiters)
{
    int r = 0;

    if (completion->port->new_event != NULL) {
        PyObject *result = PyObject_CallMethod(waiters, "set", NULL);

        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }
    if (!PyList_Check(waiters))
        return settle_future(completion, waiters);
    for (Py_ssize_t i = 0; i < PyList_Size(waiters) && r == 0; i++)
        r = settle_future(completion, PyList_GetItem(waiters, i));
    return r;
}

/* Only the first outcome counts. Steals both; one of them is NULL. */
static int settle(struct completion *completion, PyObject *value, PyObject *error)
{
    PyObject *waiters = completion->waiters;
    int r;

    if (is_done(completion)) {
        Py_XDECREF(value);
        Py_XDECREF(error);
        return 0;
    }
    completion->value = value;
    completion->error = error;
    completion->waiters = NULL;
    Py_CLEAR(completion->convert);
    r = waiters == NULL ? 0 : wake_all(completion, waiters);
    Py_XDECREF(waiters);
    return r;
}

/* The exception that is set becomes the outcome. A future cannot carry StopIteration,
 * which would end the task that awaits it (PEP 479). */
static int settle_with_error(struct completion *completion)
{
    PyObject *type, *value, *traceback;

    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyErr_Clear();
        PyErr_SetString(PyExc_RuntimeError, "the outcome was a StopIteration");
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        (void)PyException_SetTraceback(value, traceback); /* fails for no traceback */
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return settle(completion, NULL, value);
}

/* Set the OSError that a negative result stands for. */
static void set_native_error(int64_t result)
{
    int code = result < -INT_MAX ? EINVAL : (int)-result;
    char text[128];
    PyObject *value;

    PyOS_snprintf(text, sizeof text, "native code failed: %s", strerror(code));
    value = Py_BuildValue("(is)", code, text);
    if (value != NULL)
        PyErr_SetObject(PyExc_OSError, value);
    Py_XDECREF(value);
}

int completion_finish(PyObject *self)
{
    struct completion *completion = of(self);
    PyObject *value = NULL;

    if (is_done(completion))
        return 0;
    if (completion->cell < 0)
        set_native_error(completion->cell);
    else
        value = PyLong_FromLongLong(completion->cell);
    if (value != NULL && completion->convert != NULL) {
        PyObject *convert = delivery_new_ref(completion->convert); /* may settle it */
        PyObject *number = value;

        value = PyObject_CallFunctionObjArgs(convert, number, NULL);
        Py_DECREF(number);
        Py_DECREF(convert);
    }
    return value == NULL ? settle_with_error(completion)
                         : settle(completion, value, NULL);
}

void completion_abandon(PyObject *self)
{
    Py_CLEAR(of(self)->waiters);
    Py_CLEAR(of(self)->convert);
}

/* ---- waiting --------------------------------------------------------------------- */

/* Keep a future until the outcome is there. Those of cancelled tasks go. */
static int add_waiter(struct completion *completion, PyObject *future)
{
    PyObject *waiters = completion->waiters;

    if (waiters != NULL && !PyList_Check(waiters) && is_over(waiters))
        Py_CLEAR(completion->waiters);
    if (completion->waiters == NULL) {
        completion->waiters = delivery_new_ref(future);
        return 0;
    }
    if (!PyList_Check(waiters)) {
        waiters = PyList_New(1);
        if (waiters == NULL)
            return -1;
        (void)PyList_SetItem(waiters, 0, completion->waiters); /* it is new */
        completion->waiters = waiters;
    }
    for (Py_ssize_t i = PyList_Size(waiters) - 1; i >= 0; i--) {
        if (is_over(PyList_GetItem(waiters, i)) &&
            PyList_SetSlice(waiters, i, i + 1, NULL) < 0)
            return -1;
    }
    return PyList_Append(waiters, future);
}

/* A future of the completion's loop. asyncio refuses to await it in another one. */
static PyObject *new_future(PyObject *self)
{
    const struct completion_port *port = of(self)->port;

    if (port->loop == NULL)
        return PyErr_Format(PyExc_RuntimeError, "await %R: its loop has ended", self);
    return PyObject_CallMethodObjArgs(port->loop, port->create_future, NULL);
}

static PyObject *iterate(PyObject *future)
{
    unaryfunc await = (unaryfunc)PyType_GetSlot(Py_TYPE(future), Py_am_await);

    return await != NULL ? await(future)
                         : PyObject_CallMethod(future, "__await__", NULL);
}

static PyObject *await_completion(PyObject *self)
{
    struct completion *completion = of(self);
    PyObject *iterator = NULL;
    PyObject *future;
    int r;

    if (!completion->port->is_asyncio)
        return PyObject_CallMethod(self, "_await_event", NULL);
    future = new_future(self);
    if (future == NULL)
        return NULL;
    r = is_done(completion) ? settle_future(completion, future)
                            : add_waiter(completion, future);
    if (r == 0)
        iterator = iterate(future);
    Py_DECREF(future);
    return iterator;
}

/* _get_event(): the event of another host, which is set with the outcome. */
static PyObject *get_event(PyObject *self, PyObject *unused)
{
    struct completion *completion = of(self);
    PyObject *event = delivery_new_ref(completion->waiters);

    (void)unused;
    if (event != NULL)
        return event;
    if (completion->port->new_event == NULL)
        return PyErr_Format(PyExc_RuntimeError, "wait for %R in a task: await it",
                            self);
    event = PyObject_CallNoArgs(completion->port->new_event);
    if (event != NULL && is_done(completion) && wake_all(completion, event) < 0)
        Py_CLEAR(event);
    if (event != NULL && !is_done(completion))
        completion->waiters = delivery_new_ref(event);
    return event;
}

/* ---- outcomes -------------------------------------------------------------------- */

static PyObject *get_result(PyObject *self, PyObject *unused)
{
    const struct completion *completion = of(self);

    (void)unused;
    if (completion->error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(completion->error), completion->error);
        return NULL;
    }
    if (completion->value == NULL)
        return PyErr_Format(PyExc_TimeoutError, "wait for %R: it is not done yet",
                            self);
    return delivery_new_ref(completion->value);
}

static PyObject *none_if(int r)
{
    return r < 0 ? NULL : delivery_new_ref(Py_None);
}

static PyObject *set_result(PyObject *self, PyObject *value)
{
    Py_INCREF(value);
    return none_if(settle(of(self), value, NULL));
}

static PyObject *set_exception(PyObject *self, PyObject *error)
{
    if (!PyObject_IsInstance(error, PyExc_BaseException))
        return PyErr_Format(PyExc_TypeError, "set_exception: %R is no exception",
                            error);
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    return none_if(settle_with_error(of(self)));
}

static PyObject *discard(PyObject *self, PyObject *unused)
{
    struct completion *completion = of(self);
    PyObject *key = PyLong_FromVoidPtr(&completion->cell);

    (void)unused;
    if (key == NULL)
        return NULL;
    if (completion->port->outstanding != NULL &&
        PyDict_DelItem(completion->port->outstanding, key) < 0)
        PyErr_Clear(); /* its address was not given out */
    Py_DECREF(key);
    set_native_error(-ECANCELED);
    return none_if(settle_with_error(completion));
}

/* ---- attributes ------------------------------------------------------------------ */

/* From here on the completion lives until native code has put the address into the
 * queue. */
static PyObject *get_address(PyObject *self, void *unused)
{
    struct completion *completion = of(self);
    PyObject *key = PyLong_FromVoidPtr(&completion->cell);

    (void)unused;
    if (key != NULL && !is_done(completion) &&
        PyDict_SetItem(completion->port->outstanding, key, self) < 0)
        Py_CLEAR(key);
    return key;
}

static PyObject *get_is_done(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(is_done(of(self)));
}

static PyGetSetDef properties[] = {
    {"address", get_address, NULL,
     "Where native code writes the result: an ``int64_t *``, as a number.\n\n"
     "Once this was read, native code must put the address into the queue.",
     NULL},
    {"is_done", get_is_done, NULL, "Whether the result is there.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"_core", T_OBJECT, offsetof(struct completion, port), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"result", get_result, METH_NOARGS,
     "result($self, /)\n--\n\n"
     "Return the result.\n\n"
     "Raises:\n"
     "    OSError: What native code wrote is below 0, a -errno.\n"
     "    TimeoutError: It is not there yet.\n"
     "    BaseException: What `set_exception` got, or ``convert`` raised."},
    {"set_result", set_result, METH_O,
     "set_result($self, result, /)\n--\n\n"
     "Complete it with any object; only the first outcome counts.\n\n"
     "In the thread of its loop. ``fdmux_complete()`` in C does this for a batch."},
    {"set_exception", set_exception, METH_O,
     "set_exception($self, error, /)\n--\n\n"
     "Complete it with an exception, which those who wait get; as `set_result`."},
    {"discard", discard, METH_NOARGS,
     "discard($self, /)\n--\n\n"
     "End it with ``ECANCELED``; native code must not have got the address."},
    {"_get_event", get_event, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, create},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {Py_am_await, await_completion},
    {0, NULL},
};

static PyType_Spec spec = {
    "fdmux._delivery.Completion",
    sizeof(struct completion),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    slots,
};

int completion_register(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&spec);

    return type == NULL ? -1 : PyModule_AddObjectRef(module, "Completion", type);
}
