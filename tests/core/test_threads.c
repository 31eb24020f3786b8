/* test_threads.c: other threads register and remove while one waits. */
#include "fixtures.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

enum { ROUNDS = 5000 };

struct scene {
    struct fdmux_loop *loop;
    struct channel channel;
    pthread_t thread;
    _Atomic int is_ready;
    _Atomic int count;
};

static int count_and_stop(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                          void *userdata)
{
    struct scene *scene = userdata;

    (void)io, (void)events;
    drain(&scene->channel);
    atomic_fetch_add(&scene->count, 1);
    CHECK_EQ(fdmux_loop_stop(loop), 0);
    return 0;
}

static void run_beside(struct scene *scene, void *(*work)(void *))
{
    *scene = (struct scene){.loop = check_open_loop(), .channel = open_channel()};
    CHECK_EQ(pthread_create(&scene->thread, NULL, work, scene), 0);
    CHECK_EQ(fdmux_loop_run(scene->loop), 0);
    CHECK_EQ(pthread_join(scene->thread, NULL), 0);
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    close_channel(&scene->channel);
}

/* ---- registering --------------------------------------------------------------- */

static void *add_ready(void *userdata)
{
    struct scene *scene = userdata;

    feed(&scene->channel);
    watch_with(scene->loop, scene->channel.read_fd, FDMUX_READ, count_and_stop, scene);
    return NULL;
}

TEST(watcher_added_by_a_thread_wakes_the_waiting_loop)
{
    struct scene scene;

    run_beside(&scene, add_ready);
    CHECK_EQ(atomic_load(&scene.count), 1);
}

static void *update_to_ready(void *userdata)
{
    struct scene *scene = userdata;
    uint64_t io =
        watch_with(scene->loop, scene->channel.read_fd, 0, count_and_stop, scene);

    feed(&scene->channel);
    CHECK_EQ(fdmux_io_update(scene->loop, io, FDMUX_READ), 0);
    return NULL;
}

TEST(watcher_updated_by_a_thread_wakes_the_waiting_loop)
{
    struct scene scene;

    run_beside(&scene, update_to_ready);
    CHECK_EQ(atomic_load(&scene.count), 1);
}

static int stop_on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)timer, (void)userdata;
    CHECK_EQ(fdmux_loop_stop(loop), 0);
    return 0;
}

static void *arm_earlier(void *userdata)
{
    struct scene *scene = userdata;
    uint64_t far = collect_timer(scene->loop, 0);
    uint64_t near = add_timer_with(scene->loop, stop_on_timer, NULL);
    int64_t now_ns = fdmux_loop_now(scene->loop);

    CHECK_EQ(fdmux_timer_arm(scene->loop, far, now_ns + 3600000 * MS, 0), 0);
    CHECK_EQ(fdmux_timer_arm(scene->loop, near, now_ns + MS, 0), 0);
    return NULL;
}

TEST(earlier_timer_armed_by_a_thread_ends_the_wait)
{
    struct scene scene;

    run_beside(&scene, arm_earlier);
}

static int hook_stops(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    (void)hook, (void)userdata;
    CHECK_EQ(fdmux_loop_stop(loop), 0);
    return 0;
}

static void *add_stopping_hook(void *userdata)
{
    struct scene *scene = userdata;

    add_hook_with(scene->loop, hook_stops, NULL);
    return NULL;
}

TEST(hook_added_by_a_thread_runs_before_the_next_sleep)
{
    struct scene scene;

    run_beside(&scene, add_stopping_hook);
}

/* ---- churn --------------------------------------------------------------------- */

/* One registration: called by the loop, removed by either thread. */
struct item {
    _Atomic int count;
    _Atomic int destroyed;
};

static int item_io(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                   void *userdata)
{
    struct item *item = userdata;

    (void)loop, (void)io, (void)events;
    CHECK_EQ(atomic_load(&item->destroyed), 0);
    atomic_fetch_add(&item->count, 1);
    return 0;
}

static int item_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    return item_io(loop, timer, 0, userdata);
}

static void item_destroyed(void *userdata)
{
    atomic_fetch_add(&((struct item *)userdata)->destroyed, 1);
}

