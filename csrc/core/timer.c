/* timer.c: timers on the heap, and their expiry.
 *
 * A timer is taken out of the heap before its function runs, so the function may arm,
 * cancel or remove any timer, itself included. Timers armed during an expiry run wait
 * for the next run, so a timer that always arms itself for "now" cannot starve the rest
 * of the loop. */
#include "timer.h"

#include <errno.h>

#include "../platform/sys.h"
#include "batch.h"
#include "gate.h"
#include "host.h"

static struct fdmux__timer *timer_at(struct fdmux_loop *loop, uint32_t index)
{
    return fdmux__slots_at(&loop->timers, index);
}

static int add_timer(struct fdmux_loop *loop, const struct fdmux_timer_options *options,
                     uint64_t *ret_timer)
{
    struct fdmux__timer *timer;
    uint32_t index;
    int r = fdmux__heap_reserve(&loop->heap, loop->timers.live_count + 1);

    if (r == 0)
        r = fdmux__slots_take(&loop->timers, &index);
    if (r != 0)
        return r;
    timer = timer_at(loop, index);
    timer->base.destroyed = options->destroyed;
    timer->base.userdata = options->userdata;
    timer->fn = options->fn;
    timer->tag = options->tag;
    timer->heap_index = FDMUX__HEAP_NONE;
    *ret_timer = fdmux__slots_token(&loop->timers, index);
    return 0;
}

int fdmux_timer_add(struct fdmux_loop *loop, const struct fdmux_timer_options *options,
                    uint64_t *ret_timer)
{
    int r = fdmux__arguments_check(options, sizeof *options, ret_timer);

    if (r == 0)
        r = fdmux__collect_check(options->flags, options->fn == NULL);
    if (r == 0)
        r = fdmux__loop_lock(loop);
    if (r < 0)
        return r;
    r = add_timer(loop, options, ret_timer);
    fdmux__loop_unlock(loop);
    return r;
}

static int disarm(struct fdmux_loop *loop, struct fdmux__timer *timer)
{
    if (timer->heap_index == FDMUX__HEAP_NONE)
        return 0;
    fdmux__heap_remove(&loop->heap, timer->heap_index);
    return 1;
}

static void insert(struct fdmux_loop *loop, uint32_t index, int64_t deadline_ns)
{
    struct fdmux__heap_entry entry = {
        .deadline_ns = deadline_ns > loop->time_ns ? deadline_ns : loop->time_ns,
        .sequence = loop->next_sequence++,
        .index = &timer_at(loop, index)->heap_index,
        .owner = index,
    };

    fdmux__heap_insert(&loop->heap, entry);
}

int fdmux_timer_arm(struct fdmux_loop *loop, uint64_t token, int64_t deadline_ns,
                    int64_t period_ns)
{
    struct fdmux__timer *timer;
    int r;

    if (deadline_ns < 0 || period_ns < 0)
        return -EINVAL;
    r = fdmux__loop_lock(loop);
    if (r < 0)
        return r;
    timer = fdmux__slots_find(&loop->timers, token);
    if (timer == NULL) {
        r = -EIDRM;
    } else {
        (void)disarm(loop, timer);
        timer->period_ns = period_ns;
        insert(loop, fdmux__token_slot(token), deadline_ns);
        fdmux__deadline_changed(loop);
        fdmux__host_notify(loop);
    }
    fdmux__loop_unlock(loop);
    return r;
}

int fdmux_timer_arm_in(struct fdmux_loop *loop, uint64_t token, int64_t delay_ns,
                       int64_t period_ns)
{
    int64_t now_ns = fdmux__sys_now();

    if (delay_ns < 0)
        return -EINVAL;
    return fdmux_timer_arm(
        loop, token,
        delay_ns > FDMUX__NEVER - now_ns ? FDMUX__NEVER : now_ns + delay_ns, period_ns);
}

