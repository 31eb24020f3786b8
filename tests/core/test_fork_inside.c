/* test_fork_inside.c: a function of the loop may fork and return in the child, too: the
 * dispatch there returns -ECHILD, calls nothing more, and leaves the parent alone.
 *
 * Calls are counted per process, in shared memory. */
#include "stream_fixtures.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop_state.h"

struct counts {
    int calls; /* of functions, including the one that forks */
    int entered;
    int left;
};

static struct {
    struct counts *counts; /* two: of the parent and of the child */
    pid_t child; /* 0 in the child */
    bool has_forked;
    uint32_t kind; /* of the stream event that forks; 0: the first event */
} scene;

static struct counts *own(void)
{
    return &scene.counts[scene.has_forked && scene.child == 0 ? 1 : 0];
}

static void open_scene(void)
{
    scene.counts =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(scene.counts != MAP_FAILED);
}

/* Count the call, and fork in the first one. */
static int count_and_fork(void)
{
    own()->calls++;
    if (!scene.has_forked) {
        scene.child = fork();
        CHECK(scene.child >= 0);
        scene.has_forked = true;
    }
    return 0;
}

static int fork_in_post(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    return loop == NULL ? 0 : count_and_fork();
}

static int fork_in_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)loop, (void)timer, (void)userdata;
    return count_and_fork();
}

static int fork_in_io(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                      void *userdata)
{
    (void)loop, (void)io, (void)events, (void)userdata;
    return count_and_fork();
}

static int fork_in_stream(struct fdmux_loop *loop,
                          const struct fdmux_stream_event *event, void *userdata)
{
    (void)userdata;
    if (atomic_load(&loop->is_closed))
        return 0;
    if (!scene.has_forked && scene.kind != 0 && event->kind != scene.kind)
        return 0;
    return count_and_fork();
}

/* In the child the dispatch has ended, and every call returns -ECHILD. */
static void check_child(struct fdmux_loop *loop, int r)
{
    CHECK_EQ(r, -ECHILD);
    CHECK_EQ(scene.counts[1].calls, 0); /* the call that forked counts for the parent */
    CHECK_EQ(loop->hold_count, 0);
    CHECK_EQ(poll_once(loop), -ECHILD);
    CHECK_EQ(fdmux_loop_wake(loop), -ECHILD);
}

/* Dispatch until a function has forked. The child exits here. */
static void serve_until_forked(struct fdmux_loop *loop)
{
    int status = 1;
    int r = 0;

    for (int i = 0; i < 1000 && !scene.has_forked; i++)
        r = poll_once(loop);
    CHECK(scene.has_forked);
    if (scene.child == 0) {
        check_child(loop, r);
        _exit(0);
    }
    CHECK_EQ(r, 0);
    CHECK_EQ(waitpid(scene.child, &status, 0), scene.child);
    CHECK_EQ(status, 0);
    verify_streams(loop);
}

/* The parent has made all its calls and still works. */
static void close_scene(struct fdmux_loop *loop, int calls)
{
    struct calls later = {0};

    CHECK_EQ(scene.counts[0].calls, calls);
    CHECK_EQ(fdmux_post(loop, count_post, &later), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(later.count, 1);
    fdmux_loop_destroy(loop);
    CHECK_EQ(munmap(scene.counts, 4096), 0);
}

/* ---- every kind of function ---------------------------------------------------- */

TEST(child_of_a_posted_call_runs_no_other)
{
    struct fdmux_loop *loop = check_open_loop();

    open_scene();
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fdmux_post(loop, fork_in_post, NULL), 0);
    serve_until_forked(loop);
    close_scene(loop, 3);
}

TEST(child_of_a_timer_runs_no_other)
{
    struct fdmux_loop *loop = check_open_loop();

    open_scene();
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fdmux_timer_arm(loop, add_timer_with(loop, fork_in_timer, NULL), 0, 0),
                 0);
    serve_until_forked(loop);
    close_scene(loop, 3);
}

