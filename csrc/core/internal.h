/* internal.h: the structures of a loop, and what its parts ask of each other.
 *
 * Locks. `lock` guards every table and is never held during a wait of the kernel or a
 * call of somebody's function. `post_lock` guards the queue of posted calls alone.
 *
 * Batches. While `is_calling`, the dispatching thread walks lists of watchers without
 * the lock. So a watcher removed meanwhile is only killed (its generation ends) and
 * retired: its slot, its links and its userdata stay until the batch is over. */
#ifndef FDMUX_INTERNAL_H
#define FDMUX_INTERNAL_H

#include "fdmux.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "heap.h"
#include "slots.h"

struct fdmux__backend;
struct fdmux__extension;

#define FDMUX__EVENT_MASK                                                              \
    (FDMUX_READ | FDMUX_WRITE | FDMUX_PRIORITY | FDMUX_PEER_CLOSED | FDMUX_HANGUP |    \
     FDMUX_ERROR)
#define FDMUX__OPTION_MASK (FDMUX_EDGE | FDMUX_ONESHOT | FDMUX_EXCLUSIVE)
/* Options the kernel holds, so all watchers of one fd must agree on them. */
#define FDMUX__KERNEL_OPTIONS (FDMUX_EDGE | FDMUX_EXCLUSIVE)
#define FDMUX__NEVER INT64_MAX

/* What every kind of watcher has: what to call, and what to call last. */
struct fdmux__watcher {
    struct fdmux__slot slot;
    fdmux_destroyed_fn destroyed;
    void *userdata;
};

/* One watcher of one descriptor. */
struct fdmux__io {
    struct fdmux__watcher base;
    fdmux_io_fn fn;
    _Atomic uint32_t events; /* readiness wanted, and options */
    _Atomic uint32_t next;   /* slot of the next watcher of the same node */
    uint32_t tag;
    uint32_t compact; /* this less 1 is what compact batches are told; 0: nothing */
    uint32_t node;           /* slot, or NONE: its descriptor was closed and reused */
    _Atomic uint32_t born;   /* batch in which it joined its node */
};

/* One descriptor, as the kernel knows it: the union of its watchers. */
struct fdmux__node {
    struct fdmux__slot slot;
    int fd;
    uint32_t mask; /* what the backend was told; 0: not registered there */
    _Atomic uint32_t first;
    uint32_t index;         /* its own slot */
    uint32_t resume; /* slot + 1 of the watcher that the next walk begins with */
    uint32_t changed; /* batch in which its tokens last changed */
    uint32_t backend_index; /* the backend's own note */
};

struct fdmux__timer {
    struct fdmux__watcher base;
    fdmux_timer_fn fn;
    int64_t period_ns;
    uint32_t tag;
    uint32_t heap_index; /* FDMUX__HEAP_NONE when not armed */
};

struct fdmux__hook {
    struct fdmux__watcher base;
    fdmux_hook_fn fn;
    _Atomic uint32_t next;
    uint32_t born; /* batch in which it was added: runs from the next on */
};

struct fdmux__post {
    fdmux_post_fn fn;
    void *userdata;
};

/* Posted calls: one array fills while the other runs. Guarded by post_lock. */
struct fdmux__post_queue {
    struct fdmux__post *posts;
    uint32_t count;
    uint32_t capacity;
};

/* An event of the backend. `token` is a node's, or FDMUX__WAKE_TOKEN. FDMUX__GONE says
 * that the descriptor is closed: the node is to be told 0. FDMUX__KEPT says that some
 * of the node's watchers had this event already. */
struct fdmux__event {
    uint64_t token;
    uint32_t events;
};

#define FDMUX__WAKE_TOKEN UINT64_C(1)
#define FDMUX__GONE UINT32_C(0x80000000)
#define FDMUX__KEPT UINT32_C(0x40000000)

struct fdmux__counters {
    _Atomic uint64_t iterations;
    _Atomic uint64_t io_called;
    _Atomic uint64_t io_collected;
    _Atomic uint64_t timers;
    _Atomic uint64_t posts;
    _Atomic uint64_t stale_events;
    _Atomic uint64_t rebuilds;
};

/* A list of killed watchers, by slot, waiting for the end of the batch. */
struct fdmux__retired {
    uint32_t io;
    uint32_t timer;
    uint32_t hook;
    uint32_t node;
};

