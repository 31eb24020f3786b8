/* test_options.c: EDGE, ONESHOT and EXCLUSIVE. */
#include "fixtures.h"

#include <unistd.h>

/* ---- edge ---------------------------------------------------------------------- */

SET_TEST(edge_reports_changes_only)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};

    watch(loop, channel.read_fd, FDMUX_READ | FDMUX_EDGE, &calls);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    CHECK_EQ(calls.events, FDMUX_READ);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 2);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

SET_TEST(edge_that_was_there_before_is_reported)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls[2] = {0};

    feed(&channel);
    for (int i = 0; i < 2; i++) {
        watch(loop, channel.read_fd, FDMUX_READ | FDMUX_EDGE, &calls[i]);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(calls[i].count, 1);
    }
    VERIFY(loop);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

SET_TEST(update_re_arms_an_edge)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    uint32_t events = FDMUX_READ | FDMUX_EDGE;
    struct calls calls = {0};
    uint64_t io = watch(loop, channel.read_fd, events, &calls);

    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(fdmux_io_update(loop, io, events), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 2);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

SET_TEST(mixing_edge_and_level_is_eexist)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls[2] = {0};
    uint64_t first = watch(loop, channel.read_fd, FDMUX_READ, &calls[0]);
    uint64_t second;

    CHECK_EQ(try_watch(loop, channel.read_fd, FDMUX_READ | FDMUX_EDGE), -EEXIST);
    CHECK_EQ(try_watch(loop, channel.read_fd, FDMUX_READ | FDMUX_EXCLUSIVE), -EEXIST);
    second = watch(loop, channel.read_fd, FDMUX_READ, &calls[1]);
    CHECK_EQ(fdmux_io_update(loop, second, FDMUX_READ | FDMUX_EDGE), -EEXIST);
    VERIFY(loop);
    CHECK_EQ(fdmux_io_remove(loop, first), 0);
    CHECK_EQ(fdmux_io_update(loop, second, FDMUX_READ | FDMUX_EDGE), 0);
    VERIFY(loop);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls[1].count, 1);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

SET_TEST(collected_edge_is_not_lost_for_want_of_space)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channels[3] = {open_channel(), open_channel(), open_channel()};
    struct fdmux_ready ready[1];
    uint32_t seen = 0;

    for (uint32_t i = 0; i < 3; i++) {
        collect(loop, channels[i].read_fd, FDMUX_READ | FDMUX_EDGE, i);
        feed(&channels[i]);
    }
    CHECK_EQ(poll_once(loop), -ENOBUFS);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), 1);
        seen |= UINT32_C(1) << ready[0].tag;
    }
    CHECK_EQ(seen, 7);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), 0);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
    for (int i = 0; i < 3; i++)
        close_channel(&channels[i]);
}

SET_TEST(edge_reaches_every_collected_watcher_of_one_descriptor)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct fdmux_ready ready[1];

    for (uint32_t i = 0; i < 3; i++)
        collect(loop, channel.read_fd, FDMUX_READ | FDMUX_EDGE, i);
    feed(&channel);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), 1);
        CHECK_EQ(ready[0].tag, i);
    }
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), 0);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

SET_TEST(edge_is_not_lost_behind_a_negative_result)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channels[2] = {open_channel(), open_channel()};
    struct calls calls[4] = {{.result = -7}, {0}, {0}, {0}};

    for (int i = 0; i < 4; i++)
        watch(loop, channels[i / 2].read_fd, FDMUX_READ | FDMUX_EDGE, &calls[i]);
    feed(&channels[0]);
    feed(&channels[1]);
    CHECK_EQ(poll_once(loop), -7);
    CHECK_EQ(calls[0].count, 1);
    CHECK_EQ(poll_once(loop), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(calls[i].count, 1);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls[3].count, 1);
    fdmux_loop_destroy(loop);
    close_channel(&channels[0]);
    close_channel(&channels[1]);
}

/* ---- one-shot ------------------------------------------------------------------ */

TEST(oneshot_is_called_once_until_updated)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    uint32_t events = FDMUX_READ | FDMUX_ONESHOT;
    struct calls calls = {0};
    uint64_t io = watch(loop, channel.read_fd, events, &calls);

    feed(&channel);
    for (int round = 1; round < 4; round++) {
        CHECK_EQ(poll_once(loop), 0);
        VERIFY(loop);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(calls.count, round);
        CHECK_EQ(fdmux_io_update(loop, io, events), 0);
    }
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

