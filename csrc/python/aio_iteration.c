/* aio_iteration.c: the iteration of EventLoop, asyncio's _run_once.
 *
 * Wait, take what is ready, move what is due, run as many handles as are ready then.
 * The wait is the selector's own, called in C where the selector is ours; any other
 * selector, or one whose select() a program has replaced, is asked in Python. */
#include "aio_loop.h"

#include <math.h>

#include "system.h"

/* asyncio's MAXIMUM_SELECT_TIMEOUT. */
#define WAIT_MAX (24 * 3600.0)
#define EVENT_READ 1
#define EVENT_WRITE 2

/* How many handles run between two looks at signals, and between two looks at the clock
 * to see whether the GIL is to be offered. Handles with bytecode do both; those that
 * call C, such as the wake-ups of futures, do neither. */
#define SIGNALS_EVERY 16
#define CLOCK_EVERY 1024
/* The same for iterations that do not wait. */
#define BUSY_CLOCK_EVERY 16

/* More than sys.getswitchinterval(): a thread that waits for the GIL asks for it when
 * it has not changed hands for that long. */
#define OFFER_NS 20000000
#define HAND_OVER_NS 50000

/* ---- other threads --------------------------------------------------------------- */

/* Is threading.active_count() more than 1? Returns 1 or 0, or -1 with an exception: a
 * signal handler may raise in it. */
static int has_other_threads(void)
{
    PyObject *module = PyImport_ImportModule("threading");
    PyObject *count =
        module == NULL ? NULL : PyObject_CallMethod(module, "active_count", NULL);
    int r = count == NULL ? -1 : PyLong_AsLong(count) > 1;

    Py_XDECREF(module);
    Py_XDECREF(count);
    if (r < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear(); /* not known: as if there were some */
        return 1;
    }
    return r;
}

/* Every 20 ms, let another thread have the GIL: the main thread may wait for it to run
 * a signal handler. A wait that ends at once gives the GIL up too, but takes it back
 * before the other thread is awake, and CPython hands it over only to a thread that has
 * waited for 5 ms without such a chance (ceval_gil.c). So this sleeps until that one is
 * awake. */
static int offer_gil(struct aio_loop *loop)
{
    int64_t now = system_monotonic_ns();
    PyThreadState *state;
    int is_shared;

    if (now - loop->offered_at < OFFER_NS)
        return 0;
    loop->offered_at = now;
    is_shared = has_other_threads();
    if (is_shared < 0)
        return -1;
    state = PyEval_SaveThread();
    if (is_shared)
        system_pause(HAND_OVER_NS);
    PyEval_RestoreThread(state);
    return 0;
}

/* ---- what is ready --------------------------------------------------------------- */

/* The queue, or NULL with an exception. */
PyObject *aio_check_ready(const struct aio_loop *loop)
{
    if (loop->ready == NULL)
        PyErr_SetString(PyExc_AttributeError, "_ready");
    return loop->ready;
}

Py_ssize_t aio_ready_count(const struct aio_loop *loop)
{
    if (loop->is_deque)
        return Py_SIZE(loop->ready);
    return aio_check_ready(loop) == NULL ? -1 : PyObject_Size(loop->ready);
}

bool aio_loop_has_work(PyObject *object)
{
    const struct aio_loop *loop = (const struct aio_loop *)object;

    if (!loop->is_deque || Py_SIZE(loop->ready) > 0 || loop->stopping != Py_False)
        return true;
    return aio_timers_next(loop->timers) < loop->wait_until;
}

int aio_append_ready(const struct aio_loop *loop, PyObject *handle)
{
    PyObject *ready = aio_check_ready(loop);
    PyObject *done = NULL;

    if (ready == NULL)
        return -1;
    Py_INCREF(ready); /* a queue of the program's may replace itself */
    if (loop->is_deque)
        done = PyObject_CallFunctionObjArgs(aio_python.append, ready, handle, NULL);
    else
        done = PyObject_CallMethodObjArgs(ready, aio_names.append, handle, NULL);
    Py_DECREF(ready);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

PyObject *aio_pop_ready(const struct aio_loop *loop)
{
    PyObject *ready = aio_check_ready(loop);
    PyObject *handle;

    if (ready == NULL)
        return NULL;
    Py_INCREF(ready);
    handle = loop->is_deque
                 ? PyObject_CallFunctionObjArgs(aio_python.popleft, ready, NULL)
                 : PyObject_CallMethodObjArgs(ready, aio_names.popleft, NULL);
    Py_DECREF(ready);
    return handle;
}

/* ---- waiting --------------------------------------------------------------------- */

/* How long to wait, in seconds; negative: until something happens. */
static int bound_wait(PyObject *self, double *ret_timeout)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    Py_ssize_t count = aio_ready_count(loop);
    double now;

    if (count < 0)
        return -1;
    *ret_timeout = -1.0;
    loop->wait_until = INFINITY;
    if (count > 0 || aio_is_true(loop->stopping)) {
        *ret_timeout = 0.0;
    } else if (aio_timers_count(loop->timers) > 0) {
        now = aio_time_of(self);
        if (now == -1.0 && PyErr_Occurred() != NULL)
            return -1;
        loop->wait_until = aio_timers_next(loop->timers);
        *ret_timeout = loop->wait_until - now;
        if (*ret_timeout > WAIT_MAX)
            *ret_timeout = WAIT_MAX;
        else if (!(*ret_timeout > 0)) /* also NaN */
            *ret_timeout = 0.0;
    }
    return 0;
}

