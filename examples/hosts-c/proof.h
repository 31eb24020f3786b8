/* proof.h: what every host of this folder has to carry, and how it is proved.
 *
 * A host's only duties are to watch one descriptor and to call fdmux_loop_dispatch. The
 * guest is made of everything a loop can hold: timers of 0.2 ms and 5 ms, a pipe with
 * 1,000 events, and a thread that posts. Knows nothing about the host. */
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
#define HOST_COUNT 10       /* ticks that the host's own timer has to get */
#define HOST_MS 5           /* and its period */
#define GIVE_UP_SECONDS 10u /* a host that misses something fails; it does not hang */

struct proof {
    struct fdmux_loop *loop;
    int pipe_fds[2];
    uint64_t fast, slow, io;
    pthread_t poster;
    int fast_count, slow_count, pipe_count, post_count, early_count;
    int host_count;      /* the host's own timer counts here */
    int destroyed_count; /* of two timers and the pipe's watcher */
    int64_t fast_deadline_ns;
};

/* Make a loop and fill it. Returns 0 or -errno, which is printed. */
int proof_start(struct proof *proof);

/* What the host does when the loop's descriptor is readable: returns false when it has
 * to stop, because the proof is complete or something has failed. */
bool proof_dispatch(struct proof *proof);

/* Has everything come, the ticks of the host included? */
bool proof_is_complete(const struct proof *proof);

/* Destroy the loop, say what has come, and return the exit code of the program. */
int proof_end(struct proof *proof, const char *host);

#endif
