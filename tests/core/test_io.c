/* test_io.c: watching one descriptor: readiness, errors, update, removal. */
#include "fixtures.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

TEST(readable_pipe_is_reported_as_long_as_it_is_readable)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};
    uint64_t io = watch(loop, channel.read_fd, FDMUX_READ, &calls);

    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 0);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 2);
    CHECK_EQ(calls.events, FDMUX_READ);
    CHECK_EQ(calls.token, io);
    drain(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 2);
    fdmux_loop_destroy(loop);
    CHECK_EQ(calls.destroyed, 1);
    close_channel(&channel);
}

TEST(socket_is_writable_and_readable_at_once)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fds[2];

    open_sockets(fds);
    watch(loop, fds[0], FDMUX_READ | FDMUX_WRITE, &calls);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_WRITE);
    CHECK_EQ(write(fds[1], "x", 1), 1);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_READ | FDMUX_WRITE);
    fdmux_loop_destroy(loop);
    close(fds[0]);
    close(fds[1]);
}

TEST(hangup_wakes_both_directions)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls reader = {0};
    struct calls writer = {0};
    int fds[2];

    open_sockets(fds);
    watch(loop, fds[0], FDMUX_READ, &reader);
    watch(loop, fds[0], FDMUX_WRITE, &writer);
    close(fds[1]);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(reader.events, FDMUX_READ | FDMUX_HANGUP);
    CHECK_EQ(writer.events, FDMUX_WRITE | FDMUX_HANGUP);
    fdmux_loop_destroy(loop);
    close(fds[0]);
}

TEST(error_wakes_both_directions_unasked)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls writer = {0};
    struct calls other = {0};

    watch(loop, channel.write_fd, FDMUX_WRITE, &writer);
    watch(loop, channel.write_fd, FDMUX_PRIORITY, &other);
    close(channel.read_fd); /* poll(2): POLLERR at the writing end of a pipe */
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(writer.events, FDMUX_WRITE | FDMUX_ERROR);
    CHECK_EQ(other.events, FDMUX_ERROR);
    fdmux_loop_destroy(loop);
    close(channel.write_fd);
}

TEST(peer_closed_is_reported_to_those_who_ask)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls reader = {0};
    struct calls asker = {0};
    int fds[2];

    open_sockets(fds);
    watch(loop, fds[0], FDMUX_READ, &reader);
    watch(loop, fds[0], FDMUX_PEER_CLOSED, &asker);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(asker.count, 0);
    CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(reader.events, FDMUX_READ);
    CHECK_EQ(asker.events, FDMUX_PEER_CLOSED);
    fdmux_loop_destroy(loop);
    close(fds[0]);
    close(fds[1]);
}

TEST(priority_is_out_of_band_data)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fds[2];

    open_tcp_sockets(fds);
    watch(loop, fds[1], FDMUX_PRIORITY, &calls);
    CHECK_EQ(send(fds[0], "a", 1, 0), 1);
    wait_until_readable(fds[1]);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 0);
    CHECK_EQ(send(fds[0], "b", 1, MSG_OOB), 1);
    while (calls.count == 0)
        CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_PRIORITY);
    fdmux_loop_destroy(loop);
    close(fds[0]);
    close(fds[1]);
}

TEST(no_events_watch_nothing_and_do_not_spin_on_hangup)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fds[2];

    open_sockets(fds);
    watch(loop, fds[0], 0, &calls);
    close(fds[1]);
    CHECK_EQ(fdmux_loop_dispatch(loop, 5 * MS, NULL, 0), 0);
    CHECK_EQ(calls.count, 0);
    CHECK(stats_of(loop).iteration_count <= 2);
    fdmux_loop_destroy(loop);
    close(fds[0]);
}

TEST(watchers_of_nothing_share_a_descriptor)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls[2] = {0};
    uint64_t ios[2];

    feed(&channel);
    for (int i = 0; i < 2; i++)
        ios[i] = watch(loop, channel.read_fd, 0, &calls[i]);
    VERIFY(loop);
    CHECK_EQ(fdmux_io_update(loop, ios[1], FDMUX_READ), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls[0].count, 0);
    CHECK_EQ(calls[1].count, 1);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

TEST(update_to_nothing_and_back)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};
    uint64_t io = watch(loop, channel.read_fd, FDMUX_READ, &calls);

    feed(&channel);
    CHECK_EQ(fdmux_io_update(loop, io, 0), 0);
    VERIFY(loop);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 0);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_READ), 0);
    VERIFY(loop);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    CHECK_EQ(calls.destroyed, 1);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
    CHECK_EQ(calls.destroyed, 1);
    close_channel(&channel);
}

TEST(descriptors_that_are_not_open_are_ebadf)
{
    struct fdmux_loop *loop = check_open_loop();
    int wrong[] = {-2, INT32_MIN, 19999, INT32_MAX};

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_EQ(try_watch(loop, wrong[i], FDMUX_READ), -EBADF);
        CHECK_EQ(try_watch(loop, wrong[i], 0), -EBADF);
        VERIFY(loop);
    }
    CHECK_EQ(stats_of(loop).io_live + stats_of(loop).fd_live, 0);
    fdmux_loop_destroy(loop);
}

TEST(closed_descriptor_refuses_another_watcher_and_an_update)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};
    uint64_t io = watch(loop, channel.read_fd, FDMUX_READ, &calls);

    close_channel(&channel);
    CHECK_EQ(try_watch(loop, channel.read_fd, FDMUX_READ), -EBADF);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_READ | FDMUX_PRIORITY), -EBADF);
    VERIFY(loop);
    CHECK_EQ(stats_of(loop).io_live, 1);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    fdmux_loop_destroy(loop);
}

SET_TEST(regular_file_is_eperm)
{
    struct fdmux_loop *loop = check_open_loop();
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    CHECK_EQ(try_watch(loop, fd, FDMUX_READ), -EPERM);
    CHECK_EQ(stats_of(loop).io_live + stats_of(loop).fd_live, 0);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
    close(fd);
}

POLL_TEST(regular_file_is_always_ready)
{
    struct fdmux_loop *loop = check_open_loop();
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct calls calls = {0};

    watch(loop, fd, FDMUX_READ, &calls);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_READ);
    fdmux_loop_destroy(loop);
    close(fd);
}

TEST(high_descriptor_numbers_work)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    int fd = fcntl(channel.read_fd, F_DUPFD_CLOEXEC, 900);
    struct calls calls = {0};

    CHECK(fd >= 900);
    watch(loop, fd, FDMUX_READ, &calls);
    VERIFY(loop);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    fdmux_loop_destroy(loop);
    close(fd);
    close_channel(&channel);
}

TEST(loops_nest)
{
    struct fdmux_loop *inner = check_open_loop();
    struct fdmux_loop *outer = check_open_loop();
    struct calls calls = {0};
    int fd = fdmux_loop_fd(inner);

    if (fd >= 0) {
        watch(outer, fd, FDMUX_READ, &calls);
        CHECK_EQ(poll_once(outer), 0);
        CHECK_EQ(calls.count, 0);
        CHECK_EQ(fdmux_loop_wake(inner), 0);
        CHECK_EQ(poll_once(outer), 0);
        CHECK_EQ(calls.count, 1);
        CHECK_EQ(poll_once(inner), 0);
        CHECK_EQ(poll_once(outer), 0);
        CHECK_EQ(calls.count, 1);
        CHECK(try_watch(inner, fd, FDMUX_READ) < 0); /* EINVAL or ELOOP */
        VERIFY(inner);
    }
    fdmux_loop_destroy(outer);
    fdmux_loop_destroy(inner);
}
