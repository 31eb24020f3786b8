/* fixtures.h: shared helpers: watchers that count their calls, pipes, sockets,
 * marks. */
#ifndef FDMUX_TESTS_FIXTURES_H
#define FDMUX_TESTS_FIXTURES_H

#include "check.h"

#include <sys/types.h>

#define MS INT64_C(1000000)

/* What happened to one watcher. `result` is what its function returns. */
struct calls {
    int count;
    int destroyed;
    int result;
    uint32_t events; /* of the last call */
    uint64_t token;  /* of the last call */
};

int count_io(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata);
int count_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata);
int count_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata);
int count_post(struct fdmux_loop *loop, void *userdata);
void count_destroyed(void *userdata);

/* These registrations must succeed. The first three count their calls in `calls`. */
uint64_t watch(struct fdmux_loop *loop, int fd, uint32_t events, struct calls *calls);
uint64_t add_timer(struct fdmux_loop *loop, struct calls *calls);
uint64_t add_hook(struct fdmux_loop *loop, struct calls *calls);
uint64_t watch_with(struct fdmux_loop *loop, int fd, uint32_t events, fdmux_io_fn fn,
                    void *userdata);
uint64_t add_timer_with(struct fdmux_loop *loop, fdmux_timer_fn fn, void *userdata);
uint64_t add_hook_with(struct fdmux_loop *loop, fdmux_hook_fn fn, void *userdata);
/* Watchers without a function: dispatch collects their events. */
uint64_t collect(struct fdmux_loop *loop, int fd, uint32_t events, uint32_t tag);
uint64_t collect_timer(struct fdmux_loop *loop, uint32_t tag);
/* Try to register a watcher. Returns what fdmux_io_add returned. */
int try_watch(struct fdmux_loop *loop, int fd, uint32_t events);

/* Dispatch without waiting or collecting. */
int poll_once(struct fdmux_loop *loop);
struct fdmux_loop_stats stats_of(struct fdmux_loop *loop);

/* A pipe, non-blocking and close-on-exec. */
struct channel {
    int read_fd;
    int write_fd;
};

struct channel open_channel(void); /* a pipe */
void close_channel(struct channel *channel);
void feed(const struct channel *channel);  /* writes one byte */
void drain(const struct channel *channel); /* reads one byte, which must be there */
void open_sockets(int ret_fds[2]);     /* a connected pair of Unix stream sockets */
void open_tcp_sockets(int ret_fds[2]); /* a connected pair on loopback */

/* Whether the loop was woken, and has not noticed yet. */
bool is_rung(struct fdmux_loop *loop);
/* Whether `fd` is readable now, as a foreign host would see it. */
bool is_readable(int fd);
/* Wait until `fd` is readable, for at most ten seconds. */
void wait_until_readable(int fd);

/* Wait for a child of fork(), which must exit with 0. */
void expect_exit(pid_t child);

/* A flag that one thread sets and others wait for. */
void mark(_Atomic int *flag);
void wait_for_mark(_Atomic int *flag);

#endif
