/* dispatch.c: run iterations of a loop.
 *
 * An iteration is: hooks, wait, io, the extension, timers, posts. It is repeated until
 * something was collected, the deadline has passed, the loop was woken, or signal
 * handlers must run. The lock is held except while the kernel waits and while functions
 * run. */
#include "dispatch.h"

#include <errno.h>
#include <limits.h>

#include "../backends/backend.h"
#include "../platform/sys.h"
#include "finish.h"
#include "gate.h"
#include "hold.h"
#include "hook.h"
#include "host.h"
#include "io_dispatch.h"
#include "node.h"
#include "post.h"
#include "retire.h"
#include "timer.h"

#define AGAIN INT_MIN
#define EVENTS_MIN 64
/* At most this many functions of io watchers are called before timers and posts run:
 * about a millisecond for functions that receive and send. */
#define CALLS_MAX 256
/* With streams: the cost of a wait and of taking the GIL vanishes beside so many. At 30
 * us each they take 30 ms, and signals wait for no more than that and a slice. */
#define CALLS_MAX_STREAMS 1024

/* The stages of a batch, in order. After a batch that ended early, the next one begins
 * with the stage that was not reached. */
enum { STAGE_IO, STAGE_EXTENSION, STAGE_TIMERS, STAGE_POSTS, STAGE_COUNT };

/* ---- one iteration ------------------------------------------------------------- */

static int grow_events(struct fdmux_loop *loop, int count)
{
    int capacity = loop->event_capacity == 0 ? EVENTS_MIN : loop->event_capacity;
    struct fdmux__event *events;

    if (count <= loop->event_capacity)
        return 0;
    while (capacity < count)
        capacity *= 2;
    events = fdmux__sys_realloc(loop->events, (size_t)capacity * sizeof *events);
    if (events == NULL)
        return -ENOMEM;
    loop->events = events;
    loop->event_capacity = capacity;
    return 0;
}

static int entries_per_node(const struct fdmux_loop *loop)
{
    return loop->backend->entries_per_node > 0 ? loop->backend->entries_per_node : 1;
}

/* The most events that a batch takes from the kernel. Usually all that are ready, as
 * with selectors. But no more than the caller can collect: the kernel then reports the
 * rest first next time, and no descriptor is starved. And if there are many functions
 * to call, no more than would make a timer late. */
static int batch_size(const struct fdmux_loop *loop, const struct fdmux__batch *batch)
{
    uint32_t nodes = loop->nodes.live_count + 1; /* and the wake descriptor */
    uint32_t calls_max =
        loop->extensions[FDMUX__STREAMS].hooks == NULL ? CALLS_MAX : CALLS_MAX_STREAMS;
    int size = nodes > INT_MAX / 64 ? INT_MAX / 64 : (int)nodes;

    if (loop->collected_live > (uint32_t)batch->capacity && batch->capacity > 0)
        size = batch->capacity;
    if (loop->ios.live_count - loop->collected_live > calls_max &&
        size > (int)(calls_max + loop->collected_live))
        size = (int)(calls_max + loop->collected_live);
    return size;
}

static int run_hooks(struct fdmux_loop *loop)
{
    int r;

    if (atomic_load(&loop->first_hook) == FDMUX__SLOT_NONE)
        return 0;
    fdmux__batch_begin(loop);
    fdmux__lock_release(&loop->lock);
    r = fdmux__hook_dispatch(loop);
    fdmux__lock_take(&loop->lock);
    fdmux__batch_end(loop);
    return r;
}

/* A wait with a timeout reads the clock, and makes the kernel start and cancel a timer:
 * 7 % of the cost of a message that arrives alone. So a deadline that has stayed the
 * same for several waits (streams count their timeouts in ticks) is parked: the backend
 * gets a timer for it, and the waits need no timeout. */
#define STEADY_WAITS 8
#define PARK_NS FDMUX__NS_PER_MS

