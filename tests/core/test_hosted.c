/* test_hosted.c: one pollable descriptor represents the whole loop. */
#include "fixtures.h"

#include <fcntl.h>
#include <unistd.h>

POLL_TEST(poll_has_no_descriptor_but_a_deadline)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t timer = collect_timer(loop, 0);
    int64_t deadline_ns = 0;

    CHECK_EQ(fdmux_loop_fd(loop), -EOPNOTSUPP);
    CHECK_EQ(fdmux_timer_arm(loop, timer, 12345, 0), 0);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, 12345);
    fdmux_loop_destroy(loop);
}

TEST(next_deadline_is_now_while_posts_or_wakes_wait)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int64_t deadline_ns = 7;

    CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, INT64_MAX);
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, 0);
    fdmux_loop_destroy(loop);
}

SET_TEST(descriptor_stays_the_same_and_is_quiet_when_idle)
{
    struct fdmux_loop *loop = check_open_loop();
    int fd = fdmux_loop_fd(loop);

    CHECK(fd >= 0);
    CHECK_EQ(fdmux_loop_fd(loop), fd);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(!is_readable(fd));
    CHECK_EQ(poll_once(loop), 0);
    CHECK(!is_readable(fd));
    fdmux_loop_destroy(loop);
}

/* Dispatch as a host would, until nothing is left to do. */
static void host(struct fdmux_loop *loop, int fd)
{
    for (int i = 0; i < 100 && is_readable(fd); i++)
        CHECK_EQ(poll_once(loop), 0);
    CHECK(!is_readable(fd));
}

SET_TEST(descriptor_is_readable_for_io_posts_wakes_and_timers)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls[3] = {0};
    int fd = fdmux_loop_fd(loop);
    uint64_t timer = add_timer(loop, &calls[2]);

    watch(loop, channel.read_fd, FDMUX_READ | FDMUX_ONESHOT, &calls[0]);
    feed(&channel);
    CHECK(is_readable(fd));
    host(loop, fd);
    CHECK_EQ(calls[0].count, 1);
    CHECK_EQ(fdmux_post(loop, count_post, &calls[1]), 0);
    CHECK(is_readable(fd));
    host(loop, fd);
    CHECK_EQ(calls[1].count, 1);
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK(is_readable(fd));
    host(loop, fd);
    CHECK_EQ(fdmux_timer_arm(loop, timer, 0, 0), 0);
    wait_until_readable(fd);
    host(loop, fd);
    CHECK_EQ(calls[2].count, 1);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

SET_TEST(descriptor_is_readable_for_what_was_pending_before_the_first_call)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t timer = add_timer(loop, &calls);

    CHECK_EQ(fdmux_timer_arm(loop, timer, fdmux_loop_now(loop) + MS / 5, 0), 0);
    wait_until_readable(fdmux_loop_fd(loop));
    host(loop, fdmux_loop_fd(loop));
    CHECK_EQ(calls.count, 1);
    fdmux_loop_destroy(loop);
}

SET_TEST(deadline_may_move_earlier_and_later)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fd = fdmux_loop_fd(loop);
    uint64_t timer = add_timer(loop, &calls);
    int64_t far_ns = fdmux_loop_now(loop) + 3600000 * MS;
    int64_t near_ns = fdmux_loop_now(loop) + MS / 5;

    CHECK_EQ(fdmux_timer_arm(loop, timer, far_ns, 0), 0);
    CHECK(!is_readable(fd));
    CHECK_EQ(fdmux_timer_arm(loop, timer, near_ns, 0), 0);
    wait_until_readable(fd);
    CHECK(fdmux_loop_now(loop) >= near_ns);
    CHECK_EQ(fdmux_timer_arm(loop, timer, far_ns, 0), 0); /* fd stays readable */
    host(loop, fd);
    CHECK_EQ(calls.count, 0);
    CHECK_EQ(fdmux_timer_arm(loop, timer, fdmux_loop_now(loop) + MS / 5, 0), 0);
    wait_until_readable(fd);
    host(loop, fd);
    CHECK_EQ(calls.count, 1);
    fdmux_loop_destroy(loop);
}

SET_TEST(periodic_timer_keeps_waking_the_host)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fd = fdmux_loop_fd(loop);
    int64_t first_ns = fdmux_loop_now(loop) + MS / 5;

    CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, &calls), first_ns, MS / 5), 0);
    while (calls.count < 5) {
        wait_until_readable(fd);
        CHECK_EQ(poll_once(loop), 0);
    }
    fdmux_loop_destroy(loop);
}

