/* aio_handle.c: asyncio.Handle and asyncio.TimerHandle, made and run in C.
 *
 * The types are subclasses of asyncio's own and add no attribute: what C needs lies in
 * the slots that asyncio declares, at offsets found by looking where Python puts a
 * known object. So repr, comparison, debug mode and whatever else asyncio's classes do
 * is theirs. */
#include "aio.h"

#include <stddef.h>
#include <structmember.h>

#define FREE_MAX 256
#define WORD ((Py_ssize_t)sizeof(void *))

struct aio_python aio_python;
Py_ssize_t aio_offsets[AIO_SLOT_COUNT];
PyTypeObject *aio_handle_type;
PyTypeObject *aio_timer_type;

/* Handles that are gone, for those to come: most live for one iteration. */
struct pool {
    PyObject *free[FREE_MAX];
    int count;
};
static struct pool handle_pool;
static struct pool timer_pool;
static Py_ssize_t index_offset; /* of the place in the heap, behind asyncio's slots */

Py_ssize_t *aio_timer_index(PyObject *handle)
{
    return (Py_ssize_t *)((char *)handle + index_offset);
}

bool aio_has_slots(PyObject *handle)
{
    const PyTypeObject *type = Py_TYPE(handle);

    return type == aio_handle_type || type == aio_timer_type ||
           type == aio_python.base_handle || type == aio_python.base_timer;
}

/* ---- making ---------------------------------------------------------------------- */

static PyObject *allocate(PyTypeObject *type, struct pool *pool)
{
    if (pool->count > 0) {
        PyObject *handle = PyObject_Init(pool->free[--pool->count], type);

        PyObject_GC_Track(handle);
        return handle;
    }
    return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}

PyObject *aio_pack(PyObject *const *args, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);

    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++)
        (void)PyTuple_SetItem(tuple, i, delivery_new_ref(args[i])); /* it is new */
    return tuple;
}

/* The slots of a new handle are empty. */
static int fill_slots(PyObject *handle, PyObject *loop, PyObject *callback,
                      PyObject *const *args, Py_ssize_t count, PyObject *context)
{
    PyObject *packed = aio_pack(args, count);

    *aio_slot(handle, AIO_ARGS) = packed;
    *aio_slot(handle, AIO_CALLBACK) = delivery_new_ref(callback);
    *aio_slot(handle, AIO_LOOP) = delivery_new_ref(loop);
    *aio_slot(handle, AIO_CANCELLED) = delivery_new_ref(Py_False);
    *aio_slot(handle, AIO_TRACEBACK) = delivery_new_ref(Py_None);
    *aio_slot(handle, AIO_REPR) = delivery_new_ref(Py_None);
    context = context == NULL || context == Py_None
                  ? PyObject_CallNoArgs(aio_python.copy_context)
                  : delivery_new_ref(context);
    *aio_slot(handle, AIO_CONTEXT) = context;
    return packed == NULL || context == NULL ? -1 : 0;
}

PyObject *aio_handle_new(PyObject *loop, PyObject *callback, PyObject *const *args,
                         Py_ssize_t count, PyObject *context)
{
    PyObject *handle = allocate(aio_handle_type, &handle_pool);

    if (handle != NULL && fill_slots(handle, loop, callback, args, count, context) < 0)
        Py_CLEAR(handle);
    return handle;
}

PyObject *aio_timer_new(PyObject *loop, PyObject *when, PyObject *callback,
                        PyObject *const *args, Py_ssize_t count, PyObject *context)
{
    PyObject *handle = allocate(aio_timer_type, &timer_pool);

    if (handle == NULL)
        return NULL;
    *aio_timer_index(handle) = -1;
    *aio_slot(handle, AIO_WHEN) = delivery_new_ref(when);
    *aio_slot(handle, AIO_SCHEDULED) = delivery_new_ref(Py_False);
    if (fill_slots(handle, loop, callback, args, count, context) < 0)
        Py_CLEAR(handle);
    return handle;
}

/* ---- running --------------------------------------------------------------------- */

