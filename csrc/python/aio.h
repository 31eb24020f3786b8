/* aio.h: asyncio's handles, timers and iteration in C, for hosts/asyncio.
 *
 * aio_handle.c makes handles, aio_timers.c keeps those with a deadline, aio_loop.c is
 * the base class of EventLoop, aio_transport_type.c that of transports. Everything here
 * runs with the GIL held, in the main interpreter. */
#ifndef FDMUX_AIO_H
#define FDMUX_AIO_H

#include "delivery.h"

/* What Python gives at import (hosts/asyncio/private.py); see aio_setup. */
struct aio_python {
    PyTypeObject *base_handle; /* asyncio.Handle */
    PyTypeObject *base_timer;  /* asyncio.TimerHandle */
    PyTypeObject *deque;
    PyObject *append; /* methods of deque */
    PyObject *popleft;
    PyTypeObject *context; /* contextvars.Context */
    PyObject *run;         /* its method */
    PyObject *run_name;
    PyObject *copy_context;
    PyObject *report_error; /* (handle, error): tell the exception handler */
    PyObject *run_timed;    /* (loop, handle): run it, and warn if it is slow */
    PyObject *write_to_self; /* asyncio's own */
};
extern struct aio_python aio_python;

/* The slots of asyncio.Handle that C reads and writes; aio_setup finds their offsets.
 */
enum aio_slot {
    AIO_CALLBACK,
    AIO_ARGS,
    AIO_CONTEXT,
    AIO_LOOP,
    AIO_CANCELLED,
    AIO_TRACEBACK,
    AIO_REPR,
    AIO_WHEN,      /* of a TimerHandle, as the next */
    AIO_SCHEDULED,
    AIO_SLOT_COUNT,
};
extern Py_ssize_t aio_offsets[AIO_SLOT_COUNT];

static inline PyObject **aio_slot(PyObject *handle, enum aio_slot slot)
{
    return (PyObject **)((char *)handle + aio_offsets[slot]);
}

/* Replace a slot's object; steals a reference to `value`. */
static inline void aio_set(PyObject *handle, enum aio_slot slot, PyObject *value)
{
    PyObject **place = aio_slot(handle, slot);
    PyObject *old = *place;

    *place = value;
    Py_XDECREF(old);
}

extern PyTypeObject *aio_handle_type;
extern PyTypeObject *aio_timer_type;

/* aio_handle.c */
/* A tuple of args[0] to args[count - 1], or NULL with an exception. */
PyObject *aio_pack(PyObject *const *args, Py_ssize_t count);
/* A Handle for callback(*args), args[0] to args[count - 1]; `context` may be NULL or
 * None: a copy of the current one. New reference, or NULL with an exception. */
PyObject *aio_handle_new(PyObject *loop, PyObject *callback, PyObject *const *args,
                         Py_ssize_t count, PyObject *context);
PyObject *aio_timer_new(PyObject *loop, PyObject *when, PyObject *callback,
                        PyObject *const *args, Py_ssize_t count, PyObject *context);
/* Whether the slots of this object lie where those of asyncio.Handle do. */
bool aio_has_slots(PyObject *handle);
/* Call the callback of a handle that has_slots. Returns 0, or -1 with an exception that
 * must leave the loop. */
int aio_handle_run(PyObject *handle);
int aio_handle_register(void);
Py_ssize_t aio_basic_size(PyTypeObject *type); /* or -1 with an exception */
/* The offset of a slot in an object of `size` bytes; -1, maybe with an exception. */
Py_ssize_t aio_find_slot(PyObject *object, const char *name, Py_ssize_t size);

/* aio_timers.c: a heap of handles, ordered by (deadline, order of adding). */
struct aio_timers;
PyObject *aio_timers_new(void);
bool aio_timers_check(PyObject *object);
Py_ssize_t aio_timers_count(PyObject *timers);
/* When the first is due; INFINITY without one. Also without the GIL. */
double aio_timers_next(PyObject *timers);
int aio_timers_add(PyObject *timers, PyObject *handle, double when);
void aio_timers_remove(PyObject *timers, PyObject *handle);
PyObject *aio_timers_pop(PyObject *timers); /* the first; a new reference */
/* Where a handle of ours keeps its place in the heap; -1: in none. */
Py_ssize_t *aio_timer_index(PyObject *handle);
int aio_timers_register(void);

/* aio_loop.c */
/* asyncio_types(handle, timer_handle, deque, context, copy_context, report_error,
 * run_timed, write_to_self): returns (Handle, TimerHandle, LoopBase), the same ones
 * each time. Raises RuntimeError where asyncio is not as expected. */
PyObject *aio_setup(PyObject *module, PyObject *args);
/* asyncio_transport(flow_control): returns the base class of transports, a subclass of
 * the given one, the same each time. Raises RuntimeError as above, and before
 * asyncio_types. */
PyObject *aio_transport_setup(PyObject *module, PyObject *base);
void aio_transport_forget(void);
/* accept(fd): accept a connection. Returns (fd, family, peername, sockname), or None if
 * there is none now. */
PyObject *aio_accept(PyObject *module, PyObject *number);

/* An interpreter starts, maybe again: the types are to be made anew. */
void aio_forget(void);
/* The timers of a loop, for its handles. */
PyObject *aio_loop_timers(PyObject *loop);
bool aio_loop_is_debug(PyObject *loop);
bool aio_loop_is_closed(PyObject *loop);
bool aio_loop_check(PyObject *object); /* also NULL */
/* Whether asyncio has something to do before the deadline of the wait under way; asked
 * without the GIL, by the thread that runs the loop. */
bool aio_loop_has_work(PyObject *loop);

#endif
