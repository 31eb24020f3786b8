/* test_hold_threads.c: holds and other threads: another thread cannot take a hold for
 * the dispatching thread, and none has to wait while `enter` and `leave` run. */
#include "stream_fixtures.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "loop.h"

struct scene {
    struct fdmux_loop *loop;
    struct channel channel;
    pthread_t thread;
    struct fdmux_hold hold;
    _Atomic int step; /* odd: `enter` or `leave` runs and waits for the next step */
    _Atomic int last_step;
    int result; /* of the thread's call */
};

/* Let the thread make its call, and continue when the call has returned. */
static void let_thread_call(struct scene *scene)
{
    int step = atomic_fetch_add(&scene->step, 1) + 1;

    while (atomic_load(&scene->step) == step)
        sched_yield();
}

static void *enter(void *userdata)
{
    let_thread_call(userdata);
    return userdata;
}

static void leave(void *held, void *userdata)
{
    CHECK(held == userdata);
    let_thread_call(userdata);
}

static void call_once(struct scene *scene)
{
    struct fdmux_io_options options = {.struct_size = sizeof options,
                                       .fd = scene->channel.write_fd,
                                       .flags = FDMUX_COLLECT};
    uint64_t io;

    CHECK_EQ(fdmux_io_add(scene->loop, &options, &io), scene->result);
    if (scene->result == 0)
        CHECK_EQ(fdmux_io_remove(scene->loop, io), 0);
    CHECK_EQ(fdmux_loop_hold(scene->loop, &scene->hold),
             scene->result == 0 ? -EPERM : scene->result);
}

static void *call_beside(void *userdata)
{
    struct scene *scene = userdata;

    while (atomic_load(&scene->step) < atomic_load(&scene->last_step)) {
        if ((atomic_load(&scene->step) & 1) == 1) {
            call_once(scene);
            atomic_fetch_add(&scene->step, 1);
        }
        sched_yield();
    }
    return NULL;
}

/* `calls` is how often `enter` and `leave` will be called, together. */
static void open_scene(struct scene *scene, int calls)
{
    *scene = (struct scene){
        .loop = check_open_loop(),
        .channel = open_channel(),
        .hold = {enter, leave, scene},
        .last_step = 2 * calls,
    };
    CHECK_EQ(pthread_create(&scene->thread, NULL, call_beside, scene), 0);
}

static void close_scene(struct scene *scene)
{
    CHECK_EQ(pthread_join(scene->thread, NULL), 0);
    CHECK_EQ(atomic_load(&scene->step), atomic_load(&scene->last_step));
    fdmux_loop_destroy(scene->loop);
    close_channel(&scene->channel);
}

static int hold_in_post(struct fdmux_loop *loop, void *userdata)
{
    struct scene *scene = userdata;

    CHECK_EQ(fdmux_loop_hold(loop, &scene->hold), 0);
    return 0;
}

static int hold_in_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    (void)hook;
    return hold_in_post(loop, userdata);
}

static int hold_in_stream(struct fdmux_loop *loop,
                          const struct fdmux_stream_event *event, void *userdata)
{
    (void)event;
    return hold_in_post(loop, userdata);
}

TEST(thread_may_add_a_watcher_while_enter_and_leave_run)
{
    struct scene scene;

    open_scene(&scene, 2);
    CHECK_EQ(fdmux_post(scene.loop, hold_in_post, &scene), 0);
    CHECK_EQ(poll_once(scene.loop), 0);
    VERIFY(scene.loop);
    close_scene(&scene);
}

TEST(thread_may_add_a_watcher_while_the_holds_of_hooks_are_left)
{
    struct scene scene;

    open_scene(&scene, 2);
    (void)add_hook_with(scene.loop, hold_in_hook, &scene);
    CHECK_EQ(poll_once(scene.loop), 0);
    VERIFY(scene.loop);
    close_scene(&scene);
}

