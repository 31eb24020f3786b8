/* aio_transport.c: what a protocol asks of its transport for each message: writes, and
 * the pauses of reading.
 *
 * What is rare is in Python (hosts/asyncio): C calls it where it cannot write. */
#include "aio_transport.h"

/* ---- writing --------------------------------------------------------------------- */

PyObject *aio_transport_write(PyObject *self, PyObject *data)
{
    struct stream_object *stream = (struct stream_object *)self;

    if (stream_check_thread(stream, "write to") < 0)
        return NULL;
    if (!stream->can_write || !PyObject_CheckBuffer(data))
        return PyObject_CallMethodObjArgs(self, aio_transport_names.write_slowly, data,
                                          NULL);
    return stream_write_any(stream, data) < 0 ? NULL : delivery_new_ref(Py_None);
}

PyObject *aio_transport_writelines(PyObject *self, PyObject *lines)
{
    PyObject *empty, *joined, *done;

    if (!((struct stream_object *)self)->can_write)
        return PyObject_CallMethodObjArgs(self, aio_transport_names.writelines_slowly,
                                          lines, NULL);
    empty = PyBytes_FromStringAndSize(NULL, 0);
    joined = empty == NULL ? NULL
                           : PyObject_CallMethodObjArgs(empty, aio_transport_names.join,
                                                        lines, NULL);
    done = joined == NULL ? NULL : aio_transport_write(self, joined);
    Py_XDECREF(joined);
    Py_XDECREF(empty);
    return done;
}

/* _write_bytes(data): write bytes without a look at can_write. */
PyObject *aio_transport_write_bytes(PyObject *self, PyObject *data)
{
    struct stream_object *stream = (struct stream_object *)self;

    if (!PyBytes_Check(data))
        return PyErr_Format(PyExc_TypeError, "write to %R: bytes are required, not %R",
                            self, (PyObject *)Py_TYPE(data));
    if (stream_check_thread(stream, "write to") < 0 ||
        (stream_is_live(stream) && stream_write_bytes(stream, data) < 0))
        return NULL;
    return delivery_new_ref(Py_None);
}

PyObject *aio_transport_flush(PyObject *self, PyObject *unused)
{
    (void)unused;
    stream_flush((struct stream_object *)self);
    return delivery_new_ref(Py_None);
}

/* ---- reading --------------------------------------------------------------------- */

static PyObject *log_debug(const struct transport *transport, const char *what)
{
    PyObject *text, *done;

    if (!aio_loop_is_debug(transport->stream.loop))
        return delivery_new_ref(Py_None);
    text = PyUnicode_FromFormat("%%r %s", what);
    done = text == NULL
               ? NULL
               : PyObject_CallMethodObjArgs((PyObject *)transport,
                                            aio_transport_names.log_debug, text, NULL);
    Py_XDECREF(text);
    return done;
}

static bool is_receiving(const struct transport *transport)
{
    return !transport->is_closing && !transport->is_reading_paused;
}

PyObject *aio_transport_is_reading(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(is_receiving(as_transport(self)));
}

PyObject *aio_transport_is_closing(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(as_transport(self)->is_closing);
}

PyObject *aio_transport_pause_reading(PyObject *self, PyObject *unused)
{
    struct transport *transport = as_transport(self);
    PyObject *done;

    if (stream_check_thread(&transport->stream, "pause") < 0)
        return NULL;
    if (!is_receiving(transport))
        return delivery_new_ref(Py_None);
    transport->is_reading_paused = true;
    done = stream_pause_reading(self, unused);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    return log_debug(transport, "pauses reading");
}

/* As in asyncio, which makes a new handle here, callbacks run in a copy of the context
 * of whoever resumes. */
static int renew_context(struct transport *transport)
{
    PyObject *old = transport->stream.context;
    PyObject *context = PyObject_CallNoArgs(aio_python.copy_context);

    if (context == NULL)
        return -1;
    transport->stream.context = context;
    Py_XDECREF(old);
    return 0;
}

PyObject *aio_transport_resume_reading(PyObject *self, PyObject *unused)
{
    struct transport *transport = as_transport(self);
    PyObject *done;

    if (stream_check_thread(&transport->stream, "resume") < 0)
        return NULL;
    if (transport->is_closing || !transport->is_reading_paused)
        return delivery_new_ref(Py_None);
    transport->is_reading_paused = false;
    if (aio_loop_is_closed(transport->stream.loop)) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return NULL;
    }
    if (renew_context(transport) < 0)
        return NULL;
    done = stream_resume_reading(self, unused);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    return log_debug(transport, "resumes reading");
}
