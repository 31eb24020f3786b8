/* errors.c: exceptions that callbacks raise.
 *
 * Most are reported by their stream, which ends, or endpoint. Those that must leave
 * dispatch end the batch: they are kept, and raised by the Python function that called
 * dispatch. */
#include "stream_object.h"

#include <errno.h>

/* Deliveries with an exception that is kept; each is a reference. */
static struct delivery *first_failed;

void delivery_forget_errors(void)
{
    first_failed = NULL;
}

static PyObject *take_exception(void)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        (void)PyException_SetTraceback(value, traceback); /* it is a traceback */
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* ---- exceptions that end the batch --------------------------------------------- */

int delivery_keep_error(struct delivery *delivery)
{
    if (delivery->error != NULL) { /* only one can be raised */
        PyErr_WriteUnraisable((PyObject *)delivery);
        return -ECANCELED;
    }
    delivery->error = take_exception();
    delivery_lists_lock();
    delivery->next_failed = first_failed;
    first_failed = delivery;
    delivery_lists_unlock();
    Py_INCREF((PyObject *)delivery);
    return -ECANCELED;
}

static struct delivery *find_failed(const void *address)
{
    struct delivery *failed;

    delivery_lists_lock();
    failed = first_failed;
    while (failed != NULL && failed->address != address)
        failed = failed->next_failed;
    delivery_lists_unlock();
    return failed;
}

static void unlink_failed(const struct delivery *delivery)
{
    struct delivery **link = &first_failed;

    delivery_lists_lock();
    while (*link != delivery)
        link = &(*link)->next_failed;
    *link = delivery->next_failed;
    delivery_lists_unlock();
}

static PyObject *raise_kept(struct delivery *delivery)
{
    PyObject *error = delivery->error;
    PyObject *traceback = PyException_GetTraceback(error);

    delivery->error = NULL;
    unlink_failed(delivery);
    PyErr_Restore(delivery_new_ref((PyObject *)Py_TYPE(error)), error, traceback);
    Py_DECREF((PyObject *)delivery);
    return NULL;
}

/* A posted call, which owns a reference to the delivery. If it never runs, as the loop
 * has closed, nobody would raise the exception. */
static int end_batch(struct fdmux_loop *loop, void *userdata)
{
    struct delivery *delivery = userdata;
    PyGILState_STATE state = PyGILState_Ensure();
    bool is_kept = delivery->error != NULL; /* not raised by now */

    if (is_kept && loop == NULL) {
        (void)raise_kept(delivery);
        PyErr_WriteUnraisable((PyObject *)delivery);
    }
    Py_DECREF((PyObject *)delivery);
    PyGILState_Release(state);
    return loop != NULL && is_kept ? -ECANCELED : 0;
}

void delivery_keep_and_end_batch(struct delivery *delivery)
{
    (void)delivery_keep_error(delivery);
    Py_INCREF((PyObject *)delivery);
    if (fdmux_post(delivery->loop, end_batch, delivery) < 0)
        Py_DECREF((PyObject *)delivery); /* no memory: raised when a batch ends next */
}

void delivery_send_raised(struct delivery *delivery, PyObject *transport)
{
    if ((PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
         PyErr_ExceptionMatches(PyExc_SystemExit)) &&
        delivery->loop != NULL)
        delivery_keep_and_end_batch(delivery);
    else
        PyErr_WriteUnraisable(transport);
}

PyObject *delivery_raise_error(PyObject *module, PyObject *loop_address)
{
    const void *address = PyLong_AsVoidPtr(loop_address);
    struct delivery *failed;

    (void)module;
    if (PyErr_Occurred() != NULL)
        return NULL;
    failed = find_failed(address);
    return failed == NULL ? delivery_new_ref(Py_None) : raise_kept(failed);
}

/* ---- exceptions of callbacks --------------------------------------------------- */

/* Must the exception leave dispatch? asyncio gives all others to its exception handler,
 * which reports BaseExceptions too. */
static bool ends_batch(bool is_asyncio)
{
    if (!is_asyncio)
        return !PyErr_ExceptionMatches(PyExc_Exception);
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
           PyErr_ExceptionMatches(PyExc_SystemExit);
}

int delivery_callback_raised(struct delivery *delivery, PyObject *target,
                             const char *what, bool is_asyncio)
{
    PyObject *error, *name, *done = NULL;
    int r = 0;

    if (ends_batch(is_asyncio))
        return delivery_keep_error(delivery);
    error = take_exception();
    name = PyUnicode_FromString(what);
    if (name != NULL)
        done = PyObject_CallMethodObjArgs(target, delivery_names.callback_failed, error,
                                          name, NULL);
    if (done == NULL && ends_batch(is_asyncio))
        r = delivery_keep_error(delivery);
    else if (done == NULL)
        PyErr_WriteUnraisable(target);
    Py_XDECREF(done);
    Py_XDECREF(name);
    Py_XDECREF(error);
    return r;
}

int stream_callback_raised(struct stream_object *stream, const char *what)
{
    return delivery_callback_raised(stream->delivery, (PyObject *)stream, what,
                                    stream->is_transport);
}