static PyObject *call_with_many(PyObject *run, PyObject *context, PyObject *callback,
                                PyObject *args)
{
    Py_ssize_t count = PyTuple_Size(args);
    PyObject *all = PyTuple_New(2 + count);
    PyObject *result;

    if (all == NULL)
        return NULL;
    (void)PyTuple_SetItem(all, 0, delivery_new_ref(context));
    (void)PyTuple_SetItem(all, 1, delivery_new_ref(callback));
    for (Py_ssize_t i = 0; i < count; i++)
        (void)PyTuple_SetItem(all, 2 + i, delivery_new_ref(PyTuple_GetItem(args, i)));
    result = PyObject_Call(run, all, NULL);
    Py_DECREF(all);
    return result;
}

static PyObject *call_in_context(PyObject *context, PyObject *callback, PyObject *args)
{
    PyObject *run = aio_python.run;

    switch (PyTuple_Size(args)) {
    case 0:
        return PyObject_CallFunctionObjArgs(run, context, callback, NULL);
    case 1:
        return PyObject_CallFunctionObjArgs(run, context, callback,
                                            PyTuple_GetItem(args, 0), NULL);
    case 2:
        return PyObject_CallFunctionObjArgs(run, context, callback,
                                            PyTuple_GetItem(args, 0),
                                            PyTuple_GetItem(args, 1), NULL);
    default:
        return call_with_many(run, context, callback, args);
    }
}

/* context.run(callback, *args) in full: any object with a run() may be a context. */
static PyObject *call_in_other(PyObject *context, PyObject *callback, PyObject *args)
{
    PyObject *run = PyObject_GetAttr(context, aio_python.run_name);
    PyObject *front = run == NULL ? NULL : PyTuple_Pack(1, callback);
    PyObject *all = front == NULL ? NULL : PySequence_Concat(front, args);
    PyObject *result = all == NULL ? NULL : PyObject_Call(run, all, NULL);

    Py_XDECREF(run);
    Py_XDECREF(front);
    Py_XDECREF(all);
    return result;
}

static PyObject *call(PyObject *context, PyObject *callback, PyObject *args)
{
    PyObject *tuple, *result;

    if (PyTuple_CheckExact(args) && Py_TYPE(context) == aio_python.context)
        return call_in_context(context, callback, args);
    tuple = PySequence_Tuple(args); /* the program has set it */
    if (tuple == NULL)
        return NULL;
    result = Py_TYPE(context) == aio_python.context
                 ? call_in_context(context, callback, tuple)
                 : call_in_other(context, callback, tuple);
    Py_DECREF(tuple);
    return result;
}

/* While the exception handler runs, sys.exc_info() is the error, as in asyncio. */
static int report(PyObject *handle)
{
    PyObject *type, *error, *traceback, *done;
    PyObject *old_type, *old_error, *old_traceback;

    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
        PyErr_ExceptionMatches(PyExc_SystemExit))
        return -1;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL)
        (void)PyException_SetTraceback(error, traceback); /* it is a traceback */
    PyErr_GetExcInfo(&old_type, &old_error, &old_traceback);
    Py_INCREF(error); /* PyErr_SetExcInfo steals all three */
    PyErr_SetExcInfo(type, error, traceback);
    done = PyObject_CallFunctionObjArgs(aio_python.report_error, handle, error, NULL);
    PyErr_SetExcInfo(old_type, old_error, old_traceback);
    Py_DECREF(error);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

int aio_handle_run(PyObject *handle)
{
    /* The callback may cancel its own handle, which drops these. */
    PyObject *callback = delivery_new_ref(*aio_slot(handle, AIO_CALLBACK));
    PyObject *args = delivery_new_ref(*aio_slot(handle, AIO_ARGS));
    PyObject *context = delivery_new_ref(*aio_slot(handle, AIO_CONTEXT));
    PyObject *result = NULL;
    int r = 0;

    if (callback != NULL && args != NULL && context != NULL)
        result = call(context, callback, args);
    else
        PyErr_SetString(PyExc_AttributeError, "the handle was not initialised");
    Py_XDECREF(callback);
    Py_XDECREF(args);
    Py_XDECREF(context);
    if (result == NULL)
        r = report(handle);
    Py_XDECREF(result);
    return r;
}

static PyObject *run_method(PyObject *self, PyObject *unused)
{
    (void)unused;
    return aio_handle_run(self) < 0 ? NULL : delivery_new_ref(Py_None);
}

/* ---- cancelling ------------------------------------------------------------------ */

