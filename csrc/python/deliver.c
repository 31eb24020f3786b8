/* deliver.c: from an event of the core to a callback of Python.
 *
 * The hot path: one message is one receive, one bytes object, one call, one send. The
 * GIL is taken once a batch (fdmux_hold_gil). What a callback wrote leaves as it
 * returns. */
#include "frames.h"

#include <errno.h>
#include <sys/ioctl.h>

/* From here on bytes are received where they stay: the copy would cost more than the
 * question how many there are. Below it, one buffer serves all streams. */
#define LARGE_SIZE 32768

/* ---- exceptions ---------------------------------------------------------------- */

/* asyncio hands everything but these to the exception handler. */
static bool must_leave(const struct delivered *stream)
{
    if (!stream->has_flow)
        return !PyErr_ExceptionMatches(PyExc_Exception);
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
           PyErr_ExceptionMatches(PyExc_SystemExit);
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

static PyObject *target_of(struct delivered *stream)
{
    return delivery_is_set(stream->owner) ? stream->owner : (PyObject *)stream;
}

/* `what` has raised. Ends the stream, or the batch. */
static int fail(struct delivered *stream, const char *what)
{
    PyObject *error, *name, *done = NULL;
    int r = 0;

    if (must_leave(stream))
        return delivery_keep_error(stream->delivery);
    error = take_exception();
    name = PyUnicode_FromString(what);
    if (name != NULL)
        done = PyObject_CallMethodObjArgs(
            target_of(stream), delivery_names.callback_failed, error, name, NULL);
    if (done == NULL && must_leave(stream))
        r = delivery_keep_error(stream->delivery);
    else if (done == NULL)
        PyErr_WriteUnraisable(target_of(stream));
    Py_XDECREF(done);
    Py_XDECREF(name);
    Py_XDECREF(error);
    return r;
}

/* ---- data ---------------------------------------------------------------------- */

/* What was received, as bytes. Usually it lies in the core's buffer; see receive_large.
 */
static PyObject *bytes_of(struct delivery *delivery,
                          const struct fdmux_stream_event *event)
{
    PyObject *incoming = delivery->incoming;

    if (incoming != NULL && PyBytes_CheckExact(incoming) &&
        PyBytes_AsString(incoming) == event->data &&
        PyBytes_Size(incoming) == (Py_ssize_t)event->length) {
        delivery->incoming = NULL;
        return incoming;
    }
    return PyBytes_FromStringAndSize(event->data, (Py_ssize_t)event->length);
}

static PyObject *call_with(const struct delivered *stream, PyObject *argument)
{
    if (delivery_is_set(stream->run))
        return PyObject_CallFunctionObjArgs(stream->run, stream->on_data, argument,
                                            NULL);
    return PyObject_CallFunctionObjArgs(stream->on_data, (PyObject *)stream, argument,
                                        NULL);
}

/* What on_data returned is written, unless it has closed the stream. */
static int take_answer(struct delivered *stream, PyObject *answer)
{
    int r = 0;

    if (answer == Py_None || stream->owner != NULL || !stream->is_open) {
        r = 0;
    } else if (PyBytes_CheckExact(answer) && stream->can_write) {
        r = delivered_answer(stream, answer);
    } else {
        PyObject *done = delivered_write((PyObject *)stream, answer);

        r = done == NULL ? -1 : 0;
        Py_XDECREF(done);
    }
    Py_DECREF(answer);
    return r;
}

static int deliver_frames(struct delivered *stream,
                          const struct fdmux_stream_event *event)
{
    int error = 0;
    PyObject *answer = frames_deliver(stream, event, &error);

    if (answer == NULL || take_answer(stream, answer) < 0 ||
        frames_finish(stream, error) < 0)
        return fail(stream, "on_frames");
    return 0;
}

static int deliver_data(struct delivered *stream,
                        const struct fdmux_stream_event *event)
{
    PyObject *data = bytes_of(stream->delivery, event);
    PyObject *answer;

    if (data == NULL)
        return fail(stream, "data_received");
    if ((event->length >= LARGE_SIZE) != stream->is_large) {
        stream->is_large = !stream->is_large;
        delivered_choose_buffer(stream);
    }
    answer = call_with(stream, data);
    Py_DECREF(data);
    if (answer == NULL || take_answer(stream, answer) < 0)
        return fail(stream, "data_received");
    return 0;
}

/* The bytes are in the protocol's buffer already. */
static int deliver_buffered(struct delivered *stream,
                            const struct fdmux_stream_event *event)
{
    PyObject *count = PyLong_FromUnsignedLong(event->length);
    PyObject *updated =
        PyObject_GetAttr(stream->on_data, delivery_names.buffer_updated);
    PyObject *done = NULL;

    if (count != NULL && updated != NULL)
        done = PyObject_CallFunctionObjArgs(stream->run, updated, count, NULL);
    Py_XDECREF(count);
    Py_XDECREF(updated);
    Py_CLEAR(stream->delivery->incoming);
    if (done == NULL)
        return fail(stream, "buffer_updated");
    Py_DECREF(done);
    return 0;
}

/* ---- where to receive ---------------------------------------------------------- */

/* Into bytes of just the size of what is there: nothing is copied, nothing cut off. */
static int receive_large(struct delivered *stream, void **ret_buffer, size_t *ret_size)
{
    struct delivery *delivery = stream->delivery;
    int available = 0;
    int fd = fdmux_stream_fd(delivery->loop, stream->token);

    if (fd < 0 || ioctl(fd, FIONREAD, &available) < 0 || available < LARGE_SIZE)
        return 0; /* into the core's buffer */
    if ((size_t)available > *ret_size)
        available = (int)*ret_size;
    Py_XDECREF(delivery->incoming);
    delivery->incoming = PyBytes_FromStringAndSize(NULL, available);
    if (delivery->incoming == NULL) {
        PyErr_Clear(); /* the core's buffer is smaller */
        return 0;
    }
    *ret_buffer = PyBytes_AsString(delivery->incoming);
    *ret_size = (size_t)available;
    return 0;
}

static PyObject *ask_for_buffer(const struct delivered *stream)
{
    PyObject *get = PyObject_GetAttr(stream->on_data, delivery_names.get_buffer);
    PyObject *size = get == NULL ? NULL : PyLong_FromLong(-1);
    PyObject *buffer = NULL;

    if (size != NULL)
        buffer = PyObject_CallFunctionObjArgs(stream->run, get, size, NULL);
    Py_XDECREF(get);
    Py_XDECREF(size);
    return buffer;
}

/* The address of a writable buffer; the GIL is held until the bytes are in it, so that
 * nobody can move it meanwhile, and the export need not last. */
static int look_into(PyObject *buffer, void **ret_buffer, size_t *ret_size)
{
    Py_buffer view;

    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0)
        return -1;
    *ret_buffer = view.buf;
    *ret_size = (size_t)view.len;
    PyBuffer_Release(&view);
    if (*ret_size > 0)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    return -1;
}

