/* datagram_send.c: what Python sends through an endpoint.
 *
 * In a callback datagrams are gathered, by reference, and leave with one sendmmsg(2)
 * when it returns, or when there are 64. Elsewhere they are sent at once, or for
 * asyncio before the loop waits. What the kernel refuses is told by on_error. */
#include "datagram_object.h"

#include <string.h>

/* A gathered batch is sent without waiting for more from this size on. */
#define GATHERED_MAX ((uint32_t)1 << 20)

/* ---- sending ------------------------------------------------------------------- */

static void describe(const struct outgoing *outgoing, struct fdmux_datagram *datagram)
{
    *datagram = (struct fdmux_datagram){
        .data = PyBytes_AsString(outgoing->data),
        .length = (uint32_t)PyBytes_Size(outgoing->data),
        .address = outgoing->address_size == 0 ? NULL : &outgoing->address,
        .address_size = outgoing->address_size,
        .local = outgoing->local_size == 0 ? NULL : &outgoing->local,
        .local_size = outgoing->local_size,
        .segment_size = outgoing->segment_size,
    };
}

/* Tell an owner with flow control if more than queue_high bytes are queued. */
static void check_flow(struct endpoint_object *endpoint)
{
    PyObject *done;
    int queued;

    if (!endpoint->has_flow || !delivery_is_set(endpoint->owner))
        return;
    queued = fdmux_datagram_queued(endpoint->delivery->loop, endpoint->token);
    if (queued < 0 || (uint32_t)queued <= endpoint->queue_high)
        return;
    done = PyObject_CallMethod(endpoint->owner, "_event", "iiO", ENDPOINT_FULL, queued,
                               Py_None);
    if (done == NULL)
        delivery_send_raised(endpoint->delivery, (PyObject *)endpoint);
    Py_XDECREF(done);
}

void endpoint_drop_outgoing(struct endpoint_object *endpoint)
{
    uint32_t count = endpoint->outgoing_count;

    endpoint->outgoing_count = endpoint->outgoing_size = 0;
    for (uint32_t i = 0; i < count; i++)
        Py_DECREF(endpoint->outgoing[i].data); /* bytes: runs no code */
}

/* A datagram that the kernel refuses is noted by the core, which tells it later. -EPIPE
 * and -EIDRM mean that the endpoint has ended. */
void endpoint_flush(struct endpoint_object *endpoint)
{
    struct fdmux_datagram datagrams[ENDPOINT_BATCH_MAX];
    uint32_t count = endpoint->outgoing_count;

    if (count == 0)
        return;
    for (uint32_t i = 0; i < count; i++)
        describe(&endpoint->outgoing[i], &datagrams[i]);
    if (endpoint_is_live(endpoint))
        (void)fdmux_datagram_send_many(endpoint->delivery->loop, endpoint->token,
                                       datagrams, count);
    endpoint_drop_outgoing(endpoint);
    if (endpoint_is_live(endpoint))
        check_flow(endpoint);
}

/* ---- gathering ----------------------------------------------------------------- */

