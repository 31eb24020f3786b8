/* delivered.c: the type fdmux._delivery.Stream: one stream as Python holds it.
 *
 * While it is open, its delivery owns a reference to it, and the core has its address:
 * so it outlives whoever made it, and the garbage collector sees why. */
#include "frames.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>

PyTypeObject *delivered_type;

/* ---- open ---------------------------------------------------------------------- */

static void enter_list(struct delivered *stream)
{
    struct delivery *delivery = stream->delivery;

    Py_INCREF((PyObject *)stream);
    stream->previous_open = NULL;
    stream->next_open = delivery->first_open;
    if (delivery->first_open != NULL)
        delivery->first_open->previous_open = stream;
    delivery->first_open = stream;
}

static bool is_in_list(const struct delivered *stream)
{
    return stream->previous_open != NULL || stream->next_open != NULL ||
           (stream->delivery != NULL && stream->delivery->first_open == stream);
}

void delivered_leave(struct delivered *stream)
{
    if (!is_in_list(stream))
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

static void begin(struct delivered *stream, uint64_t token)
{
    stream->token = token;
    stream->can_write = stream->is_open = true;
    enter_list(stream);
}

int delivered_check_thread(const struct delivered *stream, const char *attempted)
{
    const struct delivery *delivery = stream->delivery;

    if (delivery == NULL || delivery->thread == 0 ||
        delivery->thread == PyThread_get_thread_ident())
        return 0;
    PyErr_Format(PyExc_RuntimeError,
                 "%s a stream from another thread than its loop's; use "
                 "call_soon_threadsafe() of the loop or the server",
                 attempted);
    return -1;
}

static bool is_live(const struct delivered *stream)
{
    return stream->token != 0 && !stream->is_over && stream->delivery != NULL &&
           stream->delivery->loop != NULL;
}

static fdmux_stream_buffer_fn buffer_fn_of(const struct delivered *stream)
{
    return stream->is_large || stream->is_buffered ? delivery_on_buffer : NULL;
}

static int set_handler(const struct delivered *stream, uint64_t token)
{
    struct fdmux_stream_handler handler = {
        .struct_size = sizeof handler,
        .fn = delivery_on_event,
        .buffer_fn = buffer_fn_of(stream),
        .userdata = (void *)(uintptr_t)stream,
    };

    return fdmux_stream_set_handler(stream->delivery->loop, token, &handler);
}

void delivered_choose_buffer(const struct delivered *stream)
{
    if (is_live(stream)) /* if it ends meanwhile, it receives no more */
        (void)set_handler(stream, stream->token);
}

/* bind(delivery, on_data, owner): who is told. Before it is open. */
static PyObject *bind(PyObject *self, PyObject *args)
{
    struct delivered *stream = (struct delivered *)self;
    PyObject *delivery, *on_data, *owner;

    if (!PyArg_ParseTuple(args, "O!OO:_bind", delivery_type, &delivery, &on_data,
                          &owner))
        return NULL;
    if (stream->delivery != NULL)
        return PyErr_Format(PyExc_RuntimeError, "a stream is bound once");
    stream->delivery = (struct delivery *)delivery_new_ref(delivery);
    stream->on_data = on_data == Py_None ? NULL : delivery_new_ref(on_data);
    stream->owner = owner == Py_None ? NULL : delivery_new_ref(owner);
    return delivery_new_ref(Py_None);
}

typedef int (*start_fn)(struct fdmux_loop *loop, int fd,
                        const struct fdmux_stream_options *options,
                        uint64_t *ret_stream);

static int start(struct delivered *stream, const char *kind, int fd,
                 struct fdmux_stream_options *options)
{
    struct fdmux_loop *loop = stream->delivery->loop;
    uint64_t token = 0;
    int r;

    if (loop == NULL)
        return -ESTALE;
    options->fn = delivery_on_event;
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
static PyObject *open_stream(PyObject *self, PyObject *args)
{
    struct delivered *stream = (struct delivered *)self;
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
        r = start(stream, kind, fd, &options);
    }
    PyBuffer_Release(&given);
    return PyLong_FromLong(r);
}

/* _adopt(token): take over a stream that a listener has accepted. Returns as _open. */
static PyObject *adopt(PyObject *self, PyObject *number)
{
    struct delivered *stream = (struct delivered *)self;
    uint64_t token = PyLong_AsUnsignedLongLong(number);
    int r = -ESTALE;

    if (PyErr_Occurred() != NULL)
        return NULL;
    if (stream->delivery == NULL || stream->token != 0)
        return PyErr_Format(PyExc_RuntimeError, "a stream adopts once, when bound");
    if (stream->delivery->loop != NULL)
        r = set_handler(stream, token);
    if (r == 0)
        begin(stream, token);
    return PyLong_FromLong(r);
}

/* ---- the end ------------------------------------------------------------------- */

static void set_error(struct delivered *stream, PyObject *error)
{
    PyObject *old = stream->error;

    if (delivery_is_set(old) || error == Py_None)
        return;
    stream->error = delivery_new_ref(error);
    Py_XDECREF(old);
}

static PyObject *shut_down(PyObject *self, PyObject *unused)
{
    struct delivered *stream = (struct delivered *)self;

    (void)unused;
    if (delivered_check_thread(stream, "shut down") < 0)
        return NULL;
    if (stream->can_write) {
        stream->can_write = false;
        delivered_flush(stream);
        if (is_live(stream)) /* if it ends meanwhile, CLOSED says so */
            (void)fdmux_stream_shutdown(stream->delivery->loop, stream->token);
    }
    return delivery_new_ref(Py_None);
}

static void stop(struct delivered *stream, uint32_t flags)
{
    stream->is_open = stream->can_write = false;
    delivered_flush(stream);
    if (is_live(stream)) /* if it ends meanwhile, CLOSED says so */
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

static PyObject *close_stream(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct delivered *stream = (struct delivered *)self;
    PyObject *error;

    if (parse_error(args, kwargs, "|O:close", &error) < 0 ||
        delivered_check_thread(stream, "close") < 0)
        return NULL;
    if (stream->is_open) {
        set_error(stream, error);
        stop(stream, 0);
    }
    return delivery_new_ref(Py_None);
}

static PyObject *abort_stream(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct delivered *stream = (struct delivered *)self;
    PyObject *error;

    if (parse_error(args, kwargs, "|O:abort", &error) < 0 ||
        delivered_check_thread(stream, "abort") < 0)
        return NULL;
    if (!stream->is_over && stream->token != 0) {
        set_error(stream, error);
        stop(stream, FDMUX_STREAM_DROP);
    }
    return delivery_new_ref(Py_None);
}

/* ---- reading ------------------------------------------------------------------- */

static PyObject *pause_reading(PyObject *self, PyObject *unused)
{
    struct delivered *stream = (struct delivered *)self;

    (void)unused;
    if (delivered_check_thread(stream, "pause") < 0)
        return NULL;
    if (is_live(stream)) /* if it ends meanwhile, CLOSED says so */
        (void)fdmux_stream_pause(stream->delivery->loop, stream->token);
    return delivery_new_ref(Py_None);
}

static PyObject *resume_reading(PyObject *self, PyObject *unused)
{
    struct delivered *stream = (struct delivered *)self;

    (void)unused;
    if (delivered_check_thread(stream, "resume") < 0)
        return NULL;
    if (is_live(stream)) /* as above */
        (void)fdmux_stream_resume(stream->delivery->loop, stream->token);
    return delivery_new_ref(Py_None);
}

/* ---- facts --------------------------------------------------------------------- */

static PyObject *fileno_of(PyObject *self, PyObject *unused)
{
    const struct delivered *stream = (struct delivered *)self;
    int fd = -1;

    (void)unused;
    if (is_live(stream))
        fd = fdmux_stream_fd(stream->delivery->loop, stream->token);
    return PyLong_FromLong(fd < 0 ? -1 : fd);
}

/* _stats() -> (received, sent, queued), after what was gathered has been sent. */
static PyObject *stats_of(PyObject *self, PyObject *unused)
{
    struct delivered *stream = (struct delivered *)self;
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};

    (void)unused;
    if (delivered_check_thread(stream, "look at") < 0)
        return NULL;
    delivered_flush(stream);
    if (is_live(stream) &&
        fdmux_stream_stats(stream->delivery->loop, stream->token, &stats) < 0)
        stats.received = 0; /* the core has ended it, and will say so: all is 0 */
    return Py_BuildValue("(KKI)", (unsigned long long)stats.received,
                         (unsigned long long)stats.sent, (unsigned)stats.queued);
}

/* _peer() -> the struct sockaddr of the peer; empty if it has none to tell. */
static PyObject *peer_of(PyObject *self, PyObject *unused)
{
    const struct delivered *stream = (struct delivered *)self;
    char address[64];
    int size = 0;

    (void)unused;
    if (stream->token != 0 && stream->delivery->loop != NULL)
        size = fdmux_stream_peer(stream->delivery->loop, stream->token, address,
                                 sizeof address);
    return PyBytes_FromStringAndSize(address, size < 0 ? 0 : size);
}

/* _await_writable(queue_low): a WRITABLE event when so little is queued. */
static PyObject *await_writable(PyObject *self, PyObject *number)
{
    struct delivered *stream = (struct delivered *)self;
    unsigned long queue_low = PyLong_AsUnsignedLong(number);

    if (PyErr_Occurred() != NULL)
        return NULL;
    if (queue_low > INT32_MAX)
        queue_low = INT32_MAX;
    if (is_live(stream)) /* as above */
        (void)fdmux_stream_await_writable(stream->delivery->loop, stream->token,
                                          (uint32_t)queue_low);
    return delivery_new_ref(Py_None);
}

/* _set_flow(queue_high): tell the owner when more is queued. */
static PyObject *set_flow(PyObject *self, PyObject *number)
{
    struct delivered *stream = (struct delivered *)self;
    unsigned long queue_high = PyLong_AsUnsignedLong(number);

    if (PyErr_Occurred() != NULL)
        return NULL;
    stream->queue_high = queue_high > INT32_MAX ? INT32_MAX : (uint32_t)queue_high;
    stream->has_flow = true;
    return delivery_new_ref(Py_None);
}

static PyObject *flush(PyObject *self, PyObject *unused)
{
    (void)unused;
    delivered_flush((struct delivered *)self);
    return delivery_new_ref(Py_None);
}

/* _write(data): bytes, whatever the state says; for an owner, who has looked at it. */
static PyObject *write_anyway(PyObject *self, PyObject *data)
{
    struct delivered *stream = (struct delivered *)self;

    if (!PyBytes_Check(data))
        return PyErr_Format(PyExc_TypeError, "_write: bytes are required");
    if (delivered_check_thread(stream, "write to") < 0 ||
        (is_live(stream) && delivered_write_bytes(stream, data) < 0))
        return NULL;
    return delivery_new_ref(Py_None);
}

static PyObject *get_is_closing(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!((struct delivered *)self)->is_open);
}