SET_TEST(timer_that_does_not_fit_keeps_the_descriptor_readable)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_ready ready[1];
    int fd = fdmux_loop_fd(loop);

    for (uint32_t i = 0; i < 3; i++)
        CHECK_EQ(fdmux_timer_arm(loop, collect_timer(loop, i), 1, 0), 0);
    for (int i = 0; i < 3; i++) {
        wait_until_readable(fd);
        CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), 1);
    }
    CHECK(!is_readable(fd));
    fdmux_loop_destroy(loop);
}

SET_TEST(kept_edge_keeps_the_descriptor_readable)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channels[2] = {open_channel(), open_channel()};
    struct fdmux_ready ready[1];
    int fd = fdmux_loop_fd(loop);

    for (uint32_t i = 0; i < 2; i++) {
        collect(loop, channels[i].read_fd, FDMUX_READ | FDMUX_EDGE, i);
        feed(&channels[i]);
    }
    for (int i = 0; i < 2; i++) {
        wait_until_readable(fd);
        CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), 1);
    }
    CHECK(!is_readable(fd));
    fdmux_loop_destroy(loop);
    close_channel(&channels[0]);
    close_channel(&channels[1]);
}

SET_TEST(error_that_waits_keeps_the_descriptor_readable)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls failing = {.result = -8};
    struct fdmux_ready ready[1];
    int fd = fdmux_loop_fd(loop);

    CHECK_EQ(fdmux_timer_arm(loop, collect_timer(loop, 0), 1, 0), 0);
    CHECK_EQ(fdmux_post(loop, count_post, &failing), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), 1);
    wait_until_readable(fd);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), -8);
    CHECK(!is_readable(fd));
    fdmux_loop_destroy(loop);
}

/* Wayland and sd-bus need this: flush before any wait, also that of the host. */
struct flusher {
    int count;
    bool is_io_served;
    bool was_last;
};

static int note_io(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                   void *userdata)
{
    struct flusher *flusher = userdata;

    (void)loop, (void)io, (void)events;
    flusher->is_io_served = true;
    flusher->was_last = false;
    return 0;
}

static int flush(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    struct flusher *flusher = userdata;

    (void)loop, (void)hook;
    flusher->count++;
    flusher->was_last = true;
    return 0;
}

SET_TEST(hooks_run_after_the_functions_before_the_host_waits)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct flusher flusher = {0};

    CHECK(fdmux_loop_fd(loop) >= 0);
    feed(&channel);
    add_hook_with(loop, flush, &flusher);
    watch_with(loop, channel.read_fd, FDMUX_READ, note_io, &flusher);
    CHECK_EQ(poll_once(loop), 0);
    CHECK(flusher.is_io_served && flusher.was_last);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

SET_TEST(added_hook_wakes_the_host_and_runs_before_it_waits)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls[2] = {0};
    int fd = fdmux_loop_fd(loop);

    add_hook(loop, &calls[0]);
    CHECK(is_readable(fd));
    host(loop, fd);
    CHECK(calls[0].count > 0);
    add_hook(loop, &calls[1]);
    CHECK(is_readable(fd));
    host(loop, fd);
    CHECK(calls[1].count > 0);
    fdmux_loop_destroy(loop);
}

struct late_adder {
    int count;
    struct calls added;
};

/* Add one when the host is about to wait: a dispatch calls hooks twice then. */
static int add_in_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    struct late_adder *adder = userdata;

    (void)hook;
    if (++adder->count == 2)
        add_hook(loop, &adder->added);
    return 0;
}

SET_TEST(hook_added_by_the_last_hook_runs_before_the_host_waits)
{
    struct fdmux_loop *loop = check_open_loop();
    struct late_adder adder = {0};
    int fd = fdmux_loop_fd(loop);

    add_hook_with(loop, add_in_hook, &adder);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(adder.count, 2);
    CHECK(is_readable(fd));
    host(loop, fd);
    CHECK(adder.added.count > 0);
    CHECK(!is_readable(fd));
    fdmux_loop_destroy(loop);
}

/* Change one thing outside of a dispatch; the number says which. */
static void change(struct fdmux_loop *loop, int which, const uint64_t tokens[2],
                   const struct channel *channel)
{
    static const uint32_t events = FDMUX_READ;
    int64_t far_ns = fdmux_loop_now(loop) + 3600000 * MS;
    int results[] = {
        which == 0 ? fdmux_io_update(loop, tokens[0], events) : 0,
        which == 1 ? fdmux_io_replace_fd(loop, tokens[0], channel->read_fd, events) : 0,
        which == 2 ? fdmux_timer_arm(loop, tokens[1], far_ns, 0) : 0,
        which == 3 ? fdmux_timer_arm_in(loop, tokens[1], 3600000 * MS, 0) : 0,
        which == 4 ? fdmux_timer_cancel(loop, tokens[1]) - 1 : 0,
        which == 5 ? fdmux_timer_remove(loop, tokens[1]) : 0,
        which == 6 ? fdmux_io_remove(loop, tokens[0]) : 0,
        which == 7 ? try_watch(loop, channel->read_fd, events) : 0,
    };

    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        CHECK_EQ(results[i], 0);
}

