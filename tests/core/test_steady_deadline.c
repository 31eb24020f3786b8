/* test_steady_deadline.c: a deadline that stays the same for several waits gets a
 * kernel timer in the backend. No timer may expire early or late because of that. */
#include "fixtures.h"

#include "sys.h"
#include "testing.h"

#define ROUNDS 20 /* waits before the deadline: enough to park it */

/* A pipe that stays readable for some rounds, and a timer due long after them. */
struct scene {
    struct fdmux_loop *loop;
    struct channel channel;
    uint64_t timer;
    int rounds;
    int expired;
    int64_t deadline_ns;
    int64_t expired_ns;
};

static int count_round(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    struct scene *scene = userdata;

    (void)events;
    if (++scene->rounds < ROUNDS)
        return 0;
    return fdmux_io_remove(loop, io);
}

static int note_expiry(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct scene *scene = userdata;

    (void)timer;
    scene->expired++;
    scene->expired_ns = fdmux_loop_now(loop);
    return 0;
}

static void arm_in(struct scene *scene, int64_t delay_ns)
{
    scene->deadline_ns = fdmux_loop_now(scene->loop) + delay_ns;
    CHECK_EQ(fdmux_timer_arm(scene->loop, scene->timer, scene->deadline_ns, 0), 0);
}

static struct scene open_scene(void)
{
    struct scene scene = {.loop = check_open_loop(), .channel = open_channel()};

    feed(&scene.channel);
    return scene;
}

static void start(struct scene *scene, int64_t delay_ns)
{
    scene->timer = add_timer_with(scene->loop, note_expiry, scene);
    (void)watch_with(scene->loop, scene->channel.read_fd, FDMUX_READ, count_round,
                     scene);
    arm_in(scene, delay_ns);
}

static void close_scene(struct scene *scene)
{
    fdmux_loop_destroy(scene->loop);
    close_channel(&scene->channel);
}

static void run_until_expired(struct scene *scene)
{
    int64_t limit_ns = fdmux_loop_now(scene->loop) + 10000 * MS;

    while (scene->expired == 0) {
        CHECK(fdmux_loop_dispatch(scene->loop, 1000 * MS, NULL, 0) >= -EINTR);
        CHECK(fdmux_loop_now(scene->loop) < limit_ns);
    }
    CHECK(scene->expired_ns >= scene->deadline_ns);
    CHECK_EQ(scene->rounds, ROUNDS);
}

TEST(steady_deadline_expires_in_time)
{
    struct scene scene = open_scene();

    start(&scene, 30 * MS);
    fdmux_testing_fail(FDMUX_CALL_TIMERFD | FDMUX_CALL_KEVENT, 0, 0, 0);
    run_until_expired(&scene);
    if ((stats_of(scene.loop).features & FDMUX_FEATURE_EDGE) != 0)
        CHECK(fdmux_testing_calls() > 0); /* a timer of the kernel has it */
    close_scene(&scene);
}

TEST(steady_deadline_expires_without_a_timerfd)
{
    struct scene scene = open_scene();

    start(&scene, 30 * MS);
    fdmux_testing_fail(FDMUX_CALL_TIMERFD | FDMUX_CALL_KEVENT, 1, EMFILE, 1);
    run_until_expired(&scene);
    fdmux_testing_fail(0, 0, 0, 0);
    close_scene(&scene);
}

/* The old deadline passes during a wait: dispatch must not return. */
TEST(deadline_that_was_moved_ends_no_wait)
{
    struct scene scene = open_scene();

    start(&scene, 60 * MS);
    while (scene.rounds < ROUNDS)
        CHECK_EQ(poll_once(scene.loop), 0);
    run_until_expired(&scene);
    scene.expired = scene.rounds = 0;
    (void)watch_with(scene.loop, scene.channel.read_fd, FDMUX_READ, count_round,
                     &scene);
    arm_in(&scene, 40 * MS);
    while (scene.rounds < ROUNDS)
        CHECK_EQ(fdmux_loop_dispatch(scene.loop, 5 * MS, NULL, 0), 0);
    arm_in(&scene, 10000 * MS);
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, 70 * MS, NULL, 0), 0);
    CHECK_EQ(scene.expired, 0);
    arm_in(&scene, MS);
    run_until_expired(&scene);
    close_scene(&scene);
}

TEST(deadline_of_a_dispatch_is_kept_too)
{
    struct scene scene = open_scene();

    start(&scene, 10000 * MS);
    while (scene.rounds < ROUNDS) { /* once; more often under valgrind */
        int64_t before_ns = fdmux_loop_now(scene.loop);

        CHECK_EQ(fdmux_loop_dispatch(scene.loop, 30 * MS, NULL, 0), 0);
        CHECK(fdmux_loop_now(scene.loop) - before_ns >= 30 * MS);
    }
    CHECK_EQ(scene.expired, 0);
    close_scene(&scene);
}
