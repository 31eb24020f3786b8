/* test_thread_ends.c: other threads destroy the loop, dispatch it too, or remove a
 * watcher while a function runs. */
#include "fixtures.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

struct scene {
    struct fdmux_loop *loop;
    pthread_t thread;
    _Atomic int is_ready;
    _Atomic int is_let_go;
};

/* ---- the end ------------------------------------------------------------------- */

static void *destroy_loop(void *userdata)
{
    struct scene *scene = userdata;

    wait_for_mark(&scene->is_ready);
    CHECK(fdmux_loop_destroy(scene->loop) == NULL);
    return NULL;
}

static int mark_ready(struct fdmux_loop *loop, void *userdata)
{
    (void)loop;
    mark(userdata);
    return 0;
}

static void run_and_destroy(int64_t timeout_ns)
{
    struct scene scene = {.loop = check_open_loop()};
    struct calls calls[3] = {0};

    add_timer(scene.loop, &calls[0]);
    add_hook(scene.loop, &calls[1]);
    watch(scene.loop, -1, 0, &calls[2]);
    CHECK_EQ(fdmux_post(scene.loop, mark_ready, &scene.is_ready), 0);
    CHECK_EQ(pthread_create(&scene.thread, NULL, destroy_loop, &scene), 0);
    CHECK_EQ(timeout_ns == 0 ? fdmux_loop_run(scene.loop)
                             : fdmux_loop_dispatch(scene.loop, timeout_ns, NULL, 0),
             -ESTALE);
    CHECK_EQ(pthread_join(scene.thread, NULL), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(calls[i].destroyed, 1);
}

TEST(thread_destroys_the_loop_that_another_dispatches)
{
    for (int i = 0; i < 50; i++) {
        run_and_destroy(-1);
        run_and_destroy(60000 * MS);
        run_and_destroy(0); /* fdmux_loop_run */
    }
}

/* A dispatch that keeps returning inside run() must not release the loop. */
static int keep_waking(struct fdmux_loop *loop, void *userdata)
{
    mark(userdata);
    if (loop != NULL) {
        CHECK(fdmux_loop_wake(loop) <= 0);
        CHECK(fdmux_post(loop, keep_waking, userdata) <= 0); /* may be -ESTALE */
    }
    return 0;
}

TEST(thread_destroys_a_loop_that_runs_without_rest)
{
    for (int i = 0; i < 50; i++) {
        struct scene scene = {.loop = check_open_loop()};

        CHECK_EQ(fdmux_post(scene.loop, keep_waking, &scene.is_ready), 0);
        CHECK_EQ(pthread_create(&scene.thread, NULL, destroy_loop, &scene), 0);
        CHECK_EQ(fdmux_loop_run(scene.loop), -ESTALE);
        CHECK_EQ(pthread_join(scene.thread, NULL), 0);
    }
}

/* ---- dispatching from two threads ---------------------------------------------- */

static int hold(struct fdmux_loop *loop, void *userdata)
{
    struct scene *scene = userdata;

    (void)loop;
    mark(&scene->is_ready);
    while (atomic_load(&scene->is_let_go) == 0)
        sched_yield();
    return 0;
}

static void *dispatch_too(void *userdata)
{
    struct scene *scene = userdata;

    wait_for_mark(&scene->is_ready);
    CHECK_EQ(fdmux_loop_dispatch(scene->loop, 0, NULL, 0), -EBUSY);
    CHECK_EQ(fdmux_loop_run(scene->loop), -EBUSY);
    mark(&scene->is_let_go);
    return NULL;
}

TEST(second_thread_that_dispatches_is_ebusy)
{
    struct scene scene = {.loop = check_open_loop()};

    CHECK_EQ(fdmux_post(scene.loop, hold, &scene), 0);
    CHECK_EQ(pthread_create(&scene.thread, NULL, dispatch_too, &scene), 0);
    CHECK_EQ(poll_once(scene.loop), 0);
    CHECK_EQ(pthread_join(scene.thread, NULL), 0);
    fdmux_loop_destroy(scene.loop);
}

/* ---- destroyed never runs beside a function ------------------------------------ */

/* A thread's removal is still inside `destroyed` of one watcher when the loop calls
 * another, which removes itself: its `destroyed` must wait until its function
 * returns. */
struct meeting {
    struct fdmux_loop *loop;
    uint64_t first;
    _Atomic int is_destroying;
    _Atomic int has_removed;
    _Atomic int is_function_over;
    _Atomic int destroyed;
};

static void first_destroyed(void *userdata)
{
    struct meeting *meeting = userdata;

    mark(&meeting->is_destroying);
    wait_for_mark(&meeting->has_removed);
}

static void second_destroyed(void *userdata)
{
    struct meeting *meeting = userdata;

    CHECK_EQ(atomic_load(&meeting->is_function_over), 1);
    atomic_fetch_add(&meeting->destroyed, 1);
}

static void *remove_first(void *userdata)
{
    struct meeting *meeting = userdata;

    CHECK_EQ(fdmux_io_remove(meeting->loop, meeting->first), 0);
    return NULL;
}

static int second_function(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                           void *userdata)
{
    struct meeting *meeting = userdata;

    (void)events;
    wait_for_mark(&meeting->is_destroying);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    mark(&meeting->has_removed);
    usleep(2000); /* gives the other thread time to go wrong */
    mark(&meeting->is_function_over);
    return 0;
}

TEST(destroyed_waits_for_the_function_although_a_thread_is_reaping)
{
    struct meeting meeting = {.loop = check_open_loop()};
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = FDMUX_NO_FD,
        .userdata = &meeting,
        .destroyed = first_destroyed,
        .flags = FDMUX_COLLECT,
    };
    struct channel channel = open_channel();
    pthread_t thread;
    uint64_t second;

    CHECK_EQ(fdmux_io_add(meeting.loop, &options, &meeting.first), 0);
    options.fd = channel.read_fd;
    options.events = FDMUX_READ;
    options.fn = second_function;
    options.flags = 0;
    options.destroyed = second_destroyed;
    CHECK_EQ(fdmux_io_add(meeting.loop, &options, &second), 0);
    feed(&channel);
    CHECK_EQ(pthread_create(&thread, NULL, remove_first, &meeting), 0);
    wait_for_mark(&meeting.is_destroying);
    CHECK_EQ(poll_once(meeting.loop), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(atomic_load(&meeting.destroyed), 1);
    VERIFY(meeting.loop);
    fdmux_loop_destroy(meeting.loop);
    close_channel(&channel);
}
