/* datagram_events.c: calls Python for the events of endpoints.
 *
 * This is the hot path: a batch of datagrams costs one receive, one hold of the GIL,
 * one call of on_datagrams or one of on_datagram for each, and one send. */
#include "aio.h"
#include "datagram_object.h"

#include <errno.h>
#include <string.h>

/* ---- exceptions ---------------------------------------------------------------- */

/* An exception is reported, and the endpoint goes on: one bad datagram, from whoever it
 * is, must not end a server. KeyboardInterrupt and SystemExit end the batch. Returns 0,
 * or what ends the batch. */
static int raised(struct endpoint_object *endpoint, const char *what)
{
    return delivery_callback_raised(endpoint->delivery, endpoint_target(endpoint), what,
                                    endpoint->has_flow);
}

/* ---- datagrams ----------------------------------------------------------------- */

static int set_item(PyObject *item, Py_ssize_t index, PyObject *value)
{
    PyStructSequence_SetItem(item, index, value); /* takes the reference */
    return value == NULL ? -1 : 0;
}

static PyObject *ecn_of(const struct fdmux_datagram *datagram)
{
    if ((datagram->flags & FDMUX_DATAGRAM_HAS_ECN) == 0)
        return delivery_new_ref(Py_None);
    return PyLong_FromLong(datagram->ecn);
}

static PyObject *local_of(const struct fdmux_datagram *datagram)
{
    return datagram->local == NULL ? delivery_new_ref(Py_None)
                                   : endpoint_host_object(datagram->local);
}

/* A Datagram, which unpacks as a pair does. */
static PyObject *make_item(PyObject *data, PyObject *address,
                           const struct fdmux_datagram *datagram)
{
    PyObject *item = PyStructSequence_New(datagram_item_type);
    int r;

    if (item == NULL) {
        Py_DECREF(data);
        Py_DECREF(address);
        return NULL;
    }
    r = set_item(item, ITEM_DATA, data);
    r |= set_item(item, ITEM_ADDRESS, address);
    r |= set_item(item, ITEM_LOCAL, local_of(datagram));
    r |= set_item(item, ITEM_ECN, ecn_of(datagram));
    r |= set_item(item, ITEM_TRUNCATED,
                  PyBool_FromLong(datagram->flags & FDMUX_DATAGRAM_TRUNCATED));
    if (r < 0)
        Py_CLEAR(item);
    return item;
}

static PyObject *make_pair(struct endpoint_object *endpoint,
                           const struct fdmux_datagram *datagram)
{
    PyObject *data =
        PyBytes_FromStringAndSize(datagram->data, (Py_ssize_t)datagram->length);
    PyObject *address = data == NULL
                            ? NULL
                            : endpoint_address_object(endpoint, datagram->address,
                                                      datagram->address_size);
    PyObject *pair;

    if (address == NULL) {
        Py_XDECREF(data);
        return NULL;
    }
    if (endpoint->has_facts || (datagram->flags & FDMUX_DATAGRAM_TRUNCATED) != 0)
        return make_item(data, address, datagram);
    pair = PyTuple_New(2);
    if (pair == NULL) {
        Py_DECREF(data);
        Py_DECREF(address);
        return NULL;
    }
    (void)PyTuple_SetItem(pair, 0, data); /* take the references; cannot fail */
    (void)PyTuple_SetItem(pair, 1, address);
    return pair;
}

static int fill_list(struct endpoint_object *endpoint, PyObject *list,
                     const struct fdmux_datagram_event *event)
{
    for (uint32_t i = 0; i < event->count; i++) {
        PyObject *pair = make_pair(endpoint, &event->datagrams[i]);

        if (pair == NULL)
            return -1;
        (void)PyList_SetItem(list, (Py_ssize_t)i, pair); /* the same */
    }
    return 0;
}

static PyObject *make_list(struct endpoint_object *endpoint,
                           const struct fdmux_datagram_event *event)
{
    PyObject *list = PyList_New((Py_ssize_t)event->count);

    if (list != NULL && fill_list(endpoint, list, event) < 0)
        Py_CLEAR(list);
    return list;
}

static int deliver_list(struct endpoint_object *endpoint,
                        const struct fdmux_datagram_event *event)
{
    PyObject *take = delivery_new_ref(endpoint->on_datagrams);
    PyObject *list = make_list(endpoint, event);
    PyObject *answers = NULL;
    int r = -1;

    if (list != NULL)
        answers = PyObject_CallFunctionObjArgs(take, (PyObject *)endpoint, list, NULL);
    Py_DECREF(take);
    Py_XDECREF(list);
    if (answers != NULL)
        r = answers == Py_None || !endpoint->is_open
                ? 0
                : endpoint_send_pairs(endpoint, answers);
    Py_XDECREF(answers);
    return r < 0 ? raised(endpoint, "on_datagrams") : 0;
}

/* A callback may set the fields from which it is called to None. */
static PyObject *call_one(struct endpoint_object *endpoint, PyObject *data,
                          PyObject *address)
{
    PyObject *take = delivery_new_ref(endpoint->on_datagram);
    PyObject *run =
        delivery_is_set(endpoint->run) ? delivery_new_ref(endpoint->run) : NULL;
    PyObject *answer;

    if (run != NULL)
        answer = PyObject_CallFunctionObjArgs(run, take, data, address, NULL);
    else
        answer = PyObject_CallFunctionObjArgs(take, (PyObject *)endpoint, data, address,
                                              NULL);
    Py_DECREF(take);
    Py_XDECREF(run);
    return answer;
}

