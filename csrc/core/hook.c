/* hook.c: functions that run before each wait.
 *
 * A singly linked list in the order of adding, walked without the lock: a removed hook
 * keeps its link until the batch is over (retire.h). */
#include "hook.h"

#include <errno.h>

#include "gate.h"
#include "wake.h"

static struct fdmux__hook *hook_at(struct fdmux_loop *loop, uint32_t index)
{
    return fdmux__slots_at(&loop->hooks, index);
}

/* The link that points to `index`, or the last link of the list. O(hooks). */
static _Atomic uint32_t *link_to(struct fdmux_loop *loop, uint32_t index)
{
    _Atomic uint32_t *link = &loop->first_hook;

    while (fdmux__load(link) != index && fdmux__load(link) != FDMUX__SLOT_NONE)
        link = &hook_at(loop, fdmux__load(link))->next;
    return link;
}

static int add_hook(struct fdmux_loop *loop, const struct fdmux_hook_options *options,
                    uint64_t *ret_hook)
{
    struct fdmux__hook *hook;
    uint32_t index;
    int r = fdmux__slots_take(&loop->hooks, &index);

    if (r < 0)
        return r;
    hook = hook_at(loop, index);
    hook->base.destroyed = options->destroyed;
    hook->base.userdata = options->userdata;
    hook->fn = options->fn;
    hook->born = loop->batch;
    fdmux__store(&hook->next, FDMUX__SLOT_NONE);
    fdmux__store(link_to(loop, FDMUX__SLOT_NONE), index);
    *ret_hook = fdmux__slots_token(&loop->hooks, index);
    return 0;
}

int fdmux_hook_add(struct fdmux_loop *loop, const struct fdmux_hook_options *options,
                   uint64_t *ret_hook)
{
    int r = fdmux__options_check(options, sizeof *options);

    if (r < 0 || ret_hook == NULL || options->fn == NULL)
        return -EINVAL;
    r = fdmux__loop_lock(loop);
    if (r < 0)
        return r;
    r = add_hook(loop, options, ret_hook);
    if (r == 0 && loop->is_waiting)
        (void)fdmux__wake_ring(loop); /* so that the hook runs before the loop sleeps */
    fdmux__loop_unlock(loop);
    return r;
}

int fdmux_hook_remove(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__hook *hook;
    uint32_t index = fdmux__token_slot(token);
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    hook = fdmux__slots_find(&loop->hooks, token);
    if (hook == NULL) {
        r = -ENOENT;
    } else {
        fdmux__store(link_to(loop, index), fdmux__load(&hook->next));
        fdmux__retire(loop, &loop->hooks, index);
        fdmux__reap(loop);
    }
    fdmux__loop_unlock(loop);
    return r;
}

int fdmux__hook_dispatch(struct fdmux_loop *loop)
{
    uint32_t index = fdmux__load(&loop->first_hook);
    int r = 0;

    while (index != FDMUX__SLOT_NONE && r >= 0 && !fdmux__load(&loop->is_closed)) {
        struct fdmux__hook *hook = hook_at(loop, index);

        if (fdmux__slot_is_live(&hook->base.slot) && hook->born != loop->batch)
            r = fdmux__fn_result(loop,
                                 hook->fn(loop, fdmux__slots_token(&loop->hooks, index),
                                          hook->base.userdata));
        index = fdmux__load(&hook->next);
    }
    return r;
}

void fdmux__hook_kill_all(struct fdmux_loop *loop)
{
    uint32_t index = atomic_exchange(&loop->first_hook, FDMUX__SLOT_NONE);

    while (index != FDMUX__SLOT_NONE) {
        uint32_t next = fdmux__load(&hook_at(loop, index)->next);

        fdmux__retire(loop, &loop->hooks, index);
        index = next;
    }
}
