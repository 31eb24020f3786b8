/* aio_schedule.c: call_soon, call_later, call_at and time of EventLoop.
 *
 * Debug mode, and what a program has overridden, is asked in Python. */
#include "aio_loop.h"
#include "system.h"

/* ---- scheduling ------------------------------------------------------------------ */

/* [when,] callback, *args, context=None, as METH_FASTCALL gives them. */
struct call {
    PyObject *when;
    PyObject *callback;
    PyObject *const *args;
    Py_ssize_t count;
    PyObject *context;
};

/* Put a keyword's value where its name belongs; `when_name` may be NULL. */
static int take_keyword(struct call *call, const char *method, PyObject *name,
                        PyObject *value, PyObject *when_name)
{
    PyObject **place = NULL;

    if (PyUnicode_Compare(name, aio_names.context) == 0)
        place = &call->context;
    else if (PyUnicode_Compare(name, aio_names.callback) == 0)
        place = &call->callback;
    else if (when_name != NULL && PyUnicode_Compare(name, when_name) == 0)
        place = &call->when;
    if (place != NULL && *place == NULL) {
        *place = value;
        return 0;
    }
    PyErr_Format(PyExc_TypeError,
                 place == NULL ? "%s() got an unexpected keyword argument %R"
                               : "%s() got multiple values for argument %R",
                 method, name);
    return -1;
}

static int parse(const char *method, PyObject *when_name, PyObject *const *args,
                 Py_ssize_t count, PyObject *keywords, struct call *ret_call)
{
    Py_ssize_t keyword_count = keywords == NULL ? 0 : PyTuple_Size(keywords);
    PyObject *const *values = args + count;

    *ret_call = (struct call){.when = NULL};
    if (when_name != NULL && count > 0) {
        ret_call->when = *args++;
        count--;
    }
    if (count > 0) {
        ret_call->callback = *args++;
        count--;
    }
    ret_call->args = args;
    ret_call->count = count;
    for (Py_ssize_t i = 0; i < keyword_count; i++) {
        if (take_keyword(ret_call, method, PyTuple_GetItem(keywords, i), values[i],
                         when_name) < 0)
            return -1;
    }
    if (ret_call->callback != NULL && (when_name == NULL || ret_call->when != NULL))
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() missing a required argument: %R", method,
                 when_name == NULL || ret_call->when != NULL ? aio_names.callback
                                                             : when_name);
    return -1;
}

