/* echo.h: a TCP echo service that runs in any event loop.
 *
 * It sends back, in C, what each connection receives, as soon as it arrives. It knows
 * nothing about Python: it gets fdmux's function table and a loop. */
#ifndef ECHO_H
#define ECHO_H

#include <fdmux_api.h>

struct echo;

struct echo_counts {
    uint64_t connections; /* open now */
    uint64_t accepted;    /* in total */
    uint64_t bytes;       /* sent back */
    uint64_t kept;        /* how often a send was incomplete */
    uint64_t failed;      /* connections that ended with an error, such as a reset */
};

/* Serve on 127.0.0.1, on a port that the kernel chooses. Returns 0 or -errno.
 *
 * Everything happens on the thread that dispatches the loop. When the loop is closed,
 * the service ends by itself; its memory stays until echo_release. */
int echo_start(const struct fdmux_api *api, struct fdmux_loop *loop,
               struct echo **ret_echo);

/* Close the listener and every connection. Call this on the loop's thread; idempotent.
 * The loop may be closed, but its memory must still exist. */
void echo_stop(struct echo *echo);

/* Drop the caller's reference. Does not stop the service. */
void echo_release(struct echo *echo);

int echo_port(const struct echo *echo);
struct echo_counts echo_count(const struct echo *echo);

#endif
