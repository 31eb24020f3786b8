/* service.h: a UDP service that lives in somebody else's event loop.
 *
 * It answers each datagram with the 64-bit FNV-1a hash of its bytes, in 16 hexadecimal
 * digits. It owns a socket, a periodic timer, and a thread that does the hashing. It
 * knows nothing of Python: all it is given is fdmux's function table, and a loop. */
#ifndef SERVICE_H
#define SERVICE_H

#include <fdmux.h>
#include <stdbool.h>

#define SERVICE_REQUEST_MAX 1024 /* a longer datagram is an error: -EMSGSIZE */

struct service;

struct service_counts {
    uint64_t requests; /* datagrams received */
    uint64_t replies;  /* sent by calls that the thread posted */
    uint64_t dropped;  /* hashed, but the service or the loop had ended */
    uint64_t ticks;    /* of the timer, one every 10 ms */
};

/* Start on 127.0.0.1, at a port that the kernel chooses. Returns 0 or -errno.
 *
 * From then on everything happens on the thread that dispatches the loop. When the loop
 * is closed the service ends by itself; its memory stays until service_release. */
int service_start(const struct fdmux_api *api, struct fdmux_loop *loop,
                  struct service **ret_service);

/* End the service: no callback follows once the loop's batch is over. Idempotent.
 * The memory of the loop must still be there; that it is closed does no harm. */
void service_stop(struct service *service);

/* Give up the caller's reference. Does not stop the service. */
void service_release(struct service *service);

int service_port(const struct service *service);
/* Whether the socket is closed and the thread joined. */
bool service_has_ended(struct service *service);
struct service_counts service_count(struct service *service);

#endif
