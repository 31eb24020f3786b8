/* test_dispatch.c: what one dispatch does: collecting, order, results of functions. */
#include "fixtures.h"

enum { COUNT = 8 };

/* ---- collecting ---------------------------------------------------------------- */

struct scene {
    struct fdmux_loop *loop;
    struct channel channels[COUNT];
};

static struct scene open_scene(void)
{
    struct scene scene = {.loop = check_open_loop()};

    for (int i = 0; i < COUNT; i++) {
        scene.channels[i] = open_channel();
        feed(&scene.channels[i]);
    }
    return scene;
}

static void close_scene(struct scene *scene)
{
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    for (int i = 0; i < COUNT; i++)
        close_channel(&scene->channels[i]);
}

TEST(collected_and_called_watchers_share_a_batch)
{
    struct scene scene = open_scene();
    struct fdmux_ready ready[COUNT];
    struct calls calls[COUNT] = {0};
    uint64_t ios[COUNT];
    uint32_t seen = 0;

    for (uint32_t i = 0; i < COUNT; i++) {
        if (i % 2 == 0)
            ios[i] = collect(scene.loop, scene.channels[i].read_fd, FDMUX_READ, i);
        else
            watch(scene.loop, scene.channels[i].read_fd, FDMUX_READ, &calls[i]);
    }
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, -1, ready, COUNT), COUNT / 2);
    for (uint32_t i = 0; i < COUNT / 2; i++) {
        CHECK_EQ(ready[i].token, ios[ready[i].tag]);
        CHECK_EQ(ready[i].events, FDMUX_READ);
        seen |= UINT32_C(1) << ready[i].tag;
    }
    CHECK_EQ(seen, 0x55);
    for (int i = 1; i < COUNT; i += 2)
        CHECK_EQ(calls[i].count, 1);
    close_scene(&scene);
}

TEST(all_ready_descriptors_come_in_one_batch)
{
    struct scene scene = open_scene();
    struct fdmux_ready ready[COUNT + 1];

    for (uint32_t i = 0; i < COUNT; i++)
        collect(scene.loop, scene.channels[i].read_fd, FDMUX_READ, i);
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, 0, ready, COUNT + 1), COUNT);
    CHECK_EQ(stats_of(scene.loop).iteration_count, 1);
    close_scene(&scene);
}

/* Every watcher must be reported within the number of calls that fairness needs. */
static void check_all_reported(struct fdmux_loop *loop, int capacity, int watchers)
{
    struct fdmux_ready ready[COUNT];
    int counts[2 * COUNT] = {0};
    int calls = 4 * (watchers / capacity + 1);

    for (int call = 0; call < calls; call++) {
        int r = fdmux_loop_dispatch(loop, 0, ready, capacity);

        CHECK(r >= 0 && r <= capacity);
        for (int i = 0; i < r; i++)
            counts[ready[i].tag]++;
    }
    for (int i = 0; i < watchers; i++)
        CHECK(counts[i] >= 2);
}

TEST(small_capacity_starves_no_descriptor)
{
    struct scene scene = open_scene();

    for (uint32_t i = 0; i < COUNT; i++)
        collect(scene.loop, scene.channels[i].read_fd, FDMUX_READ, i);
    for (int capacity = 1; capacity < COUNT; capacity++)
        check_all_reported(scene.loop, capacity, COUNT);
    close_scene(&scene);
}

TEST(small_capacity_starves_no_watcher_of_a_shared_descriptor)
{
    struct scene scene = open_scene();

    for (uint32_t i = 0; i < COUNT; i++)
        collect(scene.loop, scene.channels[0].read_fd, FDMUX_READ, i);
    for (int capacity = 1; capacity < COUNT; capacity++)
        check_all_reported(scene.loop, capacity, COUNT);
    close_scene(&scene);
}

