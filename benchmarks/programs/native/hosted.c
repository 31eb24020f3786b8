/* See hosted.h. */
#include "hosted.h"

#include <errno.h>
#include <fdmux_api.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EVENT_CAPACITY = 1024 };

static int64_t handled_count;
static int64_t expected_count;
static int expected_fd = -1;

void hosted_expect(int64_t count, int done_fd)
{
    expected_count = handled_count + count;
    expected_fd = done_fd;
}

int64_t hosted_handled(void)
{
    return handled_count;
}

void hosted_handle(int fd)
{
    (void)fd;
    if (++handled_count == expected_count && expected_fd >= 0)
        (void)eventfd_write(expected_fd, 1); /* cannot fail: it was read since */
}

static int on_ready(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                    void *userdata)
{
    (void)loop;
    (void)io;
    (void)events;
    hosted_handle((int)(intptr_t)userdata);
    return 0;
}

int hosted_watch(uintptr_t address, uintptr_t loop_address, const int *fds, int count,
                 uint64_t *ret_tokens)
{
    const struct fdmux_api *api = (const struct fdmux_api *)address;
    struct fdmux_loop *loop = (struct fdmux_loop *)loop_address;
    struct fdmux_io_options options = {
        .struct_size = sizeof options, .events = FDMUX_READ, .fn = on_ready};

    for (int i = 0; i < count; i++) {
        int r;

        options.fd = fds[i];
        options.userdata = (void *)(intptr_t)fds[i];
        r = api->io_add(loop, &options, &ret_tokens[i]);
        if (r < 0) {
            (void)hosted_unwatch(address, loop_address, ret_tokens, i); /* they exist */
            return r;
        }
    }
    return 0;
}

int hosted_unwatch(uintptr_t address, uintptr_t loop_address, const uint64_t *tokens,
                   int count)
{
    const struct fdmux_api *api = (const struct fdmux_api *)address;
    int r = 0;

    for (int i = 0; i < count && r == 0; i++)
        r = api->io_remove((struct fdmux_loop *)loop_address, tokens[i]);
    return r;
}

static int wait_and_handle(int epoll_fd)
{
    struct epoll_event events[EVENT_CAPACITY];

    while (handled_count < expected_count) {
        int count = epoll_wait(epoll_fd, events, EVENT_CAPACITY, -1);

        if (count < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < count; i++)
            hosted_handle(events[i].data.fd);
    }
    return 0;
}

int hosted_epoll(const int *fds, int count)
{
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int r = epoll_fd < 0 ? -errno : 0;

    for (int i = 0; i < count && r == 0; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fds[i]};

        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fds[i], &event) < 0)
            r = -errno;
    }
    if (r == 0)
        r = wait_and_handle(epoll_fd);
    if (epoll_fd >= 0)
        (void)close(epoll_fd); /* a failure would change nothing */
    return r;
}
