/* How a client keeps IN_FLIGHT requests in flight until COUNT were answered.
 *
 * redis_gets.h and http_gets.h know the library; each program redis_*.c and http_*.c
 * knows a loop, and what connects the library with it:
 *
 *     PROGRAM PORT COUNT     a round prints COUNT and its CPU nanoseconds
 */
#ifndef FDMUX_BENCHMARKS_GETS_H
#define FDMUX_BENCHMARKS_GETS_H

#include "rounds.h"

enum { IN_FLIGHT = 100, GETS_MAX = 100000000 };

static struct gets {
    long count, asked, answered;
    int error;
    void (*end)(void); /* all were answered, or `error` is set */
} gets;

/* Of the library: make the client, and send request number `gets.asked`. `place` is
 * that of a request which was answered, or a new one below IN_FLIGHT. */
static int gets_open(int port);
static int gets_ask(int place);

static inline void gets_ask_next(int place)
{
    int r = gets_ask(place);

    gets.asked++;
    if (r < 0)
        gets.error = r;
}

/* The request at `place` was answered. */
static inline void gets_answer(int place, int is_right)
{
    if (gets.error < 0)
        return; /* of the requests that were in flight then */
    gets.answered++;
    if (!is_right)
        gets.error = -EPROTO;
    else if (gets.asked < gets.count)
        gets_ask_next(place);
    if (gets.error < 0 || gets.answered == gets.count)
        gets.end();
}

/* Begin `count` requests; the first IN_FLIGHT of them now. Returns 0 or -errno. */
static inline int gets_begin(long count)
{
    gets.count = count;
    gets.asked = gets.answered = 0;
    while (gets.error == 0 && gets.asked < IN_FLIGHT && gets.asked < count)
        gets_ask_next((int)gets.asked);
    return gets.error;
}

/* ---- the programs in C ----------------------------------------------------------- */

struct gets_peer {
    int (*attach)(void); /* the client, which is made, to a new loop */
    int (*run)(void);    /* until `stop` */
    void (*stop)(void);
    long count;
};

static inline int gets_run_round(void *userdata)
{
    const struct gets_peer *peer = userdata;
    int64_t start_ns = cpu_ns();
    int r = gets_begin(peer->count);

    if (r == 0)
        r = peer->run();
    if (r == 0)
        r = gets.error;
    if (r == 0)
        (void)printf("%ld %lld\n", peer->count, (long long)(cpu_ns() - start_ns));
    return r; /* what was printed is flushed and checked later */
}

static inline int gets_main(int argc, char **argv, struct gets_peer *peer)
{
    int port = argc == 3 ? (int)read_count(argv[1], 65535) : -1;
    int r = -EINVAL;

    peer->count = argc == 3 ? read_count(argv[2], GETS_MAX) : -1;
    gets.end = peer->stop;
    if (port > 0 && peer->count > 0)
        r = gets_open(port);
    if (r == 0)
        r = peer->attach();
    return exit_status(argv[0], r < 0 ? r : run_rounds(gets_run_round, peer));
}

#endif
