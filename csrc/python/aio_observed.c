/* aio_observed.c: the iteration of EventLoop while it is observed.
 *
 * The same steps as in aio_iteration.c, with a look at the clock after each handle. */
#include "aio_loop.h"
#include "probe.h"
#include "system.h"

/* In seconds. A clock of the program's may jump. */
#define LAG_MAX 1e9

/* As asyncio's _run_once, which moves what is due within the resolution of the clock.
 */
static int move_due(PyObject *self, struct probe *probe)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    double now;

    if (aio_timers_count(loop->timers) == 0)
        return 0;
    now = aio_time_of(self);
    if (now == -1.0 && PyErr_Occurred() != NULL)
        return -1;
    while (aio_timers_count(loop->timers) > 0 &&
           aio_timers_next(loop->timers) < now + loop->clock_resolution) {
        double lag = now - aio_timers_next(loop->timers);

        probe_add_lag(probe, lag > 0 && lag < LAG_MAX ? (int64_t)(lag * NS_PER_S) : 0);
        if (aio_move_one(loop) < 0)
            return -1;
    }
    return 0;
}

/* The handles that are ready, one after the other. */
struct row {
    struct probe *probe;
    int64_t began_ns;
    int64_t now_ns; /* when the last one was over */
    uint32_t calls;
};

/* The callback is kept to be described, since it may cancel its handle. */
static int run_timed(PyObject *self, PyObject *handle, struct row *row)
{
    int64_t began_ns = row->now_ns;
    PyObject *callback = delivery_new_ref(
        aio_has_slots(handle) ? *aio_slot(handle, AIO_CALLBACK) : handle);
    int r;

    row->calls++;
    if (Py_TYPE(handle) != aio_timer_type) /* move_due has counted those */
        probe_add_lag(row->probe, began_ns - row->began_ns);
    r = aio_run_one(self, handle);
    row->now_ns = system_monotonic_ns();
    if (r == 0)
        r = probe_tell(row->probe, callback == NULL ? handle : callback, "",
                       row->now_ns, row->now_ns - began_ns);
    Py_XDECREF(callback);
    return r;
}

static int run_first(PyObject *self, struct row *row)
{
    PyObject *handle = aio_pop_ready((struct aio_loop *)self);
    int r = 0;

    if (handle == NULL)
        return -1;
    if (!aio_has_slots(handle) || *aio_slot(handle, AIO_CANCELLED) != Py_True)
        r = run_timed(self, handle, row);
    Py_DECREF(handle);
    return r;
}

static int run_ready(PyObject *self, struct probe *probe)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    Py_ssize_t left = aio_ready_count(loop);
    struct row row = {.probe = probe};
    int r = left < 0 ? -1 : 0;

    if (left <= 0)
        return r;
    row.began_ns = row.now_ns = system_monotonic_ns();
    for (; left > 0 && r == 0; left--) {
        r = run_first(self, &row);
        if (r == 0)
            r = aio_give_way(loop, left);
    }
    if (row.calls > 0)
        probe_add_batch(probe, row.calls, row.now_ns - row.began_ns);
    return r;
}

int aio_iterate_observed(PyObject *self)
{
    struct probe *probe =
        (struct probe *)delivery_new_ref((PyObject *)((struct aio_loop *)self)->probe);
    int r = aio_wait(self);

    if (r == 0)
        r = move_due(self, probe);
    if (r == 0)
        r = run_ready(self, probe);
    Py_DECREF((PyObject *)probe);
    return r;
}

PyObject *aio_observe(PyObject *self, PyObject *probe)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    PyObject *old = (PyObject *)loop->probe;

    if (probe != Py_None && !PyObject_TypeCheck(probe, probe_type)) {
        PyErr_SetString(PyExc_TypeError, "_observe takes a Probe, or None");
        return NULL;
    }
    loop->probe = probe == Py_None ? NULL : (struct probe *)delivery_new_ref(probe);
    loop->must_leave |= LEAVE_TO_SWITCH;
    Py_XDECREF(old);
    return delivery_new_ref(Py_None);
}
