/* aio_loop.h: the memory of an asyncio loop, for the files that schedule, wait and run.
 */
#ifndef FDMUX_AIO_LOOP_H
#define FDMUX_AIO_LOOP_H

#include "aio.h"

#define NS_PER_S 1000000000

struct fdmux_py_batch;
typedef int (*select_fn)(struct fdmux_py_batch *batch, int64_t timeout_ns);

/* The object has a _run_once of its own (of a class, run_forever asks). */
#define LEAVE_OWN_RUN_ONCE 0x1
/* The loop is observed from now on, or no longer. */
#define LEAVE_TO_SWITCH 0x2

struct aio_loop {
    PyObject head;
    PyObject *ready; /* usually a deque */
    PyObject *timers;
    PyObject *stopping; /* attributes of BaseEventLoop, at hand */
    PyObject *closed;
    PyObject *debug;
    double clock_resolution;
    bool is_deque;
    bool is_repeating; /* _run_once goes on until the loop is to stop */
    bool has_own_events; /* _process_events is overridden */
    bool has_own_call_at;
    uint8_t must_leave; /* _run_once may not repeat any longer: LEAVE_ bits */
    bool has_other_selector; /* _selector is not the one given to _use_selector */
    bool has_own_select;
    /* How to wait in C; without a batch the selector is asked in Python. */
    select_fn select;
    PyObject *selector;
    PyObject *batch_owner;
    struct fdmux_py_batch *batch;
    const uint32_t *indices;
    PyObject *pairs;
    struct delivery *delivery; /* a reference, or NULL */
    PyObject *memory; /* a capsule that keeps the memory of `loop` */
    struct fdmux_loop *loop; /* to wake, as long as there is a batch */
    struct probe *probe; /* of an observed loop, a reference; or NULL */
    double wait_until; /* when the wait under way ends by itself */
    int64_t offered_at; /* when the GIL was offered to other threads */
    uint32_t busy_count; /* iterations that did not wait */
};

/* Names of attributes and methods that C looks up. */
struct aio_names {
    PyObject *time;
    PyObject *select;
    PyObject *finish;
    PyObject *process_events;
    PyObject *run;
    PyObject *run_in_context;
    PyObject *cancelled;
    PyObject *append;
    PyObject *popleft;
    PyObject *check_thread;
    PyObject *check_callback;
    PyObject *check_closed;
    PyObject *write_to_self;
    PyObject *call_at;
    PyObject *run_once;
    PyObject *context;
    PyObject *callback;
    PyObject *when;
    PyObject *delay;
    PyObject *selector;
    PyObject *remove_reader;
    PyObject *remove_writer;
};
extern struct aio_names aio_names;

static inline bool aio_is_true(PyObject *object)
{
    return object != NULL && object != Py_False && object != Py_None &&
           PyObject_IsTrue(object) == 1;
}

/* aio_schedule.c: methods of the loop, and loop.time(), which a program may have
 * replaced: -1 with an exception. */
PyObject *aio_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t count,
                        PyObject *keywords);
PyObject *aio_call_soon_threadsafe(PyObject *self, PyObject *const *args,
                                   Py_ssize_t count, PyObject *keywords);
PyObject *aio_call_at(PyObject *self, PyObject *const *args, Py_ssize_t count,
                      PyObject *keywords);
PyObject *aio_call_later(PyObject *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords);
PyObject *aio_loop_time(PyObject *self, PyObject *unused);
double aio_time_of(PyObject *self);

/* aio_iteration.c: _run_once; and adding a handle to what is ready. */
PyObject *aio_run_once(PyObject *self, PyObject *unused);
int aio_append_ready(const struct aio_loop *loop, PyObject *handle);
/* loop->ready, or NULL with an AttributeError if a program has deleted it. */
PyObject *aio_check_ready(const struct aio_loop *loop);
bool aio_waits_in_c(const struct aio_loop *loop);
/* The steps of an iteration; each returns 0, or -1 with an exception. */
int aio_wait(PyObject *self);
int aio_run_one(PyObject *self, PyObject *handle);
int aio_move_one(struct aio_loop *loop);
int aio_give_way(struct aio_loop *loop, Py_ssize_t count);
PyObject *aio_pop_ready(const struct aio_loop *loop);
Py_ssize_t aio_ready_count(const struct aio_loop *loop);

/* aio_observed.c: an iteration of a loop that has a probe. Returns as above. */
int aio_iterate_observed(PyObject *self);
/* A method of LoopBase: _observe(probe), or _observe(None). */
PyObject *aio_observe(PyObject *self, PyObject *probe);

#endif
