/* The chain benchmark of libevent: N socket pairs, of which A are made readable. Each
 * read passes a byte on to another pair, until W bytes were passed on.
 *
 *     chain_PEER N A W HOP EVENTS
 *
 * A round repeats this until EVENTS events were served, and prints their number and the
 * CPU nanoseconds. HOP selects the next pair: 1, or N/A for always the same A pairs
 * among idle ones. With HOP = 0 no pair is read: A pairs stay readable, and only the
 * dispatching is measured. With A = 0 the N descriptors are idle eventfds (a process
 * may have more of these), and a round prints the memory of their watchers: bytes that
 * malloc handed out (mallinfo2) and bytes that became resident (/proc/self/statm).
 *
 * Every contender polls without blocking, one iteration at a time, and calls
 * on_readable for each ready pair. The cost above bare epoll_wait is that of the
 * contender. */
#ifndef FDMUX_BENCHMARKS_CHAIN_H
#define FDMUX_BENCHMARKS_CHAIN_H

#include "rounds.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IDLE_POLLS_MAX = 1000, PAIRS_MAX = 100000, EVENTS_MAX = 100000000 };

struct chain {
    int pair_count;
    int active_count;
    int write_count;
    int hop;
    long event_count;
    int *read_fds;
    int *write_fds;
    int writes_left;
    int is_ready; /* with HOP = 0: the first run has written */
    long read_count;
    int error;
    size_t allocated; /* before the watchers; then used by them */
    long resident;
};

struct chain_peer {
    int (*watch)(struct chain *chain); /* watch all read_fds */
    int (*poll)(void); /* one iteration, without blocking */
};

/* Every contender calls this when a pair is readable. */
static inline void chain_on_readable(struct chain *chain, int index)
{
    char byte;
    int next;

    if (chain->hop == 0) {
        chain->read_count++;
        return;
    }
    if (read(chain->read_fds[index], &byte, 1) != 1) {
        chain->error = -EPROTO; /* reported as readable, but is not */
        return;
    }
    chain->read_count++;
    if (chain->writes_left == 0)
        return;
    chain->writes_left--;
    next = index + chain->hop;
    if (next >= chain->pair_count)
        next -= chain->pair_count;
    if (write(chain->write_fds[next], &byte, 1) != 1)
        chain->error = -EIO;
}

static inline int chain_run(struct chain *chain, const struct chain_peer *peer)
{
    int space = chain->pair_count / chain->active_count;
    long expected = chain->read_count + chain->active_count + chain->write_count;
    long before = -1;
    int idle_count = 0;

    chain->writes_left = chain->write_count;
    for (int i = 0; i < chain->active_count && !chain->is_ready; i++) {
        if (write(chain->write_fds[(size_t)i * (size_t)space], "x", 1) != 1)
            return -EIO;
    }
    chain->is_ready = chain->hop == 0;
    while (chain->read_count < expected) {
        int r = peer->poll();

        idle_count = chain->read_count == before ? idle_count + 1 : 0;
        before = chain->read_count;
        if (r < 0 || chain->error < 0 || idle_count > IDLE_POLLS_MAX)
            return r < 0 ? r : -EPROTO;
    }
    return chain->read_count == expected || chain->is_ready ? 0 : -EPROTO;
}

static inline int chain_measure_time(struct chain *chain, const struct chain_peer *peer)
{
    int r = chain_run(chain, peer); /* warms up the caches */
    long before = chain->read_count;
    int64_t start_ns = cpu_ns();

    while (r == 0 && chain->read_count - before < chain->event_count)
        r = chain_run(chain, peer);
    if (r == 0)
        (void)printf("%ld %lld\n", chain->read_count - before,
                     (long long)(cpu_ns() - start_ns)); /* flushed and checked later */
    return r;
}

/* ---- memory ------------------------------------------------------------------- */

static inline size_t allocated_bytes(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

static inline long resident_bytes(void)
{
    char text[128] = ""; /* proc(5): total pages, then resident ones */
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    char *rest = text;

    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return 0;
    (void)close(fd); /* only read: nothing to lose */
    (void)strtol(text, &rest, 10);
    return strtol(rest, NULL, 10) * sysconf(_SC_PAGESIZE);
}

static inline void chain_begin_memory(struct chain *chain)
{
    (void)resident_bytes(); /* its own allocations are made from now on */
    chain->resident = resident_bytes();
    chain->allocated = allocated_bytes();
}

static inline void chain_end_memory(struct chain *chain)
{
    chain->allocated = allocated_bytes() - chain->allocated;
    chain->resident = resident_bytes() - chain->resident;
}

static inline int chain_print_memory(const struct chain *chain)
{
    (void)printf("%zu %ld\n", chain->allocated, chain->resident); /* flushed later */
    return 0;
}

/* ---- start -------------------------------------------------------------------- */

static inline int chain_allow_descriptors(int count)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    if (limit.rlim_cur < (rlim_t)count)
        limit.rlim_cur = (rlim_t)count;
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

static inline int chain_open_pair(const struct chain *chain, int index)
{
    int fds[2];

    if (chain->active_count == 0) {
        fds[0] = fds[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (fds[0] < 0)
            return -errno;
    } else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) <
               0) {
        return -errno;
    }
    chain->read_fds[index] = fds[0];
    chain->write_fds[index] = fds[1];
    return 0;
}

static inline int chain_open(struct chain *chain)
{
    size_t count = (size_t)chain->pair_count;
    int r = chain_allow_descriptors(chain->pair_count * 2 + 64);

    chain->read_fds = calloc(count, sizeof *chain->read_fds);
    chain->write_fds = calloc(count, sizeof *chain->write_fds);
    if (chain->read_fds == NULL || chain->write_fds == NULL)
        return -ENOMEM;
    if (r < 0 && chain->active_count == 0)
        r = chain_allow_descriptors(chain->pair_count + 64);
    for (int i = 0; i < chain->pair_count && r == 0; i++)
        r = chain_open_pair(chain, i);
    chain_begin_memory(chain);
    return r;
}

struct chain_round {
    struct chain *chain;
    const struct chain_peer *peer;
};

static inline int chain_run_round(void *userdata)
{
    const struct chain_round *round = userdata;

    return round->chain->active_count == 0
               ? chain_print_memory(round->chain)
               : chain_measure_time(round->chain, round->peer);
}

static inline int chain_read(struct chain *chain, char **words)
{
    chain->pair_count = (int)read_count(words[0], PAIRS_MAX);
    chain->active_count = (int)read_count(words[1], chain->pair_count);
    chain->write_count = (int)read_count(words[2], EVENTS_MAX);
    chain->hop = (int)read_count(words[3], chain->pair_count);
    chain->event_count = read_count(words[4], EVENTS_MAX);
    return chain->pair_count > 0 && chain->active_count >= 0 &&
                   chain->write_count >= 0 && chain->hop >= 0 && chain->event_count >= 0
               ? 0
               : -EINVAL;
}

static inline int chain_main(int argc, char **argv, const struct chain_peer *peer)
{
    static struct chain chain;
    struct chain_round round = {&chain, peer};
    int r = argc == 6 ? chain_read(&chain, argv + 1) : -EINVAL;

    if (r == 0)
        r = chain_open(&chain);
    if (r == 0)
        r = peer->watch(&chain);
    if (r == 0)
        r = peer->poll(); /* counts allocations of the first iteration */
    chain_end_memory(&chain);
    return exit_status(argv[0], r < 0 ? r : run_rounds(chain_run_round, &round));
}

#endif
