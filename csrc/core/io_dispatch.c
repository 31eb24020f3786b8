/* io_dispatch.c: see io_dispatch.h.
 *
 * Runs on the dispatching thread without the lock: tables do not move, lists are walked
 * by atomic loads, and what is removed meanwhile is only killed (retire.h). Just before
 * a watcher's function is called, the watcher is checked: it must be live, want this
 * event, and be older than it. */
#include "io_dispatch.h"

#include "../backends/backend.h"
#include "batch.h"
#include "extension.h"
#include "gate.h"
#include "io.h"
#include "wake.h"

#define ALWAYS (FDMUX_HANGUP | FDMUX_ERROR)

/* Why a walk ended early. */
#define WALK_DONE 0
#define WALK_FULL 1

/* The node and the first watcher of an event, looked up ahead (find_targets). */
struct target {
    struct fdmux__node *node; /* NULL for the wake descriptor */
    struct fdmux__io *io;     /* in slot `first`, or NULL */
    uint32_t first;           /* slot, or NONE */
};

/* Before its function runs, disarm a one-shot watcher until it is updated. */
static void disarm_oneshot(struct fdmux_loop *loop, struct fdmux__io *io)
{
    uint32_t options = fdmux__load(&io->events) & FDMUX__OPTION_MASK;

    fdmux__lock_take(&loop->lock);
    (void)fdmux__io_set_events(loop, io, options); /* the core ignores it from here */
    fdmux__store(&io->events, options);
    fdmux__lock_release(&loop->lock);
}

static inline int call_watcher(struct fdmux_loop *loop, struct fdmux__io *io,
                               uint64_t token, uint32_t events,
                               struct fdmux__batch *batch)
{
    int r;

    batch->called++;
    r = fdmux__fn_result(loop, io->fn(loop, token, events, io->base.userdata));
    return r < 0 ? r : WALK_DONE;
}

/* Call or collect one watcher. Returns WALK_DONE, WALK_FULL, or an error. */
static inline int dispatch_watcher(struct fdmux_loop *loop, struct fdmux__io *io,
                                   uint32_t index, uint32_t events,
                                   struct fdmux__batch *batch)
{
    uint32_t wanted = atomic_load_explicit(&io->events, memory_order_relaxed);
    uint32_t generation = fdmux__load(&io->base.slot.generation);
    uint64_t token = (uint64_t)generation << 32 |
                     (uint32_t)FDMUX__KIND_IO << FDMUX__SLOT_BITS | index;

    events &= wanted | ALWAYS;
    if (!fdmux__generation_is_live(generation) || (wanted & FDMUX__EVENT_MASK) == 0 ||
        events == 0 ||
        atomic_load_explicit(&io->born, memory_order_relaxed) == loop->batch)
        return WALK_DONE;
    if (io->fn == NULL && batch->collected == batch->capacity)
        return WALK_FULL;
    if ((wanted & FDMUX_ONESHOT) != 0)
        disarm_oneshot(loop, io);
    if (io->fn != NULL)
        return call_watcher(loop, io, token, events, batch);
    if (batch->compact == NULL)
        batch->ready[batch->collected++] = (struct fdmux_ready){token, events, io->tag};
    else if (io->compact != 0)
        batch->compact[batch->collected++] =
            (io->compact - 1) << 2 | (events & (FDMUX_READ | FDMUX_WRITE));
    return WALK_DONE;
}

static struct fdmux__io *io_at(struct fdmux_loop *loop, uint32_t index,
                               const struct target *target)
{
    if (index == target->first)
        return target->io;
    return fdmux__slots_at_sized(&loop->ios, index, sizeof(struct fdmux__io));
}

/* Dispatch to the watchers from `index` up to `end`. A walk that ends early records in
 * node->resume which watcher comes next. */
static int walk_until(struct fdmux_loop *loop, const struct target *target,
                      uint32_t index, uint32_t end, uint32_t events,
                      struct fdmux__batch *batch)
{
    int r = WALK_DONE;

    while (index != FDMUX__SLOT_NONE && index != end && r == WALK_DONE &&
           !atomic_load_explicit(&loop->is_closing, memory_order_relaxed)) {
        struct fdmux__io *io = io_at(loop, index, target);
        uint32_t next;

        r = dispatch_watcher(loop, io, index, events, batch);
        next = fdmux__load(&io->next);
        if (r == WALK_FULL)
            target->node->resume = index + 1;
        else if (r < 0 && next != end && next != FDMUX__SLOT_NONE)
            target->node->resume = next + 1;
        index = next;
    }
    return r;
}

