/* aio_transport.c: the base class of asyncio's transports: their writes, the pauses of
 * both directions, and what a protocol asks of a transport for each message.
 *
 * A transport is a stream whose protocol gets the events. The type is a subclass of
 * asyncio's _FlowControlMixin, as asyncio itself asks for (base_events.py, sendfile).
 * That class has five slots, and the memory of a stream begins with room for them: so
 * every function of streams takes transports too. What is rare is in Python
 * (hosts/asyncio). */
#include "stream_object.h"

#include "aio.h"

#include <stddef.h>
#include <structmember.h>

#define NO_LIMIT INT32_MAX
#define HIGH_WATER 65536

struct transport {
    struct stream_object stream;
    uint32_t queue_low;
    unsigned int lost_count; /* 0: connected; then 1 and the writes since */
    bool is_closing;
    bool is_reading_paused;
};

static PyTypeObject *transport_type;

static struct {
    PyObject *write_slowly;
    PyObject *writelines_slowly;
    PyObject *drained;
    PyObject *log_debug;
    PyObject *flow_failed;
    PyObject *pause_writing;
    PyObject *resume_writing;
    PyObject *join;
} names;

static struct transport *as_transport(PyObject *self)
{
    return (struct transport *)self;
}

/* ---- calling Python -------------------------------------------------------------- */

/* The function may set another protocol, or resume reading, which sets another context.
 * Context.run() of CPython uses its context without a reference of its own. */
PyObject *aio_transport_call(const struct stream_object *stream, PyObject *function,
                             PyObject *first, PyObject *second)
{
    PyObject *context = stream->context;
    PyObject *result;

    if (!delivery_is_set(context))
        return PyObject_CallFunctionObjArgs(function, first, second, NULL);
    Py_INCREF(context);
    Py_INCREF(function);
    result = PyObject_CallFunctionObjArgs(aio_python.run, context, function, first,
                                          second, NULL);
    Py_DECREF(function);
    Py_DECREF(context);
    return result;
}

static PyObject *call_named(const struct stream_object *stream, PyObject *object,
                            PyObject *name)
{
    PyObject *method = PyObject_GetAttr(object == NULL ? Py_None : object, name);
    PyObject *done =
        method == NULL ? NULL : aio_transport_call(stream, method, NULL, NULL);

    Py_XDECREF(method);
    return done;
}

/* pause_writing or resume_writing has raised: asyncio tells the exception handler. */
static PyObject *report_flow(struct transport *transport, PyObject *name)
{
    PyObject *type, *error, *traceback, *done;

    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
        PyErr_ExceptionMatches(PyExc_SystemExit))
        return NULL;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL)
        (void)PyException_SetTraceback(error, traceback); /* it is a traceback */
    done = PyObject_CallMethodObjArgs((PyObject *)transport, names.flow_failed, error,
                                      name, NULL);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return done;
}

static PyObject *log_debug(const struct transport *transport, const char *what)
{
    PyObject *text, *done;

    if (!aio_loop_is_debug(transport->stream.loop))
        return delivery_new_ref(Py_None);
    text = PyUnicode_FromFormat("%%r %s", what);
    done = text == NULL ? NULL
                        : PyObject_CallMethodObjArgs((PyObject *)transport,
                                                     names.log_debug, text, NULL);
    Py_XDECREF(text);
    return done;
}

/* ---- the queue and its limits ---------------------------------------------------- */

/* What is written and not sent, after an attempt to send it. */
static uint32_t count_queued(struct transport *transport)
{
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};
    struct stream_object *stream = &transport->stream;

    if (transport->lost_count > 0)
        return 0;
    stream_flush(stream);
    if (stream_is_live(stream) &&
        fdmux_stream_stats(stream->delivery->loop, stream->token, &stats) < 0)
        stats.queued = 0; /* -ENOENT: it has ended, and CLOSED follows */
    return stats.queued;
}

