/* sys_afd_host.h: a completion port that a foreign loop can wait for, by an event. */
#ifndef FDMUX_SYS_AFD_HOST_H
#define FDMUX_SYS_AFD_HOST_H

#include <stdatomic.h>

#include "sys_afd.h"

/* Zeros are one that is not open. It stays where it is while it is open. */
struct fdmux__afd_host {
    const struct fdmux__afd *afd;
    HANDLE event; /* set while there are results, and by fdmux__sys_afd_host_signal */
    HANDLE resume;
    struct fdmux__thread thread;
    bool is_running; /* the thread is */
    atomic_bool is_ending;
    _Atomic int count; /* of results, or -errno; 0: the thread waits for the port */
    int next; /* of the results; the taker's */
    struct fdmux__afd_result results[FDMUX__AFD_RESULTS_MAX];
};

/* Make the event. Returns 0 or -errno. */
int fdmux__sys_afd_host_open(struct fdmux__afd_host *host,
                             const struct fdmux__afd *afd);
/* Start the thread, while nobody waits for the port: from here on results must be taken
 * from here only. Returns 0 or -errno. */
int fdmux__sys_afd_host_start(struct fdmux__afd_host *host);
/* End the thread. What it has kept can still be taken, until the close. */
void fdmux__sys_afd_host_stop(struct fdmux__afd_host *host);
void fdmux__sys_afd_host_close(struct fdmux__afd_host *host);
/* As fdmux__sys_afd_take. The event stays set while results are left. */
int fdmux__sys_afd_host_take(struct fdmux__afd_host *host,
                             struct fdmux__afd_result *results, int capacity,
                             bool is_waiting);
/* Set the event. Preserves the last error. */
void fdmux__sys_afd_host_signal(const struct fdmux__afd_host *host);

#endif
