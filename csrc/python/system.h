/* system.h: what the modules for Python need of the system: sockets, and the clock. The
 * only file of them that includes the system's headers. */
#ifndef FDMUX_PYTHON_SYSTEM_H
#define FDMUX_PYTHON_SYSTEM_H

#include "fdmux.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

/* How many bytes can be received now; 0 if that is not known. */
static inline int system_available(fdmux_fd fd)
{
    int available = 0;

    return ioctl(fd, FIONREAD, &available) < 0 ? 0 : available;
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