static struct item items[ROUNDS][2];

static uint64_t add_item_io(struct scene *scene, struct item *item, uint32_t events)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = scene->channel.write_fd, /* always writable */
        .events = events,
        .fn = item_io,
        .userdata = item,
        .destroyed = item_destroyed,
    };
    uint64_t io = 0;

    CHECK_EQ(fdmux_io_add(scene->loop, &options, &io), 0);
    return io;
}

static uint64_t add_item_timer(struct scene *scene, struct item *item)
{
    struct fdmux_timer_options options = {
        .struct_size = sizeof options,
        .fn = item_timer,
        .userdata = item,
        .destroyed = item_destroyed,
    };
    uint64_t timer = 0;

    CHECK_EQ(fdmux_timer_add(scene->loop, &options, &timer), 0);
    return timer;
}

static void *churn(void *userdata)
{
    struct scene *scene = userdata;
    uint64_t random = 5;

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t io = add_item_io(scene, &items[i][0], check_random(&random) % 4);
        uint64_t timer = add_item_timer(scene, &items[i][1]);

        CHECK_EQ(fdmux_timer_arm(scene->loop, timer, i % 3, i % 2), 0);
        CHECK_EQ(fdmux_io_update(scene->loop, io, check_random(&random) % 4), 0);
        CHECK(fdmux_timer_cancel(scene->loop, timer) >= 0);
        CHECK_EQ(fdmux_timer_remove(scene->loop, timer), 0);
        CHECK_EQ(fdmux_io_remove(scene->loop, io), 0);
    }
    CHECK_EQ(fdmux_loop_stop(scene->loop), 0);
    return NULL;
}

TEST(thread_adds_updates_and_removes_while_another_dispatches)
{
    struct scene scene;

    memset(items, 0, sizeof items); /* a process may run several cases */
    run_beside(&scene, churn);
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_EQ(atomic_load(&items[i][0].destroyed), 1);
        CHECK_EQ(atomic_load(&items[i][1].destroyed), 1);
    }
}

/* Tables grow while the other thread waits: what that thread reads must not move. */
static void *grow_tables(void *userdata)
{
    struct scene *scene = userdata;
    static int fds[900];

    for (int i = 0; i < 900; i++) {
        fds[i] = fcntl(scene->channel.read_fd, F_DUPFD_CLOEXEC, 0);
        CHECK(fds[i] >= 0);
        watch_with(scene->loop, fds[i], FDMUX_READ, item_io, &items[i][0]);
    }
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t timer = add_item_timer(scene, &items[i][1]);

        CHECK_EQ(fdmux_timer_arm(scene->loop, timer, INT64_MAX - i, 0), 0);
    }
    feed(&scene->channel);
    while (atomic_load(&items[899][0].count) == 0)
        sched_yield();
    CHECK_EQ(fdmux_loop_stop(scene->loop), 0);
    for (int i = 0; i < 900; i++)
        CHECK_EQ(close(fds[i]), 0);
    return NULL;
}

TEST(tables_grow_while_another_thread_waits)
{
    struct scene scene;

    memset(items, 0, sizeof items);
    run_beside(&scene, grow_tables);
}

static int do_nothing(struct fdmux_loop *loop, void *userdata)
{
    (void)loop, (void)userdata;
    return 0;
}

static void *ask_everything(void *userdata)
{
    struct scene *scene = userdata;
    struct fdmux_loop_stats stats = {.struct_size = sizeof stats};
    int64_t deadline_ns = 0;

    for (int i = 0; i < ROUNDS; i++) {
        CHECK_EQ(fdmux_post(scene->loop, do_nothing, NULL), 0);
        CHECK_EQ(fdmux_loop_next_deadline(scene->loop, &deadline_ns), 0);
        CHECK_EQ(fdmux_loop_stats(scene->loop, &stats), 0);
        CHECK(fdmux_loop_backend(scene->loop) != NULL);
    }
    CHECK_EQ(fdmux_loop_stop(scene->loop), 0);
    return NULL;
}

TEST(thread_asks_while_another_dispatches)
{
    struct scene scene;

    run_beside(&scene, ask_everything);
}
