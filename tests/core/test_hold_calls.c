/* test_hold_calls.c: `enter` and `leave` may call everything but dispatch, including a
 * wake of their loop and another hold. */
#include "hold_fixtures.h"

#include "loop_state.h"

static struct fdmux_loop *loop_of_hold;
static struct channel channel_of_hold;

static void use_loop(void)
{
    struct fdmux_loop *loop = loop_of_hold;
    uint64_t io = collect(loop, channel_of_hold.read_fd, 0, 0);

    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    CHECK_EQ(fdmux_timer_remove(loop, collect_timer(loop, 0)), 0);
    CHECK_EQ(poll_once(loop), -EBUSY);
    VERIFY(loop);
}

static void *enter_and_use(void *userdata)
{
    use_loop();
    return enter_with_letter(userdata);
}

static void leave_and_use(void *held, void *userdata)
{
    use_loop();
    leave_with_letter(held, userdata);
}

TEST(enter_and_leave_may_call_everything_but_dispatch)
{
    struct fdmux_hold hold = {enter_and_use, leave_and_use, "aA"};

    loop_of_hold = check_open_loop();
    channel_of_hold = open_channel();
    (void)add_hook_with(loop_of_hold, hold_in_timer, &hold);
    post_holding(loop_of_hold, &hold);
    CHECK_EQ(poll_once(loop_of_hold), 0);
    EXPECT("a.Aa.A");
    fdmux_loop_destroy(loop_of_hold);
    close_channel(&channel_of_hold);
}

static void leave_and_wake(void *held, void *userdata)
{
    CHECK_EQ(fdmux_loop_wake(loop_of_hold), 0);
    leave_with_letter(held, userdata);
}

static struct fdmux_hold waking = {enter_with_letter, leave_and_wake, "aA"};

TEST(leave_may_wake_the_loop)
{
    struct fdmux_loop *loop = loop_of_hold = check_open_loop();

    post_holding(loop, &waking);
    fdmux_testing_fail(FDMUX_CALL_WRITE, 0, 0, 0); /* counts only */
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    CHECK_EQ(fdmux_testing_calls(), 0);
    EXPECT("a.A");
    fdmux_loop_destroy(loop);
}

/* `leave` sets the wake flag when the loop is about to wait. */
TEST(leave_of_the_hold_of_a_hook_may_wake_the_loop)
{
    struct fdmux_loop *loop = loop_of_hold = check_open_loop();

    (void)add_hook_with(loop, hold_in_timer, &waking);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    EXPECT("a.A");
    fdmux_loop_destroy(loop);
}

static void leave_for_another(void *held, void *userdata)
{
    leave_with_letter(held, userdata);
    CHECK_EQ(fdmux_loop_hold(loop_of_hold, &hold_b), 0);
}

TEST(hold_taken_inside_leave_is_left_as_well)
{
    struct fdmux_hold hold = {enter_with_letter, leave_for_another, "aA"};
    struct fdmux_loop *loop = loop_of_hold = check_open_loop();

    post_holding(loop, &hold);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("a.AbB");
    CHECK_EQ(loop->hold_count, 0);
    fdmux_loop_destroy(loop);
}
