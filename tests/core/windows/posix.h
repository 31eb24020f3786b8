/* posix.h: the calls of POSIX that the C tests make, on Windows. The headers beside it
 * have the names of those of POSIX and include this one.
 *
 * A descriptor of a test is a socket: pipes and pairs of sockets are connections on
 * loopback. What Windows lacks ends the case: it prints "lacks NAME", and exits with
 * POSIX_LACKS. */
#ifndef FDMUX_TESTS_POSIX_H
#define FDMUX_TESTS_POSIX_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys.h"

#include <io.h>
#include <mswsock.h>
#include <process.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/types.h>
#include <time.h>

#define POSIX_LACKS 77

#define SOCK_NONBLOCK 0x1000
#define SOCK_CLOEXEC 0x2000
#define MSG_DONTWAIT 0
#define MSG_NOSIGNAL 0
#define O_CLOEXEC 0x10000
#define O_NONBLOCK 0x20000
#define F_DUPFD_CLOEXEC 0
#define F_GETFD 1
#define F_SETFD 2
#define F_GETFL 3
#define F_SETFL 4
#define FD_CLOEXEC 1
#define SHUT_RD SD_RECEIVE
#define SHUT_WR SD_SEND
#define SHUT_RDWR SD_BOTH
#define SIGALRM 14
#define SIGUSR1 10
#define SA_RESTART 0
#define MAP_FAILED NULL
#define MAP_SHARED 0
#define MAP_ANONYMOUS 0
#define PROT_READ 0
#define PROT_WRITE 0
#define RLIMIT_NOFILE 7
#define WIFEXITED(status) ((status) == 0)
#define WEXITSTATUS(status) (status)

static inline _Noreturn void posix_lacks(const char *name)
{
    (void)printf("lacks %s\n", name);
    (void)fflush(stdout);
    _exit(POSIX_LACKS);
}

/* Set errno. The numbers of Winsock lie 10,000 above those of the BSDs. */
static inline int posix_result(long long value)
{
    if (value >= 0)
        return (int)value;
    switch (WSAGetLastError()) {
    case WSAEWOULDBLOCK:
        errno = EAGAIN;
        break;
    case WSAECONNRESET:
        errno = ECONNRESET;
        break;
    case WSAECONNREFUSED:
        errno = ECONNREFUSED;
        break;
    case WSAENOTSOCK:
        errno = EBADF;
        break;
    case WSAESHUTDOWN:
        errno = EPIPE;
        break;
    case WSAENOTCONN:
        errno = ENOTCONN;
        break;
    default:
        errno = EIO;
    }
    return -1;
}

static inline int posix_block(int fd, bool is_blocking)
{
    u_long is_not = !is_blocking;

    return posix_result(ioctlsocket((SOCKET)fd, (long)FIONBIO, &is_not));
}

/* ---- descriptors ----------------------------------------------------------------- */

static inline int posix_close(int fd)
{
    return posix_result(closesocket((SOCKET)fd));
}

static inline long posix_recv(int fd, void *buffer, size_t size, int flags)
{
    return posix_result(recv((SOCKET)fd, buffer, (int)size, flags));
}

static inline long posix_send(int fd, const void *buffer, size_t size, int flags)
{
    return posix_result(send((SOCKET)fd, buffer, (int)size, flags));
}

static inline int posix_pair(int ret_fds[2], bool is_blocking)
{
    fdmux_fd fds[2];
    int r;

    fdmux__sys_start();
    r = fdmux__sys_pipe(fds);
    if (r < 0) {
        errno = -r;
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        ret_fds[i] = (int)fds[i];
        (void)posix_block(ret_fds[i], is_blocking);
    }
    return 0;
}

static inline int posix_pipe(int ret_fds[2], int flags)
{
    return posix_pair(ret_fds, (flags & O_NONBLOCK) == 0);
}

static inline int posix_dup(int fd)
{
    HANDLE copy = NULL;
    HANDLE self = GetCurrentProcess();

    if (!DuplicateHandle(self, (HANDLE)(intptr_t)fd, self, &copy, 0, FALSE,
                         DUPLICATE_SAME_ACCESS))
        return -1;
    return (int)(intptr_t)copy;
}

static inline int posix_fcntl(int fd, int command, int value)
{
    if (command == F_DUPFD_CLOEXEC) {
        int copy = posix_dup(fd);

        if (value != 0 && copy != value) /* nobody can ask for one */
            posix_lacks("the same number again");
        return copy;
    }
    if (command == F_GETFL || command == F_SETFD)
        return 0;
    if (command == F_GETFD)
        return fdmux__sys_check_fd((fdmux_fd)fd) == 0 ? FD_CLOEXEC : -1;
    return posix_block(fd, (value & O_NONBLOCK) == 0);
}

/* A handle that was closed is the next one to be given away, usually. */
static inline int posix_dup_to(int fd, int wanted)
{
    int copy;

    (void)posix_close(wanted);
    copy = posix_dup(fd);
    if (copy >= 0 && copy != wanted)
        posix_lacks("dup2");
    return copy;
}

