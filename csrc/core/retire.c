/* retire.c: see retire.h.
 *
 * Its one rule: `destroyed` is called here and nowhere else, once, without the lock,
 * when no batch can refer to the userdata any more. */
#include "retire.h"

#include "hold.h"
#include "loop_state.h"

static uint32_t *list_of(struct fdmux_loop *loop, uint32_t kind)
{
    switch (kind) {
    case FDMUX__KIND_IO:
        return &loop->retired.io;
    case FDMUX__KIND_TIMER:
        return &loop->retired.timer;
    case FDMUX__KIND_HOOK:
        return &loop->retired.hook;
    default:
        return &loop->retired.node;
    }
}

void fdmux__watcher_hand_on(struct fdmux__watcher *watcher,
                            fdmux_destroyed_fn destroyed, void *userdata)
{
    fdmux_destroyed_fn old_destroyed = watcher->destroyed;
    void *old_userdata = watcher->userdata;

    watcher->destroyed = destroyed;
    watcher->userdata = userdata;
    if (old_destroyed != NULL &&
        (old_destroyed != destroyed || old_userdata != userdata))
        old_destroyed(old_userdata);
}

void fdmux__retire_init(struct fdmux_loop *loop)
{
    loop->retired.io = FDMUX__SLOT_NONE;
    loop->retired.timer = FDMUX__SLOT_NONE;
    loop->retired.hook = FDMUX__SLOT_NONE;
    loop->retired.node = FDMUX__SLOT_NONE;
}

void fdmux__retire(struct fdmux_loop *loop, struct fdmux__slots *slots, uint32_t index)
{
    struct fdmux__slot *slot = fdmux__slots_at(slots, index);
    uint32_t *list = list_of(loop, slots->kind);

    fdmux__slots_kill(slots, index);
    slot->next_free = *list;
    *list = index;
}

/* Nodes have no `destroyed`. */
static void reap_nodes(struct fdmux_loop *loop)
{
    while (loop->retired.node != FDMUX__SLOT_NONE) {
        uint32_t index = loop->retired.node;
        struct fdmux__slot *slot = fdmux__slots_at(&loop->nodes, index);

        loop->retired.node = slot->next_free;
        fdmux__slots_recycle(&loop->nodes, index);
    }
}

/* Recycle a watcher before its `destroyed` runs, which may add another one. While it
 * runs, the dispatching thread may begin a batch; the rest is then reaped at the end of
 * that batch. */
static void reap_watchers(struct fdmux_loop *loop, struct fdmux__slots *slots)
{
    uint32_t *list = list_of(loop, slots->kind);

    while (*list != FDMUX__SLOT_NONE && !loop->is_calling) {
        uint32_t index = *list;
        struct fdmux__watcher *watcher = fdmux__slots_at(slots, index);
        fdmux_destroyed_fn destroyed = watcher->destroyed;
        void *userdata = watcher->userdata;

        *list = watcher->slot.next_free;
        fdmux__slots_recycle(slots, index);
        if (destroyed == NULL)
            continue;
        fdmux__lock_release(&loop->lock);
        destroyed(userdata);
        fdmux__lock_take(&loop->lock);
    }
}

void fdmux__reap(struct fdmux_loop *loop)
{
    if (loop->is_calling)
        return;
    reap_nodes(loop);
    reap_watchers(loop, &loop->ios);
    reap_watchers(loop, &loop->timers);
    reap_watchers(loop, &loop->hooks);
}

void fdmux__batch_begin(struct fdmux_loop *loop)
{
    loop->is_calling = true;
    loop->batch++;
    fdmux__calling_begin(loop);
}

/* Holds are left last: if a function needed a hold, its `destroyed` likely does too. */
void fdmux__batch_end(struct fdmux_loop *loop)
{
    loop->is_calling = false;
    fdmux__reap(loop);
    if (loop->hold_count > 0) {
        fdmux__lock_release(&loop->lock);
        fdmux__hold_leave_all(loop);
        fdmux__lock_take(&loop->lock);
    }
    fdmux__calling_end(loop);
}
