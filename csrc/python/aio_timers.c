/* aio_timers.c: the timers of an asyncio loop: a heap of handles by deadline.
 *
 * asyncio leaves cancelled timers in its heap until they are due or too many. Here each
 * handle knows its place, so cancelling removes it at once: O(log n), and a server that
 * arms and cancels a timer for each request keeps a heap of its live ones. The type is
 * a sequence of handles in heap order, for whoever looks into loop._scheduled. */
#include "aio.h"

#include <math.h>
#include <stdatomic.h>
#include <stddef.h>

struct entry {
    double when;
    uint64_t sequence;
    PyObject *handle; /* a reference */
};

struct aio_timers {
    PyObject head;
    struct entry *entries;
    Py_ssize_t count;
    Py_ssize_t capacity;
    uint64_t next_sequence;
    /* When the first is due, INFINITY without one: the thread that waits reads it
     * without the GIL, while another one may move the entries. */
    _Atomic double first_when;
};

#define CAPACITY_MIN 16
#define CAPACITY_SMALL 64 /* is not shrunk */

static PyTypeObject *timers_type;

static bool is_before(const struct entry *a, const struct entry *b)
{
    return a->when < b->when || (a->when == b->when && a->sequence < b->sequence);
}

static void set_first(struct aio_timers *timers, double when)
{
    atomic_store_explicit(&timers->first_when, when, memory_order_relaxed);
}

static void place(struct aio_timers *timers, Py_ssize_t index, struct entry entry)
{
    timers->entries[index] = entry;
    if (index == 0)
        set_first(timers, entry.when);
    if (Py_TYPE(entry.handle) == aio_timer_type)
        *aio_timer_index(entry.handle) = index;
}

static void sift_up(struct aio_timers *timers, Py_ssize_t index)
{
    struct entry entry = timers->entries[index];

    while (index > 0) {
        Py_ssize_t parent = (index - 1) / 2;

        if (!is_before(&entry, &timers->entries[parent]))
            break;
        place(timers, index, timers->entries[parent]);
        index = parent;
    }
    place(timers, index, entry);
}

static void sift_down(struct aio_timers *timers, Py_ssize_t index)
{
    struct entry entry = timers->entries[index];

    for (;;) {
        Py_ssize_t child = 2 * index + 1;

        if (child >= timers->count)
            break;
        if (child + 1 < timers->count &&
            is_before(&timers->entries[child + 1], &timers->entries[child]))
            child++;
        if (!is_before(&timers->entries[child], &entry))
            break;
        place(timers, index, timers->entries[child]);
        index = child;
    }
    place(timers, index, entry);
}

static int resize(struct aio_timers *timers, Py_ssize_t capacity)
{
    struct entry *entries =
        PyMem_Realloc(timers->entries, (size_t)capacity * sizeof *entries);

    if (entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    timers->entries = entries;
    timers->capacity = capacity;
    return 0;
}

/* Take the entry at `index` out; its reference goes to the caller. */
static PyObject *take(struct aio_timers *timers, Py_ssize_t index)
{
    PyObject *handle = timers->entries[index].handle;

    if (Py_TYPE(handle) == aio_timer_type)
        *aio_timer_index(handle) = -1;
    timers->count--;
    if (index < timers->count) {
        place(timers, index, timers->entries[timers->count]);
        sift_down(timers, index);
        sift_up(timers, index);
    } else if (index == 0) {
        set_first(timers, INFINITY);
    }
    /* A burst of timers is not to be paid for ever. Shrinking cannot fail badly. */
    if (timers->capacity > CAPACITY_SMALL && timers->count < timers->capacity / 8 &&
        resize(timers, timers->capacity / 4) < 0)
        PyErr_Clear();
    return handle;
}

PyObject *aio_timers_new(void)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(timers_type, Py_tp_alloc);
    PyObject *timers = allocate(timers_type, 0);

    if (timers != NULL)
        set_first((struct aio_timers *)timers, INFINITY);
    return timers;
}

bool aio_timers_check(PyObject *object)
{
    return Py_TYPE(object) == timers_type;
}