/* ---- sockets --------------------------------------------------------------------- */

static inline int posix_accept(int fd, void *address, socklen_t *size, int flags)
{
    int accepted = posix_result((long long)accept((SOCKET)fd, address, size));

    if (accepted >= 0)
        (void)posix_block(accepted, (flags & SOCK_NONBLOCK) == 0);
    return accepted;
}

static inline int posix_socket(int family, int type, int protocol)
{
    int flags = type & (SOCK_NONBLOCK | SOCK_CLOEXEC);
    int fd;

    fdmux__sys_start();
    if (family == AF_UNIX)
        posix_lacks("AF_UNIX");
    fd = posix_result((long long)socket(family, type & ~flags, protocol));
    if (fd >= 0)
        (void)posix_block(fd, (flags & SOCK_NONBLOCK) == 0);
    return fd;
}

static inline int posix_socketpair(int family, int type, int protocol, int ret_fds[2])
{
    (void)family, (void)protocol;
    if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM)
        posix_lacks("socketpair of datagrams");
    return posix_pair(ret_fds, (type & SOCK_NONBLOCK) == 0);
}

static inline int posix_poll(WSAPOLLFD *fds, unsigned long count, int timeout_ms)
{
    return posix_result(WSAPoll(fds, count, timeout_ms));
}

/* ---- /proc/self/fd --------------------------------------------------------------- */

/* Lists the sockets that are open. Handles are small multiples of 4. */
typedef struct {
    fdmux_fd next;
} DIR;

#define HANDLES_MAX 16384

static inline DIR *posix_opendir(const char *path)
{
    static DIR directory;

    fdmux__sys_start();
    if (strcmp(path, "/proc/self/fd") != 0)
        posix_lacks("opendir");
    directory.next = 4;
    return &directory;
}

static inline void *posix_readdir(DIR *directory)
{
    for (; directory->next < HANDLES_MAX; directory->next += 4) {
        if (fdmux__sys_check_fd(directory->next) == 0) {
            directory->next += 4;
            return directory;
        }
    }
    return NULL;
}

/* ---- the rest -------------------------------------------------------------------- */

struct rlimit {
    int rlim_cur;
    int rlim_max;
};
struct itimerval {
    struct timeval it_value;
    struct timeval it_interval;
};
struct sigaction {
    void (*sa_handler)(int);
    int sa_flags;
};

/* The caller of the program sets a time limit. */
#define alarm(seconds) ((void)(seconds), 0)
#define close(fd) posix_close(fd)
#define read(fd, buffer, size) posix_recv(fd, buffer, size, 0)
#define write(fd, buffer, size) posix_send(fd, buffer, size, 0)
#define recv(fd, buffer, size, flags) posix_recv(fd, buffer, size, flags)
#define send(fd, buffer, size, flags) posix_send(fd, buffer, size, flags)
#define pipe(fds) posix_pipe(fds, 0)
#define pipe2(fds, flags) posix_pipe(fds, flags)
#define fcntl(fd, command, ...) posix_fcntl(fd, command, (0, ##__VA_ARGS__))
#define dup(fd) posix_dup(fd)
#define dup2(fd, wanted) posix_dup_to(fd, wanted)
#define dup3(fd, wanted, flags) posix_dup_to(fd, wanted)
#define socket(family, type, protocol) posix_socket(family, type, protocol)
#define socketpair(family, type, protocol, fds)                                        \
    posix_socketpair(family, type, protocol, fds)
#define accept(fd, address, size) posix_accept(fd, address, size, 0)
#define accept4(fd, address, size, flags) posix_accept(fd, address, size, flags)
#define setsockopt(fd, level, option, value, size)                                     \
    posix_result(                                                                      \
        setsockopt((SOCKET)(fd), level, option, (const char *)(value), (int)(size)))
#define getsockopt(fd, level, option, value, size)                                     \
    posix_result(getsockopt((SOCKET)(fd), level, option, (char *)(value), size))
#define pollfd WSAPOLLFD_
#define poll(fds, count, timeout) posix_poll((WSAPOLLFD *)(fds), count, timeout)
#define fork() (posix_lacks("fork"), 0)
#define waitpid(pid, status, flags) ((void)(status), (pid))
#define kill(pid, number) (posix_lacks("kill"), 0)
#define getppid() 0
#define mmap(...) (posix_lacks("mmap"), NULL)
#define munmap(...) 0
#define setitimer(...) (posix_lacks("setitimer"), 0)
#define sigaction(number, action, old) (posix_lacks("sigaction"), 0)
#define setrlimit(...) (posix_lacks("setrlimit"), 0)
#define getrlimit(...) 0
#define unlink(path) 0
#define open(path, ...) (posix_lacks("open"), -1)
#define opendir(path) posix_opendir(path)
#define readdir(directory) posix_readdir(directory)
#define closedir(directory) ((void)(directory))
#undef near
#undef far

struct WSAPOLLFD_ {
    SOCKET fd;
    short events;
    short revents;
};

#endif
