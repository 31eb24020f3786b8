/* sys.c: sys.h on top of libc.
 *
 * The only file that calls malloc or a system call by name. Each wrapper first asks
 * fdmux__fault whether to fail, which is constantly 0 in a release build. */
#define _GNU_SOURCE
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "testing.h"

#if defined(__linux__)
#include <linux/sock_diag.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#endif

static int value_or_errno(long value)
{
    return value < 0 ? -errno : (int)value;
}

static struct timespec timespec_from_ns(int64_t ns)
{
    struct timespec ts;

    ts.tv_sec = (time_t)(ns / FDMUX__NS_PER_S);
    ts.tv_nsec = (long)(ns % FDMUX__NS_PER_S);
    return ts;
}

void *fdmux__sys_calloc(size_t count, size_t size)
{
    void *memory = fdmux__fault(FDMUX_CALL_MEMORY) ? NULL : calloc(count, size);

    fdmux__count_memory(memory != NULL ? 1 : 0);
    return memory;
}

void *fdmux__sys_realloc(void *memory, size_t size)
{
    void *moved = fdmux__fault(FDMUX_CALL_MEMORY) ? NULL : realloc(memory, size);

    fdmux__count_memory(memory == NULL && moved != NULL ? 1 : 0);
    return moved;
}

void fdmux__sys_free(void *memory)
{
    fdmux__count_memory(memory != NULL ? -1 : 0);
    free(memory);
}

int64_t fdmux__sys_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail for this clock */
    return (int64_t)ts.tv_sec * FDMUX__NS_PER_S + ts.tv_nsec;
}

/* close(2): on Linux the descriptor is released whatever is returned. So a fault is
 * injected after the call, and no caller retries. */
int fdmux__sys_close(int fd)
{
    int r = value_or_errno(close(fd));
    int fault = fdmux__fault(FDMUX_CALL_CLOSE);

    return fault != 0 ? fault : r;
}

int fdmux__sys_read(int fd, void *buffer, size_t size)
{
    int fault = fdmux__fault(FDMUX_CALL_READ);

    return fault != 0 ? fault : value_or_errno(read(fd, buffer, size));
}

int fdmux__sys_write(int fd, const void *buffer, size_t size)
{
    int fault = fdmux__fault(FDMUX_CALL_WRITE);

    return fault != 0 ? fault : value_or_errno(write(fd, buffer, size));
}

int fdmux__sys_pipe(int ret_fds[2])
{
    int fault = fdmux__fault(FDMUX_CALL_PIPE);

    return fault != 0 ? fault : value_or_errno(pipe2(ret_fds, O_CLOEXEC | O_NONBLOCK));
}

int fdmux__sys_recv(int fd, void *buffer, size_t size)
{
    int fault = fdmux__fault(FDMUX_CALL_RECV);

    return fault != 0
               ? fault
               : value_or_errno(recv(fd, buffer, fdmux__short(size), MSG_DONTWAIT));
}

bool fdmux__sys_was_short(int count, size_t size)
{
    return (size_t)count < fdmux__short(size);
}

bool fdmux__sys_is_tcp(int fd)
{
    int protocol = 0;
    socklen_t size = sizeof protocol;

    return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
           protocol == IPPROTO_TCP;
}

int fdmux__sys_sendmsg(int fd, struct iovec *parts, int count)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    int fault = fdmux__fault(FDMUX_CALL_SEND);
    int flags = MSG_NOSIGNAL | MSG_DONTWAIT;

    if (fault != 0)
        return fault;
    /* One part is the common case: send(2) copies no iovec. Also for tests of short
     * sends. */
    if (count == 1 || fdmux__short(SIZE_MAX) != SIZE_MAX)
        return value_or_errno(
            send(fd, parts[0].iov_base, fdmux__short(parts[0].iov_len), flags));
    return value_or_errno(sendmsg(fd, &message, flags));
}

int fdmux__sys_socket(int family, int type)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0
               ? fault
               : value_or_errno(socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

int fdmux__sys_set_option(int fd, int level, int option, int value)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0
               ? fault
               : value_or_errno(setsockopt(fd, level, option, &value, sizeof value));
}

