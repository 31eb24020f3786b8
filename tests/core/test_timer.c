/* test_timer.c: timers: never early, in order, changed in each other's functions. */
#include "fixtures.h"

enum { COUNT = 5 };

/* ---- order --------------------------------------------------------------------- */

struct order {
    int count;
    uint64_t tokens[16];
};

static int note(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct order *order = userdata;

    (void)loop;
    order->tokens[order->count++] = timer;
    return 0;
}

TEST(order_is_deadline_then_arming)
{
    const int64_t deadlines[COUNT] = {30, 10, 20, 10, 30};
    const int expected[COUNT] = {1, 3, 2, 0, 4};
    struct fdmux_loop *loop = check_open_loop();
    struct order order = {0};
    uint64_t timers[COUNT];

    for (int i = 0; i < COUNT; i++) {
        timers[i] = add_timer_with(loop, note, &order);
        CHECK_EQ(fdmux_timer_arm(loop, timers[i], deadlines[i], 0), 0);
    }
    VERIFY(loop);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(order.count, COUNT);
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(order.tokens[i], timers[expected[i]]);
    fdmux_loop_destroy(loop);
}

TEST(arming_again_counts_as_a_new_arming)
{
    struct fdmux_loop *loop = check_open_loop();
    struct order order = {0};
    uint64_t first = add_timer_with(loop, note, &order);
    uint64_t second = add_timer_with(loop, note, &order);

    CHECK_EQ(fdmux_timer_arm(loop, first, 10, 0), 0);
    CHECK_EQ(fdmux_timer_arm(loop, second, 10, 0), 0);
    CHECK_EQ(fdmux_timer_arm(loop, first, 10, 0), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(order.count, 2);
    CHECK_EQ(order.tokens[0], second);
    CHECK_EQ(order.tokens[1], first);
    fdmux_loop_destroy(loop);
}

/* ---- deadlines ----------------------------------------------------------------- */

TEST(timer_is_never_early)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t timer = add_timer(loop, &calls);

    for (int64_t delay_ns = 1000; delay_ns < 4 * MS; delay_ns = delay_ns * 5 / 2) {
        int64_t deadline_ns = fdmux_loop_now(loop) + delay_ns;

        CHECK_EQ(fdmux_timer_arm(loop, timer, deadline_ns, 0), 0);
        calls.count = 0;
        while (calls.count == 0)
            CHECK_EQ(fdmux_loop_dispatch(loop, delay_ns, NULL, 0), 0);
        CHECK(fdmux_loop_now(loop) >= deadline_ns);
    }
    fdmux_loop_destroy(loop);
}

TEST(far_deadlines_neither_fire_nor_overflow)
{
    const int64_t far[] = {INT64_MAX, INT64_MAX - 1, INT64_MAX / 2};
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t timer = add_timer(loop, &calls);
    int64_t deadline_ns = 0;

    for (int i = 0; i < 3; i++) {
        CHECK_EQ(fdmux_timer_arm(loop, timer, far[i], far[i]), 0);
        VERIFY(loop);
        CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
        CHECK_EQ(deadline_ns, far[i]);
        CHECK_EQ(fdmux_loop_dispatch(loop, MS, NULL, 0), 0);
        CHECK_EQ(fdmux_loop_dispatch(loop, MS / 3, NULL, 0), 0);
    }
    CHECK_EQ(calls.count, 0);
    fdmux_loop_destroy(loop);
}

TEST(far_timeouts_do_not_overflow)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t timer = add_timer(loop, &calls);
    const int64_t timeouts[] = {-1, INT64_MIN, INT64_MAX, INT64_MAX - 1,
                                INT64_C(2147483648) * MS};

    for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
        CHECK_EQ(fdmux_timer_arm(loop, timer, fdmux_loop_now(loop) + MS / 2, 0), 0);
        CHECK_EQ(fdmux_post(loop, count_post, &calls), 0); /* the loop still works */
        calls.count = 0;
        while (calls.count < 2) {
            CHECK_EQ(fdmux_loop_wake(loop), 0);
            CHECK_EQ(fdmux_loop_dispatch(loop, timeouts[i], NULL, 0), 0);
        }
    }
    fdmux_loop_destroy(loop);
}

TEST(past_deadline_fires_in_the_next_iteration_never_inside_arm)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t timer = add_timer(loop, &calls);

    CHECK_EQ(fdmux_timer_arm(loop, timer, 0, 0), 0);
    CHECK_EQ(calls.count, 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    fdmux_loop_destroy(loop);
}

TEST(next_deadline_is_that_of_the_earliest_timer)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t timers[2] = {collect_timer(loop, 0), collect_timer(loop, 1)};
    int64_t far_ns = fdmux_loop_now(loop) + 3600000 * MS;
    int64_t deadline_ns = 0;

    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, INT64_MAX);
    CHECK_EQ(fdmux_timer_arm(loop, timers[0], far_ns + 5, 0), 0);
    CHECK_EQ(fdmux_timer_arm(loop, timers[1], far_ns, 0), 0);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, far_ns);
    CHECK_EQ(fdmux_timer_cancel(loop, timers[1]), 1);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, far_ns + 5);
    fdmux_loop_destroy(loop);
}

static int compare_ns(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;

    return (left > right) - (left < right);
}

