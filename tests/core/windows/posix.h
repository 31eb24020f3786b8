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
#define POSIX_COPIES_MAX 256

#define SOCK_NONBLOCK 0x1000
#define SOCK_CLOEXEC 0x2000
#define MSG_DONTWAIT 0x10000000 /* none of Winsock's flags */
#define MSG_NOSIGNAL 0
#define O_CLOEXEC 0x10000
#define O_NONBLOCK 0x20000
#define F_DUPFD_CLOEXEC 0
#define F_GETFD 1
#define F_SETFD 2
#define F_GETFL 3
#define F_SETFL 4
#define FD_CLOEXEC 1
#define INADDR_ALLHOSTS_GROUP 0xe0000001U
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

/* Set errno. The tests use no socket that is another handle. */
static inline int posix_result(long long value)
{
    int error = WSAGetLastError();

    if (value >= 0)
        return (int)value;
    errno = error == WSAENOTSOCK ? EBADF : fdmux__errno_from_winsock(error);
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

/* MSG_DONTWAIT makes the socket itself non-blocking; no test wants to wait later. */
static inline long posix_recv(int fd, void *buffer, size_t size, int flags)
{
    if ((flags & MSG_DONTWAIT) != 0)
        (void)posix_block(fd, false);
    return posix_result(recv((SOCKET)fd, buffer, (int)size, flags & ~MSG_DONTWAIT));
}

static inline long posix_send(int fd, const void *buffer, size_t size, int flags)
{
    if ((flags & MSG_DONTWAIT) != 0)
        (void)posix_block(fd, false);
    return posix_result(send((SOCKET)fd, buffer, (int)size, flags & ~MSG_DONTWAIT));
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

/* Winsock does not know the copies of DuplicateHandle (wine refuses them). */
static inline int posix_dup(int fd)
{
    WSAPROTOCOL_INFOW info;
    SOCKET copy;

    if (WSADuplicateSocketW((SOCKET)fd, GetCurrentProcessId(), &info) != 0)
        return posix_result(-1);
    copy = WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, &info,
                      0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    (void)SetHandleInformation((HANDLE)copy, HANDLE_FLAG_INHERIT, 0);
    return posix_result(copy == INVALID_SOCKET ? -1 : (long long)copy);
}

/* Nobody can ask for a number. But those that were closed are given away again: copies
 * are made until one has it. Then the others are closed. */
static inline int posix_dup_as(int fd, int wanted)
{
    int copies[POSIX_COPIES_MAX];
    int count = 0;
    int copy = posix_dup(fd);

    while (copy >= 0 && copy != wanted && count < POSIX_COPIES_MAX) {
        copies[count++] = copy;
        copy = posix_dup(fd);
    }
    while (count > 0)
        (void)closesocket((SOCKET)copies[--count]);
    if (copy >= 0 && copy != wanted)
        posix_lacks("a descriptor of a chosen number");
    return copy;
}

static inline int posix_is_inherited(int fd)
{
    DWORD flags;

    if (fdmux__sys_check_fd((fdmux_fd)fd) < 0 ||
        !GetHandleInformation((HANDLE)(intptr_t)fd, &flags))
        return -1;
    return (flags & HANDLE_FLAG_INHERIT) == 0 ? FD_CLOEXEC : 0;
}

static inline int posix_fcntl(int fd, int command, int value)
{
    if (command == F_DUPFD_CLOEXEC)
        return value != 0 ? posix_dup_as(fd, value) : posix_dup(fd);
    if (command == F_SETFD)
        return 0;
    if (command == F_GETFL) /* Winsock does not tell whether a socket blocks */
        posix_lacks("F_GETFL");
    if (command == F_GETFD)
        return posix_is_inherited(fd);
    return posix_block(fd, (value & O_NONBLOCK) == 0);
}

static inline int posix_dup_to(int fd, int wanted)
{
    if (fdmux__sys_check_fd((fdmux_fd)wanted) == 0)
        (void)posix_close(wanted);
    return posix_dup_as(fd, wanted);
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

/* Two sockets of UDP that are connected to each other. */
static inline int posix_datagram_pair(int ret_fds[2], int type)
{
    struct sockaddr_in addresses[2] = {0};
    int size = sizeof addresses[0];
    int r = 0;

    for (int i = 0; i < 2; i++) {
        ret_fds[i] = posix_socket(AF_INET, type, 0);
        addresses[i].sin_family = AF_INET;
        addresses[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        r |= bind((SOCKET)ret_fds[i], (void *)&addresses[i], size);
        r |= getsockname((SOCKET)ret_fds[i], (void *)&addresses[i], &size);
    }
    for (int i = 0; i < 2; i++)
        r |= connect((SOCKET)ret_fds[i], (void *)&addresses[1 - i], size);
    return posix_result(r);
}

static inline int posix_socketpair(int family, int type, int protocol, int ret_fds[2])
{
    (void)family, (void)protocol;
    if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_DGRAM)
        return posix_datagram_pair(ret_fds, type);
    return posix_pair(ret_fds, (type & SOCK_NONBLOCK) == 0);
}

static inline int posix_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    int r = posix_result(connect((SOCKET)fd, address, size));

    if (r < 0 && errno == EAGAIN)
        errno = EINPROGRESS;
    return r;
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
    int type;

    for (; directory->next < HANDLES_MAX; directory->next += 4) {
        int size = sizeof type;

        /* fdmux__sys_check_fd would also find out what else it is, which takes long. */
        if (getsockopt(directory->next, SOL_SOCKET, SO_TYPE, (char *)&type, &size) ==
            0) {
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
#define bind(fd, address, size) posix_result(bind((SOCKET)(fd), address, size))
#define listen(fd, count) posix_result(listen((SOCKET)(fd), count))
#define connect(fd, address, size) posix_connect(fd, address, size)
#define shutdown(fd, how) posix_result(shutdown((SOCKET)(fd), how))
#define getsockname(fd, address, size)                                                 \
    posix_result(getsockname((SOCKET)(fd), address, size))
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
