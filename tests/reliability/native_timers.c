/* native_timers.c: many timers in one loop, which cancel and re-arm each other.
 *
 * Its one rule: what must happen to a timer is recorded before it can happen, so each
 * call can be checked when it arrives: too early, after a cancel, or before one that
 * was due earlier. */
#include <fdmux_api.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum fate {
    FIRES,
    CANCELLED_BEFORE, /* before the loop runs */
    CANCELS,          /* fires, and cancels its victim */
    REARMS,           /* fires, and re-arms its victim */
    VICTIM,           /* of one of these two */
};

struct crowd;

struct one {
    struct crowd *crowd;
    uint64_t timer;
    int64_t deadline_ns;
    uint64_t sequence; /* of arming */
    struct one *victim;
    enum fate fate;
    bool is_armed;
};

struct crowd {
    const struct fdmux_api *api;
    struct fdmux_loop *loop;
    size_t count;
    struct one *ones;
    int64_t *lateness_ns;
    uint64_t random;
    uint64_t sequence;
    int64_t span_ns;
    int64_t last_deadline_ns;
    uint64_t last_sequence;
    int64_t armed;
    int64_t fired;
    int64_t early;
    int64_t after_cancel;
    int64_t out_of_order;
    int64_t cancelled_inside;
    int64_t rearmed_inside;
    int64_t failed;
};

static uint64_t draw(struct crowd *crowd)
{
    crowd->random ^= crowd->random << 13;
    crowd->random ^= crowd->random >> 7;
    crowd->random ^= crowd->random << 17;
    return crowd->random >> 11;
}

static void arm(struct one *one, int64_t from_ns)
{
    struct crowd *crowd = one->crowd;

    crowd->armed += !one->is_armed;
    one->deadline_ns = from_ns + (int64_t)(draw(crowd) % (uint64_t)crowd->span_ns);
    one->sequence = crowd->sequence++;
    one->is_armed = true;
    if (crowd->api->timer_arm(crowd->loop, one->timer, one->deadline_ns, 0) < 0)
        crowd->failed++;
}

/* Must return 1 for an armed timer, 0 for any other. */
static void cancel(struct one *one)
{
    struct crowd *crowd = one->crowd;

    if (crowd->api->timer_cancel(crowd->loop, one->timer) != (one->is_armed ? 1 : 0))
        crowd->failed++;
    crowd->armed -= one->is_armed;
    one->is_armed = false;
}

static void meddle(struct one *one, int64_t now_ns)
{
    struct crowd *crowd = one->crowd;

    if (one->fate == CANCELS) {
        crowd->cancelled_inside += one->victim->is_armed;
        cancel(one->victim);
    } else if (one->fate == REARMS) {
        crowd->rearmed_inside++;
        /* Later than every due timer, so that the order stays defined. */
        arm(one->victim, now_ns + 1);
    }
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct one *one = userdata;
    struct crowd *crowd = one->crowd;
    int64_t now_ns = crowd->api->loop_now(loop);

    if (!one->is_armed || timer != one->timer) {
        crowd->after_cancel++;
        return 0;
    }
    one->is_armed = false;
    crowd->armed--;
    crowd->early += now_ns < one->deadline_ns;
    crowd->out_of_order += one->deadline_ns < crowd->last_deadline_ns ||
                           (one->deadline_ns == crowd->last_deadline_ns &&
                            one->sequence < crowd->last_sequence);
    crowd->last_deadline_ns = one->deadline_ns;
    crowd->last_sequence = one->sequence;
    if (crowd->fired < (int64_t)crowd->count)
        crowd->lateness_ns[crowd->fired] = now_ns - one->deadline_ns;
    crowd->fired++;
    meddle(one, now_ns);
    return 0;
}

/* 30 % are cancelled before the run; 10 % cancel another, 10 % re-arm one; the rest
 * fire. */
static void give_fate(struct crowd *crowd, size_t i)
{
    struct one *one = &crowd->ones[i];
    uint64_t share = draw(crowd) % 100;

    if (one->fate == VICTIM)
        return;
    if (share < 30)
        one->fate = CANCELLED_BEFORE;
    else if (share < 50 && i + 1 < crowd->count) {
        one->fate = share < 40 ? CANCELS : REARMS;
        one->victim = &crowd->ones[i + 1];
        one->victim->fate = VICTIM;
    }
}

