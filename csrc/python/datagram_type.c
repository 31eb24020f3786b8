/* datagram_type.c: the type fdmux._delivery.Endpoint: its tables of methods and
 * attributes, and its memory; and the type fdmux._delivery.Datagram. */
#include "datagram_object.h"

#include <stddef.h>
#include <structmember.h>

PyTypeObject *datagram_item_type;

int endpoint_check_thread(const struct endpoint_object *endpoint, const char *attempted)
{
    return delivery_check_thread(endpoint->delivery, attempted, "an endpoint");
}

/* _check_thread(attempted): refuse another thread before anything is changed. */
static PyObject *refuse_thread(PyObject *self, PyObject *attempted)
{
    const char *text = PyUnicode_AsUTF8AndSize(attempted, NULL);

    if (text == NULL || endpoint_check_thread((struct endpoint_object *)self, text) < 0)
        return NULL;
    return delivery_new_ref(Py_None);
}

/* ---- the end ------------------------------------------------------------------- */

static void stop(struct endpoint_object *endpoint, uint32_t flags)
{
    endpoint_flush(endpoint);
    endpoint->is_open = false;
    if (endpoint_is_live(endpoint)) /* -EIDRM: it has ended, and CLOSED follows */
        (void)fdmux_datagram_close(endpoint->delivery->loop, endpoint->token, flags);
}

static PyObject *close_endpoint(PyObject *self, PyObject *unused)
{
    struct endpoint_object *endpoint = (struct endpoint_object *)self;

    (void)unused;
    if (endpoint_check_thread(endpoint, "close") < 0)
        return NULL;
    if (endpoint->is_open)
        stop(endpoint, 0);
    return delivery_new_ref(Py_None);
}

static PyObject *abort_endpoint(PyObject *self, PyObject *unused)
{
    struct endpoint_object *endpoint = (struct endpoint_object *)self;

    (void)unused;
    if (endpoint_check_thread(endpoint, "abort") < 0)
        return NULL;
    if (!endpoint->is_over && endpoint->token != 0) {
        endpoint_drop_outgoing(endpoint);
        stop(endpoint, FDMUX_DATAGRAM_DROP);
    }
    return delivery_new_ref(Py_None);
}

/* ---- facts --------------------------------------------------------------------- */

static PyObject *fileno_of(PyObject *self, PyObject *unused)
{
    const struct endpoint_object *endpoint = (struct endpoint_object *)self;
    int fd = -1;

    (void)unused;
    if (endpoint_is_live(endpoint))
        fd = fdmux_datagram_fd(endpoint->delivery->loop, endpoint->token);
    return PyLong_FromLong(fd < 0 ? -1 : fd);
}

/* _stats(): send what is gathered; returns the fields of struct fdmux_datagram_stats in
 * their order, all 0 once it has ended. */
static PyObject *stats_of(PyObject *self, PyObject *unused)
{
    struct endpoint_object *endpoint = (struct endpoint_object *)self;
    struct fdmux_datagram_stats stats = {.struct_size = sizeof stats};

    (void)unused;
    if (endpoint_check_thread(endpoint, "look at") < 0)
        return NULL;
    endpoint_flush(endpoint);
    if (endpoint_is_live(endpoint)) /* -EIDRM: the same */
        (void)fdmux_datagram_stats(endpoint->delivery->loop, endpoint->token, &stats);
    return Py_BuildValue(
        "(KKKKKKKKKII)", (unsigned long long)stats.received,
        (unsigned long long)stats.received_bytes, (unsigned long long)stats.truncated,
        (unsigned long long)stats.sent, (unsigned long long)stats.sent_bytes,
        (unsigned long long)stats.dropped, (unsigned long long)stats.failed,
        (unsigned long long)stats.errors, (unsigned long long)stats.kernel_dropped,
        (unsigned)stats.queued, (unsigned)stats.queued_count);
}

/* _queued(): the bytes that the kernel has not taken, and those that are gathered. */
static PyObject *queued_of(PyObject *self, PyObject *unused)
{
    const struct endpoint_object *endpoint = (struct endpoint_object *)self;
    int queued = 0;

    (void)unused;
    if (endpoint_is_live(endpoint))
        queued = fdmux_datagram_queued(endpoint->delivery->loop, endpoint->token);
    return PyLong_FromLong((queued < 0 ? 0 : queued) + (long)endpoint->outgoing_size);
}

static int read_size(PyObject *number, uint32_t *ret_size)
{
    unsigned long size = PyLong_AsUnsignedLong(number);

    if (PyErr_Occurred() != NULL)
        return -1;
    *ret_size = size > INT32_MAX ? INT32_MAX : (uint32_t)size;
    return 0;
}

