/* glue.h: what the Python side needs beyond fdmux.h, to pay once per batch.
 *
 * Not public: names begin with fdmux_py_. Nothing here touches Python objects; cffi
 * calls it without the GIL. */
#ifndef FDMUX_GLUE_H
#define FDMUX_GLUE_H

#include "fdmux.h"
#include "fdmux_stream.h"

/* cffi:begin */

/* Add a collected watcher for Python. Returns its token, which is > 0, or -errno. */
int64_t fdmux_py_io_add(struct fdmux_loop *loop, int fd, uint32_t events);

/* What a Python selector waits with; made once, and anew when it must hold more. */
struct fdmux_py_batch {
    struct fdmux_loop *loop;
    uint32_t *indices;   /* 4 * fd + (events & 3) for each ready watcher */
    int capacity;        /* of `indices` */
    int64_t deadline_ns; /* of the wait under way; INT64_MAX for none */
};

/* fdmux_loop_dispatch, and the indices of the watchers of fdmux_py_io_add. What others
 * have added without a function is dropped: nobody here could tell them. Returns the
 * count of indices, or as fdmux_loop_dispatch; after -EINTR go on with _again. */
int fdmux_py_select(struct fdmux_py_batch *batch, int64_t timeout_ns);
int fdmux_py_select_again(struct fdmux_py_batch *batch);

/* Is `error`, which a dispatch has returned to this thread, what a function given to
 * the loop returned, and not the kernel's or our own? `loop` may be NULL. Returns 0 or
 * 1. */
int fdmux_py_is_fn_error(const struct fdmux_loop *loop, int error);

/* ---- streams ------------------------------------------------------------------- */

/* Finish the streams that were ended, without a dispatch: their CLOSED events. Returns
 * 0, or -errno. */
int fdmux_py_stream_finish_pending(struct fdmux_loop *loop);

/* What a listener and those it has accepted have done. */
struct fdmux_py_stream_totals {
    uint64_t received; /* bytes */
    uint64_t sent;
    uint64_t queued;
    uint64_t dropped;
    uint64_t accepted; /* connections */
    uint64_t refused;
};

/* Hold on to the counters of a live stream, so that they outlast it; NULL if there is
 * none. Reading and releasing them: any thread. */
void *fdmux_py_totals_hold(struct fdmux_loop *loop, uint64_t stream);
void fdmux_py_totals_read(void *held, struct fdmux_py_stream_totals *ret_totals);
void fdmux_py_totals_release(void *held);

/* Let `ticks` quarters of a second pass for the timeouts of streams, without waiting.
 */
int fdmux_py_stream_tick(struct fdmux_loop *loop, uint32_t ticks);

/* If this thread is calling functions of the loop, let the dispatch return after this
 * batch: there is something else to do. */
void fdmux_py_end_batch(struct fdmux_loop *loop);

/* End every watcher and release the kernel objects, but not the memory: Python objects,
 * and threads inside a call, may still hold the loop. Idempotent. */
int fdmux_py_loop_close(struct fdmux_loop *loop);

/* A capsule destructor that releases the object in the capsule's context. */
uintptr_t fdmux_py_capsule_destructor(void);

/* A capsule destructor that destroys the loop in the capsule, without the GIL. */
uintptr_t fdmux_py_loop_destructor(void);

/* A capsule destructor that closes the queue in the capsule and gives up its reference,
 * without the GIL. */
uintptr_t fdmux_py_queue_destructor(void);

/* What capsules are called: a name must live as long as its capsule, so C has them. */
#define FDMUX_PY_NAME_API 0    /* fdmux._C_API */
#define FDMUX_PY_NAME_LOOP 1   /* fdmux.loop */
#define FDMUX_PY_NAME_QUEUE 2  /* fdmux.queue */
#define FDMUX_PY_NAME_MEMORY 3 /* fdmux.memory */

/* Append a new capsule to the list at address `list`, as id() gives it; its context is
 * a reference to the object at `owner`, 0 for none. Returns 0, or -ENOMEM. */
int fdmux_py_capsule_append(uintptr_t list, uintptr_t pointer, uint32_t name,
                            uintptr_t destructor, uintptr_t owner);

/* FDMUX_VERSION of the core in this extension. */
const char *fdmux_py_version(void);

/* cffi:end */

#endif
