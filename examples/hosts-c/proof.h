/* proof.h: the fdmux loop that every host of this folder runs, and how it is checked.
 *
 * A host only has to watch one descriptor and call fdmux_loop_dispatch. The guest has
 * everything that a loop can have: timers of 0.2 ms and 5 ms, a pipe with 1,000 events,
 * and a thread that posts. Knows nothing about the host. */
#ifndef PROOF_H
#define PROOF_H

#include <fdmux.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define FAST_NS INT64_C(200000)
#define SLOW_NS INT64_C(5000000)
#define FAST_COUNT 50
#define SLOW_COUNT 10
#define PIPE_COUNT 1000
#define POST_COUNT 100
#define HOST_COUNT 10       /* ticks of the host's own timer */
#define HOST_MS 5           /* and their period */
#define GIVE_UP_SECONDS 10u /* a missed event fails the program */

struct proof {
    struct fdmux_loop *loop;
    int pipe_fds[2];
    uint64_t fast, slow, io;
    pthread_t poster;
    int fast_count, slow_count, pipe_count, post_count, early_count;
    int host_count;      /* ticks of the host's own timer */
    int destroyed_count; /* of two timers and the pipe's watcher */
    int64_t fast_deadline_ns;
};

/* Create a loop and its watchers. Returns 0 or -errno, which is printed. */
int proof_start(struct proof *proof);

/* Call this when the loop's descriptor is readable. Returns false when the host must
 * stop, because the proof is complete or failed. */
bool proof_dispatch(struct proof *proof);

/* Whether everything has arrived, including the ticks of the host. */
bool proof_is_complete(const struct proof *proof);

/* Destroy the loop, print what arrived, and return the exit code of the program. */
int proof_end(struct proof *proof, const char *host);

#endif
