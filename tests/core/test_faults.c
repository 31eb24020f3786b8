/* test_faults.c: each system call and allocation of a scenario fails, once or from then
 * on, until a run makes fewer calls than the number of the call to fail.
 *
 * After any fault: a negative errno, valid structures, no leaks, and a loop that works
 * once the fault is over. */
#include "fixtures.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "loop_state.h"

#if defined(_WIN32) /* wine needs two minutes for a case of so many */
enum { WATCHERS = 20, TIMERS = 40, POSTS = 200, HOOKS = 5 };
#else
enum { WATCHERS = 70, TIMERS = 40, POSTS = 200, HOOKS = 5 };
#endif

struct plan {
    int error;
    int persistent;
    int64_t nth;
};

struct scene {
    struct plan plan;
    struct fdmux_loop *loop;
    struct channel channel;
    int fds[WATCHERS]; /* dups of channel.read_fd */
    struct calls calls[WATCHERS];
    struct calls timer_calls;
    struct calls hook_calls;
    uint64_t ios[WATCHERS]; /* 0: adding failed */
    uint64_t timers[TIMERS];
    uint64_t hooks[HOOKS];
    int posted;
    int post_count;
    int added; /* how many registrations must get `destroyed` */
    int destroyed;
    bool is_deaf; /* the injected errno says that a descriptor cannot be watched */
};

/* The result must be success, or an error that the plan can cause. */
static int check_result(const struct scene *scene, int r)
{
    bool is_expected = r >= 0 || r == -scene->plan.error || r == -ENOMEM;

    if (!is_expected)
        check_fail(__FILE__, __LINE__, "call %lld with errno %d, persistent %d: %d",
                   (long long)scene->plan.nth, scene->plan.error,
                   scene->plan.persistent, r);
    if (fdmux_testing_verify(scene->loop) > 0)
        check_fail(__FILE__, __LINE__,
                   "call %lld with errno %d, persistent %d: verify.c:%d",
                   (long long)scene->plan.nth, scene->plan.error,
                   scene->plan.persistent, fdmux_testing_verify(scene->loop));
    return r;
}

static void note_destroyed(void *userdata)
{
    ((struct scene *)userdata)->destroyed++;
}

static int count_watcher(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                         void *userdata)
{
    struct scene *scene = userdata;

    (void)loop, (void)events;
    for (int i = 0; i < WATCHERS; i++)
        scene->calls[i].count += scene->ios[i] == io ? 1 : 0;
    return 0;
}

static int count_scene_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    return count_timer(loop, timer, &((struct scene *)userdata)->timer_calls);
}

static int count_scene_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    return count_hook(loop, hook, &((struct scene *)userdata)->hook_calls);
}

static int count_scene_post(struct fdmux_loop *loop, void *userdata)
{
    (void)loop;
    ((struct scene *)userdata)->post_count++;
    return 0;
}

/* ---- the steps ----------------------------------------------------------------- */

static void add_watchers(struct scene *scene)
{
    for (int i = 0; i < WATCHERS; i++) {
        struct fdmux_io_options options = {
            .struct_size = sizeof options,
            .fd = scene->fds[i],
            .events = FDMUX_READ,
            .fn = count_watcher,
            .userdata = scene,
            .destroyed = note_destroyed,
        };
        int r = fdmux_io_add(scene->loop, &options, &scene->ios[i]);

        scene->added += r == 0 ? 1 : 0;
        CHECK_EQ(scene->ios[i] != 0, check_result(scene, r) == 0);
    }
}

static void change_watchers(struct scene *scene)
{
    for (int i = 0; i < WATCHERS; i++) {
        uint32_t more = FDMUX_READ | FDMUX_PRIORITY;

        if (scene->ios[i] == 0)
            continue;
        if (i % 3 == 0)
            check_result(scene, fdmux_io_update(scene->loop, scene->ios[i], more));
        else if (i % 7 == 0)
            check_result(scene,
                         fdmux_io_replace_fd(scene->loop, scene->ios[i],
                                             scene->fds[(i + 1) % WATCHERS], more));
    }
}

static void remove_some_watchers(struct scene *scene)
{
    for (int i = 5; i < WATCHERS; i += 10) {
        if (scene->ios[i] != 0) /* removal never fails */
            CHECK_EQ(fdmux_io_remove(scene->loop, scene->ios[i]), 0);
        scene->ios[i] = 0;
        check_result(scene, 0);
    }
}

static void add_timers(struct scene *scene)
{
    for (int i = 0; i < TIMERS; i++) {
        struct fdmux_timer_options options = {
            .struct_size = sizeof options,
            .fn = count_scene_timer,
            .userdata = scene,
            .destroyed = note_destroyed,
        };
        int r = fdmux_timer_add(scene->loop, &options, &scene->timers[i]);

        scene->added += r == 0 ? 1 : 0;
        CHECK_EQ(scene->timers[i] != 0, check_result(scene, r) == 0);
        if (r == 0) /* arming needs no memory */
            CHECK_EQ(fdmux_timer_arm(scene->loop, scene->timers[i], 1 + i, 0), 0);
    }
}

static void add_hooks(struct scene *scene)
{
    for (int i = 0; i < HOOKS; i++) {
        struct fdmux_hook_options options = {
            .struct_size = sizeof options,
            .fn = count_scene_hook,
            .userdata = scene,
            .destroyed = note_destroyed,
        };
        int r = fdmux_hook_add(scene->loop, &options, &scene->hooks[i]);

        scene->added += r == 0 ? 1 : 0;
        CHECK_EQ(scene->hooks[i] != 0, check_result(scene, r) == 0);
    }
}