TEST(child_of_an_io_function_runs_no_other)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channels[2] = {open_channel(), open_channel()};

    open_scene();
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 2; k++) /* two watchers for each descriptor */
            (void)watch_with(loop, channels[i].read_fd, FDMUX_READ | FDMUX_ONESHOT,
                             fork_in_io, NULL);
        feed(&channels[i]);
    }
    CHECK_EQ(fdmux_post(loop, fork_in_post, NULL), 0);
    serve_until_forked(loop);
    close_scene(loop, 5);
    close_channel(&channels[0]);
    close_channel(&channels[1]);
}

TEST(child_of_a_hook_runs_no_other)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t hooks[3];

    open_scene();
    for (int i = 0; i < 3; i++)
        hooks[i] = add_hook_with(loop, fork_in_timer, NULL);
    serve_until_forked(loop);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fdmux_hook_remove(loop, hooks[i]), 0);
    close_scene(loop, 3);
}

static int fork_in_second_call(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    int *calls = userdata;

    (void)loop, (void)hook;
    return ++*calls == 2 ? count_and_fork() : 0;
}

/* Hooks run once more at the end of a dispatch, before the host waits. */
SET_TEST(child_of_one_of_the_last_hooks_leaves_the_host_of_the_parent_alone)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    int hook_calls = 0;
    int fd = fdmux_loop_fd(loop);

    CHECK(fd >= 0);
    open_scene();
    CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, &calls),
                             fdmux_loop_now(loop) + 50 * MS, 0),
             0);
    CHECK_EQ(poll_once(loop), 0); /* arms the timer in the descriptor */
    (void)add_hook_with(loop, fork_in_second_call, &hook_calls);
    serve_until_forked(loop);
    CHECK_EQ(hook_calls, 2);
    if (calls.count == 0) /* unless this test ran too slowly */
        wait_until_readable(fd); /* the child has not disarmed it */
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    close_scene(loop, 1);
}

/* ---- streams ------------------------------------------------------------------- */

static uint64_t add_forking_stream(struct fdmux_loop *loop, int fd, uint32_t kind)
{
    struct fdmux_stream_options options = {.struct_size = sizeof options,
                                           .fn = fork_in_stream};

    scene.kind = kind;
    return add_stream_with(loop, fd, &options);
}

TEST(child_of_a_stream_that_received_serves_no_other)
{
    struct fdmux_loop *loop = check_open_loop();
    int fds[2][2];

    open_scene();
    for (int i = 0; i < 2; i++) {
        open_sockets(fds[i]);
        (void)add_forking_stream(loop, fds[i][0], FDMUX_STREAM_DATA);
        CHECK_EQ(send(fds[i][1], "x", 1, 0), 1);
    }
    serve_until_forked(loop);
    close_scene(loop, 2);
    CHECK_EQ(close(fds[0][1]) | close(fds[1][1]), 0);
}

/* One io event may cause WRITABLE, DRAINED and DATA. */
TEST(child_of_a_stream_that_drains_gets_no_more_events)
{
    static const uint32_t kinds[] = {FDMUX_STREAM_WRITABLE, FDMUX_STREAM_DRAINED};

    for (int i = 0; i < 2; i++) {
        struct fdmux_loop *loop = check_open_loop();
        uint64_t stream;
        int fds[2];

        open_scene();
        scene.has_forked = false;
        open_sockets(fds);
        stream = add_forking_stream(loop, fds[0], kinds[i]);
        fdmux_testing_fail(FDMUX_CALL_SEND, 1, EAGAIN, 0);
        CHECK_EQ(fdmux_stream_write(loop, stream, "bytes", 5), 0);
        fdmux_testing_fail(0, 0, 0, 0);
        CHECK_EQ(fdmux_stream_await_writable(loop, stream, 0), 0);
        CHECK_EQ(send(fds[1], "x", 1, 0), 1);
        serve_until_forked(loop);
        expect_bytes(fds[1], "bytes");
        close_scene(loop, i == 0 ? 3 : 2);
        CHECK_EQ(close(fds[1]), 0);
    }
}

static int fork_in_buffer(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                          size_t *ret_size, void *userdata)
{
    static char buffer[16];

    (void)loop, (void)stream, (void)userdata;
    *ret_buffer = buffer;
    *ret_size = sizeof buffer;
    return count_and_fork();
}

