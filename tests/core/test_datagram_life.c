/* test_datagram_life.c: endpoints inside a hosted loop, in forked children, and in
 * functions that fail. */
#include "datagram_fixtures.h"

#include <sys/wait.h>
#include <unistd.h>

SET_TEST(a_closed_endpoint_makes_the_host_dispatch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t port;
    uint64_t endpoint = bind_loopback(listener, 0, &port);
    int fd = fdmux_loop_fd(loop);

    CHECK(fd >= 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK(!is_readable(fd));
    CHECK_EQ(fdmux_datagram_close(loop, endpoint, 0), 0);
    wait_until_readable(fd);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->destroyed, 1);
    end_with(loop, listener, 1);
}

TEST(an_endpoint_works_in_a_child_that_takes_the_loop_over)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t port;
    uint64_t endpoint = bind_loopback(listener, 0, &port);
    int status = 1;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        CHECK_EQ(fdmux_datagram_close(loop, endpoint, 0), -ECHILD);
        CHECK_EQ(fdmux_loop_after_fork(loop), 0);
        CHECK_EQ(send_text(loop, endpoint, port, "child"), 0);
        run_until(loop, &listener->heard_count, 1);
        fdmux_loop_destroy(loop);
        CHECK_EQ(listener->destroyed, 1);
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK_EQ(send_text(loop, endpoint, port, "parent"), 0);
    run_until(loop, &listener->heard_count, 1);
    CHECK(strcmp(listener->heard[0].text, "parent") == 0);
    end_with(loop, listener, 1);
}

static pid_t forked;

static int fork_once(struct listener *listener,
                     const struct fdmux_datagram_event *event)
{
    (void)listener, (void)event;
    if (forked == -1)
        forked = fork();
    return 0;
}

/* The child of a function that forks calls nothing more, whichever event it was in. */
static void fork_in(uint32_t kind)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t port;
    uint64_t endpoint = bind_loopback(listener, 0, &port);
    int status = 1, before;

    forked = -1;
    fdmux_testing_fail(FDMUX_CALL_SEND, 1, EAGAIN, 0);
    CHECK_EQ(send_text(loop, endpoint, port, "queued"), 0);
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(fdmux_datagram_await_writable(loop, endpoint, 0), 0);
    if (kind == FDMUX_DATAGRAM_CLOSED)
        CHECK_EQ(fdmux_datagram_close(loop, endpoint, FDMUX_DATAGRAM_DROP), 0);
    listener->reaction = fork_once;
    before = fdmux_loop_dispatch(loop, 0, NULL, 0);
    CHECK(forked >= 0);
    if (forked == 0) {
        CHECK_EQ(before, -ECHILD);
        CHECK_EQ(listener->counts[FDMUX_DATAGRAM_RECEIVED] +
                     listener->counts[FDMUX_DATAGRAM_WRITABLE] +
                     listener->counts[FDMUX_DATAGRAM_CLOSED],
                 1);
        _exit(0);
    }
    CHECK_EQ(before, 0);
    CHECK_EQ(waitpid(forked, &status, 0), forked);
    CHECK_EQ(status, 0);
    listener->reaction = NULL;
    if (kind != FDMUX_DATAGRAM_CLOSED) /* the parent's watcher is as it was */
        run_until(loop, &listener->heard_count, 1);
    end_with(loop, listener, 1);
}

TEST(the_child_of_a_function_that_forks_calls_nothing_more)
{
    fork_in(FDMUX_DATAGRAM_WRITABLE);
    fork_in(FDMUX_DATAGRAM_CLOSED);
}

static int fail_always(struct listener *listener,
                       const struct fdmux_datagram_event *event)
{
    (void)listener, (void)event;
    return -EIO;
}

TEST(a_function_that_always_fails_gets_each_event_once)
{
    static char huge[70000];
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t port;
    uint64_t endpoint = bind_loopback(listener, 0, &port);
    struct sockaddr_in where = loopback(port);
    struct fdmux_datagram datagram = datagram_to(&where, huge, sizeof huge);

    listener->reaction = fail_always;
    CHECK_EQ(fdmux_datagram_send_many(loop, endpoint, &datagram, 1), 0);
    CHECK_EQ(fdmux_datagram_close(loop, endpoint, 0), 0);
    CHECK_EQ(run_once(loop), -EIO);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 1);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_CLOSED], 0);
    CHECK_EQ(run_once(loop), -EIO);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_CLOSED], 1);
    CHECK_EQ(run_once(loop), 0);
    end_with(loop, listener, 1);
}

TEST(a_slot_is_not_used_again_in_the_same_batch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t port;
    uint64_t first = bind_loopback(listener, 0, &port), second, third;

    CHECK_EQ(fdmux_datagram_close(loop, first, 0), 0);
    CHECK_EQ(run_once(loop), 0);
    second = bind_loopback(listener, 0, &port); /* before the next wait */
    CHECK((second & 0x0fffffff) != (first & 0x0fffffff));
    CHECK_EQ(run_once(loop), 0);
    third = bind_loopback(listener, 0, &port);
    CHECK_EQ(third & 0x0fffffff, first & 0x0fffffff);
    CHECK(third != first);
    CHECK_EQ(fdmux_datagram_fd(loop, first), -EIDRM);
    end_with(loop, listener, 3);
}