/* Whether the handle's loop, of whatever kind, is in debug mode; -1: an exception. */
static int is_debugged(PyObject *handle)
{
    PyObject *loop = *aio_slot(handle, AIO_LOOP);
    PyObject *flag;
    int r;

    if (aio_loop_check(loop))
        return aio_loop_is_debug(loop);
    if (loop == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_loop");
        return -1;
    }
    flag = PyObject_CallMethod(loop, "get_debug", NULL);
    r = flag == NULL ? -1 : PyObject_IsTrue(flag);
    Py_XDECREF(flag);
    return r;
}

static int cancel(PyObject *self)
{
    int is_debug;

    if (*aio_slot(self, AIO_CANCELLED) == Py_True)
        return 0;
    aio_set(self, AIO_CANCELLED, delivery_new_ref(Py_True));
    is_debug = is_debugged(self);
    if (is_debug < 0)
        return -1;
    if (is_debug) {
        PyObject *repr = PyObject_Repr(self);

        if (repr == NULL)
            return -1;
        aio_set(self, AIO_REPR, repr);
    }
    aio_set(self, AIO_CALLBACK, delivery_new_ref(Py_None));
    aio_set(self, AIO_ARGS, delivery_new_ref(Py_None));
    return 0;
}

static PyObject *handle_cancel(PyObject *self, PyObject *unused)
{
    (void)unused;
    return cancel(self) < 0 ? NULL : delivery_new_ref(Py_None);
}

static PyObject *timer_cancel(PyObject *self, PyObject *unused)
{
    PyObject *timers = aio_loop_timers(*aio_slot(self, AIO_LOOP));
    int r;

    (void)unused;
    Py_INCREF(self); /* the heap's may be the last reference but the caller's */
    if (*aio_timer_index(self) >= 0 && timers != NULL) {
        aio_timers_remove(timers, self);
        aio_set(self, AIO_SCHEDULED, delivery_new_ref(Py_False));
    }
    r = cancel(self);
    Py_DECREF(self);
    return r < 0 ? NULL : delivery_new_ref(Py_None);
}

static PyObject *cancelled(PyObject *self, PyObject *unused)
{
    (void)unused;
    return delivery_new_ref(*aio_slot(self, AIO_CANCELLED) == Py_True ? Py_True
                                                                      : Py_False);
}

/* ---- the types ------------------------------------------------------------------- */

static enum aio_slot last_slot(PyObject *self)
{
    return Py_TYPE(self) == aio_timer_type ? AIO_SLOT_COUNT : AIO_WHEN;
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    enum aio_slot end = last_slot(self);

    Py_VISIT(Py_TYPE(self));
    for (enum aio_slot slot = 0; slot < end; slot++)
        Py_VISIT(*aio_slot(self, slot));
    return 0;
}

static int clear(PyObject *self)
{
    enum aio_slot end = last_slot(self);

    for (enum aio_slot slot = 0; slot < end; slot++)
        Py_CLEAR(*aio_slot(self, slot));
    return 0;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct pool *pool = type == aio_timer_type ? &timer_pool : &handle_pool;

    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs(self);
    (void)clear(self); /* always 0 */
    if (DELIVERY_HAS_CACHES && pool->count < FREE_MAX)
        pool->free[pool->count++] = self;
    else
        ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF((PyObject *)type);
}

static PyObject *make_timer(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *self = ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);

    (void)args, (void)keywords;
    if (self != NULL)
        *aio_timer_index(self) = -1;
    return self;
}

/* copy.copy; the place in the heap, of which Python knows nothing, is not copied. */
static PyObject *copy_timer(PyObject *self, PyObject *unused)
{
    PyObject *copied = make_timer(Py_TYPE(self), NULL, NULL);

    (void)unused;
    for (enum aio_slot slot = 0; copied != NULL && slot < AIO_SLOT_COUNT; slot++)
        *aio_slot(copied, slot) = delivery_new_ref(*aio_slot(self, slot));
    return copied;
}