/* The watcher to begin with, if the last walk ended early. */
static uint32_t take_resume(struct fdmux_loop *loop, struct fdmux__node *node)
{
    uint32_t index = node->resume - 1;
    const struct fdmux__io *io = fdmux__slots_at(&loop->ios, index);
    bool is_here;

    node->resume = 0;
    fdmux__lock_take(&loop->lock);
    is_here = io->node == node->index;
    fdmux__lock_release(&loop->lock);
    return is_here ? index : fdmux__load(&node->first);
}

/* Dispatch to all watchers of a node in the order of adding. If the last walk ended
 * early, begin with the watchers it did not reach, so that those before them are not
 * called twice as often. A kept edge goes only to watchers that have not had it. */
static int walk(struct fdmux_loop *loop, const struct target *target,
                const struct fdmux__event *event, struct fdmux__batch *batch)
{
    struct fdmux__node *node = target->node;
    uint32_t first = fdmux__load(&node->first);
    uint32_t start = node->resume == 0 ? first : take_resume(loop, node);
    int r = walk_until(loop, target, start, FDMUX__SLOT_NONE, event->events, batch);

    if (r == WALK_DONE && start != first && (event->events & FDMUX__KEPT) == 0)
        r = walk_until(loop, target, first, start, event->events, batch);
    return r;
}

/* Does the node have a single watcher, as nearly all do? */
static inline bool is_only(const struct target *target)
{
    return target->io != NULL && target->node->resume == 0 &&
           fdmux__load(&target->node->first) == target->first &&
           fdmux__load(&target->io->next) == FDMUX__SLOT_NONE;
}

static inline int dispatch_node(struct fdmux_loop *loop, const struct target *target,
                                const struct fdmux__event *event,
                                struct fdmux__batch *batch)
{
    int r;

    if (!is_only(target))
        return walk(loop, target, event, batch);
    r = dispatch_watcher(loop, target->io, target->first, event->events, batch);
    if (r == WALK_FULL)
        target->node->resume = target->first + 1;
    return r;
}

/* The descriptor was closed while its watchers were still registered: let the backend
 * forget it. */
static void forget_closed(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__node *node;

    fdmux__lock_take(&loop->lock);
    node = fdmux__slots_find(&loop->nodes, token);
    if (node != NULL) {
        (void)loop->backend->update(loop, node, 0);
        node->mask = 0;
    }
    fdmux__lock_release(&loop->lock);
    fdmux__count(&loop->counters.stale_events, 1);
}

/* The event's node is gone. Either it was removed after the kernel had reported the
 * event, or the event is stale: the kernel still watches a file that was closed under
 * this number and is open under another. */
static bool is_stale(struct fdmux_loop *loop, uint64_t token)
{
    const struct fdmux__node *node =
        fdmux__slots_at(&loop->nodes, fdmux__token_slot(token));
    bool is_recent;

    fdmux__lock_take(&loop->lock);
    is_recent = loop->batch - node->changed <= 1;
    fdmux__lock_release(&loop->lock);
    if (is_recent)
        return false;
    fdmux__count(&loop->counters.stale_events, 1);
    return true;
}

/* Keep the edge events that were not dispatched: the kernel will not report them again,
 * as it does with level-triggered ones. The first may have been dispatched in part, or
 * completely. */
static void keep_edges(struct fdmux_loop *loop, int from)
{
    int kept = 0;

    fdmux__lock_take(&loop->lock);
    for (int i = from; i < loop->event_count; i++) {
        struct fdmux__event event = loop->events[i];
        const struct fdmux__node *node = fdmux__slots_find(&loop->nodes, event.token);

        if (node == NULL || (node->mask & FDMUX_EDGE) == 0 ||
            (i == from && node->resume == 0))
            continue;
        event.events |= i == from ? FDMUX__KEPT : 0;
        loop->events[kept++] = event;
    }
    fdmux__lock_release(&loop->lock);
    loop->event_count = kept;
}

/* Returns WALK_DONE, WALK_FULL, or an error. */
static inline int dispatch_event(struct fdmux_loop *loop,
                                 const struct fdmux__event *event,
                                 const struct target *target,
                                 struct fdmux__batch *batch, bool *ret_is_stale)
{
    if (target->node == NULL)
        return fdmux__wake_silence(loop);
    if ((event->events & FDMUX__GONE) != 0) {
        forget_closed(loop, event->token);
        return WALK_DONE;
    }
    if (fdmux__load(&target->node->slot.generation) == event->token >> 32)
        return dispatch_node(loop, target, event, batch);
    if (is_stale(loop, event->token))
        *ret_is_stale = true;
    return WALK_DONE;
}

