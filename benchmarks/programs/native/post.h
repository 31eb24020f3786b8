/* Calls that threads post to a loop: how many per second, and how soon one is run.
 *
 *     post_PEER THREADS CALLS     all threads post as fast as they can
 *     post_PEER 0 CALLS           one thread wakes a sleeping loop, again and again
 *
 * A round of the first form prints the elapsed nanoseconds per call, from the start of
 * the threads to the last call. A round of the second form prints the median
 * nanoseconds from the post to its call. No call may be lost, doubled, or run out of
 * the order of its thread. */
#ifndef FDMUX_BENCHMARKS_POST_H
#define FDMUX_BENCHMARKS_POST_H

#include "rounds.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

enum {
    POST_THREADS_MAX = 16,
    CALLS_MAX = 100000000,
    SEQUENCE_BITS = 32,
    SLEEP_NS = 200 * 1000, /* long enough for a loop to fall asleep */
};

struct post {
    int thread_count;
    long call_count; /* of each thread */
    long left_count;
    long next[POST_THREADS_MAX]; /* sequence number expected from each thread */
    int error;
    int64_t *latencies_ns;
    _Atomic int64_t posted_ns;
    sem_t has_run;
};

struct post_peer {
    int (*open)(struct post *post);
    /* From any thread: make the loop call post_on_call(userdata). */
    int (*post)(void *userdata);
    int (*run)(void);            /* until post_on_call returned true */
};

struct post_thread {
    struct post *post;
    const struct post_peer *peer;
    long index;
    pthread_t thread;
    int result;
};

/* Every contender calls this on its loop's thread. Returns true for the last call. */
static inline int post_on_call(struct post *post, void *userdata)
{
    uintptr_t value = (uintptr_t)userdata;
    long sequence = (long)(value & UINT32_MAX);
    long *next = &post->next[value >> SEQUENCE_BITS];

    if (post->latencies_ns != NULL)
        post->latencies_ns[sequence] = now_ns() - atomic_load(&post->posted_ns);
    if (sequence != (*next)++)
        post->error = -EPROTO;
    if (post->latencies_ns != NULL && sem_post(&post->has_run) < 0)
        post->error = -errno;
    return --post->left_count == 0;
}

static inline void post_sleep(void)
{
    struct timespec pause = {.tv_nsec = SLEEP_NS};

    while (nanosleep(&pause, &pause) < 0 && errno == EINTR)
        continue;
}

static inline void *post_all(void *userdata)
{
    struct post_thread *self = userdata;
    struct post *post = self->post;
    uintptr_t first = (uintptr_t)self->index << SEQUENCE_BITS;

    for (long i = 0; i < post->call_count && self->result == 0; i++) {
        if (post->latencies_ns != NULL) {
            post_sleep();
            atomic_store(&post->posted_ns, now_ns());
        }
        self->result = self->peer->post((void *)(first + (uintptr_t)i)); /* a number */
        while (post->latencies_ns != NULL && sem_wait(&post->has_run) < 0)
            continue; /* sem_wait(3): interrupted */
    }
    return NULL;
}

static inline int post_run_threads(struct post *post, const struct post_peer *peer,
                                   int count)
{
    struct post_thread threads[POST_THREADS_MAX] = {0};
    int started = 0;
    int r = 0;

    for (; started < count && r == 0; started++) {
        threads[started].post = post;
        threads[started].peer = peer;
        threads[started].index = started;
        r = -pthread_create(&threads[started].thread, NULL, post_all,
                            &threads[started]);
    }
    if (r == 0)
        r = peer->run();
    for (int i = 0; i < started; i++) {
        (void)pthread_join(threads[i].thread, NULL); /* started here, joined once */
        r = threads[i].result < 0 ? threads[i].result : r;
    }
    return r < 0 ? r : post->error;
}

static inline int compare_ns(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;

    return (left > right) - (left < right);
}

static inline int64_t post_median(const struct post *post)
{
    qsort(post->latencies_ns, (size_t)post->call_count, sizeof *post->latencies_ns,
          compare_ns);
    return post->latencies_ns[post->call_count / 2];
}

struct post_round {
    struct post *post;
    const struct post_peer *peer;
};

static inline int post_run_round(void *userdata)
{
    struct post *post = ((struct post_round *)userdata)->post;
    int count = post->thread_count == 0 ? 1 : post->thread_count;
    int64_t start_ns;
    int r;

    memset(post->next, 0, sizeof post->next);
    post->left_count = count * post->call_count;
    start_ns = now_ns();
    r = post_run_threads(post, ((struct post_round *)userdata)->peer, count);
    start_ns = now_ns() - start_ns;
    for (int i = 0; i < count && r == 0; i++)
        r = post->next[i] == post->call_count ? 0 : -EPROTO;
    if (r < 0)
        return r;
    if (post->latencies_ns != NULL)
        (void)printf("%lld\n", (long long)post_median(post)); /* flushed later */
    else
        (void)printf("%.2f\n", (double)start_ns / (double)(count * post->call_count));
    return 0;
}

static inline int post_main(int argc, char **argv, const struct post_peer *peer)
{
    static struct post post;
    struct post_round round = {&post, peer};
    int r = argc == 3 ? 0 : -EINVAL;

    if (r == 0) {
        post.thread_count = (int)read_count(argv[1], POST_THREADS_MAX);
        post.call_count = read_count(argv[2], CALLS_MAX);
        r = post.thread_count >= 0 && post.call_count > 0 ? 0 : -EINVAL;
    }
    if (r == 0 && post.thread_count == 0) {
        post.latencies_ns = calloc((size_t)post.call_count, sizeof *post.latencies_ns);
        r = post.latencies_ns == NULL ? -ENOMEM : 0;
    }
    if (r == 0)
        r = sem_init(&post.has_run, 0, 0) < 0 ? -errno : peer->open(&post);
    return exit_status(argv[0], r < 0 ? r : run_rounds(post_run_round, &round));
}

#endif