static PyMethodDef handle_methods[] = {
    {"cancel", handle_cancel, METH_NOARGS, NULL},
    {"cancelled", cancelled, METH_NOARGS, NULL},
    {"_run", run_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef timer_methods[] = {
    {"cancel", timer_cancel, METH_NOARGS, NULL},
    {"__copy__", copy_timer, METH_NOARGS, NULL},
    {"cancelled", cancelled, METH_NOARGS, NULL},
    {"_run", run_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *make_type(const char *name, PyTypeObject *base, PyMethodDef *methods,
                           newfunc make, Py_ssize_t size)
{
    PyType_Slot slots[] = {
        {Py_tp_dealloc, dealloc},
        {Py_tp_traverse, traverse},
        {Py_tp_clear, clear},
        {Py_tp_methods, methods},
        {make == NULL ? 0 : Py_tp_new, make},
        {0, NULL},
    };
    PyType_Spec spec = {name, (int)size, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                        slots};

    return PyType_FromSpecWithBases(&spec, (PyObject *)base);
}

Py_ssize_t aio_basic_size(PyTypeObject *type)
{
    PyObject *size = PyObject_GetAttrString((PyObject *)type, "__basicsize__");
    Py_ssize_t value = size == NULL ? -1 : PyLong_AsSsize_t(size);

    Py_XDECREF(size);
    return value;
}

static const struct {
    const char *name;
    enum aio_slot slot;
} slot_names[] = {
    {"_callback", AIO_CALLBACK},   {"_args", AIO_ARGS},
    {"_context", AIO_CONTEXT},     {"_loop", AIO_LOOP},
    {"_cancelled", AIO_CANCELLED}, {"_source_traceback", AIO_TRACEBACK},
    {"_repr", AIO_REPR},           {"_when", AIO_WHEN},
    {"_scheduled", AIO_SCHEDULED},
};

/* Put an object nobody else has into the slot, and look where it is now. */
Py_ssize_t aio_find_slot(PyObject *handle, const char *name, Py_ssize_t size)
{
    PyObject *mark = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    Py_ssize_t offset = -1;
    int found = 0;

    if (mark == NULL || PyObject_SetAttrString(handle, name, mark) < 0) {
        Py_XDECREF(mark);
        return -1;
    }
    for (Py_ssize_t at = (Py_ssize_t)sizeof(PyObject); at + WORD <= size; at += WORD) {
        if (*(PyObject **)((char *)handle + at) == mark) {
            offset = at;
            found++;
        }
    }
    Py_DECREF(mark);
    return found == 1 ? offset : -1;
}

/* The sizes of asyncio.Handle and asyncio.TimerHandle say where each may have slots. */
static int find_slots(Py_ssize_t handle_size, Py_ssize_t timer_size)
{
    PyTypeObject *type = aio_python.base_timer;
    PyObject *handle = PyObject_CallMethod((PyObject *)type, "__new__", "O", type);
    int r = handle == NULL ? -1 : 0;

    for (size_t i = 0; r == 0 && i < sizeof slot_names / sizeof slot_names[0]; i++) {
        enum aio_slot slot = slot_names[i].slot;
        Py_ssize_t size = slot < AIO_WHEN ? handle_size : timer_size;

        aio_offsets[slot] = aio_find_slot(handle, slot_names[i].name, size);
        if (aio_offsets[slot] < 0) {
            r = -1;
            PyErr_Format(PyExc_RuntimeError, "asyncio.TimerHandle.%s is not a slot",
                         slot_names[i].name);
        }
    }
    Py_XDECREF(handle);
    return r;
}

static int check_bases(void)
{
    if (!PyType_IsSubtype(aio_python.base_timer, aio_python.base_handle)) {
        PyErr_SetString(PyExc_RuntimeError, "asyncio.TimerHandle is no asyncio.Handle");
        return -1;
    }
    return 0;
}

int aio_handle_register(void)
{
    Py_ssize_t handle_size = aio_basic_size(aio_python.base_handle);
    Py_ssize_t timer_size = aio_basic_size(aio_python.base_timer);

    if (handle_size < 0 || timer_size < 0 || check_bases() < 0 ||
        find_slots(handle_size, timer_size) < 0)
        return -1;
    index_offset = timer_size;
    handle_pool.count = timer_pool.count = 0; /* an interpreter that starts again */
    aio_handle_type =
        (PyTypeObject *)make_type("fdmux._delivery.Handle", aio_python.base_handle,
                                  handle_methods, NULL, handle_size);
    aio_timer_type = (PyTypeObject *)make_type(
        "fdmux._delivery.TimerHandle", aio_python.base_timer, timer_methods, make_timer,
        timer_size + (Py_ssize_t)sizeof(Py_ssize_t));
    return aio_handle_type == NULL || aio_timer_type == NULL ? -1 : 0;
}
