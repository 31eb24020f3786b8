/* test_handle.c: the event of fdmux_loop_handle, by which a host on Windows runs a
 * loop. What a host does is in `host_until`. */
#include "fixtures.h"

TEST(no_result_is_efault_and_a_backend_without_an_event_is_eopnotsupp)
{
    struct fdmux_loop *loop = check_open_loop();
    void *handle = &handle;

    CHECK_EQ(fdmux_loop_handle(loop, NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_handle(NULL, &handle), -EFAULT);
    CHECK_EQ((stats_of(loop).features & FDMUX_FEATURE_HANDLE) != 0, check_is("afd"));
    if (!check_is("afd")) {
        CHECK_EQ(fdmux_loop_handle(loop, &handle), -EOPNOTSUPP);
        CHECK(handle == &handle);
    }
    fdmux_loop_destroy(loop);
}

#if defined(_WIN32)

#include <pthread.h>
#include <sys/socket.h>

static HANDLE handle_of(struct fdmux_loop *loop)
{
    void *handle = NULL;

    CHECK_EQ(fdmux_loop_handle(loop, &handle), 0);
    CHECK(handle != NULL);
    return handle;
}

static bool is_set(HANDLE handle)
{
    return WaitForSingleObject(handle, 0) == WAIT_OBJECT_0;
}

static void await(HANDLE handle)
{
    CHECK_EQ(WaitForSingleObject(handle, 10000), WAIT_OBJECT_0);
}

/* Dispatch whenever the event is set, until it was called so often. */
static void host_until(struct fdmux_loop *loop, const int *counter, int count)
{
    HANDLE handle = handle_of(loop);

    while (*counter < count) {
        await(handle);
        CHECK_EQ(poll_once(loop), 0);
    }
    VERIFY(loop);
}

/* Nothing is left to do: after a few dispatches the event stays cleared. */
static void expect_rest(struct fdmux_loop *loop)
{
    HANDLE handle = handle_of(loop);
    int dispatches = 0;

    while (WaitForSingleObject(handle, 100) == WAIT_OBJECT_0) {
        CHECK_EQ(poll_once(loop), 0);
        CHECK(++dispatches < 8);
    }
}

AFD_TEST(event_is_set_while_a_socket_is_ready)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};

    watch(loop, channel.read_fd, FDMUX_READ, &calls);
    expect_rest(loop);
    CHECK_EQ(calls.count, 0);
    feed(&channel);
    host_until(loop, &calls.count, 3); /* level-triggered: again and again */
    drain(&channel);
    expect_rest(loop);
    calls.count = 0;
    feed(&channel);
    host_until(loop, &calls.count, 1);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

AFD_TEST(event_is_set_for_what_was_added_or_changed_outside_of_a_dispatch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};
    HANDLE handle = handle_of(loop);
    uint64_t io;

    feed(&channel);
    CHECK(!is_set(handle));
    io = watch(loop, channel.read_fd, FDMUX_READ, &calls);
    host_until(loop, &calls.count, 1);
    CHECK_EQ(fdmux_io_update(loop, io, 0), 0);
    expect_rest(loop);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_READ), 0);
    host_until(loop, &calls.count, 2);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    expect_rest(loop);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

AFD_TEST(event_is_set_when_a_timer_expires_and_not_before)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t timer = add_timer(loop, &calls);
    HANDLE handle = handle_of(loop);
    int64_t start_ns = fdmux_loop_now(loop);

    CHECK_EQ(fdmux_timer_arm(loop, timer, start_ns + 30 * MS, 0), 0);
    host_until(loop, &calls.count, 1);
    CHECK(fdmux_loop_now(loop) - start_ns >= 30 * MS);
    CHECK(stats_of(loop).iteration_count <= 4);
    /* Earlier than the one that is set, later, and none. */
    start_ns = fdmux_loop_now(loop);
    CHECK_EQ(fdmux_timer_arm(loop, timer, start_ns + 60000 * MS, 0), 0);
    CHECK_EQ(fdmux_timer_arm(loop, timer, start_ns + 20 * MS, 0), 0);
    host_until(loop, &calls.count, 2);
    CHECK(fdmux_loop_now(loop) - start_ns >= 20 * MS);
    CHECK_EQ(fdmux_timer_arm(loop, timer, 1, 0), 0);
    CHECK(is_set(handle)); /* its time has come already */
    CHECK_EQ(fdmux_timer_cancel(loop, timer), 1);
    expect_rest(loop);
    CHECK_EQ(calls.count, 2);
    fdmux_loop_destroy(loop);
}

AFD_TEST(deadline_of_a_timer_survives_waits_of_the_dispatch_itself)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t timer = add_timer(loop, &calls);

    (void)handle_of(loop);
    CHECK_EQ(fdmux_timer_arm_in(loop, timer, 60 * MS, 0), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, 5 * MS, NULL, 0), 0);
    CHECK_EQ(calls.count, 0);
    host_until(loop, &calls.count, 1);
    CHECK_EQ(fdmux_timer_arm_in(loop, timer, 5 * MS, 0), 0);
    while (calls.count < 2)
        CHECK_EQ(fdmux_loop_dispatch(loop, 1000 * MS, NULL, 0), 0);
    fdmux_loop_destroy(loop);
}

