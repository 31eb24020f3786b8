/* delivery.c: the type fdmux._delivery.Delivery: what the streams and endpoints of one
 * loop share.
 *
 * It owns a reference to each that is open, so the garbage collector can find and free
 * a loop with them when nothing else refers to them. */
#include "aio.h"
#include "probe.h"
#include "stream_object.h"
#include "tls_session.h"

#include <errno.h>
#include <stddef.h>
#include <structmember.h>

PyTypeObject *delivery_type;

/* ---- gathered writes ----------------------------------------------------------- */

int delivery_add_unsent(struct delivery *delivery, struct stream_object *stream)
{
    if (delivery->unsent_count == delivery->unsent_capacity) {
        uint32_t capacity =
            delivery->unsent_capacity == 0 ? 16 : delivery->unsent_capacity * 2;
        struct stream_object **unsent = (struct stream_object **)PyMem_Realloc(
            (void *)delivery->unsent, capacity * sizeof *unsent);

        if (unsent == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        delivery->unsent = unsent;
        delivery->unsent_capacity = capacity;
    }
    Py_INCREF((PyObject *)stream);
    stream->is_unsent = true;
    delivery->unsent[delivery->unsent_count++] = stream;
    return 0;
}

/* In the order of the first writes. A send that fails is told to its transport, so that
 * Python runs, and may write: such writes are added at the end, and sent too. */
void delivery_flush(struct delivery *delivery)
{
    for (uint32_t i = 0; i < delivery->unsent_count; i++) {
        struct stream_object *stream = delivery->unsent[i];

        delivery->unsent[i] = NULL; /* traverse() visits the array too */
        stream->is_unsent = false;
        stream_flush(stream);
        Py_DECREF((PyObject *)stream);
    }
    delivery->unsent_count = 0;
    delivery_flush_endpoints(delivery);
}

void delivery_begin_call(struct delivery *delivery, struct fdmux_loop *loop)
{
    delivery->depth++;
    delivery->call_count++;
    if (delivery->is_one_batch)
        (void)fdmux_loop_wake(loop); /* inside a function of the loop it cannot fail */
}

void delivery_end_call(struct delivery *delivery)
{
    delivery->depth--;
    if (delivery->depth == 0 && delivery_has_unsent(delivery))
        delivery_flush(delivery);
}

int delivery_check_thread(const struct delivery *delivery, const char *attempted,
                          const char *what)
{
    if (delivery == NULL || delivery->thread == 0 ||
        delivery->thread == PyThread_get_thread_ident())
        return 0;
    PyErr_Format(PyExc_RuntimeError,
                 "%s %s in another thread than that of its loop; use "
                 "call_soon_threadsafe() of the loop or the server",
                 attempted, what);
    return -1;
}

static void drop_unsent(struct delivery *delivery)
{
    while (delivery->unsent_count > 0) {
        struct stream_object *stream = delivery->unsent[--delivery->unsent_count];

        stream->is_unsent = false;
        stream_drop_chunks(stream);
        Py_DECREF((PyObject *)stream);
    }
}

/* ---- asyncio: has Python something to do? -------------------------------------- */

/* The core calls this after each batch that called functions, without the GIL. (Calls
 * from other threads wake the loop.) There are gathered writes if a native function has
 * called Python in this batch. */
static int has_work(struct fdmux_loop *loop, void *userdata)
{
    const struct delivery *delivery = userdata;

    (void)loop;
    return delivery_has_unsent(delivery) || aio_loop_has_work(delivery->asyncio);
}

/* watch(loop): make dispatch return when this loop of asyncio has something to do. None
 * ends that. Returns 0 or -errno. */
static PyObject *watch(PyObject *self, PyObject *asyncio)
{
    struct delivery *delivery = (struct delivery *)self;
    PyObject *old = delivery->asyncio;
    int r = -ESTALE;

    if (asyncio != Py_None && !aio_loop_check(asyncio)) {
        PyErr_SetString(PyExc_TypeError, "watch takes a LoopBase, or None");
        return NULL;
    }
    delivery->asyncio = asyncio == Py_None ? NULL : delivery_new_ref(asyncio);
    if (delivery->loop != NULL)
        r = fdmux_loop_set_return(delivery->loop, asyncio == Py_None ? NULL : has_work,
                                  delivery);
    Py_XDECREF(old);
    return PyLong_FromLong(r);
}

/* ---- life ---------------------------------------------------------------------- */

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    const struct fdmux_loop_handle *ref;
    struct delivery *delivery;
    PyObject *capsule;

    (void)kwargs;
    if (!PyArg_ParseTuple(args, "O:Delivery", &capsule))
        return NULL;
    if (!delivery_is_main_interpreter())
        return PyErr_Format(PyExc_RuntimeError,
                            "streams work in the main interpreter only; in a "
                            "subinterpreter use SelectorEventLoop.register_read");
    ref = PyCapsule_GetPointer(capsule, "fdmux.loop");
    if (ref == NULL || fdmux_check_api(ref->api) < 0)
        return NULL;
    fdmux_table = ref->api;
    delivery = (struct delivery *)allocate(type, 0);
    if (delivery == NULL)
        return NULL;
    delivery->loop = ref->loop;
    delivery->address = ref->loop;
    delivery->memory = delivery_new_ref(capsule);
    return (PyObject *)delivery;
}