int fdmux__sys_get_option(int fd, int level, int option)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);
    int value = 0;
    socklen_t size = sizeof value;

    if (fault != 0)
        return fault;
    return getsockopt(fd, level, option, &value, &size) < 0 ? -errno : value;
}

int fdmux__sys_bind(int fd, const struct sockaddr *address, unsigned size)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault : value_or_errno(bind(fd, address, size));
}

int fdmux__sys_listen(int fd, int backlog_count)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault : value_or_errno(listen(fd, backlog_count));
}

int fdmux__sys_connect(int fd, const struct sockaddr *address, unsigned size)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault : value_or_errno(connect(fd, address, size));
}

static unsigned internet_size(const struct sockaddr_storage *address, socklen_t size,
                              unsigned room)
{
    bool is_internet =
        size >= sizeof(struct sockaddr_in) &&
        (address->ss_family == AF_INET || address->ss_family == AF_INET6);

    return is_internet && size <= room ? (unsigned)size : 0;
}

int fdmux__sys_accept(int fd, void *peer, unsigned *peer_size)
{
    int fault = fdmux__fault(FDMUX_CALL_ACCEPT);
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    int r;

    if (fault != 0)
        return fault;
    r = value_or_errno(
        accept4(fd, (struct sockaddr *)&address, &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
    *peer_size = r < 0 ? 0 : internet_size(&address, size, *peer_size);
    memcpy(peer, &address, *peer_size);
    return r;
}

int fdmux__sys_peer(int fd, void *peer, unsigned size)
{
    struct sockaddr_storage address = {0};
    socklen_t address_size = sizeof address;
    int r = value_or_errno(getpeername(fd, (struct sockaddr *)&address, &address_size));

    if (r < 0)
        return r;
    size = internet_size(&address, address_size, size);
    memcpy(peer, &address, size);
    return (int)size;
}

int fdmux__sys_shutdown(int fd)
{
    return value_or_errno(shutdown(fd, SHUT_WR));
}

int fdmux__sys_connect_result(int fd)
{
    struct sockaddr_storage peer = {0}, own = {0};
    socklen_t size = sizeof peer, own_size = sizeof own;
    int error = 0;
    socklen_t error_size = sizeof error;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_size) < 0)
        return -errno;
    if (error != 0)
        return -error;
    /* No error and no peer: still connecting. */
    if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
        return -EINPROGRESS;
    /* TCP connects a socket to itself if the kernel happens to give it the port that it
     * connects to. */
    if (peer.ss_family == AF_UNIX ||
        getsockname(fd, (struct sockaddr *)&own, &own_size) < 0)
        return 0;
    return size == own_size && memcmp(&peer, &own, size) == 0 ? -ECONNREFUSED : 0;
}

void fdmux__sys_no_delay(int fd)
{
    int one = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* not an error */
}

int fdmux__sys_ppoll(struct pollfd *fds, nfds_t count, int64_t timeout_ns)
{
    struct timespec timeout = timespec_from_ns(timeout_ns < 0 ? 0 : timeout_ns);
    int fault = fdmux__fault(FDMUX_CALL_WAIT);

    if (fault != 0)
        return fault;
    return value_or_errno(ppoll(fds, count, timeout_ns < 0 ? NULL : &timeout, NULL));
}

/* ---- datagrams ----------------------------------------------------------------- */

#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__)
_Static_assert(sizeof(struct fdmux__message) == sizeof(struct mmsghdr) &&
                   offsetof(struct fdmux__message, length) ==
                       offsetof(struct mmsghdr, msg_len),
               "struct fdmux__message is laid out as struct mmsghdr");

int fdmux__sys_recvmmsg(int fd, struct fdmux__message *messages, unsigned count)
{
    int fault = fdmux__fault(FDMUX_CALL_RECVMMSG);

    return fault != 0 ? fault
                      : value_or_errno(recvmmsg(fd, (struct mmsghdr *)messages, count,
                                                MSG_DONTWAIT, NULL));
}

int fdmux__sys_sendmmsg(int fd, struct fdmux__message *messages, unsigned count)
{
    int fault = fdmux__fault(FDMUX_CALL_SENDMMSG);

    return fault != 0 ? fault
                      : value_or_errno(sendmmsg(fd, (struct mmsghdr *)messages, count,
                                                MSG_DONTWAIT | MSG_NOSIGNAL));
}
#else
int fdmux__sys_recvmmsg(int fd, struct fdmux__message *messages, unsigned count)
{
    (void)fd, (void)messages, (void)count;
    return -ENOSYS;
}

