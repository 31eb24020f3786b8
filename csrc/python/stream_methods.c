/* stream_methods.c: the methods of fdmux._delivery.Stream: its end, its reading, and
 * what Python asks about it. Writes are in write.c. */
#include "stream_object.h"

int stream_check_thread(const struct stream_object *stream, const char *attempted)
{
    return delivery_check_thread(stream->delivery, attempted, "a stream");
}

/* _check_thread(attempted): refuse another thread before anything is changed. */
PyObject *stream_refuse_thread(PyObject *self, PyObject *attempted)
{
    const char *text = PyUnicode_AsUTF8AndSize(attempted, NULL);

    if (text == NULL || stream_check_thread((struct stream_object *)self, text) < 0)
        return NULL;
    return delivery_new_ref(Py_None);
}

/* ---- the end ------------------------------------------------------------------- */

/* `error`, if there is one, is kept on the Python side, as few streams have one. */
static int keep_error(PyObject *self, PyObject *error)
{
    PyObject *done;

    if (error == Py_None)
        return 0;
    done = PyObject_CallMethodObjArgs(self, delivery_names.keep_error, error, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

PyObject *stream_shutdown(PyObject *self, PyObject *unused)
{
    struct stream_object *stream = (struct stream_object *)self;

    (void)unused;
    if (stream_check_thread(stream, "shut down") < 0)
        return NULL;
    if (stream->can_write) {
        stream->can_write = false;
        stream_flush(stream);
        if (stream_is_live(stream)) /* -EIDRM: it has ended, and CLOSED follows */
            (void)fdmux_stream_shutdown(stream->delivery->loop, stream->token);
    }
    return delivery_new_ref(Py_None);
}

static void stop(struct stream_object *stream, uint32_t flags)
{
    stream->is_open = stream->can_write = false;
    stream_flush(stream);
    if (stream_is_live(stream)) /* -EIDRM: it has ended, and CLOSED follows */
        (void)fdmux_stream_close(stream->delivery->loop, stream->token, flags);
}

static int parse_error(PyObject *args, PyObject *kwargs, const char *format,
                       PyObject **ret_error)
{
    static char name[] = "error";
    char *names[] = {name, NULL};

    *ret_error = Py_None;
    return PyArg_ParseTupleAndKeywords(args, kwargs, format, names, ret_error) ? 0 : -1;
}

PyObject *stream_close(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct stream_object *stream = (struct stream_object *)self;
    PyObject *error;

    if (parse_error(args, kwargs, "|O:close", &error) < 0 ||
        stream_check_thread(stream, "close") < 0)
        return NULL;
    if (stream->is_open) {
        if (keep_error(self, error) < 0)
            return NULL;
        stop(stream, 0);
    }
    return delivery_new_ref(Py_None);
}

PyObject *stream_abort(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct stream_object *stream = (struct stream_object *)self;
    PyObject *error;

    if (parse_error(args, kwargs, "|O:abort", &error) < 0 ||
        stream_check_thread(stream, "abort") < 0)
        return NULL;
    if (!stream->is_over && stream->token != 0) {
        if (keep_error(self, error) < 0)
            return NULL;
        stop(stream, FDMUX_STREAM_DROP);
    }
    return delivery_new_ref(Py_None);
}

/* ---- reading ------------------------------------------------------------------- */

PyObject *stream_pause_reading(PyObject *self, PyObject *unused)
{
    const struct stream_object *stream = (struct stream_object *)self;

    (void)unused;
    if (stream_check_thread(stream, "pause") < 0)
        return NULL;
    if (stream_is_live(stream)) /* -EIDRM: it has ended, and CLOSED follows */
        (void)fdmux_stream_pause(stream->delivery->loop, stream->token);
    return delivery_new_ref(Py_None);
}

PyObject *stream_resume_reading(PyObject *self, PyObject *unused)
{
    const struct stream_object *stream = (struct stream_object *)self;

    (void)unused;
    if (stream_check_thread(stream, "resume") < 0)
        return NULL;
    if (stream_is_live(stream)) /* as above */
        (void)fdmux_stream_resume(stream->delivery->loop, stream->token);
    return delivery_new_ref(Py_None);
}

/* ---- facts --------------------------------------------------------------------- */

PyObject *stream_fileno(PyObject *self, PyObject *unused)
{
    const struct stream_object *stream = (struct stream_object *)self;
    int fd = -1;

    (void)unused;
    if (stream_is_live(stream))
        fd = fdmux_stream_fd(stream->delivery->loop, stream->token);
    return PyLong_FromLong(fd < 0 ? -1 : fd);
}

/* _stats(): send gathered writes; returns (received, sent, queued). */
PyObject *stream_stats(PyObject *self, PyObject *unused)
{
    struct stream_object *stream = (struct stream_object *)self;
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};

    (void)unused;
    if (stream_check_thread(stream, "look at") < 0)
        return NULL;
    stream_flush(stream);
    if (stream_is_live(stream) &&
        fdmux_stream_stats(stream->delivery->loop, stream->token, &stats) < 0)
        stats.received = 0; /* -EIDRM: it has ended, and all are 0 */
    return Py_BuildValue("(KKI)", (unsigned long long)stats.received,
                         (unsigned long long)stats.sent, (unsigned)stats.queued);
}

/* _peer(): the struct sockaddr of the peer as bytes; empty if it is not known. */
PyObject *stream_peer(PyObject *self, PyObject *unused)
{
    const struct stream_object *stream = (struct stream_object *)self;
    char address[64];
    int size = 0;

    (void)unused;
    if (stream->token != 0 && stream->delivery->loop != NULL)
        size = fdmux_stream_peer(stream->delivery->loop, stream->token, address,
                                 sizeof address);
    return PyBytes_FromStringAndSize(address, size < 0 ? 0 : size);
}