static int take_event(PyObject *self, PyObject *handle, PyObject *file,
                      PyObject *remove)
{
    PyObject *done;

    if (handle == Py_None)
        return 0;
    if (aio_has_slots(handle) && *aio_slot(handle, AIO_CANCELLED) == Py_False)
        return aio_append_ready((struct aio_loop *)self, handle);
    if (!aio_has_slots(handle)) {
        PyObject *flag = PyObject_GetAttr(handle, aio_names.cancelled);
        bool is_cancelled = aio_is_true(flag);

        Py_XDECREF(flag);
        if (flag == NULL)
            return -1;
        if (!is_cancelled)
            return aio_append_ready((struct aio_loop *)self, handle);
    }
    done = PyObject_CallMethodObjArgs(self, remove, file, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* One (key, events) of our selector, as BaseSelectorEventLoop._process_events. */
static int take_pair(PyObject *self, PyObject *pair)
{
    PyObject *key = PyTuple_GetItem(pair, 0);
    long events = PyLong_AsLong(PyTuple_GetItem(pair, 1));
    PyObject *file = PyTuple_GetItem(key, 0);
    PyObject *handles = PyTuple_GetItem(key, 3);
    int r = 0;

    if (handles == NULL || !PyTuple_Check(handles) || PyTuple_Size(handles) != 2) {
        PyErr_SetString(PyExc_TypeError, "the data of a key must be two handles");
        return -1;
    }
    if ((events & EVENT_READ) != 0)
        r = take_event(self, PyTuple_GetItem(handles, 0), file,
                       aio_names.remove_reader);
    if (r == 0 && (events & EVENT_WRITE) != 0)
        r = take_event(self, PyTuple_GetItem(handles, 1), file,
                       aio_names.remove_writer);
    return r;
}

static int process_in_python(PyObject *self, PyObject *events)
{
    PyObject *done =
        PyObject_CallMethodObjArgs(self, aio_names.process_events, events, NULL);

    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int take_indices(PyObject *self, const uint32_t *indices, int count)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    PyObject *list = loop->has_own_events ? PyList_New(0) : NULL;
    int r = 0;

    if (loop->has_own_events && list == NULL)
        return -1;
    for (int i = 0; r == 0 && i < count; i++) {
        PyObject *pair = PyList_GetItem(loop->pairs, (Py_ssize_t)indices[i]);

        if (pair == NULL) {
            r = -1;
        } else if (pair != Py_None) { /* unregistered meanwhile */
            Py_INCREF(pair);
            r = list == NULL ? take_pair(self, pair) : PyList_Append(list, pair);
            Py_DECREF(pair);
        }
    }
    if (r == 0 && list != NULL)
        r = process_in_python(self, list);
    Py_XDECREF(list);
    return r;
}

/* Errors, and signals: the selector goes on, or raises. */
static int finish_wait(struct aio_loop *loop, PyObject *owner, int count)
{
    PyObject *number = PyLong_FromLong(count);
    PyObject *result =
        number == NULL ? NULL
                       : PyObject_CallMethodObjArgs(loop->selector, aio_names.finish,
                                                    owner, number, NULL);
    long left = result == NULL ? -1 : PyLong_AsLong(result);

    Py_XDECREF(number);
    Py_XDECREF(result);
    return (int)left;
}

bool aio_waits_in_c(const struct aio_loop *loop)
{
    return loop->batch != NULL && !loop->has_other_selector && !loop->has_own_select;
}

static int wait_in_c(PyObject *self, double timeout)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    PyObject *owner = delivery_new_ref(loop->batch_owner);
    struct fdmux_py_batch *batch = loop->batch;
    const uint32_t *indices = loop->indices;
    int64_t timeout_ns = timeout < 0 ? -1 : (int64_t)ceil(timeout * NS_PER_S);
    PyThreadState *state = PyEval_SaveThread();
    int count = loop->select(batch, timeout_ns);
    int r;

    PyEval_RestoreThread(state);
    if (count < 0)
        count = finish_wait(loop, owner, count);
    r = count < 0 ? -1 : count == 0 ? 0 : take_indices(self, indices, count);
    Py_DECREF(owner);
    return r;
}

static int wait_in_python(PyObject *self, double timeout)
{
    PyObject *limit = timeout < 0    ? delivery_new_ref(Py_None)
                      : timeout == 0 ? PyLong_FromLong(0)
                                     : PyFloat_FromDouble(timeout);
    PyObject *selector = PyObject_GetAttrString(self, "_selector");
    PyObject *events = NULL;
    int r = -1;

    if (limit != NULL && selector != NULL)
        events = PyObject_CallMethodObjArgs(selector, aio_names.select, limit, NULL);
    Py_XDECREF(limit);
    Py_XDECREF(selector);
    if (events != NULL)
        r = process_in_python(self, events);
    Py_XDECREF(events);
    return r;
}

/* ---- the iteration --------------------------------------------------------------- */

/* Let signal handlers run, and now and then the threads that wait for the GIL. `count`
 * is how many handles are left. */
int aio_give_way(struct aio_loop *loop, Py_ssize_t count)
{
    if (count % SIGNALS_EVERY != 0)
        return 0;
    if (count % CLOCK_EVERY == 0 && offer_gil(loop) < 0)
        return -1;
    return PyErr_CheckSignals();
}

/* Take the first timer out, as one that is due. */
int aio_move_one(struct aio_loop *loop)
{
    PyObject *handle = aio_timers_pop(loop->timers);
    int r;

    aio_set(handle, AIO_SCHEDULED, delivery_new_ref(Py_False));
    r = aio_append_ready(loop, handle);
    Py_DECREF(handle);
    return r < 0 ? r : aio_give_way(loop, aio_timers_count(loop->timers));
}

static int move_due(PyObject *self)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    double end;

    if (aio_timers_count(loop->timers) == 0)
        return 0;
    end = aio_time_of(self);
    if (end == -1.0 && PyErr_Occurred() != NULL)
        return -1;
    end += loop->clock_resolution;
    while (aio_timers_count(loop->timers) > 0 && aio_timers_next(loop->timers) < end) {
        if (aio_move_one(loop) < 0)
            return -1;
    }
    return 0;
}