int fdmux__sys_sendmmsg(int fd, struct fdmux__message *messages, unsigned count)
{
    (void)fd, (void)messages, (void)count;
    return -ENOSYS;
}
#endif

int fdmux__sys_recvmsg(int fd, struct msghdr *header, int flags)
{
    int fault = fdmux__fault(FDMUX_CALL_RECV);

    return fault != 0 ? fault
                      : value_or_errno(recvmsg(fd, header, flags | MSG_DONTWAIT));
}

int fdmux__sys_send_message(int fd, const struct msghdr *header)
{
    int fault = fdmux__fault(FDMUX_CALL_SEND);

    return fault != 0
               ? fault
               : value_or_errno(sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL));
}

uint64_t fdmux__sys_socket_drops(int fd)
{
#if defined(SO_MEMINFO)
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof info;

    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size) == 0 &&
        size > SK_MEMINFO_DROPS * sizeof info[0])
        return info[SK_MEMINFO_DROPS];
#else
    (void)fd;
#endif
    return 0;
}

#if defined(__linux__)
int fdmux__sys_eventfd(void)
{
    int fault = fdmux__fault(FDMUX_CALL_EVENTFD);

    return fault != 0 ? fault : value_or_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

int fdmux__sys_epoll_create(void)
{
    int fault = fdmux__fault(FDMUX_CALL_EPOLL_CREATE);

    return fault != 0 ? fault : value_or_errno(epoll_create1(EPOLL_CLOEXEC));
}

int fdmux__sys_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    int fault = fdmux__fault(FDMUX_CALL_EPOLL_CTL);

    return fault != 0 ? fault
                      : value_or_errno(epoll_ctl(epoll_fd, operation, fd, event));
}

int fdmux__sys_epoll_wait(int epoll_fd, struct epoll_event *events, int capacity,
                          int64_t timeout_ns)
{
    int fault = fdmux__fault(FDMUX_CALL_WAIT);
    int64_t ms = timeout_ns < 0 ? -1 : timeout_ns / FDMUX__NS_PER_MS;

    if (fault != 0)
        return fault;
    if (timeout_ns > 0 && timeout_ns % FDMUX__NS_PER_MS != 0)
        ms++; /* never early */
    return value_or_errno(
        epoll_wait(epoll_fd, events, capacity, ms > INT_MAX ? INT_MAX : (int)ms));
}

int fdmux__sys_epoll_pwait2(int epoll_fd, struct epoll_event *events, int capacity,
                            int64_t timeout_ns)
{
#if defined(SYS_epoll_pwait2)
    struct timespec timeout = timespec_from_ns(timeout_ns < 0 ? 0 : timeout_ns);
    int fault = fdmux__fault(FDMUX_CALL_PWAIT2);

    if (fault != 0)
        return fault;
    /* By number, because glibc has the function only since 2.35. */
    return value_or_errno(syscall(SYS_epoll_pwait2, epoll_fd, events, capacity,
                                  timeout_ns < 0 ? NULL : &timeout, NULL,
                                  (size_t)(_NSIG / 8)));
#else
    (void)epoll_fd, (void)events, (void)capacity, (void)timeout_ns;
    return -ENOSYS;
#endif
}

int fdmux__sys_timerfd_create(void)
{
    int fault = fdmux__fault(FDMUX_CALL_TIMERFD);

    return fault != 0 ? fault
                      : value_or_errno(timerfd_create(CLOCK_MONOTONIC,
                                                      TFD_CLOEXEC | TFD_NONBLOCK));
}

int fdmux__sys_timerfd_settime(int timer_fd, int64_t deadline_ns)
{
    struct itimerspec when = {0};
    int fault = fdmux__fault(FDMUX_CALL_TIMERFD);

    if (fault != 0)
        return fault;
    /* timerfd_settime(2): zero disarms, so a deadline of 0 becomes 1. */
    if (deadline_ns != INT64_MAX)
        when.it_value = timespec_from_ns(deadline_ns > 0 ? deadline_ns : 1);
    return value_or_errno(timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL));
}
#endif
