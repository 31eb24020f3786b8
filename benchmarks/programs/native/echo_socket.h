/* The sockets of the C echo servers, so that all use the same socket options.
 *
 * Loopback only, port chosen by the kernel, TCP_NODELAY on every connection, everything
 * non-blocking and close-on-exec. Knows nothing about loops. */
#ifndef FDMUX_BENCHMARKS_ECHO_SOCKET_H
#define FDMUX_BENCHMARKS_ECHO_SOCKET_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ECHO_BUFFER_SIZE = 256 * 1024, ECHO_BACKLOG = 1024 };

static inline struct sockaddr_in echo_loopback(in_port_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* Returns a listening socket, or -errno. */
static inline int echo_listen(void)
{
    struct sockaddr_in address = echo_loopback(0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int r;

    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        listen(fd, ECHO_BACKLOG) == 0)
        return fd;
    r = -errno;
    (void)close(fd); /* the first error is the one to report */
    return r;
}

static inline int echo_set_nodelay(int fd)
{
    int on = 1;

    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ? -errno : 0;
}

/* Returns the next connection, ready to serve, or -errno (-EAGAIN: there is none). */
static inline int echo_accept(int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int r;

    if (fd < 0)
        return -errno;
    r = echo_set_nodelay(fd);
    if (r == 0)
        return fd;
    (void)close(fd); /* the first error is the one to report */
    return r;
}

/* Print the port for the runner, and arrange to end when the runner ends (prctl(2)). */
static inline int echo_announce(int listen_fd)
{
    struct sockaddr_in address = echo_loopback(0);
    socklen_t size = sizeof address;

    if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
        return -errno;
    if (getsockname(listen_fd, (struct sockaddr *)&address, &size) < 0)
        return -errno;
    if (printf("%d\n", (int)ntohs(address.sin_port)) < 0 || fflush(stdout) != 0)
        return -EIO;
    return 0;
}

#endif
