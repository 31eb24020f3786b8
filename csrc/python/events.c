/* events.c: calls Python for the events that the core delivers.
 *
 * This is the hot path: a message costs one receive, one bytes object, one call and one
 * send. The GIL is taken once in a batch (fdmux_hold_gil). What a callback has written
 * is sent when it returns. */
#include "frames.h"

#include <errno.h>

#include "system.h"

/* After a receive of this size or more, the next one asks the kernel how many bytes
 * there are and receives into a bytes object of that size: copying would cost more than
 * asking. Smaller messages are copied from the buffer that all streams share. */
#define LARGE_SIZE 32768

/* ---- data ---------------------------------------------------------------------- */

/* The data as a bytes object: that of receive_large, or a copy from the core's buffer.
 * */
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

static PyObject *call_with(const struct stream_object *stream, PyObject *argument)
{
    if (stream->is_transport)
        return aio_transport_call(stream, stream->on_data, argument, NULL);
    return PyObject_CallFunctionObjArgs(stream->on_data, (PyObject *)stream, argument,
                                        NULL);
}

/* Write what on_data has returned, unless the stream is closed. */
static int write_answer(struct stream_object *stream, PyObject *answer)
{
    int r = 0;

    if (answer == Py_None || stream->is_transport || !stream->is_open) {
        r = 0;
    } else if (PyBytes_CheckExact(answer) && stream->can_write) {
        r = stream_write_now(stream, answer);
    } else {
        PyObject *done = stream_write((PyObject *)stream, answer);

        r = done == NULL ? -1 : 0;
        Py_XDECREF(done);
    }
    Py_DECREF(answer);
    return r;
}

static int deliver_frames(struct stream_object *stream,
                          const struct fdmux_stream_event *event)
{
    int error = 0;
    PyObject *answer = frames_deliver(stream, event, &error);

    if (answer == NULL || write_answer(stream, answer) < 0 ||
        frames_finish(stream, error) < 0)
        return stream_callback_raised(stream, "on_frames");
    return 0;
}

static int deliver_data(struct stream_object *stream,
                        const struct fdmux_stream_event *event)
{
    PyObject *data = bytes_of(stream->delivery, event);
    PyObject *answer;

    if (data == NULL)
        return stream_callback_raised(stream, "data_received");
    if (stream->tls == NULL && (event->length >= LARGE_SIZE) != stream->is_large) {
        stream->is_large = !stream->is_large;
        stream_choose_buffer(stream);
    }
    answer = call_with(stream, data);
    Py_DECREF(data);
    if (answer == NULL || write_answer(stream, answer) < 0)
        return stream_callback_raised(stream, "data_received");
    return 0;
}

/* The core has received into the buffer of the protocol. */
static int deliver_buffered(struct stream_object *stream,
                            const struct fdmux_stream_event *event)
{
    PyObject *count = PyLong_FromUnsignedLong(event->length);
    PyObject *updated =
        PyObject_GetAttr(stream->on_data, delivery_names.buffer_updated);
    PyObject *done = NULL;

    if (count != NULL && updated != NULL)
        done = aio_transport_call(stream, updated, count, NULL);
    Py_XDECREF(count);
    Py_XDECREF(updated);
    Py_CLEAR(stream->delivery->incoming);
    if (done == NULL)
        return stream_callback_raised(stream, "buffer_updated");
    Py_DECREF(done);
    return 0;
}

/* ---- the buffer to receive into ------------------------------------------------- */

/* Receive into a bytes object of the size that the kernel reports: no copy is needed.
 * */
static int receive_large(struct stream_object *stream, void **ret_buffer,
                         size_t *ret_size)
{
    struct delivery *delivery = stream->delivery;
    int fd = fdmux_stream_fd(delivery->loop, stream->token);
    int available = fd < 0 ? 0 : system_available((fdmux_fd)fd);

    if (available < LARGE_SIZE)
        return 0; /* receive into the core's buffer */
    if ((size_t)available > *ret_size)
        available = (int)*ret_size;
    Py_CLEAR(delivery->incoming);
    delivery->incoming = PyBytes_FromStringAndSize(NULL, available);
    if (delivery->incoming == NULL) {
        PyErr_Clear(); /* no memory for it: receive into the core's buffer */
        return 0;
    }
    *ret_buffer = PyBytes_AsString(delivery->incoming);
    *ret_size = (size_t)available;
    return 0;
}

static PyObject *ask_for_buffer(const struct stream_object *stream)
{
    PyObject *get = PyObject_GetAttr(stream->on_data, delivery_names.get_buffer);
    PyObject *size = get == NULL ? NULL : PyLong_FromLong(-1);
    PyObject *buffer = NULL;

    if (size != NULL)
        buffer = aio_transport_call(stream, get, size, NULL);
    Py_XDECREF(get);
    Py_XDECREF(size);
    return buffer;
}

/* Get the address of a writable buffer. It stays valid after the buffer is released,
 * since the GIL is held until the bytes are received: no code can resize it. */
static int get_address(PyObject *buffer, void **ret_buffer, size_t *ret_size)
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