/* Only the parent receives the bytes, although both processes share the socket. */
TEST(child_of_a_buffer_function_receives_nothing)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);
    int fds[2];

    open_scene();
    options.buffer_fn = fork_in_buffer;
    open_sockets(fds);
    (void)add_stream_with(loop, fds[0], &options);
    for (int i = 0; i < 3; i++) /* more than one receive takes */
        CHECK_EQ(send(fds[1], "0123456789", 10, 0), 10);
    fdmux_testing_fail(FDMUX_CALL_RECV, 0, 0, 0); /* counts only */
    for (int i = 0; i < 10 && !scene.has_forked; i++)
        CHECK(poll_once(loop) == (scene.child == 0 && scene.has_forked ? -ECHILD : 0));
    if (scene.child == 0) {
        CHECK_EQ(fdmux_testing_calls(), 0);
        CHECK_EQ(witness.last_kind, 0);
        _exit(0);
    }
    CHECK_EQ(waitpid(scene.child, NULL, 0), scene.child);
    serve_all(loop);
    CHECK_EQ(witness.received, 30);
    close_scene(loop, 2);
    CHECK_EQ(close(fds[1]), 0);
}

static int fork_when_accepted(struct witness *witness,
                              const struct fdmux_stream_event *event)
{
    (void)witness;
    return event->kind == FDMUX_STREAM_ACCEPTED ? count_and_fork() : 0;
}

TEST(child_of_a_listener_accepts_nothing_more)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {.reaction = fork_when_accepted};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    int clients[3];

    open_scene();
    (void)listen_on_loopback(loop, &options, &port);
    for (int i = 0; i < 3; i++)
        clients[i] = connect_client(port);
    serve_until_forked(loop);
    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 3);
    close_scene(loop, 3);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(close(clients[i]), 0);
}

/* Bytes written before the connection is made are sent once, by the parent. */
TEST(child_of_a_stream_that_connected_sends_nothing)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    struct fdmux_stream_options client = {.struct_size = sizeof client,
                                          .fn = fork_in_stream};
    uint64_t stream;
    uint16_t port;

    open_scene();
    (void)listen_on_loopback(loop, &options, &port);
    scene.kind = FDMUX_STREAM_CONNECTED;
    stream = connect_to_loopback(loop, port, &client);
    CHECK_EQ(fdmux_stream_write(loop, stream, "once", 4), 0);
    serve_until_forked(loop);
    serve_until(loop, &server.counts[FDMUX_STREAM_DATA], 1);
    serve_all(loop);
    CHECK_EQ(server.received, 4);
    close_scene(loop, 2); /* CONNECTED and DRAINED */
}

TEST(child_of_a_stream_that_closed_gets_no_other_event)
{
    struct fdmux_loop *loop = check_open_loop();
    int fds[2][2];

    open_scene();
    for (int i = 0; i < 2; i++) {
        open_sockets(fds[i]);
        CHECK_EQ(fdmux_stream_close(
                     loop, add_forking_stream(loop, fds[i][0], FDMUX_STREAM_CLOSED), 0),
                 0);
    }
    serve_until_forked(loop);
    close_scene(loop, 2);
    CHECK_EQ(close(fds[0][1]) | close(fds[1][1]), 0);
}

/* ---- collected events and holds ------------------------------------------------ */

TEST(child_does_not_get_what_the_parent_has_collected)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct fdmux_ready ready[1];
    int status = 1;
    int r;

    open_scene();
    (void)collect(loop, channel.read_fd, FDMUX_READ, 5);
    feed(&channel);
    CHECK_EQ(fdmux_post(loop, fork_in_post, NULL), 0);
    r = fdmux_loop_dispatch(loop, 0, ready, 1);
    if (scene.child == 0) {
        check_child(loop, r);
        _exit(0);
    }
    CHECK_EQ(r, 1);
    CHECK_EQ(waitpid(scene.child, &status, 0), scene.child);
    CHECK_EQ(status, 0);
    drain(&channel);
    close_scene(loop, 1);
    close_channel(&channel);
}

static void *enter(void *userdata)
{
    own()->entered++;
    return userdata;
}

static void leave(void *held, void *userdata)
{
    CHECK(held == userdata);
    own()->left++;
}

static const struct fdmux_hold counted = {enter, leave, &scene};

