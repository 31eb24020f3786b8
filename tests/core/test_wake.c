/* test_wake.c: wakes are never lost, never block, and may come from any thread or
 * signal handler. */
#include "fixtures.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <unistd.h>

#include "loop_state.h"

TEST(wake_before_a_dispatch_makes_it_return)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    fdmux_loop_destroy(loop);
}

TEST(several_wakes_cause_one_return)
{
    struct fdmux_loop *loop = check_open_loop();
    int64_t start_ns;

    for (int i = 0; i < 1000; i++)
        CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    start_ns = fdmux_loop_now(loop);
    CHECK_EQ(fdmux_loop_dispatch(loop, 2 * MS, NULL, 0), 0);
    CHECK(fdmux_loop_now(loop) - start_ns >= 2 * MS);
    fdmux_loop_destroy(loop);
}

/* ---- threads ------------------------------------------------------------------- */

struct player {
    struct fdmux_loop *loop;
    _Atomic int turn; /* rounds that the dispatcher has finished */
};

enum { ROUNDS = 2000 };

static void *wake_each_round(void *userdata)
{
    struct player *player = userdata;

    for (int round = 0; round < ROUNDS; round++) {
        while (atomic_load(&player->turn) < round)
            sched_yield();
        CHECK_EQ(fdmux_loop_wake(player->loop), 0);
    }
    return NULL;
}

/* Each round makes one wake and waits for its effect: a lost one would hang. */
TEST(no_wake_of_a_thread_is_lost)
{
    struct player player = {.loop = check_open_loop()};
    pthread_t thread;

    CHECK_EQ(pthread_create(&thread, NULL, wake_each_round, &player), 0);
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_EQ(fdmux_loop_dispatch(player.loop, -1, NULL, 0), 0);
        atomic_store(&player.turn, round + 1);
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    fdmux_loop_destroy(player.loop);
}

static void *stop_loop(void *userdata)
{
    CHECK_EQ(fdmux_loop_stop(userdata), 0);
    return NULL;
}

TEST(stop_of_a_thread_ends_a_sleeping_run)
{
    struct fdmux_loop *loop = check_open_loop();
    pthread_t thread;

    CHECK_EQ(pthread_create(&thread, NULL, stop_loop, loop), 0);
    CHECK_EQ(fdmux_loop_run(loop), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    fdmux_loop_destroy(loop);
}

/* ---- signals ------------------------------------------------------------------- */

static struct fdmux_loop *signalled_loop;
static int handler_result = 1;

static void wake_in_handler(int number)
{
    (void)number;
    handler_result = fdmux_loop_wake(signalled_loop);
}

static void ignore_in_handler(int number)
{
    (void)number;
}

static void start_alarm(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    struct itimerval when = {.it_value.tv_usec = 2000};

    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_EQ(setitimer(ITIMER_REAL, &when, NULL), 0);
}

TEST(wake_from_a_signal_handler_returns)
{
    signalled_loop = check_open_loop();
    start_alarm(wake_in_handler);
    CHECK_EQ(fdmux_loop_dispatch(signalled_loop, -1, NULL, 0), 0);
    CHECK_EQ(handler_result, 0);
    fdmux_loop_destroy(signalled_loop);
}

TEST(signal_without_a_wake_is_eintr)
{
    struct fdmux_loop *loop = check_open_loop();
    const struct itimerval again = {{.tv_usec = 2000}, {.tv_usec = 2000}};
    int64_t start_ns = fdmux_loop_now(loop);

    start_alarm(ignore_in_handler);
    CHECK_EQ(setitimer(ITIMER_REAL, &again, NULL), 0); /* until one comes in a wait */
    CHECK_EQ(fdmux_loop_dispatch(loop, 5000 * MS, NULL, 0), -EINTR);
    CHECK(fdmux_loop_now(loop) - start_ns < 5000 * MS);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
}

static void stop_in_handler(int number)
{
    (void)number;
    handler_result = fdmux_loop_stop(signalled_loop);
}

TEST(stop_from_a_signal_handler_ends_a_run)
{
    signalled_loop = check_open_loop();
    start_alarm(stop_in_handler);
    CHECK_EQ(fdmux_loop_run(signalled_loop), 0);
    CHECK_EQ(handler_result, 0);
    fdmux_loop_destroy(signalled_loop);
}

/* ---- the wake descriptor ------------------------------------------------------- */

/* eventfd(2): a write past 2^64 - 2 fails with EAGAIN. */
static void fill(struct fdmux_loop *loop)
{
    uint64_t most = UINT64_C(0xfffffffffffffffe);

    CHECK_EQ(write(loop->bell.write_fd, &most, sizeof most), sizeof most);
}

BELL_TEST(full_wake_descriptor_counts_as_awake_and_keeps_errno)
{
    struct fdmux_loop *loop = check_open_loop();

    fill(loop);
    errno = 0;
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK_EQ(errno, 0); /* a signal handler may call it */
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK(!is_readable(loop->bell.read_fd));
    fdmux_loop_destroy(loop);
}

TEST(refused_write_is_returned_and_the_next_wake_tries_again)
{
    struct fdmux_loop *loop = check_open_loop();

    fdmux_testing_fail(FDMUX_CALL_WRITE, 1, EPERM, 0);
    CHECK_EQ(fdmux_loop_wake(loop), -EPERM);
    CHECK(!is_rung(loop));
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK(is_rung(loop));
    fdmux_loop_destroy(loop);
}

TEST(interrupted_write_is_tried_again)
{
    struct fdmux_loop *loop = check_open_loop();

    fdmux_testing_fail(FDMUX_CALL_WRITE, 1, EINTR, 0);
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK_EQ(fdmux_testing_calls(), 2);
    CHECK(is_rung(loop));
    fdmux_loop_destroy(loop);
}

TEST(wakes_of_a_busy_loop_cost_one_write)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};

    fdmux_testing_fail(FDMUX_CALL_WRITE, 0, 0, 0); /* counts only */
    for (int i = 0; i < 100; i++)
        CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK_EQ(fdmux_testing_calls(), 1);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 100);
    fdmux_loop_destroy(loop);
}

BELL_TEST(failed_drain_is_returned_and_the_wake_is_not_lost)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(fdmux_loop_wake(loop), 0);
    fdmux_testing_fail(FDMUX_CALL_READ, 1, EIO, 0);
    CHECK_EQ(poll_once(loop), -EIO);
    VERIFY(loop);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    fdmux_loop_destroy(loop);
}
