/* When the requests of an open loop are due, and how late they were sent and answered.
 *
 * A schedule is made before the first request is sent, so no answer can delay it. Knows
 * nothing about sockets. */
#ifndef FDMUX_BENCHMARKS_SCHEDULE_H
#define FDMUX_BENCHMARKS_SCHEDULE_H

#include "rounds.h"

#include <math.h>

struct request {
    int64_t due_ns;
    int64_t late_ns; /* from when it was due to when it was sent */
    int64_t latency_ns; /* from when it was due to its answer */
};

struct schedule_figures {
    int64_t p10_ns; /* of the latencies */
    int64_t p50_ns;
    int64_t p99_ns;
    int64_t late_ns; /* 99th percentile */
};

/* Schedule `at_once` requests per interval. Returns when the last one is due, from
 * 0. */
static inline int64_t schedule_bursts(struct request *requests, size_t count,
                                      size_t at_once, int64_t interval_ns)
{
    int64_t due_ns = 0;

    for (size_t i = 0; i < count; i++) {
        due_ns = (int64_t)(i / at_once) * interval_ns;
        requests[i].due_ns = due_ns;
    }
    return due_ns;
}

/* Schedule one request at a time, with exponential gaps as between independent clients,
 * the same in each run. Returns when the last one is due, from 0. */
static inline int64_t schedule_open(struct request *requests, size_t count,
                                    int64_t interval_ns)
{
    uint32_t random = 2463534242;
    int64_t due_ns = 0;

    for (size_t i = 0; i < count; i++) {
        double share = (double)next_random(&random) / 4294967296.0; /* 0 < share < 1 */

        due_ns -= (int64_t)(log(share) * (double)interval_ns);
        requests[i].due_ns = due_ns;
    }
    return due_ns;
}

static inline int compare_ns(int64_t one, int64_t other)
{
    return (one > other) - (one < other);
}

static inline int compare_latencies(const void *one, const void *other)
{
    return compare_ns(((const struct request *)one)->latency_ns,
                      ((const struct request *)other)->latency_ns);
}

static inline int compare_lateness(const void *one, const void *other)
{
    return compare_ns(((const struct request *)one)->late_ns,
                      ((const struct request *)other)->late_ns);
}

/* Returns the index of the percentile in a sorted array of `count`. */
static inline size_t rank_of(size_t count, size_t percent)
{
    return (count * percent + 99) / 100 - 1;
}

/* Sorts the requests; their order is lost. */
static inline struct schedule_figures schedule_figures(struct request *requests,
                                                       size_t count)
{
    struct schedule_figures figures;

    qsort(requests, count, sizeof *requests, compare_lateness);
    figures.late_ns = requests[rank_of(count, 99)].late_ns;
    qsort(requests, count, sizeof *requests, compare_latencies);
    figures.p10_ns = requests[rank_of(count, 10)].latency_ns;
    figures.p50_ns = requests[rank_of(count, 50)].latency_ns;
    figures.p99_ns = requests[rank_of(count, 99)].latency_ns;
    return figures;
}

#endif