static int check_open(PyObject *self)
{
    PyObject *done;

    if (((struct aio_loop *)self)->closed == Py_False)
        return 0;
    done = PyObject_CallMethodObjArgs(self, aio_names.check_closed, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* What asyncio checks in debug mode. */
static int check_debug(PyObject *self, PyObject *callback, const char *method,
                       bool is_own_thread)
{
    PyObject *done = NULL, *name;

    if (is_own_thread) {
        done = PyObject_CallMethodObjArgs(self, aio_names.check_thread, NULL);
        Py_XDECREF(done);
        if (done == NULL)
            return -1;
    }
    name = PyUnicode_FromString(method);
    done = name == NULL ? NULL
                        : PyObject_CallMethodObjArgs(self, aio_names.check_callback,
                                                     callback, name, NULL);
    Py_XDECREF(name);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* By asyncio's own constructor, which notes where the call came from. */
static PyObject *make_in_debug(PyTypeObject *type, PyObject *self, PyObject *when,
                               const struct call *call)
{
    PyObject *args = aio_pack(call->args, call->count);
    PyObject *handle;

    if (args == NULL)
        return NULL;
    handle = when == NULL ? PyObject_CallFunctionObjArgs(
                                (PyObject *)type, call->callback, args, self,
                                call->context == NULL ? Py_None : call->context, NULL)
                          : PyObject_CallFunctionObjArgs(
                                (PyObject *)type, when, call->callback, args, self,
                                call->context == NULL ? Py_None : call->context, NULL);
    Py_DECREF(args);
    return handle;
}

static PyObject *schedule_soon(PyObject *self, const struct call *call,
                               const char *method, bool is_own_thread)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    PyObject *handle;

    if (check_open(self) < 0)
        return NULL;
    if (loop->debug == Py_False)
        handle = aio_handle_new(self, call->callback, call->args, call->count,
                                call->context);
    else if (aio_is_true(loop->debug) &&
             check_debug(self, call->callback, method, is_own_thread) < 0)
        return NULL;
    else
        handle = make_in_debug(aio_handle_type, self, NULL, call);
    if (handle != NULL && aio_append_ready(loop, handle) < 0)
        Py_CLEAR(handle);
    return handle;
}

PyObject *aio_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t count,
                        PyObject *keywords)
{
    struct call call;

    if (parse("call_soon", NULL, args, count, keywords, &call) < 0)
        return NULL;
    return schedule_soon(self, &call, "call_soon", true);
}

PyObject *aio_call_soon_threadsafe(PyObject *self, PyObject *const *args,
                                   Py_ssize_t count, PyObject *keywords)
{
    struct call call;
    PyObject *handle, *done;

    if (parse("call_soon_threadsafe", NULL, args, count, keywords, &call) < 0)
        return NULL;
    handle = schedule_soon(self, &call, "call_soon_threadsafe", false);
    if (handle == NULL)
        return NULL;
    done = PyObject_CallMethodObjArgs(self, aio_names.write_to_self, NULL);
    if (done == NULL)
        Py_CLEAR(handle);
    Py_XDECREF(done);
    return handle;
}

/* Name the argument that is no number; other exceptions stay as they are. */
static PyObject *refuse_number(const char *name, PyObject *value)
{
    if (PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s is %R; it must be a real number", name,
                     value);
    return NULL;
}

static PyObject *schedule_at(PyObject *self, PyObject *when, const struct call *call)
{
    struct aio_loop *loop = (struct aio_loop *)self;
    double deadline;
    PyObject *handle;

    if (when == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    if (check_open(self) < 0)
        return NULL;
    deadline = PyFloat_AsDouble(when);
    if (deadline == -1.0 && PyErr_Occurred() != NULL)
        return refuse_number("when", when);
    if (loop->debug == Py_False)
        handle = aio_timer_new(self, when, call->callback, call->args, call->count,
                               call->context);
    else if (aio_is_true(loop->debug) &&
             check_debug(self, call->callback, "call_at", true) < 0)
        return NULL;
    else
        handle = make_in_debug(aio_timer_type, self, when, call);
    if (handle == NULL || aio_timers_add(loop->timers, handle, deadline) < 0) {
        Py_XDECREF(handle);
        return NULL;
    }
    aio_set(handle, AIO_SCHEDULED, delivery_new_ref(Py_True));
    return handle;
}

PyObject *aio_call_at(PyObject *self, PyObject *const *args, Py_ssize_t count,
                      PyObject *keywords)
{
    struct call call;

    if (parse("call_at", aio_names.when, args, count, keywords, &call) < 0)
        return NULL;
    return schedule_at(self, call.when, &call);
}

/* time.monotonic, to the last bit: programs compare the two. */
static double clock_now(void)
{
    int64_t now_ns = system_monotonic_ns();
    int64_t seconds = now_ns / NS_PER_S;

    if (seconds * NS_PER_S == now_ns)
        return (double)seconds;
    return (double)now_ns / 1e9;
}

PyObject *aio_loop_time(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyFloat_FromDouble(clock_now());
}

/* loop.time(), which a program may have replaced. Returns -1 with an exception. */
double aio_time_of(PyObject *self)
{
    PyObject *now = PyObject_CallMethodObjArgs(self, aio_names.time, NULL);
    double value = now == NULL ? -1.0 : PyFloat_AsDouble(now);

    Py_XDECREF(now);
    return value;
}

/* Through call_at, which a subclass may have. */
static PyObject *call_overridden_at(PyObject *self, PyObject *when,
                                    const struct call *call)
{
    PyObject *method = PyObject_GetAttr(self, aio_names.call_at);
    PyObject *args = PyTuple_New(2 + call->count);
    PyObject *keywords = NULL, *handle = NULL;

    if (method != NULL && args != NULL) {
        (void)PyTuple_SetItem(args, 0, delivery_new_ref(when));
        (void)PyTuple_SetItem(args, 1, delivery_new_ref(call->callback));
        for (Py_ssize_t i = 0; i < call->count; i++)
            (void)PyTuple_SetItem(args, 2 + i, delivery_new_ref(call->args[i]));
        keywords = PyDict_New();
        if (keywords != NULL &&
            (call->context == NULL ||
             PyDict_SetItem(keywords, aio_names.context, call->context) == 0))
            handle = PyObject_Call(method, args, keywords);
    }
    Py_XDECREF(keywords);
    Py_XDECREF(args);
    Py_XDECREF(method);
    return handle;
}

static PyObject *add_delay(PyObject *self, PyObject *delay)
{
    double now, value;
    PyObject *start, *when;

    now = aio_time_of(self);
    if (now == -1.0 && PyErr_Occurred() != NULL)
        return NULL;
    if (PyFloat_CheckExact(delay) || PyLong_CheckExact(delay)) {
        value = PyFloat_AsDouble(delay);
        return value == -1.0 && PyErr_Occurred() != NULL
                   ? NULL
                   : PyFloat_FromDouble(now + value);
    }
    start = PyFloat_FromDouble(now);
    when = start == NULL ? NULL : PyNumber_Add(start, delay);
    Py_XDECREF(start);
    return when == NULL ? refuse_number("delay", delay) : when;
}

PyObject *aio_call_later(PyObject *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    struct call call;
    PyObject *when, *handle;

    if (parse("call_later", aio_names.delay, args, count, keywords, &call) < 0)
        return NULL;
    if (call.when == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    when = add_delay(self, call.when);
    if (when == NULL)
        return NULL;
    handle = ((struct aio_loop *)self)->has_own_call_at
                 ? call_overridden_at(self, when, &call)
                 : schedule_at(self, when, &call);
    Py_DECREF(when);
    return handle;
}
