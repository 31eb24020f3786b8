/* test_slice.c: many functions that are due at once let the caller handle signals. */
#include "fixtures.h"

#include <time.h>

enum { COUNT = 200, STEP = 64 };

/* Functions that note their order, and take a millisecond each. */
struct turns {
    int count;
    int order[COUNT];
};

struct turn {
    struct turns *turns;
    int number;
};

static int64_t now(void)
{
    struct timespec time;

    CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &time), 0);
    return (int64_t)time.tv_sec * 1000 * MS + time.tv_nsec;
}

static int take_turn(const struct turn *turn)
{
    int64_t end = now() + MS;

    while (now() < end)
        continue;
    turn->turns->order[turn->turns->count++] = turn->number;
    return 0;
}

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    (void)loop;
    return take_turn(userdata);
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)loop, (void)timer;
    return take_turn(userdata);
}

/* One dispatch calls some of them: a first STEP, and more until 50 ms have passed since
 * then. */
static int dispatch_some(struct fdmux_loop *loop, struct turns *turns, int64_t timeout)
{
    int before = turns->count;
    int64_t start = now();
    int r = fdmux_loop_dispatch(loop, timeout, NULL, 0);

    CHECK(turns->count - before >= STEP || turns->count == COUNT);
    CHECK(turns->count - before < COUNT);
    CHECK(turns->count == COUNT || now() - start >= (STEP + 50) * MS);
    VERIFY(loop);
    return r;
}

static void check_turns(struct fdmux_loop *loop, struct turns *turns)
{
    CHECK_EQ(dispatch_some(loop, turns, -1), -EINTR);
    CHECK_EQ(dispatch_some(loop, turns, 0), 0); /* one iteration was asked for */
    while (turns->count < COUNT)
        (void)dispatch_some(loop, turns, 0); /* 0 */
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(turns->order[i], i);
    fdmux_loop_destroy(loop);
}

SLOW_TEST(many_posts_let_signals_be_handled_and_keep_their_order)
{
    struct fdmux_loop *loop = check_open_loop();
    struct turns turns = {0};
    struct turn turn[COUNT];

    for (int i = 0; i < COUNT; i++) {
        turn[i] = (struct turn){&turns, i};
        CHECK_EQ(fdmux_post(loop, on_post, &turn[i]), 0);
    }
    check_turns(loop, &turns);
}

SLOW_TEST(many_timers_let_signals_be_handled_and_keep_their_order)
{
    struct fdmux_loop *loop = check_open_loop();
    struct turns turns = {0};
    struct turn turn[COUNT];

    for (int i = 0; i < COUNT; i++) {
        turn[i] = (struct turn){&turns, i};
        CHECK_EQ(fdmux_timer_arm(loop, add_timer_with(loop, on_timer, &turn[i]), 0, 0),
                 0);
    }
    check_turns(loop, &turns);
}
