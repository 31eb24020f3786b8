/* probe_calls.c: the functions that the core calls in an observed loop (probe.h).
 *
 * There are two looks at the clock for each call, at its beginning and its end; the
 * first and the last in a batch are those of the batch. A hold of the core notices the
 * end of a batch. */
#include "datagram_object.h"
#include "probe.h"
#include "stream_object.h"
#include "system.h"

/* ---- the batches of the core ---------------------------------------------------- */

static void *enter_batch(void *userdata)
{
    struct probe *probe = userdata;

    Py_INCREF((PyObject *)probe);
    probe->is_in_batch = true;
    probe->batch_calls = 0;
    return probe;
}

/* The core leaves the last hold first, so this one before that of the GIL. */
static void leave_batch(void *value, void *userdata)
{
    struct probe *probe = userdata;

    (void)value;
    probe->is_in_batch = false;
    probe_add_batch(probe, probe->batch_calls,
                    probe->batch_ended_ns - probe->batch_began_ns);
    Py_DECREF((PyObject *)probe);
}

void probe_set_hold(struct probe *probe)
{
    probe->hold = (struct fdmux_hold){enter_batch, leave_batch, probe};
}

/* A call begins; returns when. */
static int64_t begin_call(struct probe *probe, struct fdmux_loop *loop)
{
    int64_t now_ns = system_monotonic_ns();

    if (!probe->is_in_batch) {
        probe->batch_began_ns = now_ns;
        /* It fails if others hold FDMUX_HOLD_MAX things: the batch is not counted. */
        (void)fdmux_loop_hold(loop, &probe->hold);
    }
    probe->batch_calls++;
    probe_add_lag(probe, now_ns - probe->batch_began_ns);
    return now_ns;
}

/* The call that began then is over; `result` is what it has returned to the core.
 * Returns what is returned instead. */
static int end_call(struct probe *probe, struct delivery *delivery, PyObject *target,
                    const char *what, int64_t began_ns, int result)
{
    int64_t now_ns = system_monotonic_ns();

    probe->batch_ended_ns = now_ns;
    if (probe_tell(probe, target, what, now_ns, now_ns - began_ns) < 0)
        return delivery_keep_error(delivery);
    return result;
}

/* ---- streams -------------------------------------------------------------------- */

static const char *data_name(const struct stream_object *stream)
{
    if (stream->is_framed)
        return "on_frames";
    if (!stream->is_transport)
        return "on_data";
    return stream->is_buffered ? "buffer_updated" : "data_received";
}

static const char *stream_name(const struct stream_object *stream, uint32_t kind)
{
    bool is_transport = stream->is_transport;

    switch (kind) {
    case FDMUX_STREAM_ACCEPTED:
    case FDMUX_STREAM_CONNECTED:
        return is_transport ? "connection_made" : "on_connect";
    case FDMUX_STREAM_DATA:
        return data_name(stream);
    case FDMUX_STREAM_END:
        return is_transport ? "eof_received" : "on_end";
    case FDMUX_STREAM_WRITABLE:
        return is_transport ? "resume_writing" : "on_writable";
    case FDMUX_STREAM_DRAINED:
        return is_transport ? "resume_writing" : "on_drain";
    case FDMUX_STREAM_CLOSED:
        return is_transport ? "connection_lost" : "on_close";
    case FDMUX_STREAM_TLS:
        return is_transport ? "connection_made" : "on_tls";
    default:
        return "event";
    }
}

static void count_event(struct probe *probe, uint32_t kind)
{
    if (kind == FDMUX_STREAM_ACCEPTED)
        probe->accepted++;
    else if (kind == FDMUX_STREAM_REFUSED)
        probe->shortages++;
}

int probe_on_stream(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                    void *userdata)
{
    struct stream_object *stream = userdata;
    struct delivery *delivery;
    struct probe *probe;
    int64_t began_ns;
    int r = fdmux_hold_gil(loop);

    if (r < 0)
        return r;
    delivery = stream->delivery;
    probe = delivery->probe;
    if (probe == NULL)
        return delivery_on_event(loop, event, userdata);
    Py_INCREF((PyObject *)stream);
    Py_INCREF((PyObject *)delivery);
    Py_INCREF((PyObject *)probe);
    count_event(probe, event->kind);
    began_ns = begin_call(probe, loop);
    r = delivery_on_event(loop, event, userdata);
    r = end_call(probe, delivery, (PyObject *)stream, stream_name(stream, event->kind),
                 began_ns, r);
    Py_DECREF((PyObject *)probe);
    Py_DECREF((PyObject *)delivery);
    Py_DECREF((PyObject *)stream);
    return r;
}

/* ---- endpoints ------------------------------------------------------------------ */

static const char *endpoint_name(const struct endpoint_object *endpoint, uint32_t kind)
{
    bool is_transport = delivery_is_set(endpoint->owner);

    switch (kind) {
    case FDMUX_DATAGRAM_RECEIVED:
        if (is_transport)
            return "datagram_received";
        return delivery_is_set(endpoint->on_datagrams) ? "on_datagrams" : "on_datagram";
    case FDMUX_DATAGRAM_ERROR:
        return is_transport ? "error_received" : "on_error";
    case FDMUX_DATAGRAM_WRITABLE:
        return is_transport ? "resume_writing" : "on_writable";
    default:
        return is_transport ? "connection_lost" : "on_close";
    }
}

int probe_on_endpoint(struct fdmux_loop *loop, const struct fdmux_datagram_event *event,
                      void *userdata)
{
    struct endpoint_object *endpoint = userdata;
    struct delivery *delivery;
    struct probe *probe;
    PyObject *target;
    int64_t began_ns;
    int r = fdmux_hold_gil(loop);

    if (r < 0)
        return r;
    delivery = endpoint->delivery;
    probe = delivery->probe;
    if (probe == NULL)
        return endpoint_on_event(loop, event, userdata);
    target = delivery_new_ref(endpoint_target(endpoint));
    Py_INCREF((PyObject *)endpoint);
    Py_INCREF((PyObject *)delivery);
    Py_INCREF((PyObject *)probe);
    began_ns = begin_call(probe, loop);
    r = endpoint_on_event(loop, event, userdata);
    r = end_call(probe, delivery, target, endpoint_name(endpoint, event->kind),
                 began_ns, r);
    Py_DECREF((PyObject *)probe);
    Py_DECREF((PyObject *)delivery);
    Py_DECREF((PyObject *)endpoint);
    Py_DECREF(target);
    return r;
}

/* Give what is open the functions that it is to have from now on. */
PyObject *delivery_observe(PyObject *self, PyObject *probe)
{
    struct delivery *delivery = (struct delivery *)self;
    struct probe *old = delivery->probe;

    if (probe != Py_None && !PyObject_TypeCheck(probe, probe_type)) {
        PyErr_SetString(PyExc_TypeError, "observe takes a Probe, or None");
        return NULL;
    }
    delivery->probe = probe == Py_None ? NULL : (struct probe *)delivery_new_ref(probe);
    for (struct stream_object *it = delivery->first_open; it != NULL;
         it = it->next_open)
        stream_choose_functions(it);
    for (struct endpoint_object *it = delivery->first_endpoint; it != NULL;
         it = it->next_open)
        endpoint_choose_function(it);
    Py_XDECREF((PyObject *)old);
    return delivery_new_ref(Py_None);
}