/* _await_writable(queue_low): get WRITABLE when queue_low bytes or fewer are queued. */
static PyObject *await_writable(PyObject *self, PyObject *number)
{
    const struct endpoint_object *endpoint = (struct endpoint_object *)self;
    uint32_t queue_low;

    if (endpoint_check_thread(endpoint, "set the limits of") < 0 ||
        read_size(number, &queue_low) < 0)
        return NULL;
    if (endpoint_is_live(endpoint)) /* as above */
        (void)fdmux_datagram_await_writable(endpoint->delivery->loop, endpoint->token,
                                            queue_low);
    return delivery_new_ref(Py_None);
}

/* _set_flow(queue_high): the owner gets FULL when more than that is queued. */
static PyObject *set_flow(PyObject *self, PyObject *number)
{
    struct endpoint_object *endpoint = (struct endpoint_object *)self;

    if (read_size(number, &endpoint->queue_high) < 0)
        return NULL;
    endpoint->has_flow = true;
    return delivery_new_ref(Py_None);
}

/* _pause(), _resume(): stop receiving, and go on. */
static PyObject *pause_receiving(PyObject *self, PyObject *unused)
{
    const struct endpoint_object *endpoint = (struct endpoint_object *)self;

    (void)unused;
    if (endpoint_check_thread(endpoint, "pause") < 0)
        return NULL;
    if (endpoint_is_live(endpoint)) /* as above */
        (void)fdmux_datagram_pause(endpoint->delivery->loop, endpoint->token);
    return delivery_new_ref(Py_None);
}

static PyObject *resume_receiving(PyObject *self, PyObject *unused)
{
    const struct endpoint_object *endpoint = (struct endpoint_object *)self;

    (void)unused;
    if (endpoint_check_thread(endpoint, "resume") < 0)
        return NULL;
    if (endpoint_is_live(endpoint)) /* as above */
        (void)fdmux_datagram_resume(endpoint->delivery->loop, endpoint->token);
    return delivery_new_ref(Py_None);
}

static PyObject *flush_gathered(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (endpoint_check_thread((struct endpoint_object *)self, "send through") < 0)
        return NULL;
    endpoint_flush((struct endpoint_object *)self);
    return delivery_new_ref(Py_None);
}

/* ---- memory -------------------------------------------------------------------- */

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    const struct endpoint_object *endpoint = (struct endpoint_object *)self;
    PyObject *const held[] = {
        (PyObject *)Py_TYPE(self), (PyObject *)endpoint->delivery,
        endpoint->owner,           endpoint->on_datagrams,
        endpoint->on_datagram,     endpoint->run,
        endpoint->handler,         endpoint->data,
    };

    return delivery_visit(held, sizeof held / sizeof held[0], visit, arg);
}

static int clear(PyObject *self)
{
    struct endpoint_object *endpoint = (struct endpoint_object *)self;

    Py_CLEAR(endpoint->owner);
    Py_CLEAR(endpoint->on_datagrams);
    Py_CLEAR(endpoint->on_datagram);
    Py_CLEAR(endpoint->run);
    Py_CLEAR(endpoint->handler);
    Py_CLEAR(endpoint->data);
    return 0;
}

