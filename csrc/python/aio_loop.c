/* aio_loop.c: the base class of hosts/asyncio's EventLoop: its attributes and set-up.
 *
 * What a program may replace (call_at, _process_events, _run_once, _selector) is
 * noticed here when it is set; aio_schedule.c and aio_iteration.c do the work. */
#include "aio_loop.h"

#include <math.h>
#include <stddef.h>
#include <structmember.h>

static PyTypeObject *loop_type;

struct aio_names aio_names;

static struct aio_loop *as_loop(PyObject *object)
{
    return object != NULL && loop_type != NULL && PyObject_TypeCheck(object, loop_type)
               ? (struct aio_loop *)object
               : NULL;
}

PyObject *aio_loop_timers(PyObject *object)
{
    const struct aio_loop *loop = as_loop(object);

    return loop == NULL ? NULL : loop->timers;
}

bool aio_loop_check(PyObject *object)
{
    return as_loop(object) != NULL;
}

bool aio_loop_is_debug(PyObject *object)
{
    const struct aio_loop *loop = as_loop(object);

    return loop != NULL && aio_is_true(loop->debug);
}

bool aio_loop_is_closed(PyObject *object)
{
    const struct aio_loop *loop = as_loop(object);

    return loop != NULL && aio_is_true(loop->closed);
}

/* ---- how it is set up ------------------------------------------------------------ */

/* Has a program given the loop another selector, such as one that wraps ours? */
static bool has_other_selector(PyObject *self, const PyObject *selector)
{
    PyObject *current = PyObject_GetAttr(self, aio_names.selector);

    if (current == NULL)
        PyErr_Clear(); /* deleted: that is told when it waits */
    Py_XDECREF(current);
    return current != selector;
}

/* _use_selector(selector, capsule, select, batch_owner, batch, indices, pairs): wait in
 * C, with the loop of this capsule. Again when the selector has grown. */
static PyObject *use_selector(PyObject *self, PyObject *args)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    PyObject *selector, *capsule, *owner, *pairs;
    Py_ssize_t select, batch, indices;
    PyObject *old[] = {loop->selector, loop->memory, loop->batch_owner, loop->pairs};
    const struct fdmux_loop_handle *ref;

    if (!PyArg_ParseTuple(args, "OOnOnnO:_use_selector", &selector, &capsule, &select,
                          &owner, &batch, &indices, &pairs))
        return NULL;
    ref = PyCapsule_GetPointer(capsule, "fdmux.loop");
    if (ref == NULL || fdmux_check_api(ref->api) < 0)
        return NULL;
    fdmux_table = ref->api;
    loop->loop = ref->loop;
    loop->selector = delivery_new_ref(selector);
    loop->memory = delivery_new_ref(capsule);
    loop->batch_owner = delivery_new_ref(owner);
    loop->pairs = delivery_new_ref(pairs);
    loop->select = (select_fn)select;
    loop->batch = (struct fdmux_py_batch *)batch;
    loop->indices = (const uint32_t *)indices;
    loop->has_other_selector = has_other_selector(self, selector);
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++)
        Py_XDECREF(old[i]);
    return delivery_new_ref(Py_None);
}

/* _forget_selector(): wait in Python, as the selector is closed. */
static PyObject *forget_selector(PyObject *self, PyObject *unused)
{
    (void)unused;
    ((struct aio_loop *)self)->batch = NULL;
    return delivery_new_ref(Py_None);
}

/* End the wait under way. Any thread. */
static PyObject *write_to_self(PyObject *self, PyObject *unused)
{
    const struct aio_loop *loop = (struct aio_loop *)self;

    (void)unused;
    if (aio_waits_in_c(loop) && fdmux_loop_wake(loop->loop) == 0)
        return delivery_new_ref(Py_None);
    return PyObject_CallFunctionObjArgs(aio_python.write_to_self, self, NULL);
}

static PyObject *get_ready(PyObject *self, void *closure)
{
    const struct aio_loop *loop = (struct aio_loop *)self;

    (void)closure;
    return delivery_new_ref(aio_check_ready(loop));
}

static int set_ready(PyObject *self, PyObject *value, void *closure)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    PyObject *old = loop->ready;

    (void)closure;
    loop->ready = delivery_new_ref(value);
    loop->is_deque = value != NULL && Py_TYPE(value) == aio_python.deque;
    Py_XDECREF(old);
    return 0;
}

static PyObject *get_scheduled(PyObject *self, void *closure)
{
    (void)closure;
    return delivery_new_ref(((struct aio_loop *)self)->timers);
}

