/* aio_transport_type.c: the type fdmux._delivery.TransportBase, the base class of
 * asyncio's transports: its tables, its memory, and the check that it fits asyncio.
 *
 * A transport is a stream whose protocol gets the events. The type is a subclass of
 * asyncio's _FlowControlMixin, as asyncio itself asks for (base_events.py, sendfile).
 * That class has five slots, and the memory of a stream begins with room for them: so
 * every function of streams takes transports too. */
#include "aio_transport.h"
#include "tls_session.h"

#include <stddef.h>
#include <structmember.h>

static PyTypeObject *transport_type;

struct aio_transport_names aio_transport_names;

/* ---- the type -------------------------------------------------------------------- */

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *self = ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);

    (void)args, (void)keywords;
    if (self == NULL)
        return NULL;
    ((struct stream_object *)self)->is_transport = true;
    aio_flow_set_paused(as_transport(self), false);
    if (aio_flow_choose_limits(as_transport(self), Py_None, Py_None) < 0)
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
    {"write", aio_transport_write, METH_O,
     "write($self, data, /)\n--\n\n"
     "Send ``data`` as the protocol's callback returns or before the loop waits."},
    {"writelines", aio_transport_writelines, METH_O,
     "writelines($self, list_of_data, /)\n--\n\nSend all items as one write."},
    {"get_write_buffer_size", aio_flow_size, METH_NOARGS,
     "get_write_buffer_size($self, /)\n--\n\n"
     "Return how many bytes are queued: written, and not taken by the kernel."},
    {"set_write_buffer_limits",
     (PyCFunction)(void (*)(void))aio_flow_set_limits_and_pause,
     METH_VARARGS | METH_KEYWORDS,
     "set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
     "Set the sizes at which the protocol is paused and resumed, as in asyncio."},
    {"is_closing", aio_transport_is_closing, METH_NOARGS,
     "is_closing($self, /)\n--\n\nWhether the transport is closed or closing."},
    {"is_reading", aio_transport_is_reading, METH_NOARGS,
     "is_reading($self, /)\n--\n\n"
     "Whether the transport is receiving: neither paused nor closing."},
    {"pause_reading", aio_transport_pause_reading, METH_NOARGS,
     "pause_reading($self, /)\n--\n\n"
     "Receive nothing until `resume_reading`. Idempotent.\n\n"
     "Data that has not been received stays in the kernel."},
    {"resume_reading", aio_transport_resume_reading, METH_NOARGS,
     "resume_reading($self, /)\n--\n\nUndo `pause_reading`. Idempotent."},
    {"_set_write_buffer_limits", (PyCFunction)(void (*)(void))aio_flow_set_limits,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_bind_stream", stream_bind, METH_VARARGS, NULL},
    {"_open_stream", stream_open, METH_VARARGS, NULL},
    {"_pause_stream", stream_pause_reading, METH_NOARGS, NULL},
    {"_shutdown_stream", stream_shutdown, METH_NOARGS, NULL},
    {"_close_stream", (PyCFunction)(void (*)(void))stream_close,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_abort_stream", (PyCFunction)(void (*)(void))stream_abort,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_start_tls", stream_start_tls, METH_VARARGS, NULL},
    {"_write_bytes", aio_transport_write_bytes, METH_O, NULL},
    {"_check_thread", stream_refuse_thread, METH_O, NULL},
    {"_flush", aio_transport_flush, METH_NOARGS, NULL},
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
    {"_tls", T_OBJECT, offsetof(struct stream_object, tls), READONLY, NULL},
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
        {&aio_transport_names.write_slowly, "_write_slowly"},
        {&aio_transport_names.writelines_slowly, "_writelines_slowly"},
        {&aio_transport_names.drained, "_drained"},
        {&aio_transport_names.log_debug, "_log_debug"},
        {&aio_transport_names.flow_failed, "_flow_failed"},
        {&aio_transport_names.pause_writing, "pause_writing"},
        {&aio_transport_names.resume_writing, "resume_writing"},
        {&aio_transport_names.join, "join"},
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