/* The core's queues are shorter than NO_LIMIT. */
static int to_limit(PyObject *number, uint32_t *ret_limit)
{
    double limit;

    if (number == NULL) { /* a program has deleted the attribute */
        PyErr_SetString(PyExc_AttributeError, "_high_water");
        return -1;
    }
    limit = PyFloat_AsDouble(number);
    if (limit == -1.0 && PyErr_Occurred() != NULL) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        limit = NO_LIMIT;
    }
    *ret_limit = limit < NO_LIMIT ? (uint32_t)limit : NO_LIMIT;
    return 0;
}

/* Let the core say when the queue is below its lower limit. */
static void await_writable(const struct transport *transport)
{
    const struct stream_object *stream = &transport->stream;

    if (stream_is_live(stream)) /* -ENOENT: it has ended, and CLOSED follows */
        (void)fdmux_stream_await_writable(stream->delivery->loop, stream->token,
                                          transport->queue_low);
}

static bool is_paused(const struct transport *transport)
{
    return transport->stream.protocol_paused == Py_True;
}

static void set_paused(struct transport *transport, bool is_paused)
{
    PyObject *old = transport->stream.protocol_paused;

    transport->stream.protocol_paused = PyBool_FromLong(is_paused);
    Py_XDECREF(old);
}

/* While the protocol is paused, the upper limit does not count, but the lower one. */
static int apply_limits(struct transport *transport)
{
    if (!is_paused(transport))
        return to_limit(transport->stream.high_water, &transport->stream.queue_high);
    transport->stream.queue_high = NO_LIMIT;
    await_writable(transport);
    return 0;
}

/* Returns as PyObject_Call. */
static PyObject *maybe_pause(struct transport *transport)
{
    PyObject *protocol = transport->stream.handler;
    PyObject *done;
    uint32_t queue_high;

    if (to_limit(transport->stream.high_water, &queue_high) < 0)
        return NULL;
    if (count_queued(transport) <= queue_high || is_paused(transport))
        return delivery_new_ref(Py_None);
    set_paused(transport, true);
    done = PyObject_CallMethodObjArgs(protocol, names.pause_writing, NULL);
    if (done == NULL)
        done = report_flow(transport, names.pause_writing);
    (void)apply_limits(transport); /* they were checked above */
    return done;
}

void aio_transport_sent(struct stream_object *stream, int result)
{
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};
    PyObject *done = NULL;

    stream->queued = 0;
    if (result < 0) {
        done = PyObject_CallMethod((PyObject *)stream, "_event", "ii", DELIVERY_LOST,
                                   -result);
    } else {
        if (fdmux_stream_stats(stream->delivery->loop, stream->token, &stats) == 0)
            stream->queued = stats.queued;
        if (stream->queued <= stream->queue_high)
            return;
        done = maybe_pause((struct transport *)stream);
    }
    if (done == NULL)
        PyErr_WriteUnraisable((PyObject *)stream);
    Py_XDECREF(done);
}

static PyObject *resume_protocol(struct transport *transport)
{
    PyObject *done;

    set_paused(transport, false);
    done =
        call_named(&transport->stream, transport->stream.handler, names.resume_writing);
    return done == NULL ? report_flow(transport, names.resume_writing) : done;
}

PyObject *aio_transport_writable(struct stream_object *stream)
{
    struct transport *transport = (struct transport *)stream;
    PyObject *done;

    if (transport->lost_count > 0)
        return delivery_new_ref(Py_None);
    if (is_paused(transport) && count_queued(transport) <= transport->queue_low) {
        done = resume_protocol(transport); /* which may write more */
        if (done == NULL || transport->lost_count > 0)
            return done;
        Py_DECREF(done);
    }
    if (apply_limits(transport) < 0)
        return NULL;
    if ((stream->can_write && !transport->is_closing) || count_queued(transport) > 0 ||
        transport->lost_count > 0) /* to count, it has sent: that may fail */
        return delivery_new_ref(Py_None); /* nobody waits for an empty queue */
    return call_named(stream, (PyObject *)stream, names.drained);
}

static PyObject *get_write_buffer_size(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (stream_check_thread((struct stream_object *)self, "look at") < 0)
        return NULL;
    return PyLong_FromUnsignedLong(count_queued(as_transport(self)));
}

