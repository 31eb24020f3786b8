/* test_hold.c: a hold is entered once per batch and left at its end, before the loop
 * waits and before dispatch returns; and where a hold is refused. */
#include "hold_fixtures.h"

/* ---- once a batch -------------------------------------------------------------- */

TEST(hold_is_entered_once_for_all_functions_of_a_batch)
{
    struct fdmux_loop *loop = check_open_loop();

    for (int batch = 0; batch < 3; batch++) {
        for (int i = 0; i < 3; i++)
            post_holding(loop, &hold_a);
        CHECK_EQ(poll_once(loop), 0);
        EXPECT("a...A");
    }
    fdmux_loop_destroy(loop);
}

TEST(hold_is_entered_by_the_first_function_that_needs_it)
{
    struct fdmux_loop *loop = check_open_loop();

    post_holding(loop, NULL);
    post_holding(loop, &hold_a);
    post_holding(loop, NULL);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT(".a..A"); /* the last one runs under the hold, too */
    fdmux_loop_destroy(loop);
}

TEST(batch_that_holds_nothing_calls_nothing)
{
    struct fdmux_loop *loop = check_open_loop();

    post_holding(loop, &hold_a);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("a.A");
    post_holding(loop, NULL);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT(".");
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("");
    fdmux_loop_destroy(loop);
}

TEST(function_may_hold_the_same_thing_again)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();

    (void)watch_with(loop, channel.read_fd, FDMUX_READ, hold_in_io, &hold_a);
    feed(&channel);
    post_holding(loop, &hold_a);
    arm_holding(loop, &hold_a);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("a...A"); /* io, timer and post in one batch */
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

TEST(holds_are_left_in_the_reverse_order_of_entering)
{
    struct fdmux_loop *loop = check_open_loop();

    post_holding(loop, &hold_a);
    post_holding(loop, &hold_b);
    post_holding(loop, &hold_a);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("a.b..BA");
    post_holding(loop, &hold_b);
    post_holding(loop, &hold_a);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("b.a.AB");
    fdmux_loop_destroy(loop);
}

/* ---- when holds are left ------------------------------------------------------- */

static int stop(struct fdmux_loop *loop, void *hold)
{
    (void)hold_and_note(loop, hold);
    return fdmux_loop_stop(loop);
}

/* Stops in the next batch, after a wait. */
static int stop_later(struct fdmux_loop *loop, void *hold)
{
    (void)hold_and_note(loop, hold);
    return fdmux_post(loop, stop, hold);
}

static int note_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    (void)loop, (void)hook, (void)userdata;
    note_letter('|');
    return 0;
}

/* Hooks run before each wait, so their holds are left before the wait. */
TEST(hold_is_left_before_the_loop_waits)
{
    struct fdmux_loop *loop = check_open_loop();

    (void)add_hook_with(loop, note_hook, NULL);
    CHECK_EQ(fdmux_post(loop, stop_later, &hold_a), 0);
    CHECK_EQ(fdmux_loop_run(loop), 0);
    EXPECT("|a.A|a.A");
    fdmux_loop_destroy(loop);
}

static int fail(struct fdmux_loop *loop, void *userdata)
{
    if (loop != NULL)
        (void)hold_and_note(loop, userdata);
    return -7;
}

TEST(hold_is_left_before_dispatch_returns_an_error)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(fdmux_post(loop, fail, &hold_a), 0);
    post_holding(loop, &hold_b);
    CHECK_EQ(poll_once(loop), -7);
    EXPECT("a.A");
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("b.B");
    fdmux_loop_destroy(loop);
}

static void note_end(void *userdata)
{
    (void)userdata;
    note_letter('d');
}

static int remove_self(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    (void)events;
    (void)hold_and_note(loop, userdata);
    return fdmux_io_remove(loop, io);
}

/* `destroyed` likely needs the same hold as the function. */
TEST(watcher_removed_in_a_batch_is_destroyed_before_its_holds_are_left)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct fdmux_io_options options = {.struct_size = sizeof options,
                                       .fd = channel.read_fd,
                                       .events = FDMUX_READ,
                                       .fn = remove_self,
                                       .userdata = &hold_a,
                                       .destroyed = note_end};
    uint64_t io;

    CHECK_EQ(fdmux_io_add(loop, &options, &io), 0);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("a.dA");
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

static struct fdmux_loop *loop_of_destroyed;

static void hold_at_the_end(void *userdata)
{
    (void)hold_and_note(loop_of_destroyed, userdata);
}

static int remove_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)userdata;
    return fdmux_timer_remove(loop, timer);
}

