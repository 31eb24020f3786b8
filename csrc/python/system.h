/* system.h: what the modules for Python need of the system: sockets, and the clock. The
 * only file of them that includes the system's headers. Python.h comes before it, and
 * asks for all that the system has. */
#ifndef FDMUX_PYTHON_SYSTEM_H
#define FDMUX_PYTHON_SYSTEM_H

#include "fdmux.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* How many bytes can be received now; 0 if that is not known. */
static inline int system_available(fdmux_fd fd)
{
    int available = 0;

    return ioctl(fd, FIONREAD, &available) < 0 ? 0 : available;
}

/* accept(2); the result does not block, and is closed on exec. -1: errno tells. */
static inline int system_accept(int listener, void *address, socklen_t *size)
{
#if defined(__linux__)
    return accept4(listener, address, size, SOCK_CLOEXEC | SOCK_NONBLOCK);
#else
    int fd = accept(listener, address, size);

    if (fd >= 0 &&
        (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)) {
        (void)close(fd); /* as if it had not come */
        fd = -1;
    }
    return fd;
#endif
}

/* As asyncio does. A failure changes nothing: the peer has reset it. */
static inline void system_no_delay(int fd, int family)
{
    int on = 1;

    if (family == AF_INET || family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline void system_close(fdmux_fd fd)
{
    (void)close(fd);
}

/* As time.monotonic of Python, to the last bit: programs compare the two. */
static inline int64_t system_monotonic_ns(void)
{
    struct timespec now;

#if defined(__APPLE__)
    (void)clock_gettime(CLOCK_UPTIME_RAW, &now); /* mach_absolute_time, as Python */
#else
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* it cannot fail: the clock exists */
#endif
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#endif