/* What asyncio takes for a limit that is not given. New references, or NULL. */
static PyObject *default_high(PyObject *low)
{
    PyObject *four;
    PyObject *high;

    if (low == Py_None)
        return PyLong_FromLong(HIGH_WATER);
    four = PyLong_FromLong(4);
    high = four == NULL ? NULL : PyNumber_Multiply(four, low);
    Py_XDECREF(four);
    return high;
}

static PyObject *default_low(PyObject *high)
{
    PyObject *four = PyLong_FromLong(4);
    PyObject *low = four == NULL ? NULL : PyNumber_FloorDivide(high, four);

    Py_XDECREF(four);
    return low;
}

static int check_limits(PyObject *high, PyObject *low)
{
    PyObject *zero = PyLong_FromLong(0);
    int r = zero == NULL ? -1 : PyObject_RichCompareBool(high, low, Py_GE);

    if (r == 1)
        r = PyObject_RichCompareBool(low, zero, Py_GE);
    Py_XDECREF(zero);
    if (r == 0)
        PyErr_Format(PyExc_ValueError, "high (%R) must be >= low (%R) must be >= 0",
                     high, low);
    return r == 1 ? 0 : -1;
}

/* Steals both references. */
static int keep_limits(struct transport *transport, PyObject *high, PyObject *low)
{
    PyObject *old_high = transport->stream.high_water;
    PyObject *old_low = transport->stream.low_water;
    uint32_t queue_high;

    if (high == NULL || low == NULL || check_limits(high, low) < 0 ||
        to_limit(high, &queue_high) < 0 || to_limit(low, &transport->queue_low) < 0) {
        Py_XDECREF(high);
        Py_XDECREF(low);
        return -1;
    }
    transport->stream.high_water = high;
    transport->stream.low_water = low;
    Py_XDECREF(old_high);
    Py_XDECREF(old_low);
    return apply_limits(transport);
}

static int choose_limits(struct transport *transport, PyObject *high, PyObject *low)
{
    high = high == Py_None ? default_high(low) : delivery_new_ref(high);
    low = low == Py_None && high != NULL ? default_low(high) : delivery_new_ref(low);
    return keep_limits(transport, high, low);
}

/* Of the base class, whose __init__ calls it. */
static PyObject *set_limits(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char high_name[] = "high";
    static char low_name[] = "low";
    char *given[] = {high_name, low_name, NULL};
    PyObject *high = Py_None;
    PyObject *low = Py_None;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|OO:set_write_buffer_limits",
                                     given, &high, &low) ||
        choose_limits(as_transport(self), high, low) < 0)
        return NULL;
    return delivery_new_ref(Py_None);
}

static PyObject *set_write_buffer_limits(PyObject *self, PyObject *args,
                                         PyObject *keywords)
{
    PyObject *done = set_limits(self, args, keywords);

    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    return maybe_pause(as_transport(self));
}

/* ---- writing --------------------------------------------------------------------- */

static PyObject *write_data(PyObject *self, PyObject *data)
{
    struct stream_object *stream = (struct stream_object *)self;

    if (stream_check_thread(stream, "write to") < 0)
        return NULL;
    if (!stream->can_write || !PyObject_CheckBuffer(data))
        return PyObject_CallMethodObjArgs(self, names.write_slowly, data, NULL);
    return stream_write_any(stream, data) < 0 ? NULL : delivery_new_ref(Py_None);
}

static PyObject *writelines(PyObject *self, PyObject *lines)
{
    PyObject *empty, *joined, *done;

    if (!((struct stream_object *)self)->can_write)
        return PyObject_CallMethodObjArgs(self, names.writelines_slowly, lines, NULL);
    empty = PyBytes_FromStringAndSize(NULL, 0);
    joined = empty == NULL ? NULL
                           : PyObject_CallMethodObjArgs(empty, names.join, lines, NULL);
    done = joined == NULL ? NULL : write_data(self, joined);
    Py_XDECREF(joined);
    Py_XDECREF(empty);
    return done;
}

/* _write_bytes(data): write bytes without a look at can_write. */
static PyObject *write_bytes(PyObject *self, PyObject *data)
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