Py_ssize_t aio_timers_count(PyObject *object)
{
    return ((const struct aio_timers *)object)->count;
}

double aio_timers_next(PyObject *object)
{
    return atomic_load_explicit(&((struct aio_timers *)object)->first_when,
                                memory_order_relaxed);
}

int aio_timers_add(PyObject *object, PyObject *handle, double when)
{
    struct aio_timers *timers = (struct aio_timers *)object;

    if (timers->count == timers->capacity &&
        resize(timers, timers->capacity == 0 ? CAPACITY_MIN : timers->capacity * 2) < 0)
        return -1;
    Py_INCREF(handle);
    /* What compares with nothing would break the order of the heap, and never be due.
     */
    timers->entries[timers->count] =
        (struct entry){.when = isnan(when) ? -INFINITY : when,
                       .sequence = timers->next_sequence++,
                       .handle = handle};
    sift_up(timers, timers->count++);
    return 0;
}

void aio_timers_remove(PyObject *object, PyObject *handle)
{
    struct aio_timers *timers = (struct aio_timers *)object;
    Py_ssize_t index = *aio_timer_index(handle);

    if (index >= 0 && index < timers->count && timers->entries[index].handle == handle)
        Py_DECREF(take(timers, index));
}

PyObject *aio_timers_pop(PyObject *object)
{
    return take((struct aio_timers *)object, 0);
}

/* ---- the sequence ---------------------------------------------------------------- */

static Py_ssize_t length(PyObject *self)
{
    return ((struct aio_timers *)self)->count;
}

static PyObject *item(PyObject *self, Py_ssize_t index)
{
    const struct aio_timers *timers = (struct aio_timers *)self;

    if (index < 0 || index >= timers->count) {
        PyErr_SetString(PyExc_IndexError, "timer index out of range");
        return NULL;
    }
    return delivery_new_ref(timers->entries[index].handle);
}

/* Over those that are there now: whoever iterates may cancel them, as with a list. */
static PyObject *iterate(PyObject *self)
{
    const struct aio_timers *timers = (struct aio_timers *)self;
    PyObject *handles = PyTuple_New(timers->count); /* may run the collector */
    PyObject *iterator;

    for (Py_ssize_t i = 0; handles != NULL && i < PyTuple_Size(handles); i++) {
        PyObject *handle = i < timers->count ? timers->entries[i].handle : Py_None;

        (void)PyTuple_SetItem(handles, i, delivery_new_ref(handle));
    }
    iterator = handles == NULL ? NULL : PyObject_GetIter(handles);
    Py_XDECREF(handles);
    return iterator;
}

static PyObject *clear(PyObject *self, PyObject *unused)
{
    struct aio_timers *timers = (struct aio_timers *)self;

    (void)unused;
    while (timers->count > 0) /* what a handle drops may add or cancel others */
        Py_DECREF(take(timers, timers->count - 1));
    return delivery_new_ref(Py_None);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    const struct aio_timers *timers = (struct aio_timers *)self;

    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t i = 0; i < timers->count; i++)
        Py_VISIT(timers->entries[i].handle);
    return 0;
}

static int drop_all(PyObject *self)
{
    Py_DECREF(clear(self, NULL));
    return 0;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(self);
    (void)drop_all(self); /* always 0 */
    PyMem_Free(((struct aio_timers *)self)->entries);
    release(self);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef methods[] = {
    {"clear", clear, METH_NOARGS, "clear($self, /)\n--\n\nForget every timer."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, dealloc}, {Py_tp_traverse, traverse},
    {Py_tp_clear, drop_all},  {Py_tp_methods, methods},
    {Py_sq_length, length},   {Py_sq_item, item},
    {Py_tp_iter, iterate},    {0, NULL},
};

static PyType_Spec spec = {
    "fdmux._delivery.Timers",
    sizeof(struct aio_timers),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    slots,
};

int aio_timers_register(void)
{
    timers_type = (PyTypeObject *)PyType_FromSpec(&spec);
    return timers_type == NULL ? -1 : 0;
}