static int64_t park(struct fdmux_loop *loop, int64_t deadline_ns, int64_t timeout_ns)
{
    if (deadline_ns != loop->steady_deadline_ns) {
        loop->steady_deadline_ns = deadline_ns;
        loop->steady_waits = 0;
    }
    if (++loop->steady_waits != STEADY_WAITS || timeout_ns < PARK_NS ||
        loop->backend->park == NULL || loop->backend->park(loop, deadline_ns) < 0)
        return timeout_ns;
    loop->parked_deadline_ns = deadline_ns;
    return -1;
}

/* How long to wait; sets loop->wait_deadline_ns. Reads the clock only for a finite
 * deadline. */
static int64_t wait_time(struct fdmux_loop *loop, const struct fdmux__batch *batch)
{
    int64_t deadline_ns = fdmux__next_deadline(loop);
    int64_t now_ns;

    if (batch->deadline_ns < deadline_ns)
        deadline_ns = batch->deadline_ns;
    loop->wait_deadline_ns = deadline_ns;
    if (deadline_ns == FDMUX__NEVER)
        return -1;
    if (deadline_ns == 0)
        return 0;
    if (deadline_ns == loop->parked_deadline_ns)
        return -1;
    now_ns = fdmux__sys_now();
    return deadline_ns > now_ns ? park(loop, deadline_ns, deadline_ns - now_ns) : 0;
}

/* Wait, and fill loop->events. Returns 0 or an error. *ret_is_interrupted: the wait
 * ended before its deadline without an event, because of a signal. */
static int wait_for_events(struct fdmux_loop *loop, const struct fdmux__batch *batch,
                           bool *ret_is_interrupted)
{
    int size = batch_size(loop, batch);
    int64_t timeout_ns = wait_time(loop, batch);
    int r = loop->is_set_incomplete ? fdmux__node_tell_all(loop) : 0;

    *ret_is_interrupted = false;
    if (r == 0)
        r = grow_events(loop, size * entries_per_node(loop));
    if (r == 0)
        r = loop->backend->prepare(loop, size);
    if (r < 0)
        return r;
    loop->is_waiting = true;
    fdmux__lock_release(&loop->lock);
    r = loop->backend->wait(loop, timeout_ns, size);
    fdmux__lock_take(&loop->lock);
    loop->is_waiting = false;
    loop->event_count = r < 0 ? 0 : r;
    if (r == 0 && timeout_ns != 0)
        *ret_is_interrupted = loop->wait_deadline_ns == FDMUX__NEVER ||
                              fdmux__sys_now() < loop->wait_deadline_ns;
    if (loop->is_armed_over) { /* and the host's timer must be set again */
        loop->is_armed_over = false;
        loop->armed_deadline_ns = FDMUX__NEVER;
    }
    if (loop->is_park_over) { /* perhaps for a deadline that has changed since */
        loop->is_park_over = false;
        loop->parked_deadline_ns = 0;
        *ret_is_interrupted = false;
    }
    return r < 0 ? r : 0;
}

static bool has_work(struct fdmux_loop *loop, int stage)
{
    switch (stage) {
    case STAGE_IO:
        return loop->event_count > 0;
    case STAGE_EXTENSION:
        return fdmux__extensions_pending(loop);
    case STAGE_TIMERS:
        return loop->heap.count > 0;
    default:
        return fdmux__post_pending(loop);
    }
}

static int dispatch_extensions(struct fdmux_loop *loop, struct fdmux__batch *batch)
{
    int r = 0;

    for (int i = 0; i < FDMUX__EXTENSION_COUNT && r >= 0; i++) {
        const struct fdmux__extension_hooks *hooks = loop->extensions[i].hooks;

        if (hooks != NULL && hooks->is_pending(loop))
            r = hooks->dispatch(loop, batch);
    }
    return r;
}

