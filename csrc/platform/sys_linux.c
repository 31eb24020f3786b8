/* sys_linux.c: what Linux has beside sys_posix.c, and the calls of the backend epoll.
 */
#define _GNU_SOURCE
#include "sys_linux.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sock_diag.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "message.h"
#include "sys.h"
#include "testing.h"

int fdmux__posix_bell(void)
{
    int fault = fdmux__fault(FDMUX_CALL_EVENTFD);

    return fault != 0 ? fault
                      : fdmux__posix_result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

bool fdmux__sys_is_tcp(fdmux_fd fd)
{
    int protocol = 0;
    socklen_t size = sizeof protocol;

    return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
           protocol == IPPROTO_TCP;
}

uint64_t fdmux__sys_socket_drops(fdmux_fd fd)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof info;

    return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size) == 0 &&
                   size > SK_MEMINFO_DROPS * sizeof info[0]
               ? info[SK_MEMINFO_DROPS]
               : 0;
}

/* ---- epoll ----------------------------------------------------------------------- */

int fdmux__sys_epoll_create(void)
{
    int fault = fdmux__fault(FDMUX_CALL_EPOLL_CREATE);

    return fault != 0 ? fault : fdmux__posix_result(epoll_create1(EPOLL_CLOEXEC));
}

int fdmux__sys_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    int fault = fdmux__fault(FDMUX_CALL_EPOLL_CTL);

    return fault != 0 ? fault
                      : fdmux__posix_result(epoll_ctl(epoll_fd, operation, fd, event));
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
    return fdmux__posix_result(
        epoll_wait(epoll_fd, events, capacity, ms > INT_MAX ? INT_MAX : (int)ms));
}

/* struct __kernel_timespec of <linux/time_types.h>: 64 bits also where those of the
 * processor, and of libc's struct timespec, are 32. */
struct kernel_timespec {
    int64_t seconds;
    int64_t nanoseconds;
};

int fdmux__sys_epoll_pwait2(int epoll_fd, struct epoll_event *events, int capacity,
                            int64_t timeout_ns)
{
#if defined(SYS_epoll_pwait2)
    struct kernel_timespec timeout = {timeout_ns / FDMUX__NS_PER_S,
                                      timeout_ns % FDMUX__NS_PER_S};
    int fault = fdmux__fault(FDMUX_CALL_PWAIT2);

    if (fault != 0)
        return fault;
    /* By number, because glibc has the function only since 2.35. */
    return fdmux__posix_result(syscall(SYS_epoll_pwait2, epoll_fd, events, capacity,
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
                      : fdmux__posix_result(timerfd_create(CLOCK_MONOTONIC,
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
        when.it_value = fdmux__posix_timespec(deadline_ns > 0 ? deadline_ns : 1);
    return fdmux__posix_result(
        timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL));
}