/* The thread gets -ESTALE at once; it does not wait until the loop is closed. */
TEST(thread_gets_estale_while_the_holds_of_a_closing_loop_are_left)
{
    struct fdmux_stream_options options = {.struct_size = sizeof options,
                                           .fn = hold_in_stream};
    struct scene scene;
    int fds[2];

    open_scene(&scene, 2);
    scene.result = -ESTALE;
    options.userdata = &scene;
    open_sockets(fds);
    (void)add_stream_with(scene.loop, fds[0], &options);
    CHECK_EQ(fdmux__loop_close(scene.loop), 0);
    close_scene(&scene);
    CHECK_EQ(close(fds[1]), 0);
}

/* ---- wakes --------------------------------------------------------------------- */

struct waker {
    struct fdmux_loop *loop;
    struct fdmux_hold hold;
    _Atomic int is_leaving;
    _Atomic int has_woken;
};

static void *enter_nothing(void *userdata)
{
    return userdata;
}

static void leave_after_the_wake(void *held, void *userdata)
{
    struct waker *waker = held;

    (void)userdata;
    mark(&waker->is_leaving);
    wait_for_mark(&waker->has_woken);
}

static void *wake_while_leaving(void *userdata)
{
    struct waker *waker = userdata;

    wait_for_mark(&waker->is_leaving);
    CHECK_EQ(fdmux_loop_wake(waker->loop), 0);
    mark(&waker->has_woken);
    return NULL;
}

static int hold_for_waker(struct fdmux_loop *loop, void *userdata)
{
    struct waker *waker = userdata;

    return fdmux_loop_hold(loop, &waker->hold);
}

TEST(wake_of_a_thread_while_holds_are_left_is_not_lost)
{
    struct waker waker = {.loop = check_open_loop()};
    pthread_t thread;

    waker.hold = (struct fdmux_hold){enter_nothing, leave_after_the_wake, &waker};
    CHECK_EQ(pthread_create(&thread, NULL, wake_while_leaving, &waker), 0);
    CHECK_EQ(fdmux_post(waker.loop, hold_for_waker, &waker), 0);
    CHECK_EQ(fdmux_loop_dispatch(waker.loop, -1, NULL, 0), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    fdmux_loop_destroy(waker.loop);
}

/* ---- a lock that is taken in each batch ---------------------------------------- */

enum { ROUNDS = 2000 };

struct shared {
    struct fdmux_loop *loop;
    struct fdmux_hold hold;
    pthread_mutex_t lock;
    int count; /* guarded by the lock */
};

static void *take_lock(void *userdata)
{
    struct shared *shared = userdata;

    CHECK_EQ(pthread_mutex_lock(&shared->lock), 0);
    return shared;
}

static void give_lock(void *held, void *userdata)
{
    CHECK(held == userdata);
    CHECK_EQ(pthread_mutex_unlock(&((struct shared *)held)->lock), 0);
}

static int count_with_lock(struct fdmux_loop *loop, void *userdata)
{
    struct shared *shared = userdata;

    CHECK_EQ(fdmux_loop_hold(loop, &shared->hold), 0);
    shared->count++;
    return 0;
}

static void *post_and_count(void *userdata)
{
    struct shared *shared = userdata;

    for (int i = 0; i < ROUNDS; i++) {
        CHECK_EQ(fdmux_post(shared->loop, count_with_lock, shared), 0);
        CHECK_EQ(pthread_mutex_lock(&shared->lock), 0);
        shared->count++;
        CHECK_EQ(pthread_mutex_unlock(&shared->lock), 0);
    }
    CHECK_EQ(fdmux_loop_stop(shared->loop), 0);
    return NULL;
}

/* The lock is used like Python's GIL, with other threads that need it. */
TEST(lock_that_functions_hold_is_shared_with_other_threads)
{
    struct shared shared = {.loop = check_open_loop(),
                            .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;

    shared.hold = (struct fdmux_hold){take_lock, give_lock, &shared};
    CHECK_EQ(pthread_create(&thread, NULL, post_and_count, &shared), 0);
    CHECK_EQ(fdmux_loop_run(shared.loop), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(poll_once(shared.loop), 0); /* runs calls posted after the last batch */
    CHECK_EQ(shared.count, 2 * ROUNDS);
    fdmux_loop_destroy(shared.loop);
}