/* ---- the type ------------------------------------------------------------------ */

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    const struct delivered *stream = (struct delivered *)self;
    PyObject *const held[] = {(PyObject *)Py_TYPE(self),
                              (PyObject *)stream->delivery,
                              stream->owner,
                              stream->on_data,
                              stream->run,
                              stream->handler,
                              stream->data,
                              stream->error,
                              stream->framer};

    return delivery_visit(held, sizeof held / sizeof held[0], visit, arg);
}

static int clear(PyObject *self)
{
    struct delivered *stream = (struct delivered *)self;

    Py_CLEAR(stream->owner);
    Py_CLEAR(stream->on_data);
    Py_CLEAR(stream->run);
    Py_CLEAR(stream->handler);
    Py_CLEAR(stream->data);
    Py_CLEAR(stream->error);
    return 0;
}

/* The delivery stays to the end: what is left in its lists is found through it. */
static void dealloc(PyObject *self)
{
    struct delivered *stream = (struct delivered *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(self);
    delivered_drop_chunks(stream);
    frames_drop_rest(stream);
    (void)clear(self); /* always 0 */
    Py_CLEAR(stream->framer);
    Py_CLEAR(stream->delivery);
    release(self);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef methods[] = {
    {"write", delivered_write, METH_O,
     "write($self, data, /)\n--\n\n"
     "Send ``data`` after all that was written before.\n\n"
     "In a callback of a stream it leaves as the callback returns, with whatever else\n"
     "that has written; elsewhere at once. Bytes are not copied, unless the kernel\n"
     "does not take them; anything else may be changed by the caller at once. More\n"
     "than ``queue_max`` that the peer does not take closes the stream with ENOBUFS:\n"
     "look at `buffered`, and go on from `on_writable` or `on_drain`.\n\n"
     "A stream that is closed or closing ignores the call; see `is_closing`.\n\n"
     "Raises:\n"
     "    BrokenPipeError: After `shutdown`.\n"
     "    TypeError: ``data`` is not bytes-like.\n"
     "    ValueError: ``data`` has 2 GiB or more.\n"
     "    RuntimeError: Called in another thread than the loop's.\n"},
    {"writelines", delivered_writelines, METH_O,
     "writelines($self, lines, /)\n--\n\n"
     "Write each of ``lines``; they leave in as few calls as one write would."},
    {"shutdown", shut_down, METH_NOARGS,
     "shutdown($self, /)\n--\n\n"
     "End the writing side after what is queued; reading goes on. Idempotent."},
    {"close", (PyCFunction)(void (*)(void))close_stream, METH_VARARGS | METH_KEYWORDS,
     "close($self, /, error=None)\n--\n\n"
     "Send what is queued, then close the stream; `on_close` follows. Idempotent.\n\n"
     "Nothing else follows: no more `on_data`, `on_end`, `on_writable`, `on_drain`.\n\n"
     "Args:\n"
     "    error: What `on_close` gets."},
    {"abort", (PyCFunction)(void (*)(void))abort_stream, METH_VARARGS | METH_KEYWORDS,
     "abort($self, /, error=None)\n--\n\n"
     "Close the stream at once, and drop what is queued; `on_close` follows.\n\n"
     "Also after `close`, to wait no longer.\n\n"
     "Args:\n"
     "    error: What `on_close` gets."},
    {"pause_reading", pause_reading, METH_NOARGS,
     "pause_reading($self, /)\n--\n\n"
     "Call no `on_data` until `resume_reading`; nothing is received meanwhile.\n\n"
     "The end of the stream is not noticed meanwhile, nor a reset."},
    {"resume_reading", resume_reading, METH_NOARGS,
     "resume_reading($self, /)\n--\n\nUndo `pause_reading`."},
    {"fileno", fileno_of, METH_NOARGS,
     "fileno($self, /)\n--\n\n"
     "Return the descriptor, which stays the stream's; -1 when it has ended."},
    {"_bind", bind, METH_VARARGS, NULL},
    {"_open", open_stream, METH_VARARGS, NULL},
    {"_adopt", adopt, METH_O, NULL},
    {"_stats", stats_of, METH_NOARGS, NULL},
    {"_peer", peer_of, METH_NOARGS, NULL},
    {"_await_writable", await_writable, METH_O, NULL},
    {"_set_flow", set_flow, METH_O, NULL},
    {"_flush", flush, METH_NOARGS, NULL},
    {"_take_rest", frames_take_rest, METH_NOARGS, NULL},
    {"_write", write_anyway, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

#define OBJECT_AT(name, field, flags)                                                  \
    {name, T_OBJECT, offsetof(struct delivered, field), flags, NULL}
#define FLAG_AT(name, field, flags)                                                    \
    {name, T_BOOL, offsetof(struct delivered, field), flags, NULL}

static PyMemberDef members[] = {
    {"data", T_OBJECT, offsetof(struct delivered, data), 0,
     "The user's, to keep what belongs to this connection."},
    OBJECT_AT("_delivery", delivery, READONLY),
    OBJECT_AT("_owner", owner, 0),
    OBJECT_AT("_on_data", on_data, 0),
    OBJECT_AT("_run", run, 0),
    OBJECT_AT("_handler", handler, 0),
    OBJECT_AT("_error", error, 0),
    FLAG_AT("_can_write", can_write, 0),
    FLAG_AT("_is_open", is_open, 0),
    FLAG_AT("_is_over", is_over, READONLY),
    {"_token", T_ULONGLONG, offsetof(struct delivered, token), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *get_is_buffered(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct delivered *)self)->is_buffered);
}

static int set_is_buffered(PyObject *self, PyObject *value, void *unused)
{
    struct delivered *stream = (struct delivered *)self;

    (void)unused;
    stream->is_buffered = value == Py_True;
    delivered_choose_buffer(stream);
    return 0;
}

static PyGetSetDef properties[] = {
    {"_framer", NULL, frames_set_framer, NULL, NULL},
    {"_is_buffered", get_is_buffered, set_is_buffered, NULL, NULL},
    {"is_closing", get_is_closing, NULL,
     "Whether the stream is closed, or was asked to.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec spec = {
    "fdmux._delivery.Stream",
    sizeof(struct delivered),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    slots,
};

int delivered_register(PyObject *module, bool is_main)
{
    PyObject *type = PyType_FromSpec(&spec);

    if (is_main)
        delivered_type = (PyTypeObject *)type;
    return type == NULL ? -1 : PyModule_AddObjectRef(module, "Stream", type);
}
