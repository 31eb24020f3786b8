/* How the runner drives the programs that measure themselves: they print `ready`, and
 * answer each line with the figures of one round, until standard input ends or they
 * fail.
 *
 * One process of each contender keeps running, so the runner can interleave rounds. */
#ifndef FDMUX_BENCHMARKS_ROUNDS_H
#define FDMUX_BENCHMARKS_ROUNDS_H

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

static inline int64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    if (clock_gettime(clock, &now) < 0)
        abort(); /* clock_gettime(2): fails only for an unknown clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* User and system time of all threads. */
static inline int64_t cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static inline int64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* A fixed sequence (xorshift), the same for each contender. */
static inline uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Returns a number from the command line, at most `max`; -1 for anything else. */
static inline long read_count(const char *text, long max)
{
    char *end = NULL;
    long count = strtol(text, &end, 10);

    return *text != 0 && *end == 0 && count >= 0 && count <= max ? count : -1;
}

static inline int run_rounds(int (*run_round)(void *userdata), void *userdata)
{
    char line[16];
    int r = prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 ? -errno : 0;

    if (r == 0 && (printf("ready\n") < 0 || fflush(stdout) != 0))
        r = -EIO;
    while (r == 0 && fgets(line, sizeof line, stdin) != NULL) {
        r = run_round(userdata);
        if (r == 0 && fflush(stdout) != 0)
            r = -EIO;
    }
    return r;
}

static inline int exit_status(const char *program, int r)
{
    if (r >= 0)
        return EXIT_SUCCESS;
    (void)fprintf(stderr, "%s: %s\n", program, strerror(-r)); /* failing anyway */
    return EXIT_FAILURE;
}

#endif
