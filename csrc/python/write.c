/* write.c: writes of Python to streams.
 *
 * The writes of a callback are gathered, by reference, and sent with one sendmsg(2)
 * when the callback returns. Other writes are sent at once, or for asyncio before the
 * loop waits. The core queues what the kernel does not take, and sends it later. */
#include "stream_object.h"

#include <errno.h>
#include <limits.h>

#define PARTS_MAX 64
/* With so many bytes gathered, they are sent without waiting for more. */
#define GATHERED_MAX ((size_t)64 * 1024)

/* ---- sending ------------------------------------------------------------------- */

/* Less than 0: the rest could not be queued, or the stream is over; CLOSED follows. An
 * error of the kernel comes only with CLOSED. */
static void check_flow(struct stream_object *stream, int result)
{
    if (stream->is_transport)
        aio_transport_sent(stream, result);
    else if (result < 0)
        stream->is_open = stream->can_write = false;
}

static void send_now(struct stream_object *stream, const void *data, size_t size)
{
    check_flow(stream,
               fdmux_stream_write(stream->delivery->loop, stream->token, data, size));
}

static int send_parts(struct stream_object *stream, PyObject *const *chunks,
                      uint32_t count)
{
    struct fdmux_stream_write_op ops[PARTS_MAX];

    for (uint32_t i = 0; i < count; i++)
        ops[i] = (struct fdmux_stream_write_op){
            .stream = stream->token,
            .data = PyBytes_AsString(chunks[i]),
            .length = (size_t)PyBytes_Size(chunks[i]),
        };
    return fdmux_stream_write_batch(stream->delivery->loop, ops, count) == (int)count
               ? 0
               : -EPIPE;
}

static void send_gathered(struct stream_object *stream, PyObject *first,
                          PyObject **rest, uint32_t count)
{
    PyObject *chunks[PARTS_MAX];
    uint32_t used = 0;
    int r = 0;

    chunks[used++] = first;
    for (uint32_t i = 0; i + 1 < count; i++) {
        if (used == PARTS_MAX) {
            r = send_parts(stream, chunks, used);
            used = 0;
        }
        chunks[used++] = rest[i];
    }
    if (r == 0)
        r = send_parts(stream, chunks, used);
    check_flow(stream, r);
}

static void drop(PyObject *first, PyObject **rest, uint32_t count)
{
    for (uint32_t i = 0; i + 1 < count; i++)
        Py_DECREF(rest[i]);
    PyMem_Free((void *)rest);
    Py_XDECREF(first);
}

void stream_drop_chunks(struct stream_object *stream)
{
    PyObject *first = stream->chunk;
    PyObject **rest = stream->chunks;
    uint32_t count = stream->chunk_count;

    stream->chunk = NULL;
    stream->chunks = NULL;
    stream->chunk_count = stream->chunk_capacity = 0;
    stream->gathered_size = 0;
    drop(first, rest, count);
}

void stream_flush(struct stream_object *stream)
{
    PyObject *first = stream->chunk;
    PyObject **rest = stream->chunks;
    uint32_t count = stream->chunk_count;

    if (count == 0)
        return;
    /* Detached first: a protocol that is paused may write more. */
    stream->chunk = NULL;
    stream->chunks = NULL;
    stream->chunk_count = stream->chunk_capacity = 0;
    stream->gathered_size = 0;
    if (stream->token != 0 && stream->delivery->loop != NULL) {
        if (count == 1)
            send_now(stream, PyBytes_AsString(first), (size_t)PyBytes_Size(first));
        else
            send_gathered(stream, first, rest, count);
    }
    drop(first, rest, count);
}

/* ---- gathering ----------------------------------------------------------------- */