/* asyncio sets it to an empty list: the timers are ours. */
static int set_scheduled(PyObject *self, PyObject *value, void *closure)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    PyObject *timers, *old = loop->timers;
    Py_ssize_t count = value == NULL ? 0 : PyObject_Size(value);

    (void)closure;
    if (count < 0)
        return -1;
    if (count > 0) {
        PyErr_SetString(PyExc_TypeError,
                        "set _scheduled: timers are added by call_at and call_later");
        return -1;
    }
    timers = aio_timers_new();
    if (timers == NULL)
        return -1;
    loop->timers = timers;
    Py_XDECREF(old);
    return 0;
}

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    struct aio_loop *loop =
        (struct aio_loop *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);

    (void)args, (void)keywords;
    if (loop == NULL)
        return NULL;
    loop->timers = aio_timers_new();
    loop->stopping = delivery_new_ref(Py_False);
    loop->closed = delivery_new_ref(Py_False);
    loop->debug = delivery_new_ref(Py_False);
    loop->wait_until = INFINITY;
    if (loop->timers == NULL) {
        Py_DECREF((PyObject *)loop);
        return NULL;
    }
    return (PyObject *)loop;
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    const struct aio_loop *loop = (struct aio_loop *)self;
    PyObject *const held[] = {(PyObject *)Py_TYPE(self),
                              loop->ready,
                              loop->timers,
                              loop->stopping,
                              loop->closed,
                              loop->debug,
                              loop->pairs,
                              loop->selector,
                              loop->batch_owner,
                              loop->memory,
                              (PyObject *)loop->delivery,
                              (PyObject *)loop->probe};

    return delivery_visit(held, sizeof held / sizeof held[0], visit, arg);
}

static void forget_batch(struct aio_loop *loop)
{
    loop->batch = NULL;
    Py_CLEAR(loop->batch_owner);
    Py_CLEAR(loop->pairs);
}

static int clear(PyObject *self)
{
    struct aio_loop *loop = (struct aio_loop *)self;

    loop->is_deque = false;
    forget_batch(loop);
    Py_CLEAR(loop->ready);
    Py_CLEAR(loop->selector);
    Py_CLEAR(loop->memory);
    Py_CLEAR(loop->delivery);
    Py_CLEAR(loop->probe);
    return 0;
}

static void dealloc(PyObject *self)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    (void)clear(self); /* always 0 */
    Py_CLEAR(loop->timers);
    Py_CLEAR(loop->stopping);
    Py_CLEAR(loop->closed);
    Py_CLEAR(loop->debug);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF((PyObject *)type);
}

/* An attribute that a program may have deleted. */
static PyObject *hand_out(PyObject *value, const char *name)
{
    if (value == NULL)
        PyErr_SetString(PyExc_AttributeError, name);
    return delivery_new_ref(value);
}

static PyObject *is_closed(PyObject *self, PyObject *unused)
{
    (void)unused;
    return hand_out(((struct aio_loop *)self)->closed, "_closed");
}

static PyObject *get_debug(PyObject *self, PyObject *unused)
{
    (void)unused;
    return hand_out(((struct aio_loop *)self)->debug, "_debug");
}

static void note_run_once(struct aio_loop *loop, bool is_own)
{
    if (is_own)
        loop->must_leave |= LEAVE_OWN_RUN_ONCE;
    else
        loop->must_leave &= (uint8_t)~LEAVE_OWN_RUN_ONCE;
}

/* Notes what a program replaces on the object, as a fake clock does: from then on, C
 * asks through the attribute. Names of attributes are interned. */
static int set_attribute(PyObject *self, PyObject *name, PyObject *value)
{
    struct aio_loop *loop = (struct aio_loop *)self;

    if (PyObject_GenericSetAttr(self, name, value) < 0)
        return -1;
    if (name == aio_names.selector)
        loop->has_other_selector = value != loop->selector;
    else if (name == aio_names.call_at)
        loop->has_own_call_at = true;
    else if (name == aio_names.process_events)
        loop->has_own_events = true;
    else if (name == aio_names.run_once)
        note_run_once(loop, value != NULL);
    return 0;
}

/* METH_FASTCALL functions have another type than the table's. */
#define FAST(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef methods[] = {
    {"call_soon", FAST(aio_call_soon), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"call_soon_threadsafe", FAST(aio_call_soon_threadsafe),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"call_later", FAST(aio_call_later), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"call_at", FAST(aio_call_at), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"time", aio_loop_time, METH_NOARGS, NULL},
    {"is_closed", is_closed, METH_NOARGS, NULL},
    {"get_debug", get_debug, METH_NOARGS, NULL},
    {"_run_once", aio_run_once, METH_NOARGS, NULL},
    {"_write_to_self", write_to_self, METH_NOARGS, NULL},
    {"_use_selector", use_selector, METH_VARARGS, NULL},
    {"_forget_selector", forget_selector, METH_NOARGS, NULL},
    {"_observe", aio_observe, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"_stopping", T_OBJECT, offsetof(struct aio_loop, stopping), 0, NULL},
    {"_closed", T_OBJECT, offsetof(struct aio_loop, closed), 0, NULL},
    {"_debug", T_OBJECT, offsetof(struct aio_loop, debug), 0, NULL},
    {"_clock_resolution", T_DOUBLE, offsetof(struct aio_loop, clock_resolution), 0,
     NULL},
    {"_delivery", T_OBJECT, offsetof(struct aio_loop, delivery), 0, NULL},
    {"_is_repeating", T_BOOL, offsetof(struct aio_loop, is_repeating), 0, NULL},
    {"_has_own_call_at", T_BOOL, offsetof(struct aio_loop, has_own_call_at), 0, NULL},
    {"_has_own_events", T_BOOL, offsetof(struct aio_loop, has_own_events), 0, NULL},
    {"_has_own_select", T_BOOL, offsetof(struct aio_loop, has_own_select), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"_ready", get_ready, set_ready, NULL, NULL},
    {"_scheduled", get_scheduled, set_scheduled, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, make},      {Py_tp_dealloc, dealloc},        {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},   {Py_tp_methods, methods},        {Py_tp_members, members},
    {Py_tp_getset, getset}, {Py_tp_setattro, set_attribute}, {0, NULL},
};

