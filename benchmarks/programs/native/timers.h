/* A million timers: armed, cancelled in another order, armed again, and expired.
 *
 *     timers_PEER COUNT
 *
 * A round prints `arm cancel expire early`: CPU nanoseconds per timer, and how many
 * fired before their deadline, which is a whole number of milliseconds after the clock
 * was read just before arming. Each must fire exactly once. */
#ifndef FDMUX_BENCHMARKS_TIMERS_H
#define FDMUX_BENCHMARKS_TIMERS_H

#include "rounds.h"

enum {
    TIMERS_MAX = 10000000,
    TIMEOUT_MS_MAX = 200,
    CANCEL_STEP = 7919, /* a prime: visits every timer, each far from the one before */
};

struct timers {
    int count;
    int *timeouts_ms;
    int fired_count;
    long early_count;
    int64_t start_ns;
};

struct timers_peer {
    int (*open)(struct timers *timers);
    int64_t (*start)(void); /* the time from which timeouts count */
    int (*arm)(int index, int timeout_ms);
    int (*cancel)(int index);
    int (*run)(void); /* until all have fired */
};

struct timers_round {
    struct timers *timers;
    const struct timers_peer *peer;
};

/* Every contender calls this when a timer fires. Returns true for the last one. */
static inline int timers_on_fired(struct timers *timers, int index)
{
    int64_t asked_ns = timers->start_ns + (int64_t)timers->timeouts_ms[index] * 1000000;

    timers->early_count += now_ns() < asked_ns ? 1 : 0;
    timers->timeouts_ms[index] = 0; /* a second call would count as missing */
    return ++timers->fired_count == timers->count;
}

static inline int timers_arm_all(struct timers *timers, const struct timers_peer *peer)
{
    int r = 0;

    timers->start_ns = peer->start();
    for (int i = 0; i < timers->count && r >= 0; i++)
        r = peer->arm(i, timers->timeouts_ms[i]);
    return r;
}

static inline int timers_cancel_all(const struct timers *timers,
                                    const struct timers_peer *peer)
{
    int64_t index = 0;
    int r = 0;

    for (int i = 0; i < timers->count && r >= 0; i++) {
        r = peer->cancel((int)index);
        index = (index + CANCEL_STEP) % timers->count;
    }
    return r;
}

static inline int timers_check(const struct timers *timers)
{
    for (int i = 0; i < timers->count; i++) {
        if (timers->timeouts_ms[i] != 0)
            return -EPROTO; /* it did not fire */
    }
    return timers->fired_count == timers->count ? 0 : -EPROTO;
}

static inline int timers_run_round(void *userdata)
{
    struct timers *timers = ((struct timers_round *)userdata)->timers;
    const struct timers_peer *peer = ((struct timers_round *)userdata)->peer;
    uint32_t random = 2463534242;
    int64_t marks[5];
    int r;

    timers->fired_count = 0;
    timers->early_count = 0;
    for (int i = 0; i < timers->count; i++)
        timers->timeouts_ms[i] = 1 + (int)(next_random(&random) % TIMEOUT_MS_MAX);
    marks[0] = cpu_ns();
    r = timers_arm_all(timers, peer);
    marks[1] = cpu_ns();
    if (r >= 0)
        r = timers_cancel_all(timers, peer);
    marks[2] = cpu_ns();
    if (r >= 0)
        r = timers_arm_all(timers, peer);
    marks[3] = cpu_ns();
    if (r >= 0)
        r = peer->run();
    marks[4] = cpu_ns();
    if (r >= 0)
        r = timers_check(timers);
    if (r < 0)
        return r;
    (void)printf("%.2f %.2f %.2f %ld\n",
                 (double)(marks[1] - marks[0] + marks[3] - marks[2]) / 2 /
                     timers->count,
                 (double)(marks[2] - marks[1]) / timers->count,
                 (double)(marks[4] - marks[3]) / timers->count,
                 timers->early_count); /* flushed and checked by the caller */
    return 0;
}

static inline int timers_main(int argc, char **argv, const struct timers_peer *peer)
{
    static struct timers timers;
    struct timers_round round = {&timers, peer};
    int r;

    timers.count = argc == 2 ? (int)read_count(argv[1], TIMERS_MAX) : 0;
    r = timers.count > 0 && timers.count % CANCEL_STEP != 0 ? 0 : -EINVAL;
    if (r == 0) {
        timers.timeouts_ms = calloc((size_t)timers.count, sizeof *timers.timeouts_ms);
        r = timers.timeouts_ms == NULL ? -ENOMEM : peer->open(&timers);
    }
    return exit_status(argv[0], r < 0 ? r : run_rounds(timers_run_round, &round));
}

#endif
