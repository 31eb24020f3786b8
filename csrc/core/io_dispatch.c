/* io_dispatch.c: from the backend's events to functions and to collected records.
 *
 * Runs on the dispatching thread without the lock: tables do not move, lists are walked
 * by atomic loads, and what is removed meanwhile is only killed (retire.c). Each
 * watcher is checked just before its function is called: alive, still wanting this, and
 * not younger than the event. */
#include "internal.h"

#include <errno.h>

#include "../backends/backend.h"

#define ALWAYS (FDMUX_HANGUP | FDMUX_ERROR)

/* Why a walk ended early. */
#define WALK_DONE 0
#define WALK_FULL 1

/* Detach before the call: a one-shot watcher wants nothing until it is updated. */
static void take_shot(struct fdmux_loop *loop, struct fdmux__io *io)
{
    uint32_t options = fdmux__load(&io->events) & FDMUX__OPTION_MASK;

    pthread_mutex_lock(&loop->lock);
    (void)fdmux__io_set_events(loop, io, options); /* the next line holds anyway */
    fdmux__store(&io->events, options);
    pthread_mutex_unlock(&loop->lock);
}

static int call(struct fdmux_loop *loop, struct fdmux__io *io, uint64_t token,
                uint32_t events, struct fdmux__batch *batch)
{
    int r;

    batch->called++;
    fdmux__count(&loop->counters.io_called, 1);
    r = io->fn(loop, token, events, io->base.userdata);
    return r < 0 ? r : WALK_DONE;
}

/* Call or collect one watcher. Returns WALK_DONE, WALK_FULL, or an error. */
static int deliver(struct fdmux_loop *loop, struct fdmux__io *io, uint32_t index,
                   uint32_t events, struct fdmux__batch *batch)
{
    uint32_t wanted = atomic_load_explicit(&io->events, memory_order_relaxed);
    uint32_t generation = fdmux__load(&io->base.slot.generation);
    uint64_t token = (uint64_t)generation << 32 |
                     (uint32_t)FDMUX__KIND_IO << FDMUX__SLOT_BITS | index;

    events &= wanted | ALWAYS;
    if ((generation & 1) == 0 || (wanted & FDMUX__EVENT_MASK) == 0 || events == 0 ||
        atomic_load_explicit(&io->born, memory_order_relaxed) == loop->batch)
        return WALK_DONE;
    if (io->fn == NULL && batch->collected == batch->capacity)
        return WALK_FULL;
    if ((wanted & FDMUX_ONESHOT) != 0)
        take_shot(loop, io);
    if (io->fn != NULL)
        return call(loop, io, token, events, batch);
    if (batch->compact == NULL)
        batch->ready[batch->collected++] = (struct fdmux_ready){token, events, io->tag};
    else if (io->compact != 0)
        batch->compact[batch->collected++] =
            (io->compact - 1) << 2 | (events & (FDMUX_READ | FDMUX_WRITE));
    return WALK_DONE;
}

/* Watchers from `index` up to `end`. Ended early, it notes whose turn is next. */
static int walk_until(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t index,
                      uint32_t end, const struct fdmux__event *event,
                      struct fdmux__batch *batch)
{
    int r = WALK_DONE;

    while (index != FDMUX__SLOT_NONE && index != end && r == WALK_DONE &&
           !atomic_load_explicit(&loop->is_closed, memory_order_relaxed)) {
        struct fdmux__io *io = fdmux__slots_at(&loop->ios, index);
        uint32_t next;

        r = deliver(loop, io, index, event->events, batch);
        next = fdmux__load(&io->next);
        if (r == WALK_FULL)
            node->resume = index + 1;
        else if (r < 0 && next != end && next != FDMUX__SLOT_NONE)
            node->resume = next + 1;
        index = next;
    }
    return r;
}

/* The watcher whose turn it is since the last walk ended early. */
static uint32_t take_resume(struct fdmux_loop *loop, struct fdmux__node *node)
{
    uint32_t index = node->resume - 1;
    const struct fdmux__io *io = fdmux__slots_at(&loop->ios, index);
    bool is_here;

    node->resume = 0;
    pthread_mutex_lock(&loop->lock);
    is_here = io->node == node->index;
    pthread_mutex_unlock(&loop->lock);
    return is_here ? index : fdmux__load(&node->first);
}

/* The one watcher of a node, as nearly all have; or NULL. */
static struct fdmux__io *only_watcher(struct fdmux_loop *loop,
                                      const struct fdmux__node *node, uint32_t index)
{
    struct fdmux__io *io;

    if (node->resume != 0 || index == FDMUX__SLOT_NONE)
        return NULL;
    io = fdmux__slots_at(&loop->ios, index);
    return fdmux__load(&io->next) == FDMUX__SLOT_NONE ? io : NULL;
}

/* All watchers of the event's node, in the order of adding; but those first that had to
 * wait when the last walk ended early, so that the ones before them take no more than
 * their turn. An edge that was kept is not for those that had it. */
static int walk(struct fdmux_loop *loop, struct fdmux__node *node,
                const struct fdmux__event *event, struct fdmux__batch *batch)
{
    uint32_t first = fdmux__load(&node->first);
    struct fdmux__io *only = only_watcher(loop, node, first);
    uint32_t start;
    int r;

    if (only != NULL) {
        r = deliver(loop, only, first, event->events, batch);
        if (r == WALK_FULL)
            node->resume = first + 1;
        return r;
    }
    start = node->resume == 0 ? first : take_resume(loop, node);
    r = walk_until(loop, node, start, FDMUX__SLOT_NONE, event, batch);
    if (r == WALK_DONE && start != first && (event->events & FDMUX__KEPT) == 0)
        r = walk_until(loop, node, first, start, event, batch);
    return r;
}