TEST(small_capacity_starves_no_timer)
{
    struct scene scene = open_scene();
    struct calls calls = {0};
    uint64_t native = add_timer(scene.loop, &calls);

    collect(scene.loop, scene.channels[0].read_fd, FDMUX_READ, 0);
    for (uint32_t i = 1; i < 4; i++)
        CHECK_EQ(fdmux_timer_arm(scene.loop, collect_timer(scene.loop, i), 1, 1), 0);
    CHECK_EQ(fdmux_timer_arm(scene.loop, native, 2, 0), 0);
    check_all_reported(scene.loop, 1, 4);
    CHECK_EQ(calls.count, 1);
    close_scene(&scene);
}

POLL_TEST(order_of_adding_returns_after_a_small_capacity)
{
    struct scene scene = open_scene();
    struct fdmux_ready ready[COUNT + 1];

    for (uint32_t i = 0; i < COUNT; i++)
        collect(scene.loop, scene.channels[i].read_fd, FDMUX_READ, i);
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, 0, ready, 3), 3);
    for (int round = 0; round < 2; round++) /* the first round completes the turn */
        CHECK_EQ(fdmux_loop_dispatch(scene.loop, 0, ready, COUNT + 1), COUNT);
    for (uint32_t i = 0; i < COUNT; i++)
        CHECK_EQ(ready[i].tag, i);
    close_scene(&scene);
}

TEST(no_capacity_for_a_ready_watcher_is_enobufs)
{
    struct scene scene = open_scene();
    struct fdmux_ready ready[1];
    struct calls calls = {0};

    collect(scene.loop, scene.channels[0].read_fd, FDMUX_READ, 3);
    CHECK_EQ(fdmux_post(scene.loop, count_post, &calls), 0);
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, -1, NULL, 0), -ENOBUFS);
    CHECK_EQ(calls.count, 1); /* the posted call ran all the same */
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, 0, ready, 1), 1);
    CHECK_EQ(ready[0].tag, 3);
    CHECK_EQ(fdmux_loop_run(scene.loop), -ENOBUFS);
    close_scene(&scene);
}

TEST(collected_timer_without_capacity_is_enobufs)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_ready ready[1];
    uint64_t timer = collect_timer(loop, 4);

    CHECK_EQ(fdmux_timer_arm(loop, timer, 1, 0), 0);
    CHECK_EQ(poll_once(loop), -ENOBUFS);
    VERIFY(loop);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), 1);
    CHECK_EQ(ready[0].token, timer);
    CHECK_EQ(ready[0].events, FDMUX_TIMER);
    CHECK_EQ(ready[0].tag, 4);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), 0);
    fdmux_loop_destroy(loop);
}

/* ---- order --------------------------------------------------------------------- */

struct trace {
    char text[16];
    int size;
};

static int trace_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    struct trace *trace = userdata;

    (void)loop, (void)hook;
    trace->text[trace->size++] = 'h';
    return 0;
}

static int trace_io(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                    void *userdata)
{
    struct trace *trace = userdata;

    (void)loop, (void)io, (void)events;
    trace->text[trace->size++] = 'i';
    return 0;
}

static int trace_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct trace *trace = userdata;

    (void)loop, (void)timer;
    trace->text[trace->size++] = 't';
    return 0;
}

static int trace_post(struct fdmux_loop *loop, void *userdata)
{
    struct trace *trace = userdata;

    (void)loop;
    trace->text[trace->size++] = 'p';
    return 0;
}

TEST(iteration_is_hooks_io_timers_posts)
{
    struct scene scene = open_scene();
    struct trace trace = {0};
    uint64_t timer = add_timer_with(scene.loop, trace_timer, &trace);

    CHECK_EQ(fdmux_post(scene.loop, trace_post, &trace), 0);
    CHECK_EQ(fdmux_timer_arm(scene.loop, timer, 0, 0), 0);
    watch_with(scene.loop, scene.channels[0].read_fd, FDMUX_READ, trace_io, &trace);
    add_hook_with(scene.loop, trace_hook, &trace);
    CHECK_EQ(poll_once(scene.loop), 0);
    CHECK(strcmp(trace.text, "hitp") == 0);
    close_scene(&scene);
}