TEST(destroyed_may_hold_what_the_batch_did_not)
{
    struct fdmux_loop *loop = loop_of_destroyed = check_open_loop();
    struct fdmux_timer_options options = {.struct_size = sizeof options,
                                          .fn = remove_timer,
                                          .userdata = &hold_b,
                                          .destroyed = hold_at_the_end};
    uint64_t timer;

    CHECK_EQ(fdmux_timer_add(loop, &options, &timer), 0);
    CHECK_EQ(fdmux_timer_arm(loop, timer, 0, 0), 0);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("b.B");
    fdmux_loop_destroy(loop);
}

/* ---- refusals ------------------------------------------------------------------ */

TEST(hold_outside_of_a_function_is_eperm)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(fdmux_loop_hold(loop, &hold_a), -EPERM);
    post_holding(loop, &hold_a);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("a.A");
    CHECK_EQ(fdmux_loop_hold(loop, &hold_a), -EPERM);
    fdmux_loop_destroy(loop);
    EXPECT("");
}

static int hold_for_another_loop(struct fdmux_loop *loop, void *userdata)
{
    CHECK(loop != userdata);
    CHECK_EQ(fdmux_loop_hold(userdata, &hold_a), -EPERM);
    return 0;
}

TEST(hold_inside_a_function_of_another_loop_is_eperm)
{
    struct fdmux_loop *loops[2] = {check_open_loop(), check_open_loop()};

    CHECK_EQ(fdmux_post(loops[0], hold_for_another_loop, loops[1]), 0);
    CHECK_EQ(poll_once(loops[0]), 0);
    EXPECT("");
    fdmux_loop_destroy(loops[0]);
    fdmux_loop_destroy(loops[1]);
}

static int hold_badly(struct fdmux_loop *loop, void *userdata)
{
    struct fdmux_hold no_enter = {NULL, leave_with_letter, "aA"};
    struct fdmux_hold no_leave = {enter_with_letter, NULL, "aA"};

    (void)userdata;
    CHECK_EQ(fdmux_loop_hold(loop, NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_hold(NULL, &hold_a), -EFAULT);
    CHECK_EQ(fdmux_loop_hold(loop, &no_enter), -EINVAL);
    CHECK_EQ(fdmux_loop_hold(loop, &no_leave), -EINVAL);
    return 0;
}

TEST(hold_without_functions_is_einval)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(fdmux_post(loop, hold_badly, NULL), 0);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("");
    CHECK_EQ(fdmux_loop_hold(NULL, &hold_a), -EFAULT);
    CHECK_EQ(fdmux_loop_hold(loop, NULL), -EFAULT);
    fdmux_loop_destroy(loop);
}

static struct fdmux_hold many[FDMUX_HOLD_MAX + 1];
static char letters_of_many[FDMUX_HOLD_MAX + 1][2];

static int hold_many(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    for (int i = 0; i < FDMUX_HOLD_MAX; i++)
        CHECK_EQ(fdmux_loop_hold(loop, &many[i]), 0);
    CHECK_EQ(fdmux_loop_hold(loop, &many[FDMUX_HOLD_MAX]), -ENOSPC);
    for (int i = 0; i < FDMUX_HOLD_MAX; i++)
        CHECK_EQ(fdmux_loop_hold(loop, &many[i]), 0); /* already entered */
    return 0;
}

TEST(ninth_hold_of_a_batch_is_enospc)
{
    struct fdmux_loop *loop = check_open_loop();

    for (int i = 0; i <= FDMUX_HOLD_MAX; i++) {
        letters_of_many[i][0] = (char)('a' + i);
        letters_of_many[i][1] = (char)('A' + i);
        many[i] = (struct fdmux_hold){enter_with_letter, leave_with_letter,
                                      letters_of_many[i]};
    }
    for (int batch = 0; batch < 2; batch++) {
        CHECK_EQ(fdmux_post(loop, hold_many, NULL), 0);
        CHECK_EQ(poll_once(loop), 0);
        EXPECT("abcdefghHGFEDCBA");
    }
    fdmux_loop_destroy(loop);
}

/* ---- loops inside loops -------------------------------------------------------- */

static int dispatch_inner(struct fdmux_loop *loop, void *userdata)
{
    (void)hold_and_note(loop, &hold_a);
    CHECK_EQ(poll_once(userdata), 0);
    note_letter('.');
    return 0;
}

TEST(inner_loop_leaves_its_own_holds_only)
{
    struct fdmux_loop *outer = check_open_loop();
    struct fdmux_loop *inner = check_open_loop();

    CHECK_EQ(fdmux_post(outer, dispatch_inner, inner), 0);
    post_holding(inner, &hold_b);
    CHECK_EQ(poll_once(outer), 0);
    EXPECT("a.b.B.A");
    fdmux_loop_destroy(inner);
    fdmux_loop_destroy(outer);
}
