/* sys_afd.h: the system calls of the backend for Windows: a completion port, polls of
 * sockets by AFD, the driver below Winsock, and a timer of high resolution.
 *
 * As sys.h: functions return a value or -errno, and tests can make them fail. */
#ifndef FDMUX_SYS_AFD_H
#define FDMUX_SYS_AFD_H

#include "sys.h"

/* Events of a poll. */
#define FDMUX__AFD_RECEIVE 0x001U
#define FDMUX__AFD_RECEIVE_URGENT 0x002U
#define FDMUX__AFD_SEND 0x004U
#define FDMUX__AFD_DISCONNECT 0x008U /* the peer sends no more */
#define FDMUX__AFD_ABORT 0x010U
#define FDMUX__AFD_LOCAL_CLOSE 0x020U
#define FDMUX__AFD_ACCEPT 0x080U
#define FDMUX__AFD_CONNECT_FAIL 0x100U

/* One poll of one socket. The kernel writes to this memory until the completion port
 * has returned it, also after a cancel. */
struct fdmux__afd_poll {
    struct {
        union {
            LONG status;
            void *pointer;
        } result;
        ULONG_PTR information;
    } io_status; /* as IO_STATUS_BLOCK */
    struct {
        LARGE_INTEGER timeout;
        ULONG count;
        ULONG is_exclusive;
        struct {
            HANDLE socket;
            ULONG events;
            LONG status;
        } sockets[1];
    } info; /* as AFD_POLL_INFO, of which there is no public header */
};

enum fdmux__afd_kind { FDMUX__AFD_POLL, FDMUX__AFD_RING, FDMUX__AFD_TIMER };

/* What a port has returned. */
struct fdmux__afd_result {
    enum fdmux__afd_kind kind;
    uint32_t events; /* of a poll; 0: it was cancelled */
    struct fdmux__afd_poll *poll;
};

#define FDMUX__AFD_RESULTS_MAX 64 /* taken at once */

/* The handles of a loop. NULL: not opened. */
struct fdmux__afd {
    HANDLE port;
    HANDLE device; /* one for all sockets */
    HANDLE timer;
    HANDLE timer_wait; /* makes the port return a result when the timer expires */
};

int fdmux__sys_afd_open(struct fdmux__afd *afd);
/* Accepts one that is half open. No poll may be under way. */
void fdmux__sys_afd_close(struct fdmux__afd *afd);
/* The socket that AFD knows, below those of other providers. 0, -EBADF or -ENOTSOCK. */
int fdmux__sys_afd_socket(fdmux_fd fd, HANDLE *ret_socket);
/* Begin a poll, which the port returns also if it is over at once. After an error it
 * does not. -EBADF: the socket is closed. */
int fdmux__sys_afd_begin(const struct fdmux__afd *afd, struct fdmux__afd_poll *poll,
                         HANDLE socket, uint32_t events);
/* The port returns the poll soon, with or without events. */
void fdmux__sys_afd_cancel(const struct fdmux__afd *afd, struct fdmux__afd_poll *poll);
/* Is the poll over because the socket was closed? The port has not returned it yet. */
bool fdmux__sys_afd_is_closed(const struct fdmux__afd_poll *poll);
/* Take up to `capacity` results, of which the first is waited for; a negative timeout
 * waits for ever, otherwise only for what is there. Returns the count. */
int fdmux__sys_afd_take(const struct fdmux__afd *afd, struct fdmux__afd_result *results,
                        int capacity, bool is_waiting);
/* Make the port return a FDMUX__AFD_RING. Preserves the last error. */
int fdmux__sys_afd_ring(const struct fdmux__afd *afd);
/* Wait until the port has returned one poll, which was cancelled. Cannot fail. */
struct fdmux__afd_poll *fdmux__sys_afd_await(const struct fdmux__afd *afd);
/* Make the port return a FDMUX__AFD_TIMER at `deadline_ns`, or a little earlier or
 * later; INT64_MAX: never. Replaces the last deadline, of which the port may return
 * one, too. Returns 0 or -errno. */
int fdmux__sys_afd_set_timer(struct fdmux__afd *afd, int64_t deadline_ns);

#endif
