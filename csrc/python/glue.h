/* glue.h: functions that the Python side needs beyond fdmux.h.
 *
 * Not public: names begin with fdmux_py_. cffi calls them without the GIL. */
#ifndef FDMUX_GLUE_H
#define FDMUX_GLUE_H

#include "fdmux.h"
#include "fdmux_stream.h"

/* cffi:begin */

/* Add a collected watcher for Python. Returns its token, which is > 0, or -errno. */
int64_t fdmux_py_io_add(struct fdmux_loop *loop, fdmux_fd fd, uint32_t events);

/* The arguments of a selector's wait; made once, and again when it needs more room. */
struct fdmux_py_batch {
    struct fdmux_loop *loop;
    uint32_t *indices;   /* 4 * fd + (events & 3) for each ready watcher */
    int capacity;        /* of `indices` */
    int64_t deadline_ns; /* of the wait under way; INT64_MAX for none */
};

/* Call fdmux_loop_dispatch and collect the indices of ready watchers of
 * fdmux_py_io_add. Events of other watchers without a function are dropped: they have
 * no owner here. Returns the count of indices, or as fdmux_loop_dispatch. After -EINTR
 * call _again, which waits for the time that is left. */
int fdmux_py_select(struct fdmux_py_batch *batch, int64_t timeout_ns);
int fdmux_py_select_again(struct fdmux_py_batch *batch);

/* Was `error`, the result of a dispatch on this thread, returned by a function given to
 * the loop, rather than by the kernel or the core? `loop` may be NULL. Returns 0 or 1.
 * */
int fdmux_py_is_fn_error(const struct fdmux_loop *loop, int error);

/* ---- streams ------------------------------------------------------------------- */

/* Deliver CLOSED to the streams that have ended, outside of a dispatch. Inside one do
 * nothing: its end does it. Returns 0, or -errno. */
int fdmux_py_stream_finish_pending(struct fdmux_loop *loop);

/* Counters of a listener and all streams it has accepted. */
struct fdmux_py_stream_totals {
    uint64_t received; /* bytes */
    uint64_t sent;
    uint64_t queued;
    uint64_t dropped;
    uint64_t accepted; /* connections */
    uint64_t refused;
};

/* Get the counters of a live stream, which live until they are released, longer than
 * the stream; NULL if there is no such stream. Read and release: any thread. */
void *fdmux_py_totals_hold(struct fdmux_loop *loop, uint64_t stream);
void fdmux_py_totals_read(void *held, struct fdmux_py_stream_totals *ret_totals);
void fdmux_py_totals_release(void *held);

/* How many connections the listeners of the loop have closed at once, since there were
 * too many. Any thread, also when the loop is closed. */
uint64_t fdmux_py_stream_refused(const struct fdmux_loop *loop);

/* Advance the timeouts of streams by `ticks` quarters of a second, without waiting. */
int fdmux_py_stream_tick(struct fdmux_loop *loop, uint32_t ticks);

/* Inside a function of the loop: make dispatch return after this batch. Elsewhere do
 * nothing. */
void fdmux_py_end_batch(struct fdmux_loop *loop);

/* Close the loop but keep its memory, since Python objects and threads inside a call
 * may still use it. Idempotent. */
int fdmux_py_loop_close(struct fdmux_loop *loop);

/* A capsule destructor that destroys the loop in the capsule, without the GIL. */
uintptr_t fdmux_py_loop_destructor(void);

/* A capsule destructor that closes the queue in the capsule and gives up its reference,
 * without the GIL. */
uintptr_t fdmux_py_queue_destructor(void);

/* Numbers of the names of capsules, for make_capsule of fdmux._delivery (capsule.c). */
#define FDMUX_PY_NAME_API 0    /* fdmux._C_API */
#define FDMUX_PY_NAME_LOOP 1   /* fdmux.loop */
#define FDMUX_PY_NAME_QUEUE 2  /* fdmux.queue */
#define FDMUX_PY_NAME_MEMORY 3 /* fdmux.memory */

/* FDMUX_VERSION of the core in this extension. */
const char *fdmux_py_version(void);

/* cffi:end */

#endif
