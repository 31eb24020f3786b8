/* service.h: a UDP service that runs in any event loop.
 *
 * It answers each datagram with the 64-bit FNV-1a hash of its bytes, in 16 hexadecimal
 * digits. It owns a socket, a periodic timer, and a thread that computes the hashes. It
 * knows nothing about Python: it gets fdmux's function table and a loop. */
#ifndef SERVICE_H
#define SERVICE_H

#include <fdmux_api.h>
#include <stdbool.h>

#define SERVICE_REQUEST_MAX 1024 /* a longer datagram is an error: -EMSGSIZE */

struct service;

struct service_counts {
    uint64_t requests; /* datagrams received */
    uint64_t replies;  /* sent by calls that the thread posted */
    uint64_t dropped;  /* hashed, but the service or the loop had ended */
    uint64_t ticks;    /* of the timer, one every 10 ms */
};

/* Start on 127.0.0.1, on a port that the kernel chooses. Returns 0 or -errno.
 *
 * From then on everything happens on the thread that dispatches the loop. When the loop
 * is closed, the service ends by itself; its memory stays until service_release. */
int service_start(const struct fdmux_api *api, struct fdmux_loop *loop,
                  struct service **ret_service);

/* End the service: no callback runs after the current batch. Idempotent. The loop may
 * be closed, but its memory must still exist. */
void service_stop(struct service *service);

/* Drop the caller's reference. Does not stop the service. */
void service_release(struct service *service);

int service_port(const struct service *service);
/* Whether the socket is closed and the thread joined. */
bool service_has_ended(struct service *service);
struct service_counts service_count(struct service *service);

#endif
