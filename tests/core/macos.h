/* macos.h: what the tests use and macOS lacks: flags that socket(2) and its like set on
 * a new descriptor. Empty on other systems. */
#ifndef FDMUX_TESTS_MACOS_H
#define FDMUX_TESTS_MACOS_H

#if defined(__APPLE__)
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOCK_CLOEXEC 0x10000
#define SOCK_NONBLOCK 0x20000
#define SOCK_FLAGS (SOCK_CLOEXEC | SOCK_NONBLOCK)

static inline int macos_set_flags(int fd, int flags)
{
    if (fd >= 0 && (flags & SOCK_CLOEXEC) != 0)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (fd >= 0 && (flags & SOCK_NONBLOCK) != 0)
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

static inline int macos_set_both(int r, const int fds[2], int flags)
{
    if (r == 0) {
        (void)macos_set_flags(fds[0], flags);
        (void)macos_set_flags(fds[1], flags);
    }
    return r;
}

static inline int macos_from_open(int flags)
{
    return ((flags & O_CLOEXEC) != 0 ? SOCK_CLOEXEC : 0) |
           ((flags & O_NONBLOCK) != 0 ? SOCK_NONBLOCK : 0);
}

#define socket(family, type, protocol)                                                 \
    macos_set_flags(socket(family, (type) & ~SOCK_FLAGS, protocol), type)
#define socketpair(family, type, protocol, fds)                                        \
    macos_set_both(socketpair(family, (type) & ~SOCK_FLAGS, protocol, fds), fds, type)
#define accept4(fd, address, size, flags)                                              \
    macos_set_flags(accept(fd, address, size), flags)
#define pipe2(fds, flags) macos_set_both(pipe(fds), fds, macos_from_open(flags))
#define dup3(from, to, flags) macos_set_flags(dup2(from, to), macos_from_open(flags))
#endif

#endif