int fdmux_timer_cancel(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__timer *timer;
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    timer = fdmux__slots_find(&loop->timers, token);
    r = timer == NULL ? -EIDRM : disarm(loop, timer);
    if (r == 1)
        fdmux__host_notify(loop);
    fdmux__loop_unlock(loop);
    return r;
}

int fdmux_timer_remove(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__timer *timer;
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    timer = fdmux__slots_find(&loop->timers, token);
    if (timer == NULL) {
        r = -EIDRM;
    } else {
        (void)disarm(loop, timer);
        fdmux__host_notify(loop);
        fdmux__retire(loop, &loop->timers, fdmux__token_slot(token));
        fdmux__reap(loop);
    }
    fdmux__loop_unlock(loop);
    return r;
}

/* The first deadline after `now_ns` that is a multiple of the period after the last. */
static int64_t next_tick(int64_t deadline_ns, int64_t period_ns, int64_t now_ns)
{
    int64_t missed = (now_ns - deadline_ns) / period_ns;

    if (deadline_ns > FDMUX__NEVER - period_ns * (missed + 1))
        return FDMUX__NEVER;
    return deadline_ns + period_ns * (missed + 1);
}

/* Take the first timer out of the heap. A periodic one is inserted again with its next
 * deadline. */
static uint32_t take_first(struct fdmux_loop *loop)
{
    struct fdmux__heap_entry first = loop->heap.entries[0];
    int64_t period_ns = timer_at(loop, first.owner)->period_ns;

    fdmux__heap_remove(&loop->heap, 0);
    if (period_ns > 0)
        insert(loop, first.owner,
               next_tick(first.deadline_ns, period_ns, loop->time_ns));
    return first.owner;
}

/* Is the first timer due, and was it armed before this run began? */
static bool is_due(const struct fdmux_loop *loop, uint64_t end_sequence)
{
    const struct fdmux__heap_entry *first = loop->heap.entries;

    return loop->heap.count > 0 && first->deadline_ns <= loop->time_ns &&
           first->sequence < end_sequence && !fdmux__load(&loop->is_closing);
}

/* Collect or call one timer. */
static int expire(struct fdmux_loop *loop, uint32_t index, struct fdmux__batch *batch)
{
    struct fdmux__timer *timer = timer_at(loop, index);
    uint64_t token = fdmux__slots_token(&loop->timers, index);
    int r;

    fdmux__count(&loop->counters.timers, 1);
    if (timer->fn == NULL) {
        if (batch->compact == NULL)
            batch->ready[batch->collected++] =
                (struct fdmux_ready){token, FDMUX_TIMER, timer->tag};
        return 0;
    }
    batch->called++;
    fdmux__lock_release(&loop->lock);
    r = fdmux__fn_result(loop, timer->fn(loop, token, timer->base.userdata));
    fdmux__lock_take(&loop->lock);
    return r;
}

/* Timers that were not reached stay due. */
int fdmux__timer_dispatch(struct fdmux_loop *loop, struct fdmux__batch *batch)
{
    uint64_t end_sequence = loop->next_sequence;
    int r = 0;

    loop->time_ns = fdmux__sys_now();
    while (r >= 0 && is_due(loop, end_sequence)) {
        uint32_t first = loop->heap.entries[0].owner;

        if (timer_at(loop, first)->fn == NULL && batch->collected == batch->capacity) {
            batch->is_full = true; /* it stays due */
            break;
        }
        r = expire(loop, take_first(loop), batch);
        if (batch->called > 0 && fdmux__step_must_end(batch))
            break;
    }
    return r;
}

void fdmux__timer_kill_all(struct fdmux_loop *loop)
{
    for (uint32_t i = 0; i < fdmux__load(&loop->timers.slot_count); i++) {
        struct fdmux__timer *timer = timer_at(loop, i);

        if (!fdmux__slot_is_live(&timer->base.slot))
            continue;
        (void)disarm(loop, timer);
        fdmux__retire(loop, &loop->timers, i);
    }
}