static int reserve(struct endpoint_object *endpoint)
{
    if (endpoint->outgoing == NULL)
        endpoint->outgoing =
            PyMem_Calloc(ENDPOINT_BATCH_MAX, sizeof *endpoint->outgoing);
    if (endpoint->outgoing != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

static bool must_gather(const struct endpoint_object *endpoint)
{
    const struct delivery *delivery = endpoint->delivery;

    return delivery->depth > 0 || (delivery->is_gathering && delivery->thread != 0);
}

static void copy_outgoing(struct outgoing *place, PyObject *data,
                          const struct outgoing *to)
{
    place->data = delivery_new_ref(data);
    place->segment_size = to->segment_size;
    place->address_size = to->address_size;
    place->local_size = to->local_size;
    memcpy(&place->address, &to->address, to->address_size);
    memcpy(&place->local, &to->local, to->local_size);
}

int endpoint_gather(struct endpoint_object *endpoint, PyObject *data,
                    const struct outgoing *to)
{
    if (reserve(endpoint) < 0)
        return -1;
    copy_outgoing(&endpoint->outgoing[endpoint->outgoing_count++], data, to);
    endpoint->outgoing_size += (uint32_t)PyBytes_Size(data);
    if (!must_gather(endpoint) || endpoint->outgoing_count == ENDPOINT_BATCH_MAX ||
        endpoint->outgoing_size >= GATHERED_MAX)
        endpoint_flush(endpoint);
    else if (!endpoint->is_unsent)
        delivery_add_unsent_endpoint(endpoint->delivery, endpoint);
    return 0;
}

/* Send a bytes-like object; what may change later is copied first. */
static int send_object(struct endpoint_object *endpoint, PyObject *data,
                       const struct outgoing *to)
{
    PyObject *copy = NULL;
    int r;

    if (PyBytes_CheckExact(data)) {
        copy = delivery_new_ref(data);
    } else if (PyObject_CheckBuffer(data)) {
        copy = PyBytes_FromObject(data);
    } else {
        PyErr_Format(PyExc_TypeError,
                     "send through %R: a bytes-like object is required, not %R",
                     endpoint, (PyObject *)Py_TYPE(data));
    }
    if (copy == NULL)
        return -1;
    if (PyBytes_Size(copy) > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "send %zd bytes at once: %d at most",
                     PyBytes_Size(copy), INT32_MAX);
        r = -1;
    } else {
        r = endpoint_gather(endpoint, copy, to);
    }
    Py_DECREF(copy);
    return r;
}

/* ---- answers ------------------------------------------------------------------- */

int endpoint_answer(struct endpoint_object *endpoint, PyObject *data,
                    const struct fdmux_datagram *datagram)
{
    struct outgoing to;

    if (!endpoint->is_open)
        return 0;
    to.segment_size = 0;
    to.address_size = datagram->address_size;
    to.local_size = datagram->local_size;
    if (datagram->address_size > 0) /* else it is NULL, which memcpy must not get */
        memcpy(&to.address, datagram->address, datagram->address_size);
    if (datagram->local_size > 0)
        memcpy(&to.local, datagram->local, datagram->local_size);
    return send_object(endpoint, data, &to);
}

/* A Datagram that came with its local address goes back from there. */
static int read_item(struct endpoint_object *endpoint, PyObject *pair,
                     struct outgoing *ret_to)
{
    PyObject *local = NULL;
    int size;

    ret_to->segment_size = ret_to->local_size = 0;
    size = endpoint_address_from(endpoint, PyTuple_GetItem(pair, 1), &ret_to->address);
    if (size < 0)
        return -1;
    ret_to->address_size = (uint16_t)size;
    if (Py_TYPE(pair) == datagram_item_type)
        local = PyStructSequence_GetItem(pair, ITEM_LOCAL);
    if (!delivery_is_set(local))
        return 0;
    size = endpoint_host_from(local, &ret_to->local);
    ret_to->local_size = (uint16_t)size;
    return size < 0 ? -1 : 0;
}

static int send_pair(struct endpoint_object *endpoint, PyObject *pair)
{
    struct outgoing to;

    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
        PyErr_Format(PyExc_TypeError,
                     "send through %R: a pair (data, address) is required, not %R",
                     endpoint, pair);
        return -1;
    }
    if (read_item(endpoint, pair, &to) < 0)
        return -1;
    return send_object(endpoint, PyTuple_GetItem(pair, 0), &to);
}

static int send_list(struct endpoint_object *endpoint, PyObject *pairs)
{
    int r = 0;

    /* The size is read each time: the conversion of an object may run code. */
    for (Py_ssize_t i = 0; r == 0 && i < PyList_Size(pairs); i++) {
        PyObject *pair = delivery_new_ref(PyList_GetItem(pairs, i));

        r = send_pair(endpoint, pair);
        Py_DECREF(pair);
    }
    return r;
}

int endpoint_send_pairs(struct endpoint_object *endpoint, PyObject *pairs)
{
    PyObject *list;
    int r;

    if (PyList_CheckExact(pairs))
        return send_list(endpoint, pairs);
    list = PySequence_List(pairs); /* any iterable */
    if (list == NULL)
        return -1;
    r = send_list(endpoint, list);
    Py_DECREF(list);
    return r;
}

/* ---- the methods --------------------------------------------------------------- */

static int check_count(const char *name, Py_ssize_t count, Py_ssize_t least,
                       Py_ssize_t most)
{
    if (count >= least && count <= most)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd to %zd arguments, not %zd", name,
                 least, most, count);
    return -1;
}

/* Can it be sent? A closed endpoint ignores what is sent. Returns 1, 0, or -1 with an
 * exception. */
static int check_open(struct endpoint_object *endpoint)
{
    if (endpoint_check_thread(endpoint, "send through") < 0)
        return -1;
    return endpoint->is_open && endpoint_is_live(endpoint) ? 1 : 0;
}