TEST(oneshot_is_collected_once_until_updated)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    uint32_t events = FDMUX_READ | FDMUX_ONESHOT;
    struct fdmux_ready ready[2];
    uint64_t io = collect(loop, channel.read_fd, events, 5);

    feed(&channel);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 2), 1);
    CHECK_EQ(ready[0].token, io);
    CHECK_EQ(ready[0].events, FDMUX_READ);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 2), 0);
    CHECK_EQ(fdmux_io_update(loop, io, events), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 2), 1);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

static int re_arm(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata)
{
    ++*(int *)userdata;
    CHECK_EQ(fdmux_io_update(loop, io, events | FDMUX_ONESHOT), 0);
    return 0;
}

TEST(oneshot_may_re_arm_itself_in_its_callback)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    int count = 0;

    watch_with(loop, channel.read_fd, FDMUX_READ | FDMUX_ONESHOT, re_arm, &count);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(count, 2);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

TEST(oneshot_does_not_silence_a_neighbour)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls[2] = {0};

    watch(loop, channel.read_fd, FDMUX_READ | FDMUX_ONESHOT, &calls[0]);
    watch(loop, channel.read_fd, FDMUX_READ, &calls[1]);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls[0].count, 1);
    CHECK_EQ(calls[1].count, 2);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

TEST(spent_oneshot_does_not_spin_on_hangup)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fds[2];

    open_sockets(fds);
    watch(loop, fds[0], FDMUX_READ | FDMUX_ONESHOT, &calls);
    close(fds[1]);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, 5 * MS, NULL, 0), 0);
    CHECK_EQ(calls.count, 1);
    CHECK(stats_of(loop).iteration_count <= 3);
    fdmux_loop_destroy(loop);
    close(fds[0]);
}

/* ---- exclusive ----------------------------------------------------------------- */

EPOLL_TEST(exclusive_wakes_and_can_be_updated)
{
    struct fdmux_loop *loop = check_open_loop();
    uint32_t events = FDMUX_READ | FDMUX_EXCLUSIVE;
    struct calls calls = {0};
    uint64_t io;
    int fds[2];

    open_sockets(fds);
    io = watch(loop, fds[0], events, &calls);
    CHECK_EQ(write(fds[1], "x", 1), 1);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_READ);
    CHECK_EQ(fdmux_io_update(loop, io, events | FDMUX_WRITE), 0);
    VERIFY(loop);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_READ | FDMUX_WRITE);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 2);
    CHECK_EQ(stats_of(loop).stale_event_count, 0);
    fdmux_loop_destroy(loop);
    close(fds[0]);
    close(fds[1]);
}

/* epoll_ctl(2): EPOLLEXCLUSIVE works with IN, OUT, WAKEUP and ET only. */
EPOLL_TEST(refused_exclusive_update_keeps_the_old_interest)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    uint32_t events = FDMUX_READ | FDMUX_EXCLUSIVE;
    struct calls calls = {0};
    uint64_t io = watch(loop, channel.read_fd, events, &calls);

    CHECK_EQ(fdmux_io_update(loop, io, events | FDMUX_PRIORITY), -EINVAL);
    VERIFY(loop);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

EPOLL_TEST(exclusive_edge_is_re_armed_and_removed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    uint32_t events = FDMUX_READ | FDMUX_EXCLUSIVE | FDMUX_EDGE;
    struct calls calls = {0};
    uint64_t io = watch(loop, channel.read_fd, events, &calls);

    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(fdmux_io_update(loop, io, events), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 2);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    for (int i = 0; i < 5; i++) {
        feed(&channel);
        CHECK_EQ(poll_once(loop), 0);
    }
    CHECK_EQ(stats_of(loop).stale_event_count, 0); /* removed */
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

/* ---- poll ---------------------------------------------------------------------- */

POLL_TEST(kernel_options_are_eopnotsupp)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};
    uint64_t io = watch(loop, channel.read_fd, FDMUX_READ, &calls);

    CHECK_EQ(try_watch(loop, channel.write_fd, FDMUX_WRITE | FDMUX_EDGE), -EOPNOTSUPP);
    CHECK_EQ(try_watch(loop, channel.write_fd, FDMUX_WRITE | FDMUX_EXCLUSIVE),
             -EOPNOTSUPP);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_READ | FDMUX_EDGE), -EOPNOTSUPP);
    VERIFY(loop);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}