/* A hold that was entered, and what `enter` returned. */
struct fdmux__held {
    const struct fdmux_hold *hold;
    void *value;
};

struct fdmux_loop {
    uint64_t magic;
    const struct fdmux__backend *backend;
    void *backend_data;
    pthread_mutex_t lock;
    uint32_t fork_generation;
    atomic_bool is_closed;

    /* Dispatching. */
    bool is_dispatching;
    bool is_destroyed; /* free the memory when the dispatch ends */
    bool is_finished; /* nothing is left but the memory */
    bool is_waiting;
    bool is_calling;
    _Atomic uintptr_t calling_thread; /* who calls functions; 0: nobody */
    uint32_t hold_count;
    struct fdmux__held holds[FDMUX_HOLD_MAX];
    fdmux_return_fn return_fn;
    void *return_userdata;
    bool is_hosted; /* fdmux_loop_fd was called */
    bool is_set_incomplete; /* the kernel had no memory for all nodes of a new set */
    uint8_t first_stage; /* of the next batch (dispatch.c) */
    uint32_t batch;
    int pending_error; /* of a callback, when events were collected before it */
    int fn_error; /* of a callback in the last iteration; not the kernel's */
    int64_t wait_deadline_ns;
    int64_t armed_deadline_ns; /* in the timer of a hosted loop */
    int64_t parked_deadline_ns; /* in a timer that ends our own waits; 0: none */
    int64_t steady_deadline_ns; /* of the last waits, and how many these were */
    uint32_t steady_waits;
    bool is_park_over; /* said by the backend: that timer has expired */
    struct fdmux__event *events;
    int event_count; /* between batches: edge events of a batch that was cut short */
    int event_capacity;
    struct fdmux__retired retired;

    /* Tables. */
    struct fdmux__slots ios;
    struct fdmux__slots nodes;
    struct fdmux__slots timers;
    struct fdmux__slots hooks;
    uint32_t *node_by_fd; /* slot + 1; only read under the lock, so it may move */
    uint32_t node_by_fd_capacity;
    _Atomic uint32_t first_hook;
    uint32_t collected_live; /* io watchers without a function */

    /* Timers. */
    struct fdmux__heap heap;
    int64_t time_ns; /* of the last expiry run; past deadlines count as this */
    uint64_t next_sequence;

    /* Posts and wakes. */
    pthread_mutex_t post_lock;
    struct fdmux__post_queue incoming;
    struct fdmux__post_queue running;
    uint32_t running_next;
    bool is_post_closed;
    _Atomic uint32_t incoming_count; /* a hint that needs no lock */
    int wake_read_fd;
    int wake_write_fd; /* the same for an eventfd */
    _Atomic int waker_count; /* threads that may be writing to it just now */
    atomic_bool is_wake_closed;
    atomic_bool is_signalled;
    atomic_bool is_wake_wanted;
    atomic_bool is_stop_wanted;

    struct fdmux__counters counters;
    const struct fdmux__extension *extension;
    void *extension_data;
};

/* One writer, the dispatching thread; any reader. */
static inline void fdmux__count(_Atomic uint64_t *counter, uint64_t change)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, value + change, memory_order_relaxed);
}

uint32_t fdmux__fork_generation(void);
/* A function has returned in a child of fork(); returns -ECHILD. */
int fdmux__fork_return(struct fdmux_loop *loop);

/* What a function given to the loop returned, on the dispatching thread. A function
 * that returns in a child of fork() must not go on with a batch that is the parent's.
 */
static inline int fdmux__fn_result(struct fdmux_loop *loop, int result)
{
    if (loop->fork_generation != fdmux__fork_generation())
        return fdmux__fork_return(loop);
    if (result < 0)
        loop->fn_error = result;
    return result;
}

/* What one call of fdmux_loop_dispatch carries through its iterations. */
struct fdmux__batch {
    struct fdmux_ready *ready; /* or else: */
    uint32_t *compact;         /* 4 * (compact - 1) + READ and WRITE, for bindings */
    int capacity;
    int collected;
    uint32_t called; /* functions called in this iteration */
    bool is_full; /* something was ready that did not fit */
    int64_t deadline_ns; /* 0: poll once */
    int64_t slice_ns; /* when native traffic must let the caller see signals */
};