static int send_to(struct endpoint_object *endpoint, PyObject *data, PyObject *address,
                   uint16_t segment_size)
{
    struct outgoing to;
    int size = 0;
    int r = check_open(endpoint);

    if (r > 0)
        size = endpoint_address_from(endpoint, address, &to.address);
    if (r <= 0 || size < 0)
        return size < 0 ? -1 : r;
    to.address_size = (uint16_t)size;
    to.local_size = 0;
    to.segment_size = segment_size;
    return send_object(endpoint, data, &to);
}

/* send(data, address=None) */
PyObject *endpoint_send(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (check_count("send", count, 1, 2) < 0 ||
        send_to((struct endpoint_object *)self, arguments[0],
                count > 1 ? arguments[1] : Py_None, 0) < 0)
        return NULL;
    return delivery_new_ref(Py_None);
}

/* send_many(datagrams) */
PyObject *endpoint_send_many(PyObject *self, PyObject *pairs)
{
    struct endpoint_object *endpoint = (struct endpoint_object *)self;
    int r = check_open(endpoint);

    if (r > 0) {
        endpoint->delivery->depth++; /* gather them */
        r = endpoint_send_pairs(endpoint, pairs);
        endpoint->delivery->depth--;
        if (!must_gather(endpoint))
            endpoint_flush(endpoint);
    }
    return r < 0 ? NULL : delivery_new_ref(Py_None);
}

/* send_segments(data, segment_size, address=None) */
PyObject *endpoint_send_segments(PyObject *self, PyObject *const *arguments,
                                 Py_ssize_t count)
{
    long size;

    if (check_count("send_segments", count, 2, 3) < 0)
        return NULL;
    size = PyLong_AsLong(arguments[1]);
    if (size == -1 && PyErr_Occurred() != NULL)
        return NULL;
    if (size < 1 || size > UINT16_MAX)
        return PyErr_Format(PyExc_ValueError,
                            "segment_size is %ld; it must be in 1..%d", size,
                            UINT16_MAX);
    if (send_to((struct endpoint_object *)self, arguments[0],
                count > 2 ? arguments[2] : Py_None, (uint16_t)size) < 0)
        return NULL;
    return delivery_new_ref(Py_None);
}

/* ---- asyncio ------------------------------------------------------------------- */

/* Can the datagram leave by way of the core? Returns the size of its address, or -1:
 * asyncio's own code decides what is wrong. */
static int find_address(struct endpoint_object *endpoint, PyObject *data,
                        PyObject *address, union any_sockaddr *ret_address)
{
    int size;

    if (!endpoint->is_open || !endpoint_is_live(endpoint) ||
        !PyBytes_CheckExact(data) || PyBytes_Size(data) == 0 ||
        PyBytes_Size(data) > INT32_MAX ||
        endpoint->is_connected != (address == Py_None))
        return -1;
    if (endpoint->delivery->thread != 0 &&
        endpoint->delivery->thread != PyThread_get_thread_ident())
        return -1;
    size = endpoint_address_from(endpoint, address, ret_address);
    PyErr_Clear(); /* such as a name: asyncio's own code resolves it */
    return size;
}

/* The argument `addr`, by position or by name. NULL: something else was given. */
static PyObject *address_in(PyObject *const *arguments, Py_ssize_t count,
                            PyObject *names)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);

    if (count == 1 && named == 0)
        return Py_None;
    if (count == 2 && named == 0)
        return arguments[1];
    if (count == 1 && named == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "addr") == 0)
        return arguments[1];
    PyErr_SetString(PyExc_TypeError, "sendto() takes data, and addr or None");
    return NULL;
}

/* _sendto(data, addr=None): the method of a transport of asyncio. The owner's
 * _sendto_slowly does what is not done here. */
PyObject *endpoint_sendto(PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                          PyObject *names)
{
    struct endpoint_object *endpoint = (struct endpoint_object *)self;
    PyObject *address = address_in(arguments, count, names);
    struct outgoing to;
    int size;

    if (address == NULL)
        return NULL;
    size = find_address(endpoint, arguments[0], address, &to.address);
    if (size < 0) {
        if (!delivery_is_set(endpoint->owner))
            return delivery_new_ref(Py_None); /* closed long ago */
        return PyObject_CallMethod(endpoint->owner, "_sendto_slowly", "OO",
                                   arguments[0], address);
    }
    to.address_size = (uint16_t)size;
    to.local_size = to.segment_size = 0;
    return endpoint_gather(endpoint, arguments[0], &to) < 0 ? NULL
                                                            : delivery_new_ref(Py_None);
}