static int receive_buffered(struct delivered *stream, void **ret_buffer,
                            size_t *ret_size)
{
    struct delivery *delivery = stream->delivery;
    PyObject *buffer = ask_for_buffer(stream);
    size_t size_max = *ret_size;
    int r = 0;

    Py_XDECREF(delivery->incoming);
    delivery->incoming = buffer;
    if (buffer == NULL || look_into(buffer, ret_buffer, ret_size) < 0) {
        *ret_size = 0;
        r = fail(stream, "get_buffer");
    }
    if (*ret_size > size_max)
        *ret_size = size_max;
    return r;
}

/* ---- events -------------------------------------------------------------------- */

static unsigned long long value_of(const struct fdmux_stream_event *event)
{
    return event->kind == FDMUX_STREAM_ACCEPTED ? event->stream
                                                : (unsigned long long)event->error;
}

static int tell(struct delivered *stream, uint32_t kind, unsigned long long value)
{
    PyObject *method = PyObject_GetAttr(target_of(stream), delivery_names.event);
    PyObject *number = PyLong_FromUnsignedLong(kind);
    PyObject *detail = PyLong_FromUnsignedLongLong(value);
    PyObject *done = NULL;

    if (method != NULL && number != NULL && detail != NULL)
        done = delivery_is_set(stream->run)
                   ? PyObject_CallFunctionObjArgs(stream->run, method, number, detail,
                                                  NULL)
                   : PyObject_CallFunctionObjArgs(method, number, detail, NULL);
    Py_XDECREF(method);
    Py_XDECREF(number);
    Py_XDECREF(detail);
    if (done == NULL)
        return fail(stream, "event");
    Py_DECREF(done);
    return 0;
}

