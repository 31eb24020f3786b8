/* The sockets of the C programs of the row `datagrams`: loopback, a port that the
 * kernel chooses, and a receive buffer in which no datagram of a closed loop is lost.
 */
#ifndef FDMUX_BENCHMARKS_DATAGRAM_SOCKET_H
#define FDMUX_BENCHMARKS_DATAGRAM_SOCKET_H

#include "echo_socket.h"

enum { DATAGRAM_BUFFER = 4 << 20 };

/* Returns a socket, or -errno. */
static inline int datagram_bind(void)
{
    struct sockaddr_in address = echo_loopback(0);
    int size = DATAGRAM_BUFFER;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int r;

    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0 &&
        bind(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    r = -errno;
    (void)close(fd); /* the first error is the one to report */
    return r;
}

#endif