#define CHANGES 8

/* Whatever a hook looks at may have changed: it runs before the host waits again. */
SET_TEST(change_outside_of_a_dispatch_wakes_the_host_if_there_are_hooks)
{
    for (int has_hook = 0; has_hook < 2; has_hook++) {
        struct fdmux_loop *loop = check_open_loop();
        struct channel channel = open_channel();
        struct calls calls[3] = {0};
        uint64_t tokens[2] = {watch(loop, channel.read_fd, FDMUX_READ, &calls[0]),
                              add_timer(loop, &calls[1])};
        int fd = fdmux_loop_fd(loop);

        if (has_hook != 0)
            add_hook(loop, &calls[2]);
        host(loop, fd);
        for (int i = 0; i < CHANGES; i++) {
            int before = calls[2].count;

            change(loop, i, tokens, &channel);
            CHECK_EQ(is_readable(fd), has_hook);
            host(loop, fd);
            CHECK_EQ(calls[2].count > before, has_hook);
        }
        fdmux_loop_destroy(loop);
        close_channel(&channel);
    }
}

/* The host's thread adds, while no dispatch is under way: nothing is late. */
SET_TEST(hook_of_a_host_is_called_after_a_wake)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fd = fdmux_loop_fd(loop);

    add_hook(loop, &calls);
    host(loop, fd);
    for (int i = 0; i < 20; i++) {
        int before = calls.count;

        CHECK_EQ(fdmux_loop_wake(loop), 0); /* a library was called in between */
        wait_until_readable(fd);
        host(loop, fd);
        CHECK(calls.count > before);
    }
    fdmux_loop_destroy(loop);
}

SET_TEST(refused_wake_leaves_an_added_hook_in_place)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fd = fdmux_loop_fd(loop);

    fdmux_testing_fail(FDMUX_CALL_WRITE, 1, EPERM, 1);
    add_hook(loop, &calls);
    CHECK(!is_readable(fd));
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(fdmux_loop_wake(loop), 0); /* the next waker tries again */
    host(loop, fd);
    CHECK(calls.count > 0);
    fdmux_loop_destroy(loop);
}

SET_TEST(error_of_the_last_hooks_comes_with_the_next_dispatch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fd = fdmux_loop_fd(loop);

    add_hook(loop, &calls);
    CHECK_EQ(poll_once(loop), 0);
    calls.result = -6;
    CHECK_EQ(poll_once(loop), -6);
    calls.result = 0;
    wait_until_readable(fd);
    CHECK_EQ(poll_once(loop), -6);
    CHECK_EQ(poll_once(loop), 0);
    fdmux_loop_destroy(loop);
}

EPOLL_TEST(descriptor_survives_a_rebuild)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel ghost = open_channel();
    struct channel channel = open_channel();
    int dup_fd = fcntl(ghost.read_fd, F_DUPFD_CLOEXEC, 0);
    int fd = fdmux_loop_fd(loop);
    struct calls calls = {0};
    struct calls none = {0};
    uint64_t io = watch(loop, ghost.read_fd, FDMUX_READ, &none);

    watch(loop, channel.read_fd, FDMUX_READ | FDMUX_ONESHOT, &calls);
    CHECK_EQ(close(ghost.read_fd), 0);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    feed(&ghost);
    host(loop, fd);
    CHECK_EQ(stats_of(loop).rebuild_count, 1);
    CHECK_EQ(fdmux_loop_fd(loop), fd);
    feed(&channel);
    CHECK(is_readable(fd));
    host(loop, fd);
    CHECK_EQ(calls.count, 1);
    CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, &calls), 0, 0), 0);
    wait_until_readable(fd);
    host(loop, fd);
    CHECK_EQ(calls.count, 2);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(ghost.write_fd), 0);
    CHECK_EQ(close(dup_fd), 0);
    close_channel(&channel);
}

static int destroy_in_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    int *countdown = userdata;

    (void)hook;
    if (--*countdown == 0)
        CHECK(fdmux_loop_destroy(loop) == NULL);
    return 0;
}

SET_TEST(last_hooks_may_destroy_the_loop)
{
    for (int countdown = 1; countdown <= 2; countdown++) {
        struct fdmux_loop *loop = check_open_loop();
        int left = countdown;

        CHECK(fdmux_loop_fd(loop) >= 0);
        add_hook_with(loop, destroy_in_hook, &left);
        CHECK_EQ(poll_once(loop), countdown == 1 ? -ESTALE : 0);
        CHECK_EQ(left, 0);
    }
}