static int grow(struct stream_object *stream)
{
    uint32_t capacity = stream->chunk_capacity == 0 ? 8 : stream->chunk_capacity * 2;
    PyObject **chunks =
        (PyObject **)PyMem_Realloc((void *)stream->chunks, capacity * sizeof *chunks);

    if (chunks == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    stream->chunks = chunks;
    stream->chunk_capacity = capacity;
    return 0;
}

static int gather(struct stream_object *stream, PyObject *data, size_t size)
{
    if (stream->chunk_count > 0 && stream->chunk_count - 1 == stream->chunk_capacity &&
        grow(stream) < 0)
        return -1;
    if (!stream->is_unsent && delivery_add_unsent(stream->delivery, stream) < 0)
        return -1;
    if (stream->chunk_count == 0)
        stream->chunk = delivery_new_ref(data);
    else
        stream->chunks[stream->chunk_count - 1] = delivery_new_ref(data);
    stream->chunk_count++;
    stream->gathered_size +=
        (uint32_t)size; /* flushed from GATHERED_MAX on; one write is at most INT_MAX */
    if (stream->gathered_size >= GATHERED_MAX ||
        (stream->is_transport &&
         (uint64_t)stream->queued + stream->gathered_size > stream->queue_high))
        stream_flush(stream);
    return 0;
}

static bool must_gather(const struct stream_object *stream)
{
    const struct delivery *delivery = stream->delivery;

    return delivery->depth > 0 || (delivery->is_gathering && delivery->thread != 0);
}

static int check_size(Py_ssize_t size)
{
    if (size <= INT_MAX)
        return 0;
    PyErr_Format(PyExc_ValueError, "write %zd bytes at once: %d at most", size,
                 INT_MAX);
    return -1;
}

int stream_write_bytes(struct stream_object *stream, PyObject *data)
{
    Py_ssize_t size = PyBytes_Size(data);

    if (size == 0)
        return 0;
    if (check_size(size) < 0)
        return -1;
    if (must_gather(stream))
        return gather(stream, data, (size_t)size);
    stream_flush(stream); /* earlier writes first */
    send_now(stream, PyBytes_AsString(data), (size_t)size);
    return 0;
}

int stream_write_now(struct stream_object *stream, PyObject *data)
{
    Py_ssize_t size = PyBytes_Size(data);

    if (stream->chunk_count > 0)
        return stream_write_bytes(stream, data);
    if (size == 0)
        return 0;
    if (check_size(size) < 0)
        return -1;
    send_now(stream, PyBytes_AsString(data), (size_t)size);
    return 0;
}

static PyObject *copy_of(Py_buffer *view)
{
    PyObject *copy = PyBytes_FromStringAndSize(NULL, view->len);

    if (copy != NULL &&
        PyBuffer_ToContiguous(PyBytes_AsString(copy), view, view->len, 'C') < 0)
        Py_CLEAR(copy);
    return copy;
}

/* Write any bytes-like object: at once from its memory, or else from a copy, since the
 * caller may change it when this returns. What is too large is refused uncopied. */
static int write_buffer(struct stream_object *stream, PyObject *data)
{
    bool must_copy = must_gather(stream) || stream->chunk_count > 0;
    Py_buffer view;
    PyObject *copy = NULL;
    int r;

    if (PyObject_GetBuffer(data, &view, PyBUF_FULL_RO) < 0)
        return -1;
    must_copy = must_copy || !PyBuffer_IsContiguous(&view, 'C');
    r = check_size(view.len);
    if (r == 0 && must_copy) {
        copy = copy_of(&view);
        r = copy == NULL ? -1 : 0;
    } else if (r == 0 && view.len > 0) {
        send_now(stream, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);
    if (copy != NULL)
        r = stream_write_bytes(stream, copy);
    Py_XDECREF(copy);
    return r;
}

/* ---- the methods --------------------------------------------------------------- */

/* For a write that is not possible: after shutdown() it is an error; a closed stream
 * ignores it. */
static PyObject *refuse(struct stream_object *stream, PyObject *data)
{
    if (!PyObject_CheckBuffer(data))
        return PyErr_Format(PyExc_TypeError,
                            "write to %R: a bytes-like object is required, not %R",
                            stream, (PyObject *)Py_TYPE(data));
    if (stream->is_open && !stream->is_over) {
        PyObject *text = PyUnicode_FromFormat("write to %R: it was shut down", stream);
        PyObject *error = text == NULL ? NULL
                                       : PyObject_CallFunction(PyExc_BrokenPipeError,
                                                               "iO", EPIPE, text);

        if (error != NULL)
            PyErr_SetObject(PyExc_BrokenPipeError, error);
        Py_XDECREF(text);
        Py_XDECREF(error);
        return NULL;
    }
    return delivery_new_ref(Py_None);
}

int stream_write_any(struct stream_object *stream, PyObject *data)
{
    return PyBytes_CheckExact(data) ? stream_write_bytes(stream, data)
                                    : write_buffer(stream, data);
}

PyObject *stream_write(PyObject *self, PyObject *data)
{
    struct stream_object *stream = (struct stream_object *)self;

    if (stream_check_thread(stream, "write to") < 0)
        return NULL;
    if (!stream->can_write || !PyObject_CheckBuffer(data))
        return refuse(stream, data);
    return stream_write_any(stream, data) < 0 ? NULL : delivery_new_ref(Py_None);
}

PyObject *stream_writelines(PyObject *self, PyObject *lines)
{
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    PyObject *joined =
        empty == NULL ? NULL : PyObject_CallMethod(empty, "join", "O", lines);
    PyObject *done = joined == NULL ? NULL : stream_write(self, joined);

    Py_XDECREF(joined);
    Py_XDECREF(empty);
    return done;
}
