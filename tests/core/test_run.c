/* test_run.c: running until stopped, and dispatching inside a dispatch. */
#include "fixtures.h"

/* ---- re-entry ------------------------------------------------------------------ */

static int dispatch_again(struct fdmux_loop *loop, void *userdata)
{
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, NULL, 0), -EBUSY);
    CHECK_EQ(fdmux_loop_run(loop), -EBUSY);
    ++*(int *)userdata;
    return 0;
}

TEST(nested_dispatch_is_ebusy)
{
    struct fdmux_loop *loop = check_open_loop();
    int count = 0;

    CHECK_EQ(fdmux_post(loop, dispatch_again, &count), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(count, 1);
    CHECK_EQ(poll_once(loop), 0);
    fdmux_loop_destroy(loop);
}

static int dispatch_other(struct fdmux_loop *loop, void *userdata)
{
    (void)loop;
    CHECK_EQ(poll_once(userdata), 0);
    return 0;
}

TEST(function_may_dispatch_another_loop)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_loop *other = check_open_loop();
    struct calls calls = {0};

    CHECK_EQ(fdmux_post(other, count_post, &calls), 0);
    CHECK_EQ(fdmux_post(loop, dispatch_other, other), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    fdmux_loop_destroy(other);
    fdmux_loop_destroy(loop);
}

/* ---- run and stop -------------------------------------------------------------- */

static int stop_after_three(struct fdmux_loop *loop, void *userdata)
{
    int *count = userdata;

    ++*count;
    CHECK_EQ(*count < 3 ? fdmux_post(loop, stop_after_three, count)
                        : fdmux_loop_stop(loop),
             0);
    return 0;
}

TEST(run_returns_when_stopped)
{
    struct fdmux_loop *loop = check_open_loop();
    int count = 0;

    CHECK_EQ(fdmux_post(loop, stop_after_three, &count), 0);
    CHECK_EQ(fdmux_loop_run(loop), 0);
    CHECK_EQ(count, 3);
    fdmux_loop_destroy(loop);
}

TEST(stop_before_a_run_ends_the_next_one_and_no_more)
{
    struct fdmux_loop *loop = check_open_loop();
    int count = 0;

    CHECK_EQ(fdmux_loop_stop(loop), 0);
    CHECK_EQ(fdmux_post(loop, stop_after_three, &count), 0);
    CHECK_EQ(fdmux_loop_run(loop), 0);
    CHECK_EQ(count, 0);
    CHECK_EQ(fdmux_loop_run(loop), 0);
    CHECK_EQ(count, 3);
    fdmux_loop_destroy(loop);
}

TEST(run_returns_the_negative_result_of_a_function)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {.result = -42};

    CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
    CHECK_EQ(fdmux_loop_run(loop), -42);
    fdmux_loop_destroy(loop);
}

static int stop_on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)timer, (void)userdata;
    CHECK_EQ(fdmux_loop_stop(loop), 0);
    return 0;
}

TEST(run_goes_on_after_a_signal)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t timer = add_timer_with(loop, stop_on_timer, NULL);

    CHECK_EQ(fdmux_timer_arm(loop, timer, fdmux_loop_now(loop) + 20 * MS, 0), 0);
    fdmux_testing_fail(FDMUX_CALL_WAIT | FDMUX_CALL_PWAIT2, 1, EINTR, 0);
    CHECK_EQ(fdmux_loop_run(loop), 0);
    CHECK(fdmux_testing_calls() >= 2);
    fdmux_loop_destroy(loop);
}
