/* test_closed_options.c: the options of a watcher whose descriptor was closed without
 * removal do not apply to the next watcher of the same number. */
#include "fixtures.h"

#include <fcntl.h>
#include <unistd.h>

/* Close the reading end of a watched pipe, and give its number to another pipe. */
static void reuse_number(struct channel *gone, struct channel *reused)
{
    *reused = open_channel();
    CHECK_EQ(close(gone->read_fd), 0);
    CHECK_EQ(dup3(reused->read_fd, gone->read_fd, O_CLOEXEC), gone->read_fd);
    CHECK_EQ(close(reused->read_fd), 0);
    reused->read_fd = gone->read_fd;
}

static void check_reuse(uint32_t old_options, uint32_t new_options)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel gone = open_channel();
    struct channel reused;
    struct calls old = {0};
    struct calls fresh = {0};
    uint64_t io = watch(loop, gone.read_fd, FDMUX_READ | old_options, &old);

    CHECK_EQ(try_watch(loop, gone.read_fd, FDMUX_READ | new_options), -EEXIST);
    reuse_number(&gone, &reused);
    watch(loop, reused.read_fd, FDMUX_READ | new_options, &fresh);
    VERIFY(loop);
    feed(&reused);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(fresh.count, 1);
    CHECK_EQ(old.count, 0);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    CHECK_EQ(poll_once(loop), 0);
    fdmux_loop_destroy(loop);
    close_channel(&reused);
    CHECK_EQ(close(gone.write_fd), 0);
}

SET_TEST(number_of_a_closed_edge_watcher_may_be_watched_for_levels)
{
    check_reuse(FDMUX_EDGE, 0);
}

SET_TEST(number_of_a_closed_level_watcher_may_be_watched_for_edges)
{
    check_reuse(0, FDMUX_EDGE);
}

EPOLL_TEST(number_of_a_closed_exclusive_watcher_may_be_watched_plainly)
{
    check_reuse(FDMUX_EXCLUSIVE, 0);
}

SET_TEST(closed_number_with_other_options_is_ebadf)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};

    watch(loop, channel.read_fd, FDMUX_READ | FDMUX_EDGE, &calls);
    CHECK_EQ(close(channel.read_fd), 0);
    CHECK_EQ(try_watch(loop, channel.read_fd, FDMUX_READ), -EBADF);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(channel.write_fd), 0);
}
