/* The system calls of the selector row, in a C loop: the floor for every Python
 * selector. The runner loads this file; each function repeats one operation `count`
 * times and returns the last result, or -errno. */
#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>

enum { EVENT_CAPACITY = 4096 };

int bench_epoll_wait(int epoll_fd, int count);
int bench_epoll_add_remove(int epoll_fd, int fd, int count);
int bench_epoll_modify(int epoll_fd, int fd, int count);

/* Returns how many descriptors the last wait found ready. */
int bench_epoll_wait(int epoll_fd, int count)
{
    static struct epoll_event events[EVENT_CAPACITY];
    int ready = 0;

    for (int i = 0; i < count; i++) {
        ready = epoll_wait(epoll_fd, events, EVENT_CAPACITY, 0);
        if (ready < 0)
            return -errno;
    }
    return ready;
}

int bench_epoll_add_remove(int epoll_fd, int fd, int count)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    for (int i = 0; i < count; i++) {
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            return -errno;
        if (epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0)
            return -errno;
    }
    return 0;
}

/* Each call changes the interest: odd calls to read and write, even ones to read. */
int bench_epoll_modify(int epoll_fd, int fd, int count)
{
    struct epoll_event event = {.data.fd = fd};

    for (int i = 0; i < count; i++) {
        event.events = i % 2 == 0 ? EPOLLIN | EPOLLOUT : EPOLLIN;
        if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0)
            return -errno;
    }
    return 0;
}