static int hold_and_fork(struct fdmux_loop *loop, void *userdata)
{
    CHECK_EQ(fdmux_loop_hold(loop, &counted), 0);
    (void)count_and_fork();
    CHECK_EQ(fdmux_loop_hold(loop, &counted), 0); /* both processes have the hold */
    (void)userdata;
    return 0;
}

/* The child has the lock that was taken before the fork, as with Python's GIL. */
TEST(child_leaves_its_holds)
{
    struct fdmux_loop *loop = check_open_loop();

    open_scene();
    CHECK_EQ(fdmux_post(loop, hold_and_fork, NULL), 0);
    serve_until_forked(loop);
    CHECK_EQ(scene.counts[0].entered, 1);
    CHECK_EQ(scene.counts[0].left, 1);
    CHECK_EQ(scene.counts[1].entered, 0);
    CHECK_EQ(scene.counts[1].left, 1);
    close_scene(loop, 1);
}

/* ---- afterwards ---------------------------------------------------------------- */

static void go_on(struct fdmux_loop *loop)
{
    struct calls calls = {0};

    CHECK_EQ(fdmux_loop_after_fork(loop), 0);
    CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    verify_streams(loop);
    fdmux_loop_destroy(loop);
    CHECK_EQ(fdmux_testing_allocations(), 0);
}

TEST(child_may_go_on_with_the_loop_when_the_dispatch_has_ended)
{
    struct fdmux_loop *loop = check_open_loop();
    int status = 1;
    int r;

    open_scene();
    for (int i = 0; i < 2; i++)
        CHECK_EQ(fdmux_post(loop, fork_in_post, NULL), 0);
    r = poll_once(loop);
    if (scene.child == 0) {
        check_child(loop, r);
        go_on(loop);
        CHECK_EQ(scene.counts[1].calls, 0); /* the parent makes the second call, too */
        _exit(0);
    }
    CHECK_EQ(waitpid(scene.child, &status, 0), scene.child);
    CHECK_EQ(status, 0);
    close_scene(loop, 2);
}

static int fork_when_closed(struct witness *witness,
                            const struct fdmux_stream_event *event)
{
    (void)witness;
    return event->kind == FDMUX_STREAM_CLOSED ? count_and_fork() : 0;
}

/* At the fork the stream was still in the shared epoll set; the child removes it from
 * its own set. */
TEST(child_may_go_on_with_a_loop_whose_stream_has_closed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {.reaction = fork_when_closed};
    int status = 1;
    int fds[2];
    int r;

    open_scene();
    open_sockets(fds);
    CHECK_EQ(fdmux_stream_close(loop, add_stream(loop, fds[0], &witness), 0), 0);
    r = poll_once(loop);
    if (scene.child == 0) {
        check_child(loop, r);
        CHECK_EQ(fdmux_loop_after_fork(loop), 0);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(witness.counts[FDMUX_STREAM_CLOSED], 1);
        CHECK_EQ(witness.destroyed, 1);
        CHECK_EQ(stats_of(loop).io_live, 0);
        _exit(0);
    }
    CHECK_EQ(waitpid(scene.child, &status, 0), scene.child);
    CHECK_EQ(status, 0);
    CHECK_EQ(witness.destroyed, 1);
    close_scene(loop, 1);
    CHECK_EQ(close(fds[1]), 0);
}

/* In the child the function goes on after the fork and still has the hold. */
static int hold_fork_and_destroy(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    CHECK_EQ(fdmux_loop_hold(loop, &counted), 0);
    (void)count_and_fork();
    if (scene.child != 0)
        return 0;
    fdmux_loop_destroy(loop);
    _exit(scene.counts[1].left == 0 ? 0 : 1);
}

TEST(child_that_destroys_the_loop_in_a_function_still_holds_what_it_held)
{
    struct fdmux_loop *loop = check_open_loop();
    int fds[2];

    open_scene();
    scene.kind = FDMUX_STREAM_DATA;
    open_sockets(fds);
    (void)add_forking_stream(loop, fds[0], FDMUX_STREAM_DATA);
    CHECK_EQ(fdmux_post(loop, hold_fork_and_destroy, NULL), 0);
    serve_until_forked(loop);
    CHECK_EQ(scene.counts[0].left, 1);
    close_scene(loop, 1);
    CHECK_EQ(close(fds[1]), 0);
}