static int run_stage(struct fdmux_loop *loop, struct fdmux__batch *batch, int stage)
{
    int r;

    if (stage == STAGE_TIMERS)
        return fdmux__timer_dispatch(loop, batch);
    fdmux__lock_release(&loop->lock);
    if (stage == STAGE_IO)
        r = fdmux__io_dispatch(loop, batch);
    else if (stage == STAGE_EXTENSION)
        r = dispatch_extensions(loop, batch);
    else
        r = fdmux__post_dispatch(loop, batch);
    fdmux__lock_take(&loop->lock);
    return r;
}

static int call_batch(struct fdmux_loop *loop, struct fdmux__batch *batch)
{
    int first = loop->first_stage;
    bool is_full = false;
    int r = 0;

    loop->first_stage = STAGE_IO;
    fdmux__batch_begin(loop);
    for (int i = 0; i < STAGE_COUNT && r >= 0; i++) {
        int stage = (first + i) % STAGE_COUNT;

        batch->is_full = false;
        r = has_work(loop, stage) ? run_stage(loop, batch, stage) : 0;
        is_full = is_full || batch->is_full;
        if (r < 0)
            loop->first_stage = (uint8_t)((stage + 1) % STAGE_COUNT);
        else if (batch->is_full && i > 0)
            loop->first_stage = (uint8_t)stage; /* earlier stages had filled it */
    }
    fdmux__batch_end(loop);
    if (r >= 0 && is_full && batch->capacity == 0)
        return -ENOBUFS;
    return r < 0 ? r : 0;
}

/* What dispatch returns after an iteration without an error; AGAIN to go on. */
static int verdict(struct fdmux_loop *loop, struct fdmux__batch *batch,
                   bool is_interrupted)
{
    bool is_woken = atomic_exchange(&loop->is_wake_wanted, false);
    int64_t now_ns;

    if (batch->collected > 0 || is_woken || atomic_load(&loop->is_stop_wanted) ||
        batch->deadline_ns == 0)
        return batch->collected;
    if (batch->called > 0 && loop->return_fn != NULL &&
        loop->return_fn(loop, loop->return_userdata) > 0)
        return 0;
    if (is_interrupted)
        return -EINTR;
    if (batch->deadline_ns == FDMUX__NEVER && batch->called == 0)
        return AGAIN;
    /* If there are timers, this iteration has read the clock. */
    now_ns = loop->heap.count > 0 ? loop->time_ns : fdmux__sys_now();
    if (now_ns >= batch->deadline_ns)
        return 0;
    return batch->called > 0 && fdmux__slice_is_over(batch, now_ns) ? -EINTR : AGAIN;
}

/* If events were collected, return them first, and the error from the next call. */
static int report_error(struct fdmux_loop *loop, const struct fdmux__batch *batch,
                        int error)
{
    if (batch->collected == 0)
        return error;
    loop->pending_error = error;
    return batch->collected;
}

static bool is_over(struct fdmux_loop *loop)
{
    return atomic_load(&loop->is_closing);
}

static void prepare_extensions(struct fdmux_loop *loop)
{
    for (int i = 0; i < FDMUX__EXTENSION_COUNT; i++) {
        if (loop->extensions[i].hooks != NULL)
            loop->extensions[i].hooks->prepare(loop);
    }
}

/* Run one iteration. Returns true to go on; otherwise *ret is what dispatch returns. */
static bool iterate(struct fdmux_loop *loop, struct fdmux__batch *batch, int *ret)
{
    bool is_interrupted = false;
    int r;

    loop->fn_error = 0;
    r = run_hooks(loop);
    batch->called = 0;
    prepare_extensions(loop);
    fdmux__count(&loop->counters.iterations, 1);
    if (r >= 0 && loop->event_count == 0 && !is_over(loop))
        r = wait_for_events(loop, batch, &is_interrupted);
    if (r >= 0 && !is_over(loop))
        r = call_batch(loop, batch);
    if (is_over(loop))
        *ret = -ESTALE;
    else if (r < 0)
        *ret = report_error(loop, batch, r);
    else
        *ret = verdict(loop, batch, is_interrupted);
    return *ret == AGAIN;
}