static int deliver_event(struct delivered *stream,
                         const struct fdmux_stream_event *event)
{
    int r;

    if (event->kind == FDMUX_STREAM_CLOSED) {
        stream->is_open = stream->can_write = false;
        stream->is_over = true;
        delivered_drop_chunks(stream);
        delivered_leave(stream);
    }
    r = tell(stream, event->kind, value_of(event));
    if (event->kind == FDMUX_STREAM_CLOSED)
        stream->token = 0; /* its peer's address was known until now */
    return r;
}

static int deliver(struct delivered *stream, const struct fdmux_stream_event *event)
{
    if (event->kind != FDMUX_STREAM_DATA)
        return deliver_event(stream, event);
    if (!delivery_is_set(stream->on_data) || !stream->is_open)
        return 0;
    if (stream->delivery->incoming != NULL && stream->is_buffered)
        return deliver_buffered(stream, event);
    if (stream->framer != NULL)
        return deliver_frames(stream, event);
    return stream->is_buffered ? 0 : deliver_data(stream, event);
}

/* An accepted stream that nobody has adopted (its callback raised) has the listener's
 * function still. */
static bool is_orphan(const struct delivered *stream,
                      const struct fdmux_stream_event *event)
{
    return event->stream != stream->token && event->kind != FDMUX_STREAM_ACCEPTED;
}

int delivery_on_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                      void *userdata)
{
    struct delivered *stream = userdata;
    struct delivery *delivery;
    int r = fdmux_hold_gil(loop);

    if (r < 0)
        return r;
    if (is_orphan(stream, event)) {
        (void)fdmux_stream_close(loop, event->stream, FDMUX_STREAM_DROP); /* or over */
        return 0;
    }
    delivery = stream->delivery;
    Py_INCREF((PyObject *)stream); /* the callback may drop the last of others */
    Py_INCREF((PyObject *)delivery);
    delivery->depth++;
    delivery->call_count++;
    if (delivery->is_one_batch)
        (void)fdmux_loop_wake(loop); /* inside a function it cannot fail */
    r = deliver(stream, event);
    delivery->depth--;
    if (delivery->unsent_count > 0 && delivery->depth == 0)
        delivery_flush(delivery);
    Py_DECREF((PyObject *)delivery);
    Py_DECREF((PyObject *)stream);
    return r;
}

int delivery_on_buffer(struct fdmux_loop *loop, uint64_t token, void **ret_buffer,
                       size_t *ret_size, void *userdata)
{
    struct delivered *stream = userdata;
    int r;

    if (token != stream->token || !delivery_is_set(stream->on_data))
        return 0;
    r = fdmux_hold_gil(loop);
    if (r < 0)
        return r;
    if (!stream->is_buffered)
        return receive_large(stream, ret_buffer, ret_size);
    Py_INCREF((PyObject *)stream);
    stream->delivery->depth++;
    r = receive_buffered(stream, ret_buffer, ret_size);
    stream->delivery->depth--;
    Py_DECREF((PyObject *)stream);
    return r;
}