static PyType_Spec spec = {
    "fdmux._delivery.LoopBase",
    sizeof(struct aio_loop),
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
        {&aio_names.time, "time"},
        {&aio_names.select, "select"},
        {&aio_names.finish, "_finish"},
        {&aio_names.process_events, "_process_events"},
        {&aio_names.run, "_run"},
        {&aio_names.run_in_context, "run"},
        {&aio_names.cancelled, "_cancelled"},
        {&aio_names.append, "append"},
        {&aio_names.popleft, "popleft"},
        {&aio_names.check_thread, "_check_thread"},
        {&aio_names.check_callback, "_check_callback"},
        {&aio_names.check_closed, "_check_closed"},
        {&aio_names.write_to_self, "_write_to_self"},
        {&aio_names.call_at, "call_at"},
        {&aio_names.context, "context"},
        {&aio_names.callback, "callback"},
        {&aio_names.when, "when"},
        {&aio_names.delay, "delay"},
        {&aio_names.selector, "_selector"},
        {&aio_names.run_once, "_run_once"},
        {&aio_names.remove_reader, "_remove_reader"},
        {&aio_names.remove_writer, "_remove_writer"},
    };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        *all[i].name = PyUnicode_InternFromString(all[i].text);
        if (*all[i].name == NULL)
            return -1;
    }
    return 0;
}

/* What was given to aio_setup; it stays as long as the types. */
static PyObject *given_args;

void aio_forget(void)
{
    given_args = NULL; /* it went with the interpreter, as did the types */
    loop_type = NULL;
    aio_transport_forget();
}

static int get_method(PyTypeObject *type, const char *name, PyObject **ret_method)
{
    *ret_method = PyObject_GetAttrString((PyObject *)type, name);
    return *ret_method == NULL ? -1 : 0;
}

static int take_given(PyObject *args)
{
    struct aio_python *given = &aio_python;

    if (!PyArg_ParseTuple(args, "O!O!O!O!OOOO:asyncio_types", &PyType_Type,
                          &given->base_handle, &PyType_Type, &given->base_timer,
                          &PyType_Type, &given->deque, &PyType_Type, &given->context,
                          &given->copy_context, &given->report_error, &given->run_timed,
                          &given->write_to_self))
        return -1;
    given->run_name = aio_names.run_in_context;
    return get_method(given->deque, "append", &given->append) < 0 ||
                   get_method(given->deque, "popleft", &given->popleft) < 0 ||
                   get_method(given->context, "run", &given->run) < 0
               ? -1
               : 0;
}

/* C reads the length of a deque where that of a tuple lies. */
static int check_deque(void)
{
    PyObject *deque =
        PyObject_CallFunction((PyObject *)aio_python.deque, "((iii))", 1, 2, 3);
    bool is_sized = deque != NULL && Py_SIZE(deque) == 3;

    if (deque != NULL && !is_sized)
        PyErr_SetString(PyExc_RuntimeError, "the length of a deque is not its size");
    Py_XDECREF(deque);
    return is_sized ? 0 : -1;
}

static PyObject *hand_out_types(void)
{
    return Py_BuildValue("OOO", aio_handle_type, aio_timer_type, loop_type);
}

PyObject *aio_setup(PyObject *module, PyObject *args)
{
    (void)module;
    if (!delivery_is_main_interpreter()) {
        PyErr_SetString(PyExc_RuntimeError, "not the main interpreter");
        return NULL;
    }
    if (loop_type != NULL) /* handles of both makings would share a free list */
        return hand_out_types();
    if (make_names() < 0 || take_given(args) < 0 || check_deque() < 0 ||
        aio_handle_register() < 0 || aio_timers_register() < 0)
        return NULL;
    loop_type = (PyTypeObject *)PyType_FromSpec(&spec);
    if (loop_type == NULL)
        return NULL;
    given_args = delivery_new_ref(args);
    return hand_out_types();
}