static PyObject *flush(PyObject *self, PyObject *unused)
{
    (void)unused;
    stream_flush((struct stream_object *)self);
    return delivery_new_ref(Py_None);
}

/* ---- reading --------------------------------------------------------------------- */

static bool is_receiving(const struct transport *transport)
{
    return !transport->is_closing && !transport->is_reading_paused;
}

static PyObject *is_reading(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(is_receiving(as_transport(self)));
}

static PyObject *is_closing(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(as_transport(self)->is_closing);
}

static PyObject *pause_reading(PyObject *self, PyObject *unused)
{
    struct transport *transport = as_transport(self);
    PyObject *done;

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

static PyObject *resume_reading(PyObject *self, PyObject *unused)
{
    struct transport *transport = as_transport(self);
    PyObject *done;

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

/* ---- the type -------------------------------------------------------------------- */

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *self = ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);

    (void)args, (void)keywords;
    if (self == NULL)
        return NULL;
    ((struct stream_object *)self)->is_transport = true;
    set_paused(as_transport(self), false);
    if (choose_limits(as_transport(self), Py_None, Py_None) < 0)
        Py_CLEAR(self);
    return self;
}

/* stream_traverse and stream_clear do the rest, high_water included, which is in the
 * place of the framer. */
static int traverse(PyObject *self, visitproc visit, void *arg)
{
    const struct transport *transport = as_transport(self);

    Py_VISIT(transport->stream.loop);
    Py_VISIT(transport->stream.low_water);
    Py_VISIT(transport->stream.protocol_paused);
    return stream_traverse(self, visit, arg);
}

static int clear(PyObject *self)
{
    struct transport *transport = as_transport(self);

    Py_CLEAR(transport->stream.loop);
    Py_CLEAR(transport->stream.low_water);
    Py_CLEAR(transport->stream.protocol_paused);
    return stream_clear(self);
}

static void dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)clear(self); /* always 0 */
    stream_dealloc(self);
}