static int receive_buffered(struct stream_object *stream, void **ret_buffer,
                            size_t *ret_size)
{
    struct delivery *delivery = stream->delivery;
    PyObject *buffer = ask_for_buffer(stream);
    size_t size_max = *ret_size;
    int r = 0;

    Py_CLEAR(delivery->incoming);
    delivery->incoming = buffer;
    if (buffer == NULL || get_address(buffer, ret_buffer, ret_size) < 0) {
        *ret_size = 0;
        r = stream_callback_raised(stream, "get_buffer");
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

static PyObject *call_event(struct stream_object *stream, uint32_t kind,
                            unsigned long long value)
{
    PyObject *method = PyObject_GetAttr((PyObject *)stream, delivery_names.event);
    PyObject *number = PyLong_FromUnsignedLong(kind);
    PyObject *detail = PyLong_FromUnsignedLongLong(value);
    PyObject *done = NULL;

    if (method != NULL && number != NULL && detail != NULL)
        done = stream->is_transport
                   ? aio_transport_call(stream, method, number, detail)
                   : PyObject_CallFunctionObjArgs(method, number, detail, NULL);
    Py_XDECREF(method);
    Py_XDECREF(number);
    Py_XDECREF(detail);
    return done;
}

static PyObject *pass_on(struct stream_object *stream,
                         const struct fdmux_stream_event *event)
{
    if (stream->is_transport &&
        (event->kind == FDMUX_STREAM_WRITABLE || event->kind == FDMUX_STREAM_DRAINED))
        return aio_transport_writable(stream);
    return call_event(stream, event->kind, value_of(event));
}

static int deliver_event(struct stream_object *stream,
                         const struct fdmux_stream_event *event)
{
    PyObject *done;
    int r;

    if (event->kind == FDMUX_STREAM_CLOSED) {
        stream->is_open = stream->can_write = false;
        stream->is_over = true;
        stream_drop_chunks(stream);
        stream_unlink(stream);
    }
    done = pass_on(stream, event);
    r = done == NULL ? stream_callback_raised(stream, "event") : 0;
    Py_XDECREF(done);
    if (event->kind == FDMUX_STREAM_CLOSED)
        stream->token = 0; /* not earlier: callbacks may ask for the peer's address */
    return r;
}

/* A stream that was not adopted, as the callback has raised, is closed: it has the
 * userdata of its listener, which may be gone when the next event comes. */
static int deliver_accepted(struct stream_object *listener,
                            const struct fdmux_stream_event *event)
{
    struct delivery *delivery = listener->delivery;
    int r;

    delivery->accepted = event->stream;
    r = deliver_event(listener, event);
    if (delivery->accepted == event->stream && delivery->loop != NULL)
        delivery_disown(delivery->loop, event->stream, NULL);
    return r;
}

static int deliver(struct stream_object *stream, const struct fdmux_stream_event *event)
{
    if (event->kind != FDMUX_STREAM_DATA)
        return deliver_event(stream, event);
    if (!delivery_is_set(stream->on_data) || !stream->is_open)
        return 0;
    if (stream->delivery->incoming != NULL && stream->is_buffered)
        return deliver_buffered(stream, event);
    if (stream->is_framed)
        return deliver_frames(stream, event);
    return stream->is_buffered ? 0 : deliver_data(stream, event);
}

int delivery_on_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                      void *userdata)
{
    struct stream_object *stream = userdata;
    struct delivery *delivery;
    int r = fdmux_hold_gil(loop);

    if (r < 0)
        return r;
    delivery = stream->delivery;
    Py_INCREF((PyObject *)stream); /* the callback may drop all other references */
    Py_INCREF((PyObject *)delivery);
    delivery_begin_call(delivery, loop);
    r = event->kind == FDMUX_STREAM_ACCEPTED ? deliver_accepted(stream, event)
                                             : deliver(stream, event);
    delivery_end_call(delivery);
    Py_DECREF((PyObject *)delivery);
    Py_DECREF((PyObject *)stream);
    return r;
}

int delivery_on_buffer(struct fdmux_loop *loop, uint64_t token, void **ret_buffer,
                       size_t *ret_size, void *userdata)
{
    struct stream_object *stream = userdata;
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

/* ---- prefetching ----------------------------------------------------------------- */

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address, 1)
#else
#define PREFETCH(address) ((void)(address))
#endif

static void prefetch_lines(const void *address, int count)
{
    for (int i = 0; i < count; i++)
        PREFETCH((const char *)address + (size_t)i * 64);
}

/* What precedes an object is CPython's: pointers to its dict or values, and the links
 * of the garbage collector. */
#define BEFORE_OBJECT 32

void delivery_prefetch(void *const *userdata, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        prefetch_lines((const char *)userdata[i] - BEFORE_OBJECT, 4);
    for (uint32_t i = 0; i < count; i++) {
        const struct stream_object *stream = userdata[i];

        prefetch_lines(stream->on_data, 1);
        prefetch_lines(stream->context, 2);
        prefetch_lines((const char *)stream->handler - BEFORE_OBJECT, 2);
    }
}
