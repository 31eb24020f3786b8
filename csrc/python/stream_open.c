/* stream_open.c: opens a stream of Python, and links it with its delivery and the core.
 *
 * While a stream is open, its delivery owns a reference to it and the core has its
 * address. So it outlives whoever made it, and the garbage collector sees the
 * reference. */
#include "frames.h"
#include "probe.h"

#include <errno.h>
#include <string.h>

/* ---- the list of open streams -------------------------------------------------- */

static void link_open(struct stream_object *stream)
{
    struct delivery *delivery = stream->delivery;

    Py_INCREF((PyObject *)stream);
    stream->previous_open = NULL;
    stream->next_open = delivery->first_open;
    if (delivery->first_open != NULL)
        delivery->first_open->previous_open = stream;
    delivery->first_open = stream;
}

static bool is_linked(const struct stream_object *stream)
{
    return stream->previous_open != NULL || stream->next_open != NULL ||
           (stream->delivery != NULL && stream->delivery->first_open == stream);
}

void stream_unlink(struct stream_object *stream)
{
    if (!is_linked(stream))
        return;
    frames_drop_rest(stream);
    if (stream->previous_open != NULL)
        stream->previous_open->next_open = stream->next_open;
    else
        stream->delivery->first_open = stream->next_open;
    if (stream->next_open != NULL)
        stream->next_open->previous_open = stream->previous_open;
    stream->previous_open = stream->next_open = NULL;
    Py_DECREF((PyObject *)stream);
}

/* An observed loop has another one. */
static fdmux_stream_fn event_fn_of(const struct stream_object *stream)
{
    return stream->delivery->probe == NULL ? delivery_on_event : probe_on_stream;
}

static void begin(struct stream_object *stream, uint64_t token)
{
    stream->token = token;
    stream->can_write = stream->is_open = true;
    link_open(stream);
    /* Cannot fail: the loop has this stream. */
    (void)fdmux_stream_set_prefetch(stream->delivery->loop, event_fn_of(stream),
                                    delivery_prefetch);
}

/* ---- functions for the core ---------------------------------------------------- */

static fdmux_stream_buffer_fn buffer_fn_of(const struct stream_object *stream)
{
    return stream->is_large || stream->is_buffered ? delivery_on_buffer : NULL;
}

static int set_handler(const struct stream_object *stream, uint64_t token)
{
    struct fdmux_stream_handler handler = {
        .struct_size = sizeof handler,
        .fn = event_fn_of(stream),
        .buffer_fn = buffer_fn_of(stream),
        .userdata = (void *)(uintptr_t)stream,
    };

    return fdmux_stream_set_handler(stream->delivery->loop, token, &handler);
}

void stream_choose_buffer(const struct stream_object *stream)
{
    if (stream_is_live(stream)) /* -EIDRM: it has ended, and receives nothing */
        (void)set_handler(stream, stream->token);
}

void stream_choose_functions(const struct stream_object *stream)
{
    stream_choose_buffer(stream);
    if (stream_is_live(stream)) /* it cannot fail: the loop has this stream */
        (void)fdmux_stream_set_prefetch(stream->delivery->loop, event_fn_of(stream),
                                        delivery_prefetch);
}

/* _bind(delivery, on_data): set what gets the data. Once, before the stream is opened.
 */
PyObject *stream_bind(PyObject *self, PyObject *args)
{
    struct stream_object *stream = (struct stream_object *)self;
    PyObject *delivery, *on_data;

    if (!PyArg_ParseTuple(args, "O!O:_bind", delivery_type, &delivery, &on_data))
        return NULL;
    if (stream->delivery != NULL)
        return PyErr_Format(PyExc_RuntimeError, "bind a stream: it is bound already");
    stream->delivery = (struct delivery *)delivery_new_ref(delivery);
    stream->on_data = on_data == Py_None ? NULL : delivery_new_ref(on_data);
    return delivery_new_ref(Py_None);
}

static int start(struct stream_object *stream, const char *kind, fdmux_fd fd,
                 struct fdmux_stream_options *options)
{
    struct fdmux_loop *loop = stream->delivery->loop;
    uint64_t token = 0;
    int r;

    if (loop == NULL)
        return -ESTALE;
    options->fn = event_fn_of(stream);
    options->buffer_fn = buffer_fn_of(stream);
    options->userdata = stream;
    if (strcmp(kind, "listen") == 0)
        r = fdmux_stream_listen(loop, fd, options, &token);
    else if (strcmp(kind, "connect") == 0)
        r = fdmux_stream_connect(loop, fd, options, &token);
    else
        r = fdmux_stream_add(loop, fd, options, &token);
    if (r == 0)
        begin(stream, token);
    return r;
}

/* _open(kind, fd, options): "add", "listen" or "connect" a socket; `options` is the
 * memory of a struct fdmux_stream_options. Returns 0 or -errno. */
PyObject *stream_open(PyObject *self, PyObject *args)
{
    struct stream_object *stream = (struct stream_object *)self;
    struct fdmux_stream_options options;
    const char *kind;
    Py_buffer given;
    int fd;
    int r = -EINVAL;

    if (!PyArg_ParseTuple(args, "siy*:_open", &kind, &fd, &given))
        return NULL;
    if (given.len == (Py_ssize_t)sizeof options && stream->delivery != NULL &&
        stream->token == 0) {
        memcpy(&options, given.buf, sizeof options);
        r = start(stream, kind, (fdmux_fd)fd, &options);
    }
    PyBuffer_Release(&given);
    return PyLong_FromLong(r);
}

/* _adopt(token): become the Python object of an accepted stream. Returns as _open. */
PyObject *stream_adopt(PyObject *self, PyObject *number)
{
    struct stream_object *stream = (struct stream_object *)self;
    uint64_t token = PyLong_AsUnsignedLongLong(number);
    int r = -ESTALE;

    if (PyErr_Occurred() != NULL)
        return NULL;
    if (stream->delivery == NULL || stream->token != 0)
        return PyErr_Format(PyExc_RuntimeError,
                            "adopt a stream: it is not bound, or open already");
    if (stream->delivery->loop != NULL)
        r = set_handler(stream, token);
    if (r == 0) {
        if (stream->delivery->accepted == token)
            stream->delivery->accepted = 0;
        begin(stream, token);
    }
    return PyLong_FromLong(r);
}
