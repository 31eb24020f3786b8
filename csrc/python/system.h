/* system.h: what the modules for Python need of the system: sockets, and the clock. The
 * only file of them that includes the system's headers. Python.h comes before it, and
 * asks for all that the system has. */
#ifndef FDMUX_PYTHON_SYSTEM_H
#define FDMUX_PYTHON_SYSTEM_H

#include "fdmux.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>

#include <windows.h>

#include <ws2tcpip.h>

#include <afunix.h>
#include <errno.h>

/* How many bytes can be received now; 0 if that is not known. */
static inline int system_available(fdmux_fd fd)
{
    u_long available = 0;

    return ioctlsocket(fd, (long)FIONREAD, &available) < 0 ? 0 : (int)available;
}

/* accept(2); the result does not block, and is not inherited. -1: errno tells. */
static inline int system_accept(int listener, void *address, socklen_t *size)
{
    SOCKET sock = accept((SOCKET)listener, address, size);
    u_long on = 1;

    if (sock == INVALID_SOCKET) {
        errno = WSAGetLastError() == WSAEWOULDBLOCK ? EAGAIN : EIO;
        return -1;
    }
    (void)ioctlsocket(sock, (long)FIONBIO, &on); /* neither fails for a new socket */
    (void)SetHandleInformation((HANDLE)sock, HANDLE_FLAG_INHERIT, 0);
    return (int)sock;
}

/* As asyncio does. A failure changes nothing: the peer has reset it. */
static inline void system_no_delay(int fd, int family)
{
    const DWORD on = 1;

    if (family == AF_INET || family == AF_INET6)
        (void)setsockopt((SOCKET)fd, IPPROTO_TCP, TCP_NODELAY, (const char *)&on,
                         sizeof on);
}

static inline void system_close(int fd)
{
    (void)closesocket((SOCKET)fd);
}

/* Longer by a clock tick, since that is how Windows counts. */
static inline void system_pause(long ns)
{
    Sleep((DWORD)((ns + 999999) / 1000000));
}

/* As time.monotonic of Python from 3.13 on, to the last bit. */
static inline int64_t system_monotonic_ns(void)
{
    LARGE_INTEGER ticks, frequency;

    (void)QueryPerformanceCounter(&ticks); /* neither can fail */
    (void)QueryPerformanceFrequency(&frequency);
    return ticks.QuadPart / frequency.QuadPart * 1000000000 +
           ticks.QuadPart % frequency.QuadPart * 1000000000 / frequency.QuadPart;
}

#else

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
#if !defined(__APPLE__)
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

static inline void system_close(int fd)
{
    (void)close(fd);
}

static inline void system_pause(long ns)
{
    const struct timespec moment = {.tv_nsec = ns};

    (void)nanosleep(&moment, NULL); /* shorter after a signal */
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
#endif