/* Use the median, so that a busy machine does not fail the test. */
TEST(short_timer_is_not_a_millisecond_late)
{
    enum { ROUNDS = 25 };
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t timer = add_timer(loop, &calls);
    int64_t late_ns[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        int64_t deadline_ns = fdmux_loop_now(loop) + MS / 5;

        CHECK_EQ(fdmux_timer_arm(loop, timer, deadline_ns, 0), 0);
        while (calls.count == i)
            CHECK_EQ(fdmux_loop_dispatch(loop, MS / 5, NULL, 0), 0);
        late_ns[i] = fdmux_loop_now(loop) - deadline_ns;
        CHECK(late_ns[i] >= 0);
    }
    qsort(late_ns, ROUNDS, sizeof late_ns[0], compare_ns);
    CHECK(late_ns[ROUNDS / 2] < MS);
    fdmux_loop_destroy(loop);
}

/* ---- cancel and remove --------------------------------------------------------- */

TEST(cancel_says_whether_it_was_armed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t timer = add_timer(loop, &calls);

    CHECK_EQ(fdmux_timer_cancel(loop, timer), 0);
    CHECK_EQ(fdmux_timer_arm(loop, timer, 1, 0), 0);
    CHECK_EQ(fdmux_timer_cancel(loop, timer), 1);
    CHECK_EQ(fdmux_timer_cancel(loop, timer), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 0);
    CHECK_EQ(fdmux_timer_arm(loop, timer, 1, 0), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    CHECK_EQ(fdmux_timer_cancel(loop, timer), 0); /* it has expired */
    fdmux_loop_destroy(loop);
}

/* What the first timer of an iteration does to another one that is due. */
enum { CANCEL, ARM_LATER, ARM_NOW, REMOVE };

struct meddler {
    int deed;
    uint64_t victim;
};

static int meddle(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    const struct meddler *meddler = userdata;
    int64_t later_ns = fdmux_loop_now(loop) + 3600000 * MS;

    (void)timer;
    if (meddler->deed == CANCEL)
        CHECK_EQ(fdmux_timer_cancel(loop, meddler->victim), 1);
    else if (meddler->deed == ARM_LATER)
        CHECK_EQ(fdmux_timer_arm(loop, meddler->victim, later_ns, 0), 0);
    else if (meddler->deed == ARM_NOW)
        CHECK_EQ(fdmux_timer_arm(loop, meddler->victim, 0, 0), 0);
    else
        CHECK_EQ(fdmux_timer_remove(loop, meddler->victim), 0);
    VERIFY(loop);
    return 0;
}

TEST(timer_changed_by_another_of_the_same_tick_does_not_fire_in_it)
{
    for (int deed = CANCEL; deed <= REMOVE; deed++) {
        struct fdmux_loop *loop = check_open_loop();
        struct meddler meddler = {.deed = deed};
        struct calls calls = {0};
        uint64_t first = add_timer_with(loop, meddle, &meddler);

        meddler.victim = add_timer(loop, &calls);
        CHECK_EQ(fdmux_timer_arm(loop, first, 1, 0), 0);
        CHECK_EQ(fdmux_timer_arm(loop, meddler.victim, 2, 0), 0);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(calls.count, 0);
        CHECK_EQ(calls.destroyed, deed == REMOVE ? 1 : 0);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(calls.count, deed == ARM_NOW ? 1 : 0);
        VERIFY(loop);
        fdmux_loop_destroy(loop);
    }
}

/* ---- periodic ------------------------------------------------------------------ */

struct ticker {
    int64_t first_ns;
    int64_t period_ns;
    int count;
};

static int tick(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct ticker *ticker = userdata;
    int64_t next_ns = 0;

    (void)timer;
    CHECK(fdmux_loop_now(loop) >= ticker->first_ns);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &next_ns), 0);
    CHECK_EQ((next_ns - ticker->first_ns) % ticker->period_ns, 0);
    CHECK(next_ns > ticker->first_ns);
    ticker->count++;
    return 0;
}

TEST(periodic_timer_does_not_drift)
{
    struct fdmux_loop *loop = check_open_loop();
    struct ticker ticker = {
        .first_ns = fdmux_loop_now(loop) + MS / 4,
        .period_ns = MS / 4,
    };
    uint64_t timer = add_timer_with(loop, tick, &ticker);

    CHECK_EQ(fdmux_timer_arm(loop, timer, ticker.first_ns, ticker.period_ns), 0);
    while (ticker.count < 20) {
        CHECK_EQ(fdmux_loop_dispatch(loop, MS, NULL, 0), 0);
        VERIFY(loop);
    }
    fdmux_loop_destroy(loop);
}

TEST(missed_ticks_are_skipped)
{
    struct fdmux_loop *loop = check_open_loop();
    struct ticker ticker = {
        .first_ns = fdmux_loop_now(loop) - 1000 * MS,
        .period_ns = 100 * MS,
    };
    uint64_t timer = add_timer_with(loop, tick, &ticker);

    CHECK_EQ(fdmux_timer_arm(loop, timer, ticker.first_ns, ticker.period_ns), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(ticker.count, 1);
    fdmux_loop_destroy(loop);
}

static int cancel_self(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    ++*(int *)userdata;
    CHECK_EQ(fdmux_timer_cancel(loop, timer), 1);
    return 0;
}

TEST(periodic_timer_can_cancel_itself)
{
    struct fdmux_loop *loop = check_open_loop();
    int count = 0;
    uint64_t timer = add_timer_with(loop, cancel_self, &count);

    CHECK_EQ(fdmux_timer_arm(loop, timer, 1, 1), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(count, 1);
    fdmux_loop_destroy(loop);
}

TEST(periodic_timer_with_the_largest_period_fires_once)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int64_t deadline_ns = 0;

    CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, &calls), 1, INT64_MAX), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, INT64_MAX);
    fdmux_loop_destroy(loop);
}
