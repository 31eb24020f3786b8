/* test_hook.c: hooks run before each wait, in the order of adding. */
#include "fixtures.h"

struct trace {
    int count;
    int numbers[16];
};

struct numbered {
    struct trace *trace;
    int number;
};

static int note(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    struct numbered *numbered = userdata;

    (void)loop, (void)hook;
    numbered->trace->numbers[numbered->trace->count++] = numbered->number;
    return 0;
}

TEST(hooks_run_once_an_iteration_in_the_order_of_adding)
{
    struct fdmux_loop *loop = check_open_loop();
    struct trace trace = {0};
    struct numbered numbered[4];
    uint64_t hooks[4];

    for (int i = 0; i < 4; i++) {
        numbered[i] = (struct numbered){&trace, i};
        hooks[i] = add_hook_with(loop, note, &numbered[i]);
    }
    VERIFY(loop);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(fdmux_hook_remove(loop, hooks[1]), 0);
    CHECK_EQ(fdmux_hook_remove(loop, hooks[3]), 0);
    VERIFY(loop);
    add_hook_with(loop, note, &numbered[1]);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(trace.count, 7);
    CHECK(memcmp(trace.numbers, (int[]){0, 1, 2, 3, 0, 2, 1}, 7 * sizeof(int)) == 0);
    fdmux_loop_destroy(loop);
}

/* Wayland needs this: the next wait sees what a hook made ready. */
struct feeder {
    struct channel channel;
    bool has_fed;
};

static int feed_once(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    struct feeder *feeder = userdata;

    (void)loop, (void)hook;
    if (!feeder->has_fed)
        feed(&feeder->channel);
    feeder->has_fed = true;
    return 0;
}

TEST(what_a_hook_makes_ready_is_served_in_the_same_iteration)
{
    struct fdmux_loop *loop = check_open_loop();
    struct feeder feeder = {.channel = open_channel()};
    struct calls calls = {0};

    add_hook_with(loop, feed_once, &feeder);
    watch(loop, feeder.channel.read_fd, FDMUX_READ, &calls);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    fdmux_loop_destroy(loop);
    close_channel(&feeder.channel);
}

static int add_timer_once(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    struct calls *calls = userdata;

    CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, calls), 0, 0), 0);
    CHECK_EQ(fdmux_hook_remove(loop, hook), 0);
    return 0;
}

TEST(timer_armed_by_a_hook_ends_the_wait)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};

    add_hook_with(loop, add_timer_once, &calls);
    CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
    while (calls.count < 2)
        CHECK_EQ(fdmux_loop_dispatch(loop, 2 * MS, NULL, 0), 0);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
}

struct adder {
    struct calls added;
    bool has_added;
};

static int add_hook_in_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    struct adder *adder = userdata;

    (void)hook;
    if (!adder->has_added)
        add_hook(loop, &adder->added);
    adder->has_added = true;
    return 0;
}

TEST(hook_added_by_a_hook_runs_from_the_next_iteration_on)
{
    struct fdmux_loop *loop = check_open_loop();
    struct adder adder = {0};

    add_hook_with(loop, add_hook_in_hook, &adder);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0); /* does not sleep before */
    CHECK_EQ(adder.added.count, 0);
    VERIFY(loop);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(adder.added.count, 1);
    fdmux_loop_destroy(loop);
    CHECK_EQ(adder.added.destroyed, 1);
}

TEST(negative_result_of_a_hook_ends_the_iteration)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls[2] = {{.result = -5}, {0}};

    add_hook(loop, &calls[0]);
    add_hook(loop, &calls[1]);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), -5);
    CHECK_EQ(calls[1].count, 0);
    calls[0].result = 0;
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls[1].count, 1);
    fdmux_loop_destroy(loop);
}
