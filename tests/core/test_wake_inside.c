/* test_wake_inside.c: a wake inside a function of the loop makes dispatch return after
 * the batch, and needs no write: the loop is not waiting. */
#include "stream_fixtures.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop_state.h"

static void wake(struct fdmux_loop *loop)
{
    CHECK_EQ(fdmux_loop_wake(loop), 0);
}

static int wake_in_post(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    wake(loop);
    return 0;
}

static int wake_in_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)timer;
    return wake_in_post(loop, userdata);
}

static int wake_in_io(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                      void *userdata)
{
    (void)io, (void)events;
    return wake_in_post(loop, userdata);
}

static int wake_in_stream(struct fdmux_loop *loop,
                          const struct fdmux_stream_event *event, void *userdata)
{
    return event->kind == FDMUX_STREAM_CLOSED ? 0 : wake_in_post(loop, userdata);
}

/* The dispatch returns without a write and without waiting; the next one waits. */
static void expect_return(struct fdmux_loop *loop)
{
    int64_t start_ns;

    fdmux_testing_fail(FDMUX_CALL_WRITE, 0, 0, 0); /* counts only */
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    CHECK_EQ(fdmux_testing_calls(), 0);
    CHECK(!is_rung(loop));
    VERIFY(loop);
    start_ns = fdmux_loop_now(loop);
    CHECK_EQ(fdmux_loop_dispatch(loop, MS, NULL, 0), 0);
    CHECK(fdmux_loop_now(loop) - start_ns >= MS);
}

TEST(wake_inside_an_io_function_writes_nothing)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();

    (void)watch_with(loop, channel.read_fd, FDMUX_READ | FDMUX_ONESHOT, wake_in_io,
                     NULL);
    feed(&channel);
    expect_return(loop);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

TEST(wake_inside_a_timer_writes_nothing)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(fdmux_timer_arm(loop, add_timer_with(loop, wake_in_timer, NULL),
                             fdmux_loop_now(loop) + MS, 0),
             0);
    expect_return(loop);
    fdmux_loop_destroy(loop);
}

/* The post itself has written, since the loop might have been waiting. */
TEST(wake_inside_a_posted_call_writes_nothing)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(fdmux_post(loop, wake_in_post, NULL), 0);
    expect_return(loop);
    fdmux_loop_destroy(loop);
}

/* The hook runs before the wait, which then does not happen. */
TEST(wake_inside_a_hook_writes_nothing)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t hook = add_hook_with(loop, wake_in_timer, NULL);

    fdmux_testing_fail(FDMUX_CALL_WRITE, 0, 0, 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    CHECK_EQ(fdmux_testing_calls(), 0);
    CHECK_EQ(fdmux_hook_remove(loop, hook), 0);
    fdmux_loop_destroy(loop);
}

TEST(wake_inside_the_function_of_a_stream_writes_nothing)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_stream_options options = {.struct_size = sizeof options,
                                           .fn = wake_in_stream};
    int fds[2];

    open_sockets(fds);
    (void)add_stream_with(loop, fds[0], &options);
    CHECK_EQ(send(fds[1], "x", 1, 0), 1);
    expect_return(loop);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
}

static struct fdmux_loop *loop_of_destroyed;

static void wake_when_destroyed(void *userdata)
{
    (void)userdata;
    wake(loop_of_destroyed);
}

static int remove_self(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)userdata;
    return fdmux_timer_remove(loop, timer);
}

TEST(wake_inside_destroyed_at_the_end_of_a_batch_writes_nothing)
{
    struct fdmux_loop *loop = loop_of_destroyed = check_open_loop();
    struct fdmux_timer_options options = {.struct_size = sizeof options,
                                          .fn = remove_self,
                                          .destroyed = wake_when_destroyed};
    uint64_t timer;

    CHECK_EQ(fdmux_timer_add(loop, &options, &timer), 0);
    CHECK_EQ(fdmux_timer_arm(loop, timer, 0, 0), 0);
    expect_return(loop);
    fdmux_loop_destroy(loop);
}

/* ---- the rest of the batch ----------------------------------------------------- */

TEST(batch_in_which_a_function_wakes_goes_on_to_its_end)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};

    CHECK_EQ(fdmux_post(loop, wake_in_post, NULL), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    CHECK_EQ(calls.count, 3);
    fdmux_loop_destroy(loop);
}

static int wake_and_fail(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    wake(loop);
    return -7;
}

TEST(wake_inside_a_function_that_fails_is_not_lost)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(fdmux_post(loop, wake_and_fail, NULL), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), -7);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    fdmux_loop_destroy(loop);
}

/* The last hooks run before the host waits: its descriptor must become readable. */
SET_TEST(wake_inside_the_last_hooks_wakes_the_host)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t hook = add_hook_with(loop, wake_in_timer, NULL);
    int fd = fdmux_loop_fd(loop);

    CHECK(fd >= 0);
    CHECK_EQ(poll_once(loop), 0);
    wait_until_readable(fd);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    CHECK_EQ(fdmux_hook_remove(loop, hook), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK(!is_readable(fd));
    fdmux_loop_destroy(loop);
}

/* ---- other loops, threads and signals ------------------------------------------ */

static int wake_another_loop(struct fdmux_loop *loop, void *userdata)
{
    (void)loop;
    wake(userdata);
    return 0;
}

TEST(wake_of_another_loop_inside_a_function_writes)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_loop *other = check_open_loop();

    CHECK_EQ(fdmux_post(loop, wake_another_loop, other), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK(is_rung(other));
    CHECK_EQ(fdmux_loop_dispatch(other, -1, NULL, 0), 0);
    fdmux_loop_destroy(other);
    fdmux_loop_destroy(loop);
}

static void *wake_from_thread(void *userdata)
{
    wake(userdata);
    return NULL;
}

static int wait_for_a_wake(struct fdmux_loop *loop, void *userdata)
{
    pthread_t thread;

    (void)userdata;
    CHECK_EQ(pthread_create(&thread, NULL, wake_from_thread, loop), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    return 0;
}

TEST(wake_of_a_thread_while_a_function_runs_ends_the_dispatch)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(fdmux_post(loop, wait_for_a_wake, NULL), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    fdmux_loop_destroy(loop);
}

static struct fdmux_loop *signalled_loop;
static int handler_result = 1;

static void wake_in_handler(int number)
{
    (void)number;
    handler_result = fdmux_loop_wake(signalled_loop);
}

static int raise_signal(struct fdmux_loop *loop, void *userdata)
{
    (void)loop, (void)userdata;
    CHECK_EQ(raise(SIGUSR1), 0); /* the handler runs before this returns */
    return 0;
}

TEST(wake_of_a_signal_handler_that_interrupts_a_function_ends_the_dispatch)
{
    struct sigaction action = {.sa_handler = wake_in_handler};

    signalled_loop = check_open_loop();
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_EQ(fdmux_post(signalled_loop, raise_signal, NULL), 0);
    expect_return(signalled_loop);
    CHECK_EQ(handler_result, 0);
    fdmux_loop_destroy(signalled_loop);
}