static int ignore_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                        void *userdata)
{
    (void)loop, (void)event, (void)userdata;
    return 0;
}

/* In a child of fork() the bytes belong to the parent: receive none. */
static int receive_nothing(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                           size_t *ret_size, void *userdata)
{
    (void)ret_buffer, (void)userdata;
    *ret_size = 0;
    return fdmux_stream_close(loop, stream, FDMUX_STREAM_DROP);
}

/* The core has freed a stream, whose SSL it used until then. */
static void release_session(void *userdata)
{
    PyGILState_STATE state = PyGILState_Ensure();

    Py_DECREF((PyObject *)userdata);
    PyGILState_Release(state);
}

void delivery_disown(struct fdmux_loop *loop, uint64_t token, PyObject *tls)
{
    struct fdmux_stream_handler nobody = {
        .struct_size = sizeof nobody, .fn = ignore_event, .buffer_fn = receive_nothing};

    if (tls != NULL) {
        ((struct tls_session *)tls)->delivery = NULL;
        nobody.userdata = delivery_new_ref(tls);
        nobody.destroyed = release_session;
    }
    /* Both fail on a closed loop, which calls no function any more. */
    if (fdmux_stream_set_handler(loop, token, &nobody) < 0)
        Py_XDECREF((PyObject *)nobody.userdata);
    (void)fdmux_stream_close(loop, token, FDMUX_STREAM_DROP);
}

static void drop_streams(struct delivery *delivery)
{
    while (delivery->first_open != NULL) {
        struct stream_object *stream = delivery->first_open;

        if (delivery->loop != NULL)
            delivery_disown(delivery->loop, stream->token, stream->tls);
        stream->is_over = true;
        stream->is_open = stream->can_write = false;
        stream_unlink(stream);
    }
    delivery_drop_endpoints(delivery);
}

/* Only when the core has none of its streams. */
static void forget_loop(struct delivery *delivery)
{
    delivery->loop = NULL;
    Py_CLEAR(delivery->memory);
}

/* abandon(): forget the loop and its streams, in a child of fork(). They are the
 * parent's. */
static PyObject *abandon(PyObject *self, PyObject *unused)
{
    struct delivery *delivery = (struct delivery *)self;

    (void)unused;
    drop_unsent(delivery);
    drop_streams(delivery);
    forget_loop(delivery);
    delivery->thread = 0;
    return delivery_new_ref(Py_None);
}

/* disown(): close every stream without an event, before the loop closes. */
static PyObject *disown_all(PyObject *self, PyObject *unused)
{
    struct delivery *delivery = (struct delivery *)self;

    (void)unused;
    drop_unsent(delivery);
    drop_streams(delivery);
    return delivery_new_ref(Py_None);
}

/* enter(): this thread runs the loop from now on. */
static PyObject *enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    ((struct delivery *)self)->thread = PyThread_get_thread_ident();
    return delivery_new_ref(Py_None);
}

