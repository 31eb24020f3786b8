/* loop_state.h: the memory of a loop. Its parts have the functions that work on it.
 *
 * Locks: `lock` guards every table and is never held while the kernel waits or while a
 * function given to the loop runs. `post_lock` guards the queue of posted calls alone.
 *
 * Batches: while `is_calling` is set, the dispatching thread walks lists of watchers
 * without the lock. A watcher removed meanwhile is only killed (its generation ends)
 * and retired: its slot, links and userdata stay until the batch is over (retire.h). */
#ifndef FDMUX_LOOP_STATE_H
#define FDMUX_LOOP_STATE_H

#include "fdmux.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../platform/sys.h"
#include "extension.h"
#include "fd_table.h"
#include "heap.h"
#include "slots.h"

struct fdmux__backend;
struct fdmux__event;
struct fdmux__post;

/* A growing array of posted calls (post.h). */
struct fdmux__post_queue {
    struct fdmux__post *posts;
    uint32_t count;
    uint32_t capacity;
};

/* A hold that was entered, and what its `enter` returned (hold.h). */
struct fdmux__held {
    const struct fdmux_hold *hold;
    void *value;
};

/* The first killed item of each table that waits for the end of the batch; the others
 * follow by `next_free` (retire.h). */
struct fdmux__retired {
    uint32_t io;
    uint32_t timer;
    uint32_t hook;
    uint32_t node;
};

struct fdmux__counters {
    _Atomic uint64_t iterations;
    _Atomic uint64_t io_called;
    _Atomic uint64_t io_collected;
    _Atomic uint64_t timers;
    _Atomic uint64_t posts;
    _Atomic uint64_t stale_events;
    _Atomic uint64_t rebuilds;
    _Atomic uint64_t refused; /* connections, by extensions */
};

struct fdmux_loop {
    uint64_t magic;
    const struct fdmux__backend *backend;
    void *backend_data;
    fdmux__lock lock;
    uint32_t fork_generation;
    _Atomic uint32_t reference_count;
    atomic_bool is_closing; /* no function is called any more but those at the close */
    atomic_bool is_closed; /* and no call is accepted any more */

    /* Dispatching. */
    bool is_dispatching;
    bool is_destroyed; /* no reference is left: free the memory when finished */
    bool is_finished; /* only the memory is left */
    bool is_waiting;
    bool is_calling;
    _Atomic uintptr_t calling_thread; /* the thread that calls functions; 0: none */
    uint32_t hold_count;
    struct fdmux__held holds[FDMUX_HOLD_MAX];
    fdmux_return_fn return_fn;
    void *return_userdata;
    bool is_hosted; /* fdmux_loop_fd or _handle was called */
    bool is_set_incomplete; /* the kernel had no memory for all nodes of a new set */
    uint8_t first_stage; /* of the next batch (dispatch.c) */
    uint32_t batch; /* number of the current or last batch */
    int pending_error; /* of a function, when events were collected before it */
    int fn_error; /* of a function in the last iteration; not the kernel's */
    int64_t wait_deadline_ns;
    int64_t armed_deadline_ns; /* of the timer in a hosted loop's descriptor */
    int64_t parked_deadline_ns; /* of the backend's timer that ends waits; 0: none */
    int64_t steady_deadline_ns; /* deadline of the last `steady_waits` waits */
    uint32_t steady_waits;
    bool is_armed_over; /* set by a backend whose armed timer reports once */
    bool is_park_over; /* set by the backend when the parked timer has expired */
    struct fdmux__event *events;
    int event_count; /* between batches: edge events of a batch that ended early */
    int event_capacity;
    struct fdmux__retired retired;

    /* Tables. */
    struct fdmux__slots ios;
    struct fdmux__slots nodes;
    struct fdmux__slots timers;
    struct fdmux__slots hooks;
    struct fdmux__fd_table fds; /* the slots of `nodes` by descriptor */
    _Atomic uint32_t first_hook;
    _Atomic uint32_t first_close_hook; /* the last added; changed under the lock */
    uint32_t collected_live; /* io watchers without a function */

    /* Timers. */
    struct fdmux__heap heap;
    int64_t time_ns; /* of the last expiry run; earlier deadlines count as this */
    uint64_t next_sequence;

    /* Posts and wakes. */
    fdmux__lock post_lock;
    struct fdmux__post_queue incoming;
    struct fdmux__post_queue running;
    uint32_t running_next;
    bool is_post_closed;
    _Atomic uint32_t incoming_count; /* a hint that needs no lock */
    struct fdmux__bell bell; /* unless the backend wakes the loop itself */
    _Atomic int waker_count; /* threads that may be ringing it now */
    atomic_bool is_wake_closed;
    atomic_bool is_wake_rung;
    atomic_bool is_wake_wanted;
    atomic_bool is_stop_wanted;

    struct fdmux__counters counters;
    struct fdmux__extension extensions[FDMUX__EXTENSION_COUNT];
};

/* One writer, the dispatching thread; any number of readers. */
static inline void fdmux__count(_Atomic uint64_t *counter, uint64_t change)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, value + change, memory_order_relaxed);
}

#endif