static void *post_one(void *userdata)
{
    struct calls *calls = userdata;

    CHECK_EQ(
        fdmux_post((struct fdmux_loop *)(uintptr_t)calls->token, count_post, calls), 0);
    return NULL;
}

AFD_TEST(event_is_set_for_posts_wakes_and_hooks)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {.token = (uintptr_t)loop}, hook = {0};
    HANDLE handle = handle_of(loop);
    pthread_t thread;

    CHECK_EQ(pthread_create(&thread, NULL, post_one, &calls), 0);
    host_until(loop, &calls.count, 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    await(handle);
    CHECK_EQ(poll_once(loop), 0);
    add_hook(loop, &hook);
    host_until(loop, &hook.count, 1);
    expect_rest(loop);
    fdmux_loop_destroy(loop);
}

/* More than the thread takes from the port at once, which is 64. */
AFD_TEST(every_one_of_many_sockets_is_called)
{
    enum { COUNT = 150 };
    struct fdmux_loop *loop = check_open_loop();
    struct channel channels[COUNT];
    struct calls calls[COUNT] = {0};

    (void)handle_of(loop);
    for (int i = 0; i < COUNT; i++) {
        channels[i] = open_channel();
        watch(loop, channels[i].read_fd, FDMUX_READ, &calls[i]);
        feed(&channels[i]);
    }
    for (int i = 0; i < COUNT; i++)
        host_until(loop, &calls[i].count, 1);
    for (int i = 0; i < COUNT; i++)
        drain(&channels[i]);
    for (int i = 0; i < COUNT; i++)
        calls[i].count = 0;
    (void)poll_once(loop);
    fdmux_loop_destroy(loop); /* with polls under way, and with results that are kept */
    for (int i = 0; i < COUNT; i++)
        close_channel(&channels[i]);
}

AFD_TEST(socket_that_was_closed_without_removal_does_not_keep_the_event_set)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};
    uint64_t io;

    (void)handle_of(loop);
    io = watch(loop, channel.read_fd, FDMUX_READ, &calls);
    feed(&channel);
    host_until(loop, &calls.count, 1);
    calls.count = 0;
    close_channel(&channel);
    expect_rest(loop);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    expect_rest(loop);
    fdmux_loop_destroy(loop);
}

static void *dispatch_until_woken(void *loop)
{
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    return NULL;
}

AFD_TEST(handle_may_be_asked_for_while_another_thread_waits)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};
    pthread_t thread;

    for (int i = 0; i < 2; i++) { /* then the wait is that of a hosted loop */
        CHECK_EQ(pthread_create(&thread, NULL, dispatch_until_woken, loop), 0);
        while (stats_of(loop).iteration_count <= (uint64_t)i)
            sched_yield();
        CHECK(handle_of(loop) == handle_of(loop));
        CHECK_EQ(fdmux_loop_wake(loop), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
    }
    watch(loop, channel.read_fd, FDMUX_READ, &calls);
    feed(&channel);
    host_until(loop, &calls.count, 1);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

static int ask_for_handle(struct fdmux_loop *loop, void *userdata)
{
    HANDLE *handle = userdata;

    if (loop != NULL)
        *handle = handle_of(loop);
    return 0;
}

AFD_TEST(handle_may_be_asked_for_inside_a_function)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    HANDLE handle = NULL;

    CHECK_EQ(fdmux_post(loop, ask_for_handle, &handle), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK(handle == handle_of(loop));
    CHECK_EQ(fdmux_timer_arm_in(loop, add_timer(loop, &calls), MS, 0), 0);
    host_until(loop, &calls.count, 1);
    fdmux_loop_destroy(loop);
}

AFD_TEST(handle_fails_whole_at_any_of_its_calls)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint32_t kinds = FDMUX_CALL_MEMORY | FDMUX_CALL_AFD_OPEN;
    void *handle = NULL;
    int failed = 0;

    fdmux_testing_fail(kinds, 1, ENOMEM, 0);
    while (fdmux_loop_handle(loop, &handle) < 0) {
        CHECK(handle == NULL);
        VERIFY(loop);
        fdmux_testing_fail(kinds, ++failed + 1, ENOMEM, 0);
    }
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(failed, 4); /* memory, two events, and the thread */
    CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
    host_until(loop, &calls.count, 1);
    fdmux_loop_destroy(loop);
}

static DWORD open_handles(void)
{
    DWORD count = 0;

    CHECK(GetProcessHandleCount(GetCurrentProcess(), &count));
    return count;
}

/* The leak check of every case counts sockets alone. */
AFD_TEST(closed_loops_leave_no_handle)
{
    enum { LOOPS = 50 };
    DWORD before = 0;

    for (int i = 0; i < LOOPS; i++) {
        struct fdmux_loop *loop = check_open_loop();
        struct channel channel = open_channel();
        struct calls calls = {0};

        if (i % 2 == 0)
            (void)handle_of(loop);
        watch(loop, channel.read_fd, FDMUX_READ, &calls);
        CHECK_EQ(fdmux_loop_dispatch(loop, MS, NULL, 0), 0);
        fdmux_loop_destroy(loop);
        close_channel(&channel);
        if (i == 9)
            before = open_handles(); /* the system's own threads have begun */
    }
    CHECK(open_handles() <= before + 10);
}

#endif
