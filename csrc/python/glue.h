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

/* What Python did to its streams during one batch: words of 64 bits, of one of these, a
 * slot, and an operand in the upper half. */
#define FDMUX_PY_ECHO 0x00000000u /* send the stream its own DATA of this batch */
#define FDMUX_PY_SEND 0x10000000u /* operand: length; the next bytes of `joined` */
#define FDMUX_PY_PASS 0x20000000u /* operand: slot whose DATA of this batch is sent */
#define FDMUX_PY_PART 0x30000000u /* operand: place in the arena; a word: length */
#define FDMUX_PY_CLOSE 0x40000000u /* when what is queued has been sent */
#define FDMUX_PY_DROP 0x50000000u  /* close at once */
#define FDMUX_PY_SHUTDOWN 0x60000000u

/* What the functions below work for; made once for each loop. */
struct fdmux_py_streams {
    struct fdmux_loop *loop;
    struct fdmux_py_batch *select; /* what to wait with */
    int64_t timeout_ns;            /* and how long; -1: no limit */
};

/* Only do what `count` words say, in order, neighbours to one stream in one sendmsg(2):
 * the batch is still being read. Streams that are over are passed by. Returns 0, or
 * -EINVAL for words that say nothing. */
int fdmux_py_stream_settle(struct fdmux_py_streams *streams, const void *words,
                           uint32_t count, const void *joined, size_t joined_size);

/* The same at the end of a batch, which is then filled again with what had no room in
 * it. Returns how many records it has then, or -errno. */
int fdmux_py_stream_flush(struct fdmux_py_streams *streams, const void *words,
                          uint32_t count, const void *joined, size_t joined_size);

/* fdmux_py_stream_flush, and if that leaves no record, fdmux_py_select: what a loop
 * does between one batch and the next. Returns 0 if there are records now, and
 * otherwise as fdmux_py_select. */
int fdmux_py_stream_turn(struct fdmux_py_streams *streams, const void *words,
                         uint32_t count, const void *joined, size_t joined_size);

/* Serve what is pending, without a dispatch: CLOSED records of streams that were ended,
 * and data for which the batch had no room. Returns 0, or -errno. */
int fdmux_py_stream_serve(struct fdmux_loop *loop);

/* ---- transports: the streams of a host with buffers and sockets of its own ------ */

/* Append two functions of Python to a list. They hold the GIL but while they send and
 * wait, and what they give is made in C: an object for a record costs a third of what
 * it does in Python.
 *
 * settle(writes) -> result: send. `writes` is a list, a word (FDMUX_PY_SEND and above,
 * with no operand) and the bytes for it in turn; it is empty afterwards.
 *
 * turn(writes, timeout_ns) -> result, slots, payloads: send, and begin a new batch; if
 * that is empty, fdmux_py_select with `streams->select`; FDMUX_PY_AGAIN goes on with
 * the last wait. Then give the batch: for each record the slot and its bytes, or for
 * what is not DATA minus one less the slot, and the kind with an errno 8 bits above.
 *
 * `streams` must outlive them. Returns 0 or -ENOMEM. */
#define FDMUX_PY_AGAIN 0x7fffffffffffffff /* no timeout of anybody's */
int fdmux_py_stream_functions(uintptr_t list, struct fdmux_py_streams *streams);

/* fdmux_stream_add of a descriptor that stays the caller's: it is not closed here, and
 * must not be closed before fdmux_py_stream_give_back, the CLOSED record, or the end of
 * the loop. */
int fdmux_py_stream_lend(struct fdmux_loop *loop, int fd,
                         const struct fdmux_stream_options *options,
                         uint64_t *ret_stream);

/* End a lent stream, and let go of its descriptor before this returns; what is queued
 * is dropped. A CLOSED record follows. Returns 0, or -ENOENT if it is over. */
int fdmux_py_stream_give_back(struct fdmux_loop *loop, uint64_t stream);

/* Let a WRITABLE record come, once, when the queue has fallen to `queue_low` bytes: for
 * a lent stream, whose limits no other shares. Returns 0 or -ENOENT. */
int fdmux_py_stream_await_low(struct fdmux_loop *loop, uint64_t stream,
                              uint32_t queue_low);

/* The token of the live stream in `slot`, which is > 0; or -ENOENT. */
int64_t fdmux_py_stream_token(struct fdmux_loop *loop, uint32_t slot);

/* What a listener and those it has accepted have done. */
struct fdmux_py_stream_totals {
    uint64_t received; /* bytes */
    uint64_t sent;
    uint64_t queued;
    uint64_t dropped;
    uint64_t accepted; /* connections */
    uint64_t refused;
};

/* Hold on to the counters of the live stream in `slot`, so that they outlast it; NULL
 * if there is none. Reading and releasing them: any thread. */
void *fdmux_py_totals_hold(struct fdmux_loop *loop, uint32_t slot);
void fdmux_py_totals_read(void *held, struct fdmux_py_stream_totals *ret_totals);
void fdmux_py_totals_release(void *held);

/* Let `ticks` quarters of a second pass for the timeouts of streams, without waiting.
 */
int fdmux_py_stream_tick(struct fdmux_loop *loop, uint32_t ticks);

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
