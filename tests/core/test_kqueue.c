/* test_kqueue.c: what the backend kqueue does beyond the contract, on the model
 * (kqueue_model/kqueue_model.c). */
#include "fixtures.h"

#if defined(FDMUX_KQUEUE_MODEL)
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend.h"
#include "kqueue_model.h"
#include "loop_state.h"

#if defined(EVFILT_EXCEPT)
#define HAS_EXCEPT true
#else
#define HAS_EXCEPT false
#endif

/* ---- two filters, one event --------------------------------------------------------
 */

#define PAIRS 100

KQUEUE_TEST(both_directions_of_many_descriptors_are_one_event_each)
{
    struct fdmux_loop *loop = check_open_loop();
    static struct calls calls[PAIRS];
    int fds[PAIRS][2];

    for (int i = 0; i < PAIRS; i++) {
        open_sockets(fds[i]);
        watch(loop, fds[i][0], FDMUX_READ | FDMUX_WRITE, &calls[i]);
        CHECK_EQ(write(fds[i][1], "x", 1), 1);
    }
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(stats_of(loop).iteration_count, 1);
    for (int i = 0; i < PAIRS; i++) {
        CHECK_EQ(calls[i].count, 1);
        CHECK_EQ(calls[i].events, FDMUX_READ | FDMUX_WRITE);
    }
    fdmux_loop_destroy(loop);
    for (int i = 0; i < PAIRS; i++) {
        close(fds[i][0]);
        close(fds[i][1]);
    }
}

KQUEUE_TEST(refused_change_leaves_the_interest_as_it_was)
{
    const uint32_t options[] = {0, FDMUX_EDGE};

    for (int64_t nth = 1; nth <= 6; nth++) {
        uint32_t option = options[nth % 2];
        struct fdmux_loop *loop = check_open_loop();
        struct calls calls = {0};
        int fds[2];
        uint64_t io;
        int r;

        open_sockets(fds);
        io = watch(loop, fds[0], FDMUX_READ | option, &calls);
        fdmux_testing_fail(FDMUX_CALL_KEVENT, nth, ENOMEM, 0);
        r = fdmux_io_update(loop, io, FDMUX_READ | FDMUX_WRITE | option);
        CHECK(r == -ENOMEM || (r == 0 && fdmux_testing_calls() < nth));
        fdmux_testing_fail(0, 0, 0, 0);
        VERIFY(loop);
        CHECK_EQ(write(fds[1], "x", 1), 1);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(calls.count, 1);
        CHECK_EQ(calls.events, r < 0 ? FDMUX_READ : FDMUX_READ | FDMUX_WRITE);
        fdmux_loop_destroy(loop);
        close(fds[0]);
        close(fds[1]);
    }
}

/* kqueue(2): shutdown(2) of the own side sets EV_EOF on WRITE. */
KQUEUE_TEST(own_shutdown_is_no_hangup)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fds[2];

    open_tcp_sockets(fds);
    watch(loop, fds[1], FDMUX_READ | FDMUX_WRITE, &calls);
    CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_WRITE);
    CHECK_EQ(shutdown(fds[0], SHUT_WR), 0);
    wait_until_readable(fds[1]);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_READ | FDMUX_WRITE | FDMUX_HANGUP);
    fdmux_loop_destroy(loop);
    close(fds[0]);
    close(fds[1]);
}

KQUEUE_TEST(watcher_of_the_end_alone_is_not_kept_busy_by_unread_data)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int fds[2];

    open_sockets(fds);
    watch(loop, fds[0], FDMUX_PEER_CLOSED, &calls);
    CHECK_EQ(write(fds[1], "x", 1), 1);
    CHECK_EQ(fdmux_loop_dispatch(loop, 5 * MS, NULL, 0), 0);
    CHECK_EQ(calls.count, 0);
    CHECK(stats_of(loop).iteration_count <= 3);
    CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_PEER_CLOSED);
    fdmux_loop_destroy(loop);
    close(fds[0]);
    close(fds[1]);
}

/* ---- wakes -------------------------------------------------------------------------
 */

static void *post_when_waiting(void *userdata)
{
    struct fdmux_loop *loop = userdata;

    while (!atomic_load(&loop->is_wake_wanted) &&
           atomic_load(&loop->incoming_count) > 0)
        sched_yield();
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    return NULL;
}

/* An EVFILT_USER is reported once, and the batch with it may end before its turn. */
KQUEUE_TEST(wake_in_a_batch_that_ends_early_does_not_silence_later_ones)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {.result = -7};
    pthread_t thread;

    watch(loop, channel.read_fd, FDMUX_READ, &calls);
    feed(&channel);
    for (int i = 0; i < 4; i++) { /* the wake is before or behind the other event */
        CHECK_EQ(fdmux_loop_wake(loop), 0);
        CHECK_EQ(poll_once(loop), -7);
    }
    drain(&channel);
    CHECK_EQ(poll_once(loop), 0);
    CHECK(!is_rung(loop) || loop->backend->ring == NULL);
    CHECK_EQ(pthread_create(&thread, NULL, post_when_waiting, loop), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

/* ---- hosts -------------------------------------------------------------------------
 */

KQUEUE_TEST(refused_timer_takes_the_feature_away)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int64_t deadline_ns = 0;
    int fd;

    kqueue_model_refuse(EVFILT_TIMER, ENOMEM); /* kern.kq_calloutmax of FreeBSD */
    fd = fdmux_loop_fd(loop);
    CHECK(fd >= 0);
    CHECK_EQ(stats_of(loop).features & FDMUX_FEATURE_TIMER_IN_FD, 0);
    CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, &calls), 7, 0), 0);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, 7);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    kqueue_model_refuse(0, 0);
    fdmux_loop_destroy(loop);
}

KQUEUE_TEST(host_is_told_again_of_a_timer_that_had_to_wait)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls[2] = {{.result = -7}, {0}};
    int fd = fdmux_loop_fd(loop);
    int64_t deadline_ns = fdmux_loop_now(loop) + MS;

    for (int i = 0; i < 2; i++)
        CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, &calls[i]), deadline_ns, 0), 0);
    wait_until_readable(fd);
    CHECK_EQ(poll_once(loop), -7);
    CHECK_EQ(calls[1].count, 0);
    wait_until_readable(fd); /* EVFILT_TIMER has reported once */
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls[1].count, 1);
    CHECK(!is_readable(fd));
    fdmux_loop_destroy(loop);
}

/* kqueue(2): a child does not inherit it, so the number may be that of another file. */
KQUEUE_TEST(child_leaves_the_number_of_the_kqueue_alone)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};
    int fd = fdmux_loop_fd(loop);
    pid_t child;

    watch(loop, channel.read_fd, FDMUX_READ, &calls);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(fcntl(fd, F_GETFD) < 0);
        CHECK_EQ(dup2(channel.write_fd, fd), fd);
        CHECK_EQ(fdmux_loop_after_fork(loop), 0);
        CHECK_EQ(write(fd, "x", 1), 1);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(calls.count, 1);
        fdmux_loop_destroy(loop);
        CHECK_EQ(write(fd, "x", 1), 1);
        _exit(0);
    }
    expect_exit(child);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}
#endif
