/* stream_type.c: the type fdmux._delivery.Stream: its tables of methods and attributes,
 * and its memory. */
#include "frames.h"
#include "tls_session.h"

#include <stddef.h>
#include <structmember.h>

/* ---- memory -------------------------------------------------------------------- */

int stream_traverse(PyObject *self, visitproc visit, void *arg)
{
    const struct stream_object *stream = (struct stream_object *)self;
    PyObject *const held[] = {(PyObject *)Py_TYPE(self),
                              (PyObject *)stream->delivery,
                              stream->on_data,
                              stream->context,
                              stream->handler,
                              stream->framer,
                              stream->data,
                              stream->tls};

    return delivery_visit(held, sizeof held / sizeof held[0], visit, arg);
}

int stream_clear(PyObject *self)
{
    struct stream_object *stream = (struct stream_object *)self;

    Py_CLEAR(stream->on_data);
    stream->is_framed = false;
    Py_CLEAR(stream->context);
    Py_CLEAR(stream->handler);
    Py_CLEAR(stream->framer);
    Py_CLEAR(stream->data);
    return 0;
}

/* The reference to the delivery goes last: the functions before it use it.
 * `stream_clear` does not give up `tls`, since the core uses it as long as the stream
 * is open. */
void stream_dealloc(PyObject *self)
{
    struct stream_object *stream = (struct stream_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(self);
    stream_drop_chunks(stream);
    frames_drop_rest(stream);
    (void)stream_clear(self); /* always 0 */
    Py_CLEAR(stream->tls);
    Py_CLEAR(stream->delivery);
    release(self);
    Py_DECREF((PyObject *)type);
}

/* ---- methods ------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"write", stream_write, METH_O,
     "write($self, data, /)\n--\n\n"
     "Send ``data``, after all earlier writes.\n\n"
     "In a callback of a stream all writes are sent together when the callback "
     "returns;\n"
     "elsewhere each is sent at once. ``bytes`` are copied only if the kernel does "
     "not\n"
     "take them. Other objects may be changed as soon as this returns. When more than\n"
     "``queue_max`` bytes are queued, the stream is closed with ENOBUFS: look at\n"
     "`buffered`, and write more in `on_writable` or `on_drain`.\n\n"
     "A closed or closing stream ignores the call; see `is_closing`.\n\n"
     "Raises:\n"
     "    BrokenPipeError: After `shutdown`.\n"
     "    TypeError: ``data`` is not bytes-like.\n"
     "    ValueError: ``data`` has 2 GiB or more.\n"
     "    RuntimeError: Called in another thread than the loop's.\n"},
    {"writelines", stream_writelines, METH_O,
     "writelines($self, lines, /)\n--\n\n"
     "Write all ``lines``, as one `write` of them joined."},
    {"shutdown", stream_shutdown, METH_NOARGS,
     "shutdown($self, /)\n--\n\n"
     "Shut down the writing side once the queue is sent; reading goes on. Idempotent."},
    {"close", (PyCFunction)(void (*)(void))stream_close, METH_VARARGS | METH_KEYWORDS,
     "close($self, /, error=None)\n--\n\n"
     "Send the queue, then close the stream; `on_close` follows. Idempotent.\n\n"
     "No other callback follows: no `on_data`, `on_end`, `on_writable`, `on_drain`.\n\n"
     "Args:\n"
     "    error: What `on_close` gets."},
    {"abort", (PyCFunction)(void (*)(void))stream_abort, METH_VARARGS | METH_KEYWORDS,
     "abort($self, /, error=None)\n--\n\n"
     "Close the stream at once and discard the queue; `on_close` follows.\n\n"
     "May follow a `close` that is still sending.\n\n"
     "Args:\n"
     "    error: What `on_close` gets."},
    {"pause_reading", stream_pause_reading, METH_NOARGS,
     "pause_reading($self, /)\n--\n\n"
     "Receive nothing, and call no `on_data`, until `resume_reading`.\n\n"
     "The end of the stream and a reset are not noticed meanwhile."},
    {"resume_reading", stream_resume_reading, METH_NOARGS,
     "resume_reading($self, /)\n--\n\nUndo `pause_reading`."},
    {"fileno", stream_fileno, METH_NOARGS,
     "fileno($self, /)\n--\n\n"
     "Return the descriptor, which the stream still owns; -1 if it has ended."},
    {"_bind", stream_bind, METH_VARARGS, NULL},
    {"_open", stream_open, METH_VARARGS, NULL},
    {"_adopt", stream_adopt, METH_O, NULL},
    {"_stats", stream_stats, METH_NOARGS, NULL},
    {"_peer", stream_peer, METH_NOARGS, NULL},
    {"_start_tls", stream_start_tls, METH_VARARGS, NULL},
    {"_check_thread", stream_refuse_thread, METH_O, NULL},
    {"_take_rest", frames_take_rest, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* ---- attributes ---------------------------------------------------------------- */

#define OBJECT_AT(name, field, flags)                                                  \
    {name, T_OBJECT, offsetof(struct stream_object, field), flags, NULL}
#define FLAG_AT(name, field, flags)                                                    \
    {name, T_BOOL, offsetof(struct stream_object, field), flags, NULL}

static PyMemberDef members[] = {
    {"data", T_OBJECT, offsetof(struct stream_object, data), 0,
     "Yours: any object that belongs to this connection."},
    OBJECT_AT("_delivery", delivery, READONLY),
    OBJECT_AT("_on_data", on_data, 0),
    OBJECT_AT("_handler", handler, 0),
    OBJECT_AT("_tls", tls, READONLY),
    FLAG_AT("_can_write", can_write, 0),
    FLAG_AT("_is_open", is_open, 0),
    FLAG_AT("_is_over", is_over, READONLY),
    {"_token", T_ULONGLONG, offsetof(struct stream_object, token), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *get_is_closing(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!((struct stream_object *)self)->is_open);
}

static PyGetSetDef properties[] = {
    {"_framer", NULL, frames_set_framer, NULL, NULL},
    {"is_closing", get_is_closing, NULL, "Whether the stream is closed or closing.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_traverse, stream_traverse},
    {Py_tp_clear, stream_clear},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec spec = {
    "fdmux._delivery.Stream",
    sizeof(struct stream_object),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    slots,
};

int stream_type_register(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&spec);

    return type == NULL ? -1 : PyModule_AddObjectRef(module, "Stream", type);
}