/* ---- the call ------------------------------------------------------------------ */

static int64_t deadline_of(int64_t timeout_ns)
{
    int64_t now_ns;

    if (timeout_ns <= 0)
        return timeout_ns == 0 ? 0 : FDMUX__NEVER;
    now_ns = fdmux__sys_now();
    return timeout_ns >= FDMUX__NEVER - now_ns ? FDMUX__NEVER : now_ns + timeout_ns;
}

/* End a dispatch, and finish the loop if it was closed meanwhile. A function may also
 * have returned in a child of fork(2); the kernel objects are then the parent's.
 * Returns what the dispatch returns instead of `result`. */
static int end_dispatch(struct fdmux_loop *loop, int result)
{
    if (loop->is_hosted && !is_over(loop) && !fdmux__loop_is_forked(loop)) {
        int r = run_hooks(loop); /* before the host waits */

        if (r < 0)
            loop->pending_error = r;
        if (!is_over(loop) && !fdmux__loop_is_forked(loop))
            fdmux__host_rest(loop);
    }
    if (fdmux__loop_is_forked(loop))
        result = -ECHILD; /* what was collected is the parent's */
    loop->is_dispatching = false;
    if (is_over(loop))
        fdmux__loop_finish(loop); /* releases the lock */
    else
        fdmux__loop_unlock(loop);
    return result;
}

/* Begin a dispatch, with the lock held from here to end_dispatch. */
static int begin_dispatch(struct fdmux_loop *loop)
{
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    if (loop->is_dispatching) {
        fdmux__loop_unlock(loop);
        return -EBUSY;
    }
    loop->is_dispatching = true;
    return 0;
}

static int iterate_all(struct fdmux_loop *loop, struct fdmux__batch *batch)
{
    int r = loop->pending_error;

    loop->pending_error = 0;
    while (r == 0 && iterate(loop, batch, &r))
        r = 0;
    return r;
}

int fdmux__loop_dispatch(struct fdmux_loop *loop, int64_t timeout_ns,
                         struct fdmux__batch *batch)
{
    int r = begin_dispatch(loop);

    if (r < 0)
        return r;
    batch->deadline_ns = deadline_of(timeout_ns);
    return end_dispatch(loop, iterate_all(loop, batch));
}

int fdmux__loop_dispatch_extension(struct fdmux_loop *loop)
{
    struct fdmux__batch batch = {.capacity = 0};
    int r = begin_dispatch(loop);

    if (r < 0)
        return r == -EBUSY ? 0 : r;
    fdmux__batch_begin(loop);
    while (r >= 0 && !is_over(loop) && has_work(loop, STAGE_EXTENSION))
        r = run_stage(loop, &batch, STAGE_EXTENSION);
    fdmux__batch_end(loop);
    return end_dispatch(loop, r >= 0 && is_over(loop) ? -ESTALE : r);
}

int fdmux_loop_dispatch(struct fdmux_loop *loop, int64_t timeout_ns,
                        struct fdmux_ready *ready, int capacity)
{
    struct fdmux__batch batch = {.ready = ready, .capacity = capacity};

    if (capacity < 0)
        return -EINVAL;
    if (capacity > 0 && ready == NULL)
        return -EFAULT;
    return fdmux__loop_dispatch(loop, timeout_ns, &batch);
}

/* This is one dispatch from beginning to end, so another thread may destroy the loop
 * meanwhile. */
int fdmux_loop_run(struct fdmux_loop *loop)
{
    int r = begin_dispatch(loop);

    if (r < 0)
        return r;
    while (r == 0 && !atomic_exchange(&loop->is_stop_wanted, false)) {
        struct fdmux__batch batch = {.deadline_ns = FDMUX__NEVER};

        r = iterate_all(loop, &batch);
        if (r == -EINTR)
            r = 0;
    }
    return end_dispatch(loop, r);
}