static void rebuild_set(struct fdmux_loop *loop)
{
    fdmux__lock_take(&loop->lock);
    (void)fdmux__node_rebuild_all(loop); /* the next stale event tries again */
    fdmux__lock_release(&loop->lock);
}

/* ---- several events at a time --------------------------------------------------- */

/* With many descriptors the node of an event, its watcher, the watcher's userdata and
 * what a stream needs are cache misses, one after the other. So each is prefetched for
 * several events at once. */
#define TARGETS_MAX FDMUX__PREFETCH_MAX

static void find_node(const struct fdmux_loop *loop, uint64_t token,
                      struct target *target)
{
    target->io = NULL;
    target->first = FDMUX__SLOT_NONE;
    target->node = NULL;
    if (token == FDMUX__WAKE_TOKEN)
        return;
    target->node = fdmux__slots_at_sized(&loop->nodes, fdmux__token_slot(token),
                                         sizeof(struct fdmux__node));
    __builtin_prefetch(target->node);
}

/* Skip nodes removed before this batch: another thread may be reusing their slots.
 * Nodes removed from now on stay until the batch is over. */
static void find_io(const struct fdmux_loop *loop, uint64_t token,
                    struct target *target)
{
    if (target->node == NULL ||
        fdmux__load(&target->node->slot.generation) != token >> 32)
        return;
    target->first = fdmux__load(&target->node->first);
    if (target->first == FDMUX__SLOT_NONE)
        return;
    target->io =
        fdmux__slots_at_sized(&loop->ios, target->first, sizeof(struct fdmux__io));
    __builtin_prefetch(target->io);
}

/* For watchers of streams, whose userdata is the stream. */
static void prefetch_userdata(const struct target *target)
{
    if (target->io == NULL)
        return;
    __builtin_prefetch(target->io->base.userdata, 1);
    __builtin_prefetch((const char *)target->io->base.userdata + 64, 1);
}

static void prefetch_streams(struct fdmux_loop *loop, const struct target *targets,
                             int count)
{
    struct fdmux__io *ios[TARGETS_MAX];

    for (int i = 0; i < count; i++)
        ios[i] = targets[i].io;
    loop->extensions[FDMUX__STREAMS].hooks->prefetch(loop, ios, count);
}

static void find_targets(struct fdmux_loop *loop, const struct fdmux__event *event,
                         struct target *targets, int count)
{
    bool has_streams = loop->extensions[FDMUX__STREAMS].hooks != NULL;

    for (int i = 0; i < count; i++)
        find_node(loop, event[i].token, &targets[i]);
    for (int i = 0; i < count; i++)
        find_io(loop, event[i].token, &targets[i]);
    /* Without streams userdata may be any number, and the prefetch of an address that
     * is not mapped costs more than it can gain. */
    for (int i = 0; i < count && has_streams; i++)
        prefetch_userdata(&targets[i]);
    if (has_streams && count > 1)
        prefetch_streams(loop, targets, count);
}

/* Dispatch a few events from `*index` on, and advance it past those that are done. */
static int dispatch_some(struct fdmux_loop *loop, int *index,
                         struct fdmux__batch *batch, bool *ret_is_stale)
{
    struct target targets[TARGETS_MAX];
    const struct fdmux__event *events = loop->events + *index;
    int count = loop->event_count - *index;
    int r = WALK_DONE;

    if (count > TARGETS_MAX)
        count = TARGETS_MAX;
    find_targets(loop, events, targets, count);
    for (int i = 0; i < count && r == WALK_DONE &&
                    !atomic_load_explicit(&loop->is_closing, memory_order_relaxed);
         i++) {
        r = dispatch_event(loop, &events[i], &targets[i], batch, ret_is_stale);
        *index += r == WALK_DONE ? 1 : 0;
    }
    return r;
}

int fdmux__io_dispatch(struct fdmux_loop *loop, struct fdmux__batch *batch)
{
    int collected_before = batch->collected;
    uint32_t called_before = batch->called;
    bool found_stale = false;
    int r = WALK_DONE;
    int i = 0;

    while (i < loop->event_count && r == WALK_DONE &&
           !atomic_load_explicit(&loop->is_closing, memory_order_relaxed))
        r = dispatch_some(loop, &i, batch, &found_stale);
    if (i == loop->event_count)
        loop->event_count = 0;
    else
        keep_edges(loop, i);
    fdmux__count(&loop->counters.io_called, batch->called - called_before);
    fdmux__count(&loop->counters.io_collected,
                 (uint64_t)(batch->collected - collected_before));
    if (found_stale)
        rebuild_set(loop);
    if (r == WALK_FULL)
        batch->is_full = true;
    return r < 0 ? r : 0;
}