static void post_all(struct scene *scene)
{
    for (int i = 0; i < POSTS; i++) {
        int r = fdmux_post(scene->loop, count_scene_post, scene);

        scene->posted += check_result(scene, r) == 0 ? 1 : 0;
    }
}

/* Make the loop believe that it is in a child of fork(). */
static void pretend_fork(struct scene *scene)
{
    int r;

    scene->posted = scene->post_count; /* pending calls were dropped */
    scene->loop->fork_generation--;
    r = fdmux_loop_after_fork(scene->loop);
    CHECK(r >= 0 || fdmux_loop_wake(scene->loop) == -ECHILD);
    if (r < 0)
        check_result(scene, r);
}

static void run_steps(struct scene *scene)
{
    add_watchers(scene);
    add_timers(scene);
    add_hooks(scene);
    post_all(scene);
    check_result(scene, poll_once(scene->loop));
    if (check_has_host_fd())
        check_result(scene, fdmux_loop_fd(scene->loop));
    change_watchers(scene);
    check_result(scene, poll_once(scene->loop));
    remove_some_watchers(scene);
    check_result(scene, fdmux_loop_wake(scene->loop));
    check_result(scene, fdmux_loop_dispatch(scene->loop, 1000, NULL, 0));
    pretend_fork(scene);
}

/* ---- afterwards ---------------------------------------------------------------- */

/* After the fault every registered watcher gets its events, and everything works. */
static void check_usable(struct scene *scene)
{
    static struct calls calls; /* the loop writes to it until destroyed */
    int before[WATCHERS];

    calls = (struct calls){0};
    CHECK_EQ(fdmux_loop_after_fork(scene->loop), 0);
    (void)poll_once(scene->loop); /* may return a kept error */
    for (int i = 0; i < WATCHERS; i++)
        before[i] = scene->calls[i].count;
    CHECK_EQ(fdmux_post(scene->loop, count_post, &calls), 0);
    CHECK_EQ(fdmux_timer_arm(scene->loop, add_timer(scene->loop, &calls), 1, 0), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(calls.count, 2);
    for (int i = 0; i < WATCHERS && !scene->is_deaf; i++) {
        if (scene->ios[i] != 0 && scene->calls[i].count != before[i] + 1)
            check_fail(__FILE__, __LINE__,
                       "call %lld with errno %d, persistent %d: watcher %d is deaf",
                       (long long)scene->plan.nth, scene->plan.error,
                       scene->plan.persistent, i);
    }
    VERIFY(scene->loop);
}

static struct scene *open_scene(struct plan plan)
{
    static struct scene scene;

    scene = (struct scene){.plan = plan, .channel = open_channel()};
    /* EPERM and EBADF concern one descriptor, which is then left out for good. */
    scene.is_deaf = plan.error == EPERM || plan.error == EBADF;
    feed(&scene.channel);
    for (int i = 0; i < WATCHERS; i++)
        scene.fds[i] = fcntl(scene.channel.read_fd, F_DUPFD_CLOEXEC, 0);
    return &scene;
}

static void close_scene(struct scene *scene)
{
    if (scene->loop != NULL)
        fdmux_loop_destroy(scene->loop);
    CHECK_EQ(scene->destroyed, scene->added);
    CHECK_EQ(scene->post_count, scene->posted);
    CHECK_EQ(fdmux_testing_allocations(), 0);
    for (int i = 0; i < WATCHERS; i++)
        close(scene->fds[i]);
    close_channel(&scene->channel);
}

/* Returns how many calls the scenario made. */
static int64_t run_plan(struct plan plan)
{
    struct fdmux_loop_options options = {sizeof options, 0, check_backend()};
    struct scene *scene = open_scene(plan);
    int64_t calls;
    int r;

    fdmux_testing_fail(FDMUX_CALL_ANY, plan.nth, plan.error, plan.persistent);
    r = fdmux_loop_create(&options, &scene->loop);
    CHECK_EQ(r == 0, scene->loop != NULL);
    if (r == 0)
        run_steps(scene);
    else
        CHECK(r == -plan.error || r == -ENOMEM);
    calls = fdmux_testing_calls();
    fdmux_testing_fail(0, 0, 0, 0);
    if (r == 0)
        check_usable(scene);
    close_scene(scene);
    return calls;
}

static void run_plans(int error, int persistent)
{
    int fds = check_open_fds();
    struct plan plan = {.error = error, .persistent = persistent, .nth = 1};

    while (run_plan(plan) >= plan.nth) {
        CHECK_EQ(check_open_fds(), fds);
        plan.nth++;
    }
    CHECK(plan.nth > WATCHERS); /* each call was made to fail */
    printf("injections: %lld\n", (long long)plan.nth - 1);
}

TEST(every_call_fails_once_for_want_of_memory)
{
    run_plans(ENOMEM, 0);
}

TEST(every_call_fails_for_ever_for_want_of_memory)
{
    run_plans(ENOMEM, 1);
}

TEST(every_call_fails_once_for_want_of_descriptors)
{
    run_plans(EMFILE, 0);
}

TEST(every_call_fails_for_ever_for_want_of_descriptors)
{
    run_plans(EMFILE, 1);
}

TEST(every_call_is_forbidden_once)
{
    run_plans(EPERM, 0);
}

TEST(every_call_is_forbidden_for_ever)
{
    run_plans(EPERM, 1);
}

/* The loop is destroyed while everything fails, close(2) included. */
TEST(destroying_while_everything_fails_leaks_nothing)
{
    struct scene *scene = open_scene((struct plan){.error = EIO});

    scene->loop = check_open_loop();
    run_steps(scene);
    fdmux_testing_fail(FDMUX_CALL_ANY, 1, EIO, 1);
    close_scene(scene);
}