/* The descriptor was closed without removal: nothing more is asked about it. */
static void forget(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__node *node;

    pthread_mutex_lock(&loop->lock);
    node = fdmux__slots_find(&loop->nodes, token);
    if (node != NULL) {
        (void)loop->backend->update(loop, node, 0);
        node->mask = 0;
    }
    pthread_mutex_unlock(&loop->lock);
    fdmux__count(&loop->counters.stale_events, 1);
}

/* An event of a node that is gone. Was it removed after the kernel spoke, or does the
 * kernel still watch a file that was closed under this number and lives on as a dup? */
static bool is_stale(struct fdmux_loop *loop, uint64_t token)
{
    const struct fdmux__node *node =
        fdmux__slots_at(&loop->nodes, fdmux__token_slot(token));
    bool is_recent;

    pthread_mutex_lock(&loop->lock);
    is_recent = loop->batch - node->changed <= 1;
    pthread_mutex_unlock(&loop->lock);
    if (is_recent)
        return false;
    fdmux__count(&loop->counters.stale_events, 1);
    return true;
}

/* Edge events that were not delivered would never come again. Level ones will. The
 * first one may have been delivered in part, or altogether. */
static void keep_edges(struct fdmux_loop *loop, int from)
{
    int kept = 0;

    pthread_mutex_lock(&loop->lock);
    for (int i = from; i < loop->event_count; i++) {
        struct fdmux__event event = loop->events[i];
        const struct fdmux__node *node = fdmux__slots_find(&loop->nodes, event.token);

        if (node == NULL || (node->mask & FDMUX_EDGE) == 0 ||
            (i == from && node->resume == 0))
            continue;
        event.events |= i == from ? FDMUX__KEPT : 0;
        loop->events[kept++] = event;
    }
    pthread_mutex_unlock(&loop->lock);
    loop->event_count = kept;
}

/* One event. Returns WALK_DONE, WALK_FULL, or an error. */
static int serve(struct fdmux_loop *loop, const struct fdmux__event *event,
                 struct fdmux__batch *batch, bool *ret_is_stale)
{
    struct fdmux__node *node;

    if (event->token == FDMUX__WAKE_TOKEN)
        return fdmux__wake_drain(loop);
    if ((event->events & FDMUX__GONE) != 0) {
        forget(loop, event->token);
        return WALK_DONE;
    }
    node = fdmux__slots_find(&loop->nodes, event->token);
    if (node != NULL)
        return walk(loop, node, event, batch);
    if (is_stale(loop, event->token))
        *ret_is_stale = true;
    return WALK_DONE;
}

static void rebuild(struct fdmux_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    (void)fdmux__node_rebuild_all(loop); /* failed: the next stale event tries again */
    pthread_mutex_unlock(&loop->lock);
}

/* ---- ahead of the caches ------------------------------------------------------- */

static struct fdmux__node *node_ahead(const struct fdmux_loop *loop, int i)
{
    if (i >= loop->event_count || loop->events[i].token == FDMUX__WAKE_TOKEN)
        return NULL;
    return fdmux__slots_at(&loop->nodes, fdmux__token_slot(loop->events[i].token));
}

static struct fdmux__io *io_ahead(const struct fdmux_loop *loop, int i)
{
    const struct fdmux__node *node = node_ahead(loop, i);
    uint32_t first = node == NULL ? FDMUX__SLOT_NONE : fdmux__load(&node->first);

    return first == FDMUX__SLOT_NONE ? NULL : fdmux__slots_at(&loop->ios, first);
}

/* With many descriptors an event finds its node, its watcher and what that serves out
 * of cache, one after the other; but the events to come are known. A node or watcher
 * that has gone leaves its memory where it is. */
static void look_ahead(const struct fdmux_loop *loop, int i)
{
    const struct fdmux__io *io = io_ahead(loop, i + 1);

    __builtin_prefetch(node_ahead(loop, i + 3));
    __builtin_prefetch(io_ahead(loop, i + 2));
    if (io == NULL)
        return;
    __builtin_prefetch(io->base.userdata, 1);
    __builtin_prefetch((const char *)io->base.userdata + 64, 1);
}

int fdmux__io_dispatch(struct fdmux_loop *loop, struct fdmux__batch *batch)
{
    int collected_before = batch->collected;
    bool found_stale = false;
    int r = WALK_DONE;
    int i = 0;

    while (i < loop->event_count && r == WALK_DONE &&
           !atomic_load_explicit(&loop->is_closed, memory_order_relaxed)) {
        look_ahead(loop, i);
        r = serve(loop, &loop->events[i], batch, &found_stale);
        i += r == WALK_DONE ? 1 : 0;
    }
    if (i == loop->event_count)
        loop->event_count = 0;
    else
        keep_edges(loop, i);
    fdmux__count(&loop->counters.io_collected,
                 (uint64_t)(batch->collected - collected_before));
    if (found_stale)
        rebuild(loop);
    if (r == WALK_FULL)
        batch->is_full = true;
    return r < 0 ? r : 0;
}