static void dealloc(PyObject *self)
{
    struct endpoint_object *endpoint = (struct endpoint_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(self);
    endpoint_drop_outgoing(endpoint);
    endpoint_drop_cache(endpoint);
    PyMem_Free(endpoint->outgoing);
    (void)clear(self); /* always 0 */
    Py_CLEAR(endpoint->delivery);
    release(self);
    Py_DECREF((PyObject *)type);
}

/* ---- the tables ---------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"send", (PyCFunction)(void (*)(void))endpoint_send, METH_FASTCALL,
     "send($self, data, address=None, /)\n--\n\n"
     "Send ``data``, bytes-like, as one datagram to ``address``.\n\n"
     "In a callback all datagrams are sent together when the callback returns;\n"
     "elsewhere each is sent at once. What the kernel cannot take yet is queued; a "
     "full\n"
     "queue drops, and `stats` counts it. What the kernel refuses is told by "
     "`on_error`.\n\n"
     "A closed endpoint ignores the call.\n\n"
     "Args:\n"
     "    data: Up to 65,507 bytes over IPv4; none is a datagram too.\n"
     "    address: (host, port) with a numeric host, or the path of a Unix socket; "
     "None\n"
     "        for the peer of a connected endpoint.\n\n"
     "Raises:\n"
     "    TypeError: An argument has a wrong type.\n"
     "    ValueError: The host is a name.\n"
     "    OverflowError: The port is not in 0 to 65535.\n"
     "    RuntimeError: Called in another thread than the loop's.\n"},
    {"send_many", endpoint_send_many, METH_O,
     "send_many($self, datagrams, /)\n--\n\n"
     "Send pairs ``(data, address)``, up to 64 with one system call.\n\n"
     "As `send` of each. A `Datagram` that was received with its local address leaves\n"
     "from that address."},
    {"send_segments", (PyCFunction)(void (*)(void))endpoint_send_segments,
     METH_FASTCALL,
     "send_segments($self, data, segment_size, address=None, /)\n--\n\n"
     "Send ``data`` as datagrams of ``segment_size`` bytes, the last one shorter.\n\n"
     "The kernel divides them if it can (UDP GSO), so many datagrams cost one system\n"
     "call and one way through the network's code."},
    {"close", close_endpoint, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "Send the queue, then close the endpoint; `on_close` follows. Idempotent.\n\n"
     "No other callback follows."},
    {"abort", abort_endpoint, METH_NOARGS,
     "abort($self, /)\n--\n\n"
     "Close the endpoint at once and discard the queue; `on_close` follows."},
    {"fileno", fileno_of, METH_NOARGS,
     "fileno($self, /)\n--\n\n"
     "Return the descriptor, which the endpoint still owns; -1 if it has ended."},
    {"_bind", endpoint_bind, METH_VARARGS, NULL},
    {"_open", endpoint_open, METH_VARARGS, NULL},
    {"_stats", stats_of, METH_NOARGS, NULL},
    {"_queued", queued_of, METH_NOARGS, NULL},
    {"_await_writable", await_writable, METH_O, NULL},
    {"_set_flow", set_flow, METH_O, NULL},
    {"_check_thread", refuse_thread, METH_O, NULL},
    {"_flush", flush_gathered, METH_NOARGS, NULL},
    {"_pause", pause_receiving, METH_NOARGS, NULL},
    {"_resume", resume_receiving, METH_NOARGS, NULL},
    {"_sendto", (PyCFunction)(void (*)(void))endpoint_sendto,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

#define OBJECT_AT(name, field, flags)                                                  \
    {name, T_OBJECT, offsetof(struct endpoint_object, field), flags, NULL}

static PyMemberDef members[] = {
    {"data", T_OBJECT, offsetof(struct endpoint_object, data), 0,
     "Yours: any object that belongs to this endpoint."},
    OBJECT_AT("_delivery", delivery, READONLY),
    OBJECT_AT("_owner", owner, 0),
    OBJECT_AT("_on_datagrams", on_datagrams, 0),
    OBJECT_AT("_on_datagram", on_datagram, 0),
    OBJECT_AT("_run", run, 0),
    OBJECT_AT("_handler", handler, 0),
    {"_is_connected", T_BOOL, offsetof(struct endpoint_object, is_connected), 0, NULL},
    {"_is_deferring", T_BOOL, offsetof(struct endpoint_object, is_deferring), 0, NULL},
    {"_is_open", T_BOOL, offsetof(struct endpoint_object, is_open), READONLY, NULL},
    {"_is_over", T_BOOL, offsetof(struct endpoint_object, is_over), READONLY, NULL},
    {"_token", T_ULONGLONG, offsetof(struct endpoint_object, token), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *get_is_closing(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!((struct endpoint_object *)self)->is_open);
}

static PyGetSetDef properties[] = {
    {"is_closing", get_is_closing, NULL, "Whether the endpoint is closed or closing.",
     NULL},
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
    "fdmux._delivery.Endpoint",
    sizeof(struct endpoint_object),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    slots,
};

static PyStructSequence_Field item_fields[] = {
    {"data", "The bytes."},
    {"address", "Of the sender, as `socket.socket.recvfrom` returns it."},
    {"local", "The address of this machine that it was sent to; or None."},
    {"ecn", "The two bits of explicit congestion notification, 0 to 3; or None."},
    {"is_truncated", "Whether it was longer than ``size_max``."},
    {NULL, NULL},
};

static PyStructSequence_Desc item_description = {
    "fdmux.Datagram",
    "A received datagram with what is known of it; unpacks as ``(data, address)``.",
    item_fields,
    2,
};

int endpoint_type_register(PyObject *module, bool is_main)
{
    PyTypeObject *item = PyStructSequence_NewType(&item_description);
    PyObject *type = item == NULL ? NULL : PyType_FromSpec(&spec);

    if (type == NULL || PyModule_AddObjectRef(module, "Datagram", (PyObject *)item) < 0)
        return -1;
    if (is_main)
        datagram_item_type = item;
    return PyModule_AddObjectRef(module, "Endpoint", type);
}
