/* hook.c: functions that run before each wait, and those that run at the close.
 *
 * Two singly linked lists of one table. Hooks before a wait are in the order of adding,
 * and walked without the lock: a removed one keeps its link until the batch is over
 * (retire.h). Those at the close are in the reverse order, and taken off one by one. */
#include "hook.h"

#include <errno.h>

#include "gate.h"
#include "host.h"
#include "wake.h"

static struct fdmux__hook *hook_at(struct fdmux_loop *loop, uint32_t index)
{
    return fdmux__slots_at(&loop->hooks, index);
}

/* The link of the list `link` that points to `index`, or its last link. O(hooks). */
static _Atomic uint32_t *link_to(struct fdmux_loop *loop, _Atomic uint32_t *link,
                                 uint32_t index)
{
    while (fdmux__load(link) != index && fdmux__load(link) != FDMUX__SLOT_NONE)
        link = &hook_at(loop, fdmux__load(link))->next;
    return link;
}

/* A new hook that is in no list, and its token. */
static int take_hook(struct fdmux_loop *loop, uint32_t *ret_index, uint64_t *ret_token)
{
    int r = fdmux__slots_take(&loop->hooks, ret_index);

    if (r == 0)
        *ret_token = fdmux__slots_token(&loop->hooks, *ret_index);
    return r;
}

static int add_hook(struct fdmux_loop *loop, const struct fdmux_hook_options *options,
                    uint64_t *ret_hook)
{
    struct fdmux__hook *hook;
    uint32_t index;
    int r = take_hook(loop, &index, ret_hook);

    if (r < 0)
        return r;
    hook = hook_at(loop, index);
    hook->base.destroyed = options->destroyed;
    hook->base.userdata = options->userdata;
    hook->fn = options->fn;
    hook->born = loop->batch;
    fdmux__store(&hook->next, FDMUX__SLOT_NONE);
    fdmux__store(link_to(loop, &loop->first_hook, FDMUX__SLOT_NONE), index);
    return 0;
}

int fdmux_hook_add(struct fdmux_loop *loop, const struct fdmux_hook_options *options,
                   uint64_t *ret_hook)
{
    int r = fdmux__arguments_check(options, sizeof *options, ret_hook);

    if (r == 0)
        r = options->fn == NULL ? -EINVAL : fdmux__loop_lock(loop);
    if (r < 0)
        return r;
    r = add_hook(loop, options, ret_hook);
    if (r == 0 && loop->is_waiting)
        (void)fdmux__wake_ring(loop); /* so that the hook runs before the loop sleeps */
    else if (r == 0)
        fdmux__host_notify(loop);
    fdmux__loop_unlock(loop);
    return r;
}

static int add_close_hook(struct fdmux_loop *loop, fdmux_close_fn fn, void *userdata,
                          uint64_t *ret_hook)
{
    struct fdmux__hook *hook;
    uint32_t index;
    int r = take_hook(loop, &index, ret_hook);

    if (r < 0)
        return r;
    hook = hook_at(loop, index);
    hook->base.userdata = userdata;
    hook->close_fn = fn;
    fdmux__store(&hook->next, fdmux__load(&loop->first_close_hook));
    fdmux__store(&loop->first_close_hook, index);
    return 0;
}

int fdmux_loop_at_close(struct fdmux_loop *loop, fdmux_close_fn fn, void *userdata,
                        uint64_t *ret_hook)
{
    int r = ret_hook == NULL ? -EFAULT : fn == NULL ? -EINVAL : 0;

    if (r == 0)
        r = fdmux__loop_lock(loop);
    if (r < 0)
        return r;
    r = add_close_hook(loop, fn, userdata, ret_hook);
    fdmux__loop_unlock(loop);
    return r;
}

static void unlink_hook(struct fdmux_loop *loop, const struct fdmux__hook *hook,
                        uint32_t index)
{
    _Atomic uint32_t *list =
        hook->close_fn == NULL ? &loop->first_hook : &loop->first_close_hook;

    fdmux__store(link_to(loop, list, index), fdmux__load(&hook->next));
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
        r = -EIDRM;
    } else {
        unlink_hook(loop, hook, index);
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

    while (index != FDMUX__SLOT_NONE && r >= 0 && !fdmux__load(&loop->is_closing)) {
        struct fdmux__hook *hook = hook_at(loop, index);

        if (fdmux__slot_is_live(&hook->base.slot) && hook->born != loop->batch)
            r = fdmux__fn_result(loop,
                                 hook->fn(loop, fdmux__slots_token(&loop->hooks, index),
                                          hook->base.userdata));
        else if (hook->born == loop->batch) /* added by a hook: it comes next */
            atomic_store(&loop->is_wake_wanted, true); /* without a wait in between */
        index = fdmux__load(&hook->next);
    }
    return r;
}

void fdmux__hook_close(struct fdmux_loop *loop)
{
    uint32_t index = fdmux__load(&loop->first_close_hook);

    while (index != FDMUX__SLOT_NONE) {
        struct fdmux__hook *hook = hook_at(loop, index);
        fdmux_close_fn fn = hook->close_fn;
        void *userdata = hook->base.userdata;

        fdmux__store(&loop->first_close_hook, fdmux__load(&hook->next));
        fdmux__retire(loop, &loop->hooks, index);
        fdmux__lock_release(&loop->lock);
        fn(loop, userdata);
        if (fdmux__loop_is_forked(loop))
            (void)fdmux__fork_return(loop); /* in the child the others are not called */
        fdmux__lock_take(&loop->lock);
        index = fdmux__loop_is_forked(loop) ? FDMUX__SLOT_NONE
                                            : fdmux__load(&loop->first_close_hook);
    }
}

static void kill_list(struct fdmux_loop *loop, _Atomic uint32_t *list)
{
    uint32_t index = atomic_exchange(list, FDMUX__SLOT_NONE);

    while (index != FDMUX__SLOT_NONE) {
        uint32_t next = fdmux__load(&hook_at(loop, index)->next);

        fdmux__retire(loop, &loop->hooks, index);
        index = next;
    }
}

void fdmux__hook_kill_all(struct fdmux_loop *loop)
{
    kill_list(loop, &loop->first_hook);
    kill_list(loop, &loop->first_close_hook); /* not called in a child of fork(2) */
}
