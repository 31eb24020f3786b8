/* verify.c: check every invariant of a loop's internal structures.
 *
 * Compiled into test builds only. Returns the line of the first check that fails, so
 * that a failing test can print it. O(everything in the loop). */
#include "../platform/testing.h"

#include "gate.h"
#include "hook.h"
#include "node.h"
#include "timer.h"

#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition))                                                              \
            return __LINE__;                                                           \
    } while (0)

/* NOLINTBEGIN(readability-function-size): every CHECK counts as two branches. */

static bool is_live(const struct fdmux__slots *slots, uint32_t index)
{
    return fdmux__slot_is_live(fdmux__slots_at(slots, index));
}

/* Every slot is live, free, or retired; the counts agree. */
static int verify_slots(const struct fdmux__slots *slots, uint32_t retired)
{
    uint32_t count = fdmux__load(&slots->slot_count);
    uint32_t live = 0;
    uint32_t idle = 0;

    CHECK(count <= slots->capacity);
    for (uint32_t i = 0; i < count; i++)
        live += is_live(slots, i) ? 1 : 0;
    CHECK(live == slots->live_count);
    for (uint32_t i = slots->first_free; i != FDMUX__SLOT_NONE; idle++) {
        CHECK(i < count && !is_live(slots, i) && idle <= count);
        i = ((const struct fdmux__slot *)fdmux__slots_at(slots, i))->next_free;
    }
    for (uint32_t i = retired; i != FDMUX__SLOT_NONE; idle++) {
        CHECK(i < count && !is_live(slots, i) && idle <= count);
        i = ((const struct fdmux__slot *)fdmux__slots_at(slots, i))->next_free;
    }
    CHECK(live + idle == count);
    return 0;
}

/* Each watcher of a node is live and refers to it. The kernel's mask is the union of
 * theirs, or more if the kernel refused to remove something. */
static int verify_node(struct fdmux_loop *loop, const struct fdmux__node *node)
{
    uint32_t index = fdmux__load(&node->first);
    uint32_t wanted = 0;
    uint32_t count = 0;

    CHECK(fdmux__fd_table_find(&loop->fds, node->fd) == node->index);
    CHECK(index != FDMUX__SLOT_NONE);
    for (; index != FDMUX__SLOT_NONE; count++) {
        const struct fdmux__io *io = fdmux__slots_at(&loop->ios, index);
        uint32_t events = fdmux__load(&io->events);

        CHECK(is_live(&loop->ios, index) && count <= loop->ios.live_count);
        CHECK(io->node == node->index);
        if ((events & FDMUX__EVENT_MASK) != 0)
            wanted |= events & (FDMUX__EVENT_MASK | FDMUX__KERNEL_OPTIONS);
        index = fdmux__load(&io->next);
    }
    CHECK((wanted & ~node->mask) == 0 || node->mask == 0); /* 0: found closed */
    return 0;
}

static int verify_nodes(struct fdmux_loop *loop)
{
    for (uint32_t i = 0; i < fdmux__load(&loop->nodes.slot_count); i++) {
        int r = is_live(&loop->nodes, i)
                    ? verify_node(loop, fdmux__slots_at(&loop->nodes, i))
                    : 0;

        if (r != 0)
            return r;
    }
    CHECK(fdmux__fd_table_count(&loop->fds) == loop->nodes.live_count);
    return 0;
}

static int verify_heap(struct fdmux_loop *loop)
{
    const struct fdmux__heap *heap = &loop->heap;

    CHECK(heap->count <= heap->capacity);
    CHECK(loop->timers.live_count <= heap->capacity);
    for (uint32_t i = 0; i < heap->count; i++) {
        const struct fdmux__heap_entry *entry = &heap->entries[i];
        const struct fdmux__heap_entry *parent =
            &heap->entries[i == 0 ? 0 : (i - 1) / 4];
        const struct fdmux__timer *timer = fdmux__slots_at(&loop->timers, entry->owner);

        CHECK(is_live(&loop->timers, entry->owner));
        CHECK(entry->index == &timer->heap_index && *entry->index == i);
        CHECK(parent->deadline_ns <= entry->deadline_ns);
        CHECK(parent->deadline_ns < entry->deadline_ns ||
              parent->sequence <= entry->sequence);
    }
    return 0;
}

/* Adds the length of a list to *count. */
static int verify_hook_list(struct fdmux_loop *loop, uint32_t index, bool is_at_close,
                            uint32_t *count)
{
    for (; index != FDMUX__SLOT_NONE; ++*count) {
        const struct fdmux__hook *hook = fdmux__slots_at(&loop->hooks, index);

        CHECK(is_live(&loop->hooks, index) && *count <= loop->hooks.live_count);
        CHECK((hook->close_fn != NULL) == is_at_close);
        CHECK((hook->fn != NULL) != is_at_close);
        index = fdmux__load(&hook->next);
    }
    return 0;
}

static int verify_hooks(struct fdmux_loop *loop)
{
    uint32_t count = 0;
    int r = verify_hook_list(loop, fdmux__load(&loop->first_hook), false, &count);

    if (r == 0)
        r = verify_hook_list(loop, fdmux__load(&loop->first_close_hook), true, &count);
    CHECK(r == 0);
    CHECK(count == loop->hooks.live_count);
    return 0;
}

static int verify_queues(struct fdmux_loop *loop)
{
    CHECK(loop->incoming.count <= loop->incoming.capacity);
    CHECK(loop->running.count <= loop->running.capacity);
    CHECK(loop->running_next <= loop->running.count);
    CHECK(loop->event_count >= 0 && loop->event_count <= loop->event_capacity);
    CHECK(!loop->is_calling || loop->is_dispatching);
    CHECK(!loop->is_waiting || (loop->is_dispatching && !loop->is_calling));
    return 0;
}

int fdmux_testing_verify(struct fdmux_loop *loop)
{
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    r = verify_slots(&loop->ios, loop->retired.io);
    r = r != 0 ? r : verify_slots(&loop->nodes, loop->retired.node);
    r = r != 0 ? r : verify_slots(&loop->timers, loop->retired.timer);
    r = r != 0 ? r : verify_slots(&loop->hooks, loop->retired.hook);
    r = r != 0 ? r : verify_nodes(loop);
    r = r != 0 ? r : verify_heap(loop);
    r = r != 0 ? r : verify_hooks(loop);
    r = r != 0 ? r : verify_queues(loop);
    fdmux__loop_unlock(loop);
    return r;
}

/* NOLINTEND(readability-function-size) */
