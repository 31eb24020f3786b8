/* fixtures.h: what many cases need: watchers that count, pipes, sockets, clocks. */
#ifndef FDMUX_TESTS_FIXTURES_H
#define FDMUX_TESTS_FIXTURES_H

#include "check.h"

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

/* Registrations that must succeed. The first three count into `calls`. */
uint64_t watch(struct fdmux_loop *loop, int fd, uint32_t events, struct calls *calls);
uint64_t add_timer(struct fdmux_loop *loop, struct calls *calls);
uint64_t add_hook(struct fdmux_loop *loop, struct calls *calls);
uint64_t watch_with(struct fdmux_loop *loop, int fd, uint32_t events, fdmux_io_fn fn,
                    void *userdata);
uint64_t add_timer_with(struct fdmux_loop *loop, fdmux_timer_fn fn, void *userdata);
uint64_t add_hook_with(struct fdmux_loop *loop, fdmux_hook_fn fn, void *userdata);
/* Collected: reported in struct fdmux_ready. */
uint64_t collect(struct fdmux_loop *loop, int fd, uint32_t events, uint32_t tag);
uint64_t collect_timer(struct fdmux_loop *loop, uint32_t tag);
/* A registration that may fail: what fdmux_io_add returned. */
int try_watch(struct fdmux_loop *loop, int fd, uint32_t events);

/* Dispatch without waiting or collecting. */
int poll_once(struct fdmux_loop *loop);
struct fdmux_loop_stats stats_of(struct fdmux_loop *loop);

/* Non-blocking and close-on-exec. */
struct channel {
    int read_fd;
    int write_fd;
};

struct channel open_channel(void); /* a pipe */
void close_channel(struct channel *channel);
void feed(const struct channel *channel);  /* writes one byte */
void drain(const struct channel *channel); /* reads one byte, which is there */
void open_sockets(int ret_fds[2]);     /* a connected pair of local streams */
void open_tcp_sockets(int ret_fds[2]); /* a connected pair on loopback */

/* Is `fd` readable now, as a foreign host would see it? */
bool is_readable(int fd);
/* Wait until it is, for at most ten seconds. */
void wait_until_readable(int fd);

/* A mark that threads wait for. */
void mark(_Atomic int *flag);
void wait_for_mark(_Atomic int *flag);

#endif
