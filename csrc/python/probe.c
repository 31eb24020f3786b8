/* probe.c: the type Probe: what it counts, and how Python reads that (probe.h). */
#include "probe.h"
#include "system.h"

#include <stddef.h>
#include <structmember.h>

#define NS_PER_S 1000000000

PyTypeObject *probe_type;

static const int64_t lag_bounds_us[PROBE_LAGS - 1] = {
    1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};

/* ---- counting ------------------------------------------------------------------- */

void probe_add_batch(struct probe *probe, uint32_t calls, int64_t busy_ns)
{
    uint32_t index = 0;

    while (index < PROBE_SIZES - 1 && calls > UINT32_C(1) << index)
        index++;
    probe->sizes[index]++;
    probe->calls += calls;
    probe->busy_ns += busy_ns;
}

void probe_add_lag(struct probe *probe, int64_t lag_ns)
{
    uint32_t index = 0;

    while (index < PROBE_LAGS - 1 && lag_ns > lag_bounds_us[index] * 1000)
        index++;
    probe->lags[index]++;
    probe->lag_ns += lag_ns;
}

static int tell_slow(const struct probe *probe, PyObject *target, const char *what,
                     int64_t took_ns)
{
    PyObject *done = PyObject_CallFunction(probe->on_slow, "Osd", target, what,
                                           (double)took_ns / NS_PER_S);

    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

int probe_tell(struct probe *probe, PyObject *target, const char *what, int64_t now_ns,
               int64_t took_ns)
{
    PyObject *done;

    if (took_ns >= probe->slow_ns && tell_slow(probe, target, what, took_ns) < 0)
        return -1;
    if (now_ns < probe->due_ns)
        return 0;
    done = PyObject_CallNoArgs(probe->on_due);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* ---- the type ------------------------------------------------------------------- */

static int64_t ns_of(double seconds)
{
    return seconds < (double)INT64_MAX / NS_PER_S ? (int64_t)(seconds * NS_PER_S)
                                                  : INT64_MAX;
}

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct probe *probe;
    PyObject *on_slow, *on_due;

    (void)kwargs;
    if (!PyArg_ParseTuple(args, "OO:Probe", &on_slow, &on_due))
        return NULL;
    probe = (struct probe *)allocate(type, 0);
    if (probe == NULL)
        return NULL;
    probe->on_slow = delivery_new_ref(on_slow);
    probe->on_due = delivery_new_ref(on_due);
    probe->slow_ns = probe->due_ns = INT64_MAX;
    probe_set_hold(probe);
    return (PyObject *)probe;
}

/* set(slow, due): what is slow, in seconds, and when to call on_due, on the monotonic
 * clock. */
static PyObject *set(PyObject *self, PyObject *args)
{
    struct probe *probe = (struct probe *)self;
    double slow, due;

    if (!PyArg_ParseTuple(args, "dd:set", &slow, &due))
        return NULL;
    probe->slow_ns = ns_of(slow);
    probe->due_ns = ns_of(due);
    return delivery_new_ref(Py_None);
}

/* What was called since the row began was a batch. Nothing tells the end of a row: that
 * would be one call more for each. */
static void count_row(struct probe *probe)
{
    if (probe->row_calls > 0)
        probe_add_batch(probe, probe->row_calls,
                        probe->call_began_ns - probe->row_counted_ns);
    probe->row_calls = 0;
    probe->row_counted_ns = probe->call_began_ns;
}

/* begin(): Python makes a row of calls from now on. */
static PyObject *begin_row(PyObject *self, PyObject *unused)
{
    struct probe *probe = (struct probe *)self;

    (void)unused;
    count_row(probe);
    probe->call_began_ns = system_monotonic_ns();
    probe->row_began_ns = probe->row_counted_ns = probe->call_began_ns;
    return delivery_new_ref(Py_None);
}

/* lap(), or lap(lag): a call of the row is over, and the next one begins. It was late
 * by `lag` seconds; by default, as long as the row. Returns whether to tell(). */
static PyObject *lap(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct probe *probe = (struct probe *)self;
    int64_t now_ns = system_monotonic_ns();
    int64_t lag_ns = probe->call_began_ns - probe->row_began_ns;

    if (count > 0) {
        double lag = PyFloat_AsDouble(args[0]);

        if (lag == -1.0 && PyErr_Occurred() != NULL)
            return NULL;
        lag_ns = lag > 0 ? ns_of(lag) : 0;
    }
    probe_add_lag(probe, lag_ns);
    probe->row_calls++;
    probe->took_ns = now_ns - probe->call_began_ns;
    probe->call_began_ns = now_ns;
    return delivery_new_ref(
        probe->took_ns < probe->slow_ns && now_ns < probe->due_ns ? Py_False : Py_True);
}

/* skip(): what was called was none of the user's; the next call begins. */
static PyObject *skip(PyObject *self, PyObject *unused)
{
    struct probe *probe = (struct probe *)self;
    int64_t now_ns = system_monotonic_ns();

    (void)unused;
    probe->row_began_ns += now_ns - probe->call_began_ns;
    probe->row_counted_ns += now_ns - probe->call_began_ns;
    probe->call_began_ns = now_ns;
    return delivery_new_ref(Py_None);
}

/* tell(callback): call on_slow and on_due for the last call of the row, as is due. Not
 * named tell, which is a function of <io.h> on Windows. */
static PyObject *tell_last(PyObject *self, PyObject *callback)
{
    struct probe *probe = (struct probe *)self;

    if (probe_tell(probe, callback, "", probe->call_began_ns, probe->took_ns) < 0)
        return NULL;
    return delivery_new_ref(Py_None);
}

/* Put a number, or NULL with an exception, into a new tuple. */
static int put(PyObject *tuple, Py_ssize_t index, PyObject *number)
{
    return number == NULL ? -1 : PyTuple_SetItem(tuple, index, number);
}

static PyObject *counts_of(const uint64_t *counts, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    int r = tuple == NULL ? -1 : 0;

    for (Py_ssize_t i = 0; r == 0 && i < count; i++)
        r = put(tuple, i, PyLong_FromUnsignedLongLong(counts[i]));
    if (r < 0)
        Py_CLEAR(tuple);
    return tuple;
}

/* read(): (calls, batch sizes, busy seconds, lags, lag seconds). */
static PyObject *read_all(PyObject *self, PyObject *unused)
{
    struct probe *probe = (struct probe *)self;
    PyObject *sizes, *lags, *all = NULL;

    (void)unused;
    count_row(probe);
    sizes = counts_of(probe->sizes, PROBE_SIZES);
    lags = counts_of(probe->lags, PROBE_LAGS);
    if (sizes != NULL && lags != NULL)
        all = Py_BuildValue("KOdOd", (unsigned long long)probe->calls, sizes,
                            (double)probe->busy_ns / NS_PER_S, lags,
                            (double)probe->lag_ns / NS_PER_S);
    Py_XDECREF(sizes);
    Py_XDECREF(lags);
    return all;
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct probe *)self)->on_slow);
    Py_VISIT(((struct probe *)self)->on_due);
    return 0;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(self);
    Py_CLEAR(((struct probe *)self)->on_slow);
    Py_CLEAR(((struct probe *)self)->on_due);
    release(self);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef methods[] = {
    {"begin", begin_row, METH_NOARGS, NULL},
    {"lap", (PyCFunction)(void (*)(void))lap, METH_FASTCALL, NULL},
    {"skip", skip, METH_NOARGS, NULL},
    {"tell", tell_last, METH_O, NULL},
    {"set", set, METH_VARARGS, NULL},
    {"read", read_all, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"accepted", T_ULONGLONG, offsetof(struct probe, accepted), 0, NULL},
    {"shortages", T_ULONGLONG, offsetof(struct probe, shortages), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, make},        {Py_tp_dealloc, dealloc}, {Py_tp_traverse, traverse},
    {Py_tp_methods, methods}, {Py_tp_members, members}, {0, NULL},
};

static PyType_Spec spec = {
    "fdmux._delivery.Probe",
    sizeof(struct probe),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    slots,
};

static PyObject *bounds(void)
{
    PyObject *tuple = PyTuple_New(PROBE_LAGS - 1);
    int r = tuple == NULL ? -1 : 0;

    for (Py_ssize_t i = 0; r == 0 && i < PROBE_LAGS - 1; i++)
        r = put(tuple, i, PyFloat_FromDouble((double)lag_bounds_us[i] / 1000000));
    if (r < 0)
        Py_CLEAR(tuple);
    return tuple;
}

int probe_register(PyObject *module, bool is_main)
{
    PyObject *type = PyType_FromSpec(&spec);
    PyObject *tuple = bounds();
    int r = -1;

    if (is_main)
        probe_type = (PyTypeObject *)type;
    if (type != NULL && tuple != NULL &&
        PyModule_AddObjectRef(module, "Probe", type) == 0)
        r = PyModule_AddObjectRef(module, "LAG_BOUNDS", tuple);
    Py_XDECREF(tuple);
    return r;
}