static int add(struct crowd *crowd, struct one *one)
{
    struct fdmux_timer_options options;

    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.fn = on_timer;
    options.userdata = one;
    one->crowd = crowd;
    return crowd->api->timer_add(crowd->loop, &options, &one->timer);
}

/* Create `count` timers. `ret_lateness_ns`, with `count` elements, stays the caller's.
 * Returns the crowd, or 0. */
int64_t crowd_create(const struct fdmux_api *api, struct fdmux_loop *loop,
                     int64_t count, uint64_t seed, int64_t *ret_lateness_ns)
{
    struct crowd *crowd = calloc(1, sizeof *crowd);

    if (crowd == NULL)
        return 0;
    crowd->api = api;
    crowd->loop = loop;
    crowd->count = (size_t)count;
    crowd->random = seed | 1;
    crowd->lateness_ns = ret_lateness_ns;
    crowd->ones = calloc(crowd->count, sizeof *crowd->ones);
    for (size_t i = 0; crowd->ones != NULL && i < crowd->count; i++) {
        if (add(crowd, &crowd->ones[i]) < 0)
            crowd->failed++;
        give_fate(crowd, i);
    }
    return (int64_t)(intptr_t)crowd;
}

/* Arm all within `span_ns`, from `ahead_ns` on; cancel those of fate CANCELLED_BEFORE.
 * Returns 0, or -EAGAIN when arming took longer than `ahead_ns`. */
int64_t crowd_arm(const struct fdmux_api *api, struct fdmux_loop *loop,
                  struct crowd *crowd, int64_t ahead_ns, int64_t span_ns)
{
    int64_t from_ns = api->loop_now(loop) + ahead_ns;

    crowd->span_ns = span_ns;
    for (size_t i = 0; i < crowd->count; i++)
        arm(&crowd->ones[i], from_ns);
    for (size_t i = 0; i < crowd->count; i++)
        if (crowd->ones[i].fate == CANCELLED_BEFORE)
            cancel(&crowd->ones[i]);
    return api->loop_now(loop) < from_ns ? 0 : -EAGAIN;
}

int64_t crowd_armed(const struct fdmux_api *api, struct fdmux_loop *loop,
                    struct crowd *crowd)
{
    (void)api, (void)loop;
    return crowd->armed;
}

/* ret[0..6]: fired, early, after_cancel, out_of_order, cancelled and re-armed inside
 * callbacks, failed. Removes the timers. */
int64_t crowd_end(const struct fdmux_api *api, struct fdmux_loop *loop,
                  struct crowd *crowd, int64_t *ret)
{
    for (size_t i = 0; i < crowd->count; i++)
        if (api->timer_remove(loop, crowd->ones[i].timer) < 0)
            crowd->failed++;
    ret[0] = crowd->fired;
    ret[1] = crowd->early;
    ret[2] = crowd->after_cancel;
    ret[3] = crowd->out_of_order;
    ret[4] = crowd->cancelled_inside;
    ret[5] = crowd->rearmed_inside;
    ret[6] = crowd->failed;
    free(crowd->ones);
    free(crowd);
    return 0;
}

/* ---- a timer that arms itself for now, for ever ---------------------------------- */

struct restless {
    const struct fdmux_api *api;
    int64_t fired;
};

static int on_restless(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct restless *restless = userdata;

    restless->fired++;
    return restless->api->timer_arm(loop, timer, 0, 0);
}

static struct restless restless;

int64_t restless_start(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    struct fdmux_timer_options options;
    uint64_t timer;
    int r;

    restless = (struct restless){.api = api};
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.fn = on_restless;
    options.userdata = &restless;
    r = api->timer_add(loop, &options, &timer);
    if (r == 0)
        r = api->timer_arm(loop, timer, 0, 0);
    return r < 0 ? r : (int64_t)timer;
}

int64_t restless_end(const struct fdmux_api *api, struct fdmux_loop *loop,
                     uint64_t timer)
{
    int r = api->timer_remove(loop, timer);

    return r < 0 ? r : restless.fired;
}