static int run_other(PyObject *handle)
{
    PyObject *flag = PyObject_GetAttr(handle, aio_names.cancelled);
    PyObject *done = NULL;
    bool is_cancelled = aio_is_true(flag);

    if (flag != NULL && !is_cancelled) {
        done = PyObject_CallMethodObjArgs(handle, aio_names.run, NULL);
        Py_XDECREF(done);
    }
    Py_XDECREF(flag);
    return flag == NULL || (!is_cancelled && done == NULL) ? -1 : 0;
}

int aio_run_one(PyObject *self, PyObject *handle)
{
    const struct aio_loop *loop = (struct aio_loop *)self;
    PyObject *done;

    if (aio_has_slots(handle)) { /* whose flag a program may have set to anything */
        PyObject *flag = *aio_slot(handle, AIO_CANCELLED);

        if (flag == Py_True)
            return 0;
        if (flag == Py_False && loop->debug == Py_False)
            return aio_handle_run(handle);
    }
    if (!aio_is_true(loop->debug))
        return run_other(handle);
    done = PyObject_CallFunctionObjArgs(aio_python.run_timed, self, handle, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* As many as are ready now; what they add is for the next iteration. */
static int run_ready(PyObject *self)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    Py_ssize_t left = aio_ready_count(loop);
    int r = left < 0 ? -1 : 0;

    for (; left > 0 && r == 0; left--) {
        PyObject *handle = aio_pop_ready(loop);

        r = handle == NULL ? -1 : aio_run_one(self, handle);
        Py_XDECREF(handle);
        if (r == 0)
            r = aio_give_way(loop, left);
    }
    return r;
}

/* The first half of an iteration. */
int aio_wait(PyObject *self)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    double timeout;

    if (PyErr_CheckSignals() < 0)
        return -1;
    if (loop->delivery != NULL &&
        Py_TYPE((PyObject *)loop->delivery) == delivery_type &&
        delivery_has_unsent(loop->delivery))
        delivery_flush(loop->delivery);
    if (bound_wait(self, &timeout) < 0)
        return -1;
    if (timeout == 0 && ++loop->busy_count % BUSY_CLOCK_EVERY == 0 &&
        offer_gil(loop) < 0)
        return -1;
    return aio_waits_in_c(loop) ? wait_in_c(self, timeout)
                                : wait_in_python(self, timeout);
}

static int iterate(PyObject *self)
{
    if (aio_wait(self) < 0 || move_due(self) < 0)
        return -1;
    return run_ready(self);
}

static bool goes_on(const struct aio_loop *loop)
{
    return loop->stopping == Py_False && loop->must_leave == 0;
}

/* Iterate once, or until the loop is to stop. */
static int repeat(PyObject *self, bool is_repeating)
{
    const struct aio_loop *loop = (struct aio_loop *)self;
    int r;

    if (loop->probe != NULL) {
        do {
            r = aio_iterate_observed(self);
        } while (r >= 0 && is_repeating && goes_on(loop));
        return r;
    }
    do {
        r = iterate(self);
    } while (r >= 0 && is_repeating && goes_on(loop));
    return r;
}

/* Only the call of run_forever repeats: a callback that calls this does one iteration.
 */
PyObject *aio_run_once(PyObject *self, PyObject *unused)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    bool is_repeating = loop->is_repeating;

    (void)unused;
    loop->is_repeating = false;
    do {
        loop->must_leave &= (uint8_t)~LEAVE_TO_SWITCH;
        if (repeat(self, is_repeating) < 0)
            return NULL;
    } while (is_repeating && loop->stopping == Py_False &&
             loop->must_leave == LEAVE_TO_SWITCH);
    return delivery_new_ref(Py_None);
}
