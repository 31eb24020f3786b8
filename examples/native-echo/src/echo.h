/* echo.h: a TCP echo service that lives in somebody else's event loop.
 *
 * It sends back what each connection receives, in C, as soon as it is there. It knows
 * nothing of Python: all it is given is fdmux's function table, and a loop. */
#ifndef ECHO_H
#define ECHO_H

#include <fdmux.h>

struct echo;

struct echo_counts {
    uint64_t connections; /* open now */
    uint64_t accepted;    /* ever */
    uint64_t bytes;       /* sent back */
    uint64_t kept;        /* times the kernel took less than it was given */
    uint64_t failed;      /* connections that ended with an error, such as a reset */
};

/* Serve on 127.0.0.1, at a port that the kernel chooses. Returns 0 or -errno.
 *
 * Everything happens on the thread that dispatches the loop. When the loop is closed
 * the service ends by itself; its memory stays until echo_release. */
int echo_start(const struct fdmux_api *api, struct fdmux_loop *loop,
               struct echo **ret_echo);

/* Close the listener and every connection. On the loop's thread; idempotent. The memory
 * of the loop must still be there; that it is closed does no harm. */
void echo_stop(struct echo *echo);

/* Give up the caller's reference. Does not stop the service. */
void echo_release(struct echo *echo);

int echo_port(const struct echo *echo);
struct echo_counts echo_count(const struct echo *echo);

#endif
