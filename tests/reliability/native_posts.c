/* native_posts.c: native threads that post to one loop, and what arrives.
 *
 * Each post carries the number of its thread and its own. One bit is kept for each
 * post, so that lost, doubled and overtaken posts can be counted. Its one rule: only
 * the loop's thread counts arrivals. */
#include <fdmux_api.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

enum {
    THREADS_MAX = 16,
    NUMBER_BITS = 48, /* of a userdata; the thread's number is above */
    /* A thread lets the loop catch up from here on: bounds the memory. */
    AHEAD_MAX = 100 * 1000,
};

struct lane {
    pthread_t thread;
    int64_t number;
    int64_t count;
    int64_t refused;
    atomic_llong arrived;
    int64_t next; /* the next number expected */
    unsigned char *seen;
};

static struct {
    const struct fdmux_api *api;
    struct fdmux_loop *loop;
    int lane_count;
    struct lane lanes[THREADS_MAX];
    int64_t arrived;
    int64_t twice;
    int64_t overtaken;
} posts;

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    uint64_t word = (uint64_t)(uintptr_t)userdata;
    struct lane *lane = &posts.lanes[word >> NUMBER_BITS];
    int64_t number = (int64_t)(word & (((uint64_t)1 << NUMBER_BITS) - 1));
    unsigned char bit = (unsigned char)(1u << (number % 8));

    if (loop == NULL)
        return 0;
    posts.arrived++;
    posts.twice += (lane->seen[number / 8] & bit) != 0;
    posts.overtaken += number != lane->next;
    lane->seen[number / 8] |= bit;
    lane->next = number + 1;
    atomic_fetch_add_explicit(&lane->arrived, 1, memory_order_relaxed);
    return 0;
}

static void *post_all(void *userdata)
{
    struct lane *lane = userdata;
    uint64_t prefix = (uint64_t)lane->number << NUMBER_BITS;

    for (int64_t i = 0; i < lane->count; i++) {
        void *word = (void *)(uintptr_t)(prefix | (uint64_t)i);

        if (posts.api->post(posts.loop, on_post, word) < 0)
            lane->refused++;
        while (i - lane->refused - atomic_load(&lane->arrived) > AHEAD_MAX)
            (void)sched_yield(); /* sched_yield(2): always succeeds on Linux */
    }
    (void)posts.api->loop_wake(posts.loop); /* lets the caller check the counts */
    return NULL;
}

/* Start `threads` threads which post `count` calls each. */
int64_t posts_start(const struct fdmux_api *api, struct fdmux_loop *loop, int threads,
                    int64_t count)
{
    if (threads > THREADS_MAX)
        return -EINVAL;
    posts.api = api;
    posts.loop = loop;
    posts.lane_count = 0;
    posts.arrived = posts.twice = posts.overtaken = 0;
    for (int i = 0; i < threads; i++) {
        struct lane *lane = &posts.lanes[i];

        *lane = (struct lane){.number = i, .count = count};
        lane->seen = calloc((size_t)count / 8 + 1, 1);
        if (lane->seen == NULL)
            return -ENOMEM;
        posts.lane_count++;
        if (pthread_create(&lane->thread, NULL, post_all, lane) != 0)
            return -EAGAIN;
    }
    return 0;
}

int64_t posts_arrived(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    (void)api, (void)loop;
    return posts.arrived;
}

/* Join the threads; ret[0..3]: lost, twice, overtaken, refused. */
int64_t posts_end(const struct fdmux_api *api, struct fdmux_loop *loop, int64_t *ret)
{
    int64_t lost = 0, refused = 0;

    (void)api, (void)loop;
    for (int i = 0; i < posts.lane_count; i++) {
        struct lane *lane = &posts.lanes[i];

        (void)pthread_join(lane->thread, NULL); /* started, and joined once */
        for (int64_t n = 0; n < lane->count; n++)
            lost += (lane->seen[n / 8] >> (n % 8) & 1) == 0;
        refused += lane->refused;
        free(lane->seen);
    }
    ret[0] = lost;
    ret[1] = posts.twice;
    ret[2] = posts.overtaken;
    ret[3] = refused;
    return 0;
}

/* ---- waking a loop that sleeps --------------------------------------------------- */

enum { NAP_MS_MAX = 20 * 1000 };

static struct {
    const struct fdmux_api *api;
    struct fdmux_loop *loop;
    pthread_t thread;
    int64_t count;
    int64_t *latencies_ns;
    int64_t posted_ns;
    atomic_llong woken;
} naps;

static int on_nap_over(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    if (loop == NULL)
        return 0;
    naps.latencies_ns[atomic_load(&naps.woken)] =
        naps.api->loop_now(loop) - naps.posted_ns;
    atomic_fetch_add(&naps.woken, 1);
    return 0;
}

static void *wake_often(void *userdata)
{
    (void)userdata;
    for (int64_t i = 0; i < naps.count; i++) {
        /* Gives the loop time to fall asleep; there is no event for that. */
        struct timespec nap = {.tv_nsec = 1000000};

        (void)nanosleep(&nap, NULL); /* a signal may end it early */
        naps.posted_ns = naps.api->loop_now(naps.loop);
        if (naps.api->post(naps.loop, on_nap_over, NULL) < 0)
            return NULL;
        while (atomic_load(&naps.woken) <= i) {
            if (naps.api->loop_now(naps.loop) - naps.posted_ns >
                NAP_MS_MAX * INT64_C(1000000))
                return NULL; /* lost: the counts will show it */
            (void)sched_yield(); /* as above */
        }
    }
    (void)naps.api->loop_wake(naps.loop); /* as above */
    return NULL;
}

/* Start a thread that posts `count` times, each time to a loop that sleeps. */
int64_t naps_start(const struct fdmux_api *api, struct fdmux_loop *loop, int64_t count,
                   int64_t *ret_latencies_ns)
{
    naps.api = api;
    naps.loop = loop;
    naps.count = count;
    naps.latencies_ns = ret_latencies_ns;
    atomic_store(&naps.woken, 0);
    return -pthread_create(&naps.thread, NULL, wake_often, NULL);
}

int64_t naps_woken(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    (void)api, (void)loop;
    return atomic_load(&naps.woken);
}

int64_t naps_end(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    (void)api, (void)loop;
    return -pthread_join(naps.thread, NULL);
}

/* ---- a post that posts itself, for ever ------------------------------------------ */

static atomic_llong storm_count;
static atomic_bool storm_is_over;

static int on_storm(struct fdmux_loop *loop, void *userdata)
{
    const struct fdmux_api *api = userdata;

    if (loop == NULL || atomic_load(&storm_is_over))
        return 0;
    atomic_fetch_add(&storm_count, 1);
    return api->post(loop, on_storm, userdata);
}

int64_t storm_start(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    atomic_store(&storm_count, 0);
    atomic_store(&storm_is_over, false);
    return api->post(loop, on_storm, (void *)(uintptr_t)api);
}

int64_t storm_end(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    (void)api, (void)loop;
    atomic_store(&storm_is_over, true);
    return atomic_load(&storm_count);
}