static int deliver_one(struct endpoint_object *endpoint,
                       const struct fdmux_datagram *datagram)
{
    PyObject *data =
        PyBytes_FromStringAndSize(datagram->data, (Py_ssize_t)datagram->length);
    PyObject *address =
        endpoint_address_object(endpoint, datagram->address, datagram->address_size);
    PyObject *answer = NULL;
    int r = -1;

    if (data != NULL && address != NULL)
        answer = call_one(endpoint, data, address);
    Py_XDECREF(data);
    Py_XDECREF(address);
    if (answer != NULL)
        r = answer == Py_None || endpoint->owner != NULL
                ? 0
                : endpoint_answer(endpoint, answer, datagram);
    Py_XDECREF(answer);
    return r < 0 ? raised(endpoint, "on_datagram") : 0;
}

/* asyncio calls what is ready before the datagrams that have arrived meanwhile, and
 * what a datagram has made ready before the next one. Must these wait for that? */
static bool must_defer(const struct endpoint_object *endpoint)
{
    return delivery_is_set(endpoint->owner) &&
           (endpoint->is_deferring || aio_loop_has_work(endpoint->delivery->asyncio));
}

/* Let the owner deliver the datagrams from this one on. */
static int defer(struct endpoint_object *endpoint,
                 const struct fdmux_datagram_event *event, uint32_t first)
{
    struct fdmux_datagram_event rest = {
        .datagrams = event->datagrams + first,
        .count = event->count - first,
    };
    PyObject *list = make_list(endpoint, &rest);
    PyObject *done = NULL;

    if (list != NULL)
        done = PyObject_CallMethod(endpoint->owner, "_defer", "O", list);
    Py_XDECREF(list);
    if (done == NULL)
        return raised(endpoint, "datagram_received");
    Py_DECREF(done);
    return 0;
}

/* After KeyboardInterrupt the rest of the batch is delivered too: the kernel has it no
 * more, and dispatch raises at the end of the batch. */
static int deliver_each(struct endpoint_object *endpoint,
                        const struct fdmux_datagram_event *event)
{
    int result = 0;

    for (uint32_t i = 0; i < event->count && endpoint->is_open &&
                         delivery_is_set(endpoint->on_datagram);
         i++) {
        int r;

        if (must_defer(endpoint)) {
            r = defer(endpoint, event, i);
            return r < 0 ? r : result;
        }
        r = deliver_one(endpoint, &event->datagrams[i]);
        if (r < 0)
            result = r;
    }
    return result;
}

/* ---- the other events ---------------------------------------------------------- */

static PyObject *call_event(struct endpoint_object *endpoint,
                            const struct fdmux_datagram_event *event)
{
    PyObject *address =
        endpoint_address_object(endpoint, event->address, event->address_size);
    PyObject *method =
        PyObject_GetAttr(endpoint_target(endpoint), delivery_names.event);
    PyObject *kind = PyLong_FromUnsignedLong(event->kind);
    PyObject *error = PyLong_FromLong(event->error);
    PyObject *run =
        delivery_is_set(endpoint->run) ? delivery_new_ref(endpoint->run) : NULL;
    PyObject *done = NULL;

    if (address != NULL && method != NULL && kind != NULL && error != NULL)
        done =
            run != NULL
                ? PyObject_CallFunctionObjArgs(run, method, kind, error, address, NULL)
                : PyObject_CallFunctionObjArgs(method, kind, error, address, NULL);
    Py_XDECREF(address);
    Py_XDECREF(method);
    Py_XDECREF(kind);
    Py_XDECREF(error);
    Py_XDECREF(run);
    return done;
}

static int deliver_event(struct endpoint_object *endpoint,
                         const struct fdmux_datagram_event *event)
{
    PyObject *done;
    int r;

    if (event->kind == FDMUX_DATAGRAM_CLOSED) {
        endpoint->is_open = false;
        endpoint->is_over = true;
        endpoint_drop_outgoing(endpoint);
        endpoint_unlink(endpoint);
    }
    done = call_event(endpoint, event);
    r = done == NULL ? raised(endpoint, "event") : 0;
    Py_XDECREF(done);
    if (event->kind == FDMUX_DATAGRAM_CLOSED)
        endpoint->token = 0;
    return r;
}

static int deliver(struct endpoint_object *endpoint,
                   const struct fdmux_datagram_event *event)
{
    if (event->kind != FDMUX_DATAGRAM_RECEIVED)
        return deliver_event(endpoint, event);
    if (!endpoint->is_open)
        return 0;
    if (delivery_is_set(endpoint->on_datagrams))
        return deliver_list(endpoint, event);
    return delivery_is_set(endpoint->on_datagram) ? deliver_each(endpoint, event) : 0;
}

int endpoint_on_event(struct fdmux_loop *loop, const struct fdmux_datagram_event *event,
                      void *userdata)
{
    struct endpoint_object *endpoint = userdata;
    struct delivery *delivery;
    int r = fdmux_hold_gil(loop);

    if (r < 0)
        return r;
    delivery = endpoint->delivery;
    Py_INCREF((PyObject *)endpoint); /* the callback may drop all other references */
    Py_INCREF((PyObject *)delivery);
    delivery_begin_call(delivery, loop);
    r = deliver(endpoint, event);
    delivery_end_call(delivery);
    Py_DECREF((PyObject *)delivery);
    Py_DECREF((PyObject *)endpoint);
    return r;
}
