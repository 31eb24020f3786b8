/* sys_linux.h: the system calls of the backend epoll, each as in sys.h. */
#ifndef FDMUX_SYS_LINUX_H
#define FDMUX_SYS_LINUX_H

#include <stdint.h>

struct epoll_event;

int fdmux__sys_epoll_create(void);
int fdmux__sys_epoll_ctl(int epoll_fd, int operation, int fd,
                         struct epoll_event *event);
/* A negative timeout waits for ever. Rounds up to milliseconds. */
int fdmux__sys_epoll_wait(int epoll_fd, struct epoll_event *events, int capacity,
                          int64_t timeout_ns);
/* -ENOSYS before Linux 5.11, and under valgrind. */
int fdmux__sys_epoll_pwait2(int epoll_fd, struct epoll_event *events, int capacity,
                            int64_t timeout_ns);
int fdmux__sys_timerfd_create(void);
/* An absolute deadline; INT64_MAX disarms. */
int fdmux__sys_timerfd_settime(int timer_fd, int64_t deadline_ns);

#endif
