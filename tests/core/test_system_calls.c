/* test_system_calls.c: how the platform layer handles arguments and sockets that a loop
 * never or seldom gives it. */
#include "fixtures.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys.h"

#if defined(__linux__)
#include <sys/epoll.h>

#include "sys_linux.h"

/* Returns an epoll set in which one descriptor is readable. */
static int open_ready_set(const struct channel *channel)
{
    struct epoll_event event = {.events = EPOLLIN};
    int set_fd = fdmux__sys_epoll_create();

    CHECK(set_fd >= 0);
    CHECK_EQ(fdmux__sys_epoll_ctl(set_fd, EPOLL_CTL_ADD, channel->read_fd, &event), 0);
    feed(channel);
    return set_fd;
}

SET_TEST(wait_longer_than_the_kernel_can_count_is_a_wait)
{
    struct channel channel = open_channel();
    int set_fd = open_ready_set(&channel);
    struct epoll_event event;
    int r;

    CHECK_EQ(fdmux__sys_epoll_wait(set_fd, &event, 1, INT64_MAX), 1);
    CHECK_EQ(fdmux__sys_epoll_wait(set_fd, &event, 1, -1), 1);
    r = fdmux__sys_epoll_pwait2(set_fd, &event, 1, -1);
    CHECK(r == 1 || r == -ENOSYS); /* an older kernel, or valgrind */
    CHECK_EQ(close(set_fd), 0);
    close_channel(&channel);
}

SET_TEST(wait_of_whole_or_fractional_milliseconds_is_never_early)
{
    struct epoll_event event;
    int set_fd = fdmux__sys_epoll_create();

    CHECK(set_fd >= 0);
    for (int64_t timeout_ns = MS; timeout_ns < 2 * MS; timeout_ns += MS / 2) {
        int64_t start_ns = fdmux__sys_now();

        CHECK_EQ(fdmux__sys_epoll_wait(set_fd, &event, 1, timeout_ns), 0);
        CHECK(fdmux__sys_now() - start_ns >= timeout_ns);
    }
    CHECK_EQ(close(set_fd), 0);
}

EPOLL_TEST(exact_wait_ends_at_its_timeout)
{
    struct epoll_event event;
    int set_fd = fdmux__sys_epoll_create();
    int64_t start_ns = fdmux__sys_now();
    int r = fdmux__sys_epoll_pwait2(set_fd, &event, 1, 3 * MS / 2);

    CHECK(r == 0 || r == -ENOSYS); /* an older kernel, or valgrind */
    CHECK(r != 0 || fdmux__sys_now() - start_ns >= 3 * MS / 2);
    CHECK_EQ(close(set_fd), 0);
}

#endif

UNIT_TEST(only_tcp_is_tcp)
{
    struct channel channel = open_channel();
    int fds[2];

    CHECK(!fdmux__sys_is_tcp(channel.read_fd));
    close_channel(&channel);
    open_sockets(fds);
    CHECK(!fdmux__sys_is_tcp(fds[0]));
    CHECK_EQ(close(fds[0]) | close(fds[1]), 0);
    open_tcp_sockets(fds);
    CHECK(fdmux__sys_is_tcp(fds[0]));
    CHECK_EQ(close(fds[0]) | close(fds[1]), 0);
}

UNIT_TEST(connect_result_detects_no_peer_and_a_connection_to_itself)
{
    struct sockaddr_in own = {.sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof own;
    struct channel channel = open_channel();
    int fds[2];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK_EQ(fdmux__sys_connect_result(channel.write_fd), -ENOTSOCK);
    close_channel(&channel);
    open_tcp_sockets(fds);
    CHECK_EQ(fdmux__sys_connect_result(fds[0]), 0);
    CHECK_EQ(close(fds[0]) | close(fds[1]), 0);
    CHECK_EQ(fdmux__sys_connect_result(fd), -EINPROGRESS);
    CHECK_EQ(bind(fd, (struct sockaddr *)&own, size), 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&own, &size), 0);
    CHECK_EQ(connect(fd, (struct sockaddr *)&own, size), 0); /* to itself */
    CHECK_EQ(fdmux__sys_connect_result(fd), -ECONNREFUSED);
    CHECK_EQ(close(fd), 0);
}