/* leave(): send gathered writes; no thread runs the loop any more. */
static PyObject *leave(PyObject *self, PyObject *unused)
{
    struct delivery *delivery = (struct delivery *)self;

    (void)unused;
    if (delivery->depth == 0)
        delivery_flush(delivery);
    delivery->thread = 0;
    return delivery_new_ref(Py_None);
}

static PyObject *flush(PyObject *self, PyObject *unused)
{
    (void)unused;
    delivery_flush((struct delivery *)self);
    return delivery_new_ref(Py_None);
}

static int append_all(const struct delivery *delivery, PyObject *list)
{
    for (struct stream_object *it = delivery->first_open; it != NULL;
         it = it->next_open) {
        if (PyList_Append(list, (PyObject *)it) < 0)
            return -1;
    }
    return 0;
}

static PyObject *streams(PyObject *self, PyObject *unused)
{
    PyObject *list = PyList_New(0);

    (void)unused;
    if (list != NULL && append_all((struct delivery *)self, list) < 0)
        Py_CLEAR(list);
    return list;
}

/* ---- the type ------------------------------------------------------------------ */

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    struct delivery *delivery = (struct delivery *)self;

    PyObject *const held[] = {(PyObject *)Py_TYPE(self), delivery->memory,
                              delivery->incoming, delivery->asyncio,
                              (PyObject *)delivery->probe};
    int r = delivery_visit(held, sizeof held / sizeof held[0], visit, arg);

    for (struct stream_object *it = delivery->first_open; r == 0 && it != NULL;
         it = it->next_open)
        r = visit((PyObject *)it, arg);
    for (uint32_t i = 0; r == 0 && i < delivery->unsent_count; i++)
        r = delivery_visit((PyObject *const *)&delivery->unsent[i], 1, visit, arg);
    return r == 0 ? delivery_visit_endpoints(delivery, visit, arg) : r;
}

static int clear(PyObject *self)
{
    struct delivery *delivery = (struct delivery *)self;

    if (delivery->asyncio != NULL && delivery->loop != NULL)
        /* -ESTALE: the loop is closed, and asks no more. */
        (void)fdmux_loop_set_return(delivery->loop, NULL, NULL);
    drop_unsent(delivery);
    drop_streams(delivery);
    Py_CLEAR(delivery->incoming);
    Py_CLEAR(delivery->asyncio);
    Py_CLEAR(delivery->probe);
    forget_loop(delivery);
    return 0;
}

static void dealloc(PyObject *self)
{
    struct delivery *delivery = (struct delivery *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(self);
    (void)clear(self); /* always 0 */
    PyMem_Free((void *)delivery->unsent);
    PyMem_Free(delivery->frame);
    release(self);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef methods[] = {
    {"watch", watch, METH_O, NULL},
    {"observe", delivery_observe, METH_O, NULL},
    {"abandon", abandon, METH_NOARGS, NULL},
    {"disown", disown_all, METH_NOARGS, NULL},
    {"enter", enter, METH_NOARGS, NULL},
    {"leave", leave, METH_NOARGS, NULL},
    {"flush", flush, METH_NOARGS, NULL},
    {"streams", streams, METH_NOARGS, NULL},
    {"endpoints", delivery_endpoints, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"thread", T_ULONG, offsetof(struct delivery, thread), READONLY, NULL},
    {"depth", T_UINT, offsetof(struct delivery, depth), READONLY, NULL},
    {"is_gathering", T_BOOL, offsetof(struct delivery, is_gathering), 0, NULL},
    {"is_one_batch", T_BOOL, offsetof(struct delivery, is_one_batch), 0, NULL},
    {"call_count", T_ULONGLONG, offsetof(struct delivery, call_count), READONLY, NULL},
    {"error", T_OBJECT, offsetof(struct delivery, error), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, make},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {
    "fdmux._delivery.Delivery",
    sizeof(struct delivery),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    slots,
};

int delivery_register(PyObject *module, bool is_main)
{
    PyObject *type = PyType_FromSpec(&spec);

    if (is_main) {
        delivery_type = (PyTypeObject *)type;
        delivery_forget_errors();
    }
    return type == NULL ? -1 : PyModule_AddObjectRef(module, "Delivery", type);
}
