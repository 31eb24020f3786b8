/* test_soon.c: FDMUX_SOON and delays: a function once, before the loop sleeps, and a
 * time from now. */
#include "fixtures.h"

struct scene {
    struct fdmux_loop *loop;
    struct channel channel;
    struct calls soon;
    uint64_t timer;
};

static struct scene *open_scene(void)
{
    static struct scene scene;

    scene = (struct scene){.loop = check_open_loop(), .channel = open_channel()};
    scene.timer = add_timer(scene.loop, &scene.soon);
    return &scene;
}

static void close_scene(struct scene *scene)
{
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    close_channel(&scene->channel);
}

static int arm_often(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                     void *userdata)
{
    const struct scene *scene = userdata;

    (void)io, (void)events;
    drain(&scene->channel);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fdmux_timer_arm(loop, scene->timer, FDMUX_SOON, 0), 0);
    CHECK_EQ(scene->soon.count, 0); /* never inside of the call */
    return 0;
}

TEST(armed_in_a_function_of_io_it_runs_once_in_the_same_iteration)
{
    struct scene *scene = open_scene();

    watch_with(scene->loop, scene->channel.read_fd, FDMUX_READ, arm_often, scene);
    feed(&scene->channel);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->soon.count, 1);
    CHECK_EQ(stats_of(scene->loop).iteration_count, 1);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->soon.count, 1);
    close_scene(scene);
}

static int arm_soon(struct fdmux_loop *loop, void *userdata)
{
    const struct scene *scene = userdata;

    CHECK_EQ(fdmux_timer_arm(loop, scene->timer, FDMUX_SOON, 0), 0);
    return 0;
}

static int arm_soon_in_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)timer;
    return arm_soon(loop, userdata);
}

static int stop_when_run(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    ++*(int *)userdata;
    (void)timer;
    return fdmux_loop_stop(loop);
}

/* From whichever stage it is armed, the loop does not sleep before it has run: without
 * that, these waits would have no end. */
TEST(armed_in_any_stage_it_runs_before_the_loop_sleeps)
{
    for (int stage = 0; stage < 4; stage++) {
        struct scene *scene = open_scene();
        int count = 0;
        uint64_t arming = add_timer_with(scene->loop, arm_soon_in_timer, scene);

        CHECK_EQ(fdmux_timer_remove(scene->loop, scene->timer), 0);
        scene->timer = add_timer_with(scene->loop, stop_when_run, &count);
        watch_with(scene->loop, scene->channel.read_fd, FDMUX_READ, arm_often, scene);
        if (stage == 0)
            feed(&scene->channel);
        else if (stage == 1)
            CHECK_EQ(fdmux_timer_arm(scene->loop, arming, FDMUX_SOON, 0), 0);
        else if (stage == 2)
            CHECK_EQ(fdmux_post(scene->loop, arm_soon, scene), 0);
        else
            CHECK_EQ(arm_soon(scene->loop, scene), 0); /* outside */
        CHECK_EQ(fdmux_loop_run(scene->loop), 0);
        CHECK_EQ(count, 1);
        close_scene(scene);
    }
}

TEST(cancelled_it_does_not_run)
{
    struct scene *scene = open_scene();

    CHECK_EQ(arm_soon(scene->loop, scene), 0);
    CHECK_EQ(fdmux_timer_cancel(scene->loop, scene->timer), 1);
    CHECK_EQ(fdmux_timer_cancel(scene->loop, scene->timer), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->soon.count, 0);
    close_scene(scene);
}

/* ---- delays ---------------------------------------------------------------------- */

TEST(delay_counts_from_now_and_is_never_early)
{
    struct scene *scene = open_scene();
    int64_t begin_ns = fdmux_loop_now(scene->loop);

    CHECK_EQ(fdmux_timer_arm_in(scene->loop, scene->timer, MS, 0), 0);
    while (scene->soon.count == 0)
        CHECK_EQ(fdmux_loop_dispatch(scene->loop, MS, NULL, 0), 0);
    CHECK(fdmux_loop_now(scene->loop) - begin_ns >= MS);
    close_scene(scene);
}

TEST(delay_of_zero_is_soon_and_a_period_repeats)
{
    struct scene *scene = open_scene();

    CHECK_EQ(fdmux_timer_arm_in(scene->loop, scene->timer, 0, MS / 10), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->soon.count, 1);
    while (scene->soon.count < 4)
        CHECK_EQ(fdmux_loop_dispatch(scene->loop, MS, NULL, 0), 0);
    close_scene(scene);
}

TEST(delay_that_is_too_long_for_the_clock_never_ends)
{
    struct scene *scene = open_scene();
    int64_t deadline_ns = 0;

    CHECK_EQ(fdmux_timer_arm_in(scene->loop, scene->timer, INT64_MAX, 0), 0);
    CHECK_EQ(fdmux_loop_next_deadline(scene->loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, INT64_MAX);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->soon.count, 0);
    close_scene(scene);
}

TEST(negative_delays_and_periods_arm_nothing)
{
    struct scene *scene = open_scene();
    const int64_t wrong[] = {-1, INT64_MIN};

    for (int i = 0; i < 2; i++) {
        CHECK_EQ(fdmux_timer_arm_in(scene->loop, scene->timer, wrong[i], 0), -EINVAL);
        CHECK_EQ(fdmux_timer_arm_in(scene->loop, scene->timer, 0, wrong[i]), -EINVAL);
    }
    CHECK_EQ(fdmux_timer_cancel(scene->loop, scene->timer), 0);
    close_scene(scene);
}