/* ---- results of functions ------------------------------------------------------ */

TEST(positive_results_mean_nothing)
{
    struct scene scene = open_scene();
    struct calls calls[4] = {
        {.result = 1}, {.result = 2}, {.result = 1}, {.result = 9}};

    add_hook(scene.loop, &calls[0]);
    watch(scene.loop, scene.channels[0].read_fd, FDMUX_READ, &calls[1]);
    watch(scene.loop, scene.channels[0].read_fd, FDMUX_READ, &calls[2]);
    CHECK_EQ(fdmux_timer_arm(scene.loop, add_timer(scene.loop, &calls[3]), 1, 0), 0);
    CHECK_EQ(fdmux_post(scene.loop, count_post, &calls[0]), 0);
    CHECK_EQ(poll_once(scene.loop), 0);
    CHECK_EQ(calls[0].count, 2);
    for (int i = 1; i < 4; i++)
        CHECK_EQ(calls[i].count, 1);
    close_scene(&scene);
}

TEST(negative_result_of_any_function_is_returned_and_loses_nothing)
{
    struct scene scene = open_scene();
    struct calls calls[4] = {0};
    int negative[4] = {-ENOMSG, -1000, -1, INT32_MIN + 1};

    watch(scene.loop, scene.channels[0].read_fd, FDMUX_READ, &calls[0]);
    CHECK_EQ(fdmux_timer_arm(scene.loop, add_timer(scene.loop, &calls[1]), 1, 1), 0);
    add_hook(scene.loop, &calls[3]);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(fdmux_post(scene.loop, count_post, &calls[2]), 0);
        calls[i].result = negative[i];
        CHECK_EQ(poll_once(scene.loop), negative[i]);
        VERIFY(scene.loop);
        calls[i].result = 0;
        CHECK_EQ(poll_once(scene.loop), 0);
    }
    CHECK_EQ(calls[2].count, 4);
    close_scene(&scene);
}

TEST(watcher_that_always_fails_does_not_starve_timers_and_posts)
{
    struct scene scene = open_scene();
    struct calls failing = {.result = -7};
    struct calls calls[2] = {0};

    watch(scene.loop, scene.channels[0].read_fd, FDMUX_READ, &failing);
    CHECK_EQ(fdmux_timer_arm(scene.loop, add_timer(scene.loop, &calls[0]), 1, 1), 0);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(fdmux_post(scene.loop, count_post, &calls[1]), 0);
        CHECK_EQ(poll_once(scene.loop), -7);
    }
    CHECK(calls[0].count >= 3 && calls[1].count >= 3);
    close_scene(&scene);
}

TEST(watcher_that_always_fails_does_not_starve_its_neighbour)
{
    struct scene scene = open_scene();
    struct calls failing = {.result = -7};
    struct calls calls = {0};

    watch(scene.loop, scene.channels[0].read_fd, FDMUX_READ, &failing);
    watch(scene.loop, scene.channels[0].read_fd, FDMUX_READ, &calls);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(poll_once(scene.loop), -7);
    CHECK_EQ(calls.count, 2); /* each is first in turn */
    close_scene(&scene);
}

TEST(error_after_collected_events_comes_with_the_next_call)
{
    struct scene scene = open_scene();
    struct calls failing = {.result = -7};
    struct fdmux_ready ready[4];
    int64_t deadline_ns = 1;

    collect(scene.loop, scene.channels[0].read_fd, FDMUX_READ, 5);
    CHECK_EQ(fdmux_post(scene.loop, count_post, &failing), 0);
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, -1, ready, 4), 1);
    CHECK_EQ(ready[0].tag, 5);
    CHECK_EQ(fdmux_loop_next_deadline(scene.loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, 0); /* the host must dispatch again at once */
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, -1, ready, 4), -7);
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, -1, ready, 4), 1);
    close_scene(&scene);
}