/* What may be built on a loop and served with it (streams). The core knows no more.
 * `dispatch` and `close` run without the lock, the others with it. */
struct fdmux__extension {
    void (*prepare)(struct fdmux_loop *loop); /* before each wait */
    int (*dispatch)(struct fdmux_loop *loop, struct fdmux__batch *batch); /* after io */
    bool (*is_pending)(const struct fdmux_loop *loop); /* must not sleep */
    void (*close)(struct fdmux_loop *loop);
};

/* loop.c: the state that entry points ask about. */
int fdmux__loop_check(struct fdmux_loop *loop);
int fdmux__loop_lock(struct fdmux_loop *loop); /* check, then lock */
void fdmux__loop_unlock(struct fdmux_loop *loop);
/* Close without freeing: what a binding does whose users may still hold the loop. */
int fdmux__loop_close(struct fdmux_loop *loop);
/* With the lock held, when no dispatch runs; releases it. */
void fdmux__loop_finish(struct fdmux_loop *loop);
int fdmux__options_check(const void *options, size_t size);

/* fork.c */
void fdmux__fork_watch(void);

/* hold.c: without the lock. */
void fdmux__hold_leave_all(struct fdmux_loop *loop);
/* From here to the second on, this thread calls functions of the loop. */
void fdmux__calling_begin(struct fdmux_loop *loop);
void fdmux__calling_end(struct fdmux_loop *loop);
bool fdmux__is_calling_thread(const struct fdmux_loop *loop);

/* retire.c: the end of watchers. All with the lock held. */
void fdmux__retire(struct fdmux_loop *loop, struct fdmux__slots *slots, uint32_t index);
void fdmux__retire_init(struct fdmux_loop *loop);
/* Recycle what was retired and call `destroyed`, unless a batch is being called.
 * Releases the lock during those calls. */
void fdmux__reap(struct fdmux_loop *loop);

/* node.c (and node.h, for io.c) */
int fdmux__node_rebuild_all(struct fdmux_loop *loop); /* on a fresh kernel object */
int fdmux__node_tell_all(struct fdmux_loop *loop);

/* io.c */
void fdmux__io_kill_all(struct fdmux_loop *loop);
/* fdmux_io_add without its checks, for a binding that dispatches compact batches. */
int fdmux__io_add(struct fdmux_loop *loop, const struct fdmux_io_options *options,
                  uint32_t compact, uint64_t *ret_io);
/* Change one watcher's interest and tell the kernel, with the lock held. */
int fdmux__io_set_events(struct fdmux_loop *loop, struct fdmux__io *io,
                         uint32_t events);

/* io_dispatch.c: without the lock. */
int fdmux__io_dispatch(struct fdmux_loop *loop, struct fdmux__batch *batch);

/* timer.c: with the lock held, released during calls. */
int fdmux__timer_dispatch(struct fdmux_loop *loop, struct fdmux__batch *batch);
int64_t fdmux__timer_next(const struct fdmux_loop *loop);
void fdmux__timer_kill_all(struct fdmux_loop *loop);

/* hook.c: without the lock. */
int fdmux__hook_dispatch(struct fdmux_loop *loop);
void fdmux__hook_kill_all(struct fdmux_loop *loop);

/* post.c: without the lock. */
int fdmux__post_open(struct fdmux_loop *loop);
int fdmux__post_dispatch(struct fdmux_loop *loop, struct fdmux__batch *batch);
bool fdmux__post_pending(struct fdmux_loop *loop);
void fdmux__post_close(struct fdmux_loop *loop); /* runs what is left, with NULL */
void fdmux__post_drop(struct fdmux_loop *loop);
void fdmux__post_free(struct fdmux_loop *loop);

/* wake.c */
int fdmux__wake_open(struct fdmux_loop *loop);
void fdmux__wake_close(struct fdmux_loop *loop);
int fdmux__wake_signal(struct fdmux_loop *loop);
int fdmux__wake_drain(struct fdmux_loop *loop);

/* dispatch.c */
int fdmux__loop_dispatch(struct fdmux_loop *loop, int64_t timeout_ns,
                         struct fdmux__batch *batch);
/* After a change outside of a batch, with the lock held. */
void fdmux__deadline_changed(struct fdmux_loop *loop);

#endif
