/* aio_flow.c: the flow control of asyncio's transports: how much is queued, and when
 * the protocol must pause.
 *
 * C compares the queue with the limits after each send; Python is called only to pause
 * or resume the protocol. */
#include "aio_transport.h"

#define NO_LIMIT INT32_MAX
#define HIGH_WATER 65536

/* ---- calling Python -------------------------------------------------------------- */

/* The function may set another protocol, or resume reading, which sets another context.
 * Context.run() of CPython uses its context without a reference of its own. */
PyObject *aio_transport_call(const struct stream_object *stream, PyObject *function,
                             PyObject *first, PyObject *second)
{
    PyObject *context = delivery_new_ref(stream->context);
    PyObject *result;

    Py_INCREF(function);
    if (delivery_is_set(context))
        result = PyObject_CallFunctionObjArgs(aio_python.run, context, function, first,
                                              second, NULL);
    else
        result = PyObject_CallFunctionObjArgs(function, first, second, NULL);
    Py_DECREF(function);
    Py_XDECREF(context);
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
    done = PyObject_CallMethodObjArgs(
        (PyObject *)transport, aio_transport_names.flow_failed, error, name, NULL);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
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

void aio_flow_set_paused(struct transport *transport, bool is_paused)
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
    PyObject *protocol, *done;
    uint32_t queue_high;

    if (to_limit(transport->stream.high_water, &queue_high) < 0)
        return NULL;
    if (count_queued(transport) <= queue_high || is_paused(transport))
        return delivery_new_ref(Py_None);
    aio_flow_set_paused(transport, true);
    protocol = delivery_new_ref(transport->stream.handler); /* it may set another */
    done = PyObject_CallMethodObjArgs(protocol == NULL ? Py_None : protocol,
                                      aio_transport_names.pause_writing, NULL);
    Py_XDECREF(protocol);
    if (done == NULL)
        done = report_flow(transport, aio_transport_names.pause_writing);
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
        delivery_send_raised(stream->delivery, (PyObject *)stream);
    Py_XDECREF(done);
}

static PyObject *resume_protocol(struct transport *transport)
{
    PyObject *done;

    aio_flow_set_paused(transport, false);
    done = call_named(&transport->stream, transport->stream.handler,
                      aio_transport_names.resume_writing);
    return done == NULL ? report_flow(transport, aio_transport_names.resume_writing)
                        : done;
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
    return call_named(stream, (PyObject *)stream, aio_transport_names.drained);
}

PyObject *aio_flow_size(PyObject *self, PyObject *unused)
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
    PyObject *old_high, *old_low;
    uint32_t queue_high;

    if (high == NULL || low == NULL || check_limits(high, low) < 0 ||
        to_limit(high, &queue_high) < 0 || to_limit(low, &transport->queue_low) < 0) {
        Py_XDECREF(high);
        Py_XDECREF(low);
        return -1;
    }
    old_high = transport->stream.high_water; /* numbers of the program's may set it */
    old_low = transport->stream.low_water;
    transport->stream.high_water = high;
    transport->stream.low_water = low;
    Py_XDECREF(old_high);
    Py_XDECREF(old_low);
    return apply_limits(transport);
}

int aio_flow_choose_limits(struct transport *transport, PyObject *high, PyObject *low)
{
    high = high == Py_None ? default_high(low) : delivery_new_ref(high);
    low = low == Py_None && high != NULL ? default_low(high) : delivery_new_ref(low);
    return keep_limits(transport, high, low);
}

/* Of the base class, whose __init__ calls it. */
PyObject *aio_flow_set_limits(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char high_name[] = "high";
    static char low_name[] = "low";
    char *given[] = {high_name, low_name, NULL};
    PyObject *high = Py_None;
    PyObject *low = Py_None;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|OO:set_write_buffer_limits",
                                     given, &high, &low) ||
        aio_flow_choose_limits(as_transport(self), high, low) < 0)
        return NULL;
    return delivery_new_ref(Py_None);
}

PyObject *aio_flow_set_limits_and_pause(PyObject *self, PyObject *args,
                                        PyObject *keywords)
{
    PyObject *done;

    if (stream_check_thread((struct stream_object *)self, "set the limits of") < 0)
        return NULL;
    done = aio_flow_set_limits(self, args, keywords);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    return maybe_pause(as_transport(self));
}