static PyMethodDef methods[] = {
    {"write", write_data, METH_O,
     "write($self, data, /)\n--\n\n"
     "Send ``data`` as the protocol's callback returns or before the loop waits."},
    {"writelines", writelines, METH_O,
     "writelines($self, list_of_data, /)\n--\n\nSend all items as one write."},
    {"get_write_buffer_size", get_write_buffer_size, METH_NOARGS,
     "get_write_buffer_size($self, /)\n--\n\n"
     "Return how many bytes are queued: written, and not taken by the kernel."},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS,
     "set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
     "Set the sizes at which the protocol is paused and resumed, as in asyncio."},
    {"is_closing", is_closing, METH_NOARGS,
     "is_closing($self, /)\n--\n\nWhether the transport is closed or closing."},
    {"is_reading", is_reading, METH_NOARGS,
     "is_reading($self, /)\n--\n\n"
     "Whether the transport is receiving: neither paused nor closing."},
    {"pause_reading", pause_reading, METH_NOARGS,
     "pause_reading($self, /)\n--\n\n"
     "Receive nothing until `resume_reading`. Idempotent.\n\n"
     "Data that has not been received stays in the kernel."},
    {"resume_reading", resume_reading, METH_NOARGS,
     "resume_reading($self, /)\n--\n\nUndo `pause_reading`. Idempotent."},
    {"_set_write_buffer_limits", (PyCFunction)(void (*)(void))set_limits,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_bind_stream", stream_bind, METH_VARARGS, NULL},
    {"_open_stream", stream_open, METH_VARARGS, NULL},
    {"_pause_stream", stream_pause_reading, METH_NOARGS, NULL},
    {"_shutdown_stream", stream_shutdown, METH_NOARGS, NULL},
    {"_abort_stream", (PyCFunction)(void (*)(void))stream_abort,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_write_bytes", write_bytes, METH_O, NULL},
    {"_flush", flush, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

#define STREAM_AT(name, type, field)                                                   \
    {name, type, offsetof(struct stream_object, field), 0, NULL}
#define FIELD_AT(name, type, field)                                                    \
    {name, type, offsetof(struct transport, field), 0, NULL}

static PyMemberDef members[] = {
    STREAM_AT("_on_data", T_OBJECT, on_data),
    STREAM_AT("_context", T_OBJECT, context),
    STREAM_AT("_can_write", T_BOOL, can_write),
    {"_token", T_ULONGLONG, offsetof(struct stream_object, token), READONLY, NULL},
    STREAM_AT("_protocol", T_OBJECT, handler),
    FIELD_AT("_conn_lost", T_UINT, lost_count),
    FIELD_AT("_closing", T_BOOL, is_closing),
    FIELD_AT("_paused", T_BOOL, is_reading_paused),
    {NULL, 0, 0, 0, NULL},
};

static PyObject *get_is_buffered(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((struct stream_object *)self)->is_buffered);
}

static int set_is_buffered(PyObject *self, PyObject *value, void *closure)
{
    struct stream_object *stream = (struct stream_object *)self;

    (void)closure;
    stream->is_buffered = value == Py_True;
    stream_choose_buffer(stream);
    return 0;
}

static PyGetSetDef properties[] = {
    {"_is_buffered", get_is_buffered, set_is_buffered, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, make},          {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse}, {Py_tp_clear, clear},
    {Py_tp_methods, methods},   {Py_tp_members, members},
    {Py_tp_getset, properties}, {0, NULL},
};

static PyType_Spec spec = {
    "fdmux._delivery.TransportBase",
    sizeof(struct transport),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    slots,
};

static int make_names(void)
{
    const struct {
        PyObject **name;
        const char *text;
    } all[] = {
        {&names.write_slowly, "_write_slowly"},
        {&names.writelines_slowly, "_writelines_slowly"},
        {&names.drained, "_drained"},
        {&names.log_debug, "_log_debug"},
        {&names.flow_failed, "_flow_failed"},
        {&names.pause_writing, "pause_writing"},
        {&names.resume_writing, "resume_writing"},
        {&names.join, "join"},
    };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        *all[i].name = PyUnicode_InternFromString(all[i].text);
        if (*all[i].name == NULL)
            return -1;
    }
    return 0;
}

#define SLOT_AT(name, field) {name, offsetof(struct stream_object, field)}

static const struct {
    const char *name;
    size_t offset;
} slot_places[] = {
    SLOT_AT("_extra", data),
    SLOT_AT("_high_water", high_water),
    SLOT_AT("_loop", loop),
    SLOT_AT("_low_water", low_water),
    SLOT_AT("_protocol_paused", protocol_paused),
};

/* Are the slots of asyncio's class, and no others, where a stream has room for them? */
static int check_base(PyTypeObject *base)
{
    Py_ssize_t size = aio_basic_size(base);
    PyObject *sample =
        size < 0 ? NULL : PyObject_CallMethod((PyObject *)base, "__new__", "O", base);
    bool fits =
        sample != NULL && size == (Py_ssize_t)offsetof(struct stream_object, delivery);

    for (size_t i = 0; fits && i < sizeof slot_places / sizeof slot_places[0]; i++)
        fits = aio_find_slot(sample, slot_places[i].name, size) ==
               (Py_ssize_t)slot_places[i].offset;
    if (!fits && PyErr_Occurred() == NULL)
        PyErr_Format(PyExc_RuntimeError, "%R has not the slots of 3.11 to 3.13", base);
    Py_XDECREF(sample);
    return fits ? 0 : -1;
}

void aio_transport_forget(void)
{
    transport_type = NULL; /* it went with the interpreter */
}

PyObject *aio_transport_setup(PyObject *module, PyObject *base)
{
    (void)module;
    if (aio_python.run == NULL || !PyType_Check(base)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "asyncio_transport: asyncio_types comes first, "
                        "and then a type as the argument");
        return NULL;
    }
    if (transport_type == NULL) {
        if (check_base((PyTypeObject *)base) < 0 || make_names() < 0)
            return NULL;
        transport_type = (PyTypeObject *)PyType_FromSpecWithBases(&spec, base);
    }
    return delivery_new_ref((PyObject *)transport_type);
}
