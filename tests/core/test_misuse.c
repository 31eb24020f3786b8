/* test_misuse.c: every function that takes a loop, called with a loop that it must
 * refuse: NULL, garbage, closed, of another process, busy; and with tokens of others.
 *
 * every_call.h has one call of each function. */
#include "datagram_fixtures.h"
#include "every_call.h"

#include "fdmux_api.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop.h"

static void expect_all(struct fdmux_loop *loop, int expected)
{
    for (size_t i = 0; i < every_call_count; i++)
        check_equal(every_call[i].call(loop, 1), expected, __FILE__, __LINE__,
                    every_call[i].name);
}

/* ---- the table is complete ------------------------------------------------------ */

/* create, destroy, ref, unref, now and backend do not fail for a wrong loop: these
 * are tested in test_api.c and test_tokens.c. Queues have no loop: test_queue.c. */
#define WITHOUT_LOOP 6
#define OF_QUEUES 8
#define POINTERS(table, first)                                                         \
    ((sizeof(struct table) - offsetof(struct table, first)) / sizeof(void *))

UNIT_TEST(every_function_of_the_table_is_misused_here)
{
    size_t loop_count = POINTERS(fdmux_api, loop_create) - 3; /* the other tables */
    size_t stream_count = POINTERS(fdmux_stream_api, total_max);
    size_t tls_count = POINTERS(fdmux_tls_api, start_tls);
    size_t datagram_count = POINTERS(fdmux_datagram_api, features);

    CHECK_EQ(every_call_count + WITHOUT_LOOP + OF_QUEUES,
             loop_count + stream_count + tls_count + datagram_count);
}

/* ---- invalid loops -------------------------------------------------------------- */

TEST(no_loop_is_efault_and_garbage_einval_for_every_function)
{
    static uint64_t garbage[512];

    memset(garbage, 0xa5, sizeof garbage);
    expect_all(NULL, -EFAULT);
    expect_all((void *)garbage, -EINVAL);
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++)
        CHECK(garbage[i] == UINT64_C(0xa5a5a5a5a5a5a5a5));
}

TEST(closed_loop_is_estale_for_every_function)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(call_by_name("stream_add", loop, 0), 0);
    CHECK_EQ(call_by_name("datagram_add", loop, 0), 0);
    CHECK_EQ(fdmux__loop_close(loop), 0);
    expect_all(loop, -ESTALE);
    fdmux_loop_destroy(loop);
}

/* Only holds still work: the rest of the function may need them. */
static int close_and_misuse(struct fdmux_loop *loop, void *userdata)
{
    ++*(int *)userdata;
    CHECK_EQ(fdmux__loop_close(loop), 0);
    for (size_t i = 0; i < every_call_count; i++)
        check_equal(every_call[i].call(loop, 1),
                    is_call(&every_call[i], "loop_hold") ? 0 : -ESTALE, __FILE__,
                    __LINE__, every_call[i].name);
    return 0;
}

TEST(loop_closed_by_its_own_function_is_estale_for_every_function)
{
    struct fdmux_loop *loop = check_open_loop();
    int count = 0;

    CHECK_EQ(call_by_name("stream_add", loop, 0), 0);
    CHECK_EQ(call_by_name("datagram_add", loop, 0), 0);
    CHECK_EQ(fdmux_post(loop, close_and_misuse, &count), 0);
    CHECK_EQ(poll_once(loop), -ESTALE);
    CHECK_EQ(count, 1);
    fdmux_loop_destroy(loop);
}

static int hook_nothing(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    (void)loop, (void)hook, (void)userdata;
    return 0;
}

struct mourner {
    struct fdmux_loop *loop;
    int count;
};

static void misuse_when_destroyed(void *userdata)
{
    struct mourner *mourner = userdata;

    mourner->count++;
    expect_all(mourner->loop, -ESTALE);
}

TEST(destroyed_functions_of_a_closing_loop_get_estale)
{
    struct mourner mourner = {.loop = check_open_loop()};
    struct fdmux_timer_options timer = {.struct_size = sizeof timer,
                                        .flags = FDMUX_COLLECT};
    struct fdmux_hook_options hook = {.struct_size = sizeof hook, .fn = hook_nothing};
    uint64_t token;

    timer.destroyed = hook.destroyed = misuse_when_destroyed;
    timer.userdata = hook.userdata = &mourner;
    CHECK_EQ(fdmux_timer_add(mourner.loop, &timer, &token), 0);
    CHECK_EQ(fdmux_hook_add(mourner.loop, &hook, &token), 0);
    fdmux_loop_destroy(mourner.loop);
    CHECK_EQ(mourner.count, 2);
}

/* ---- another process ------------------------------------------------------------ */

TEST(child_of_fork_gets_echild_from_every_function_but_after_fork)
{
    struct fdmux_loop *loop = check_open_loop();
    int status = 1;
    pid_t pid;

    CHECK_EQ(call_by_name("stream_add", loop, 0), 0);
    CHECK_EQ(call_by_name("datagram_add", loop, 0), 0);
    pid = fork();
    CHECK(pid >= 0);
    for (size_t i = 0; pid == 0 && i < every_call_count; i++) {
        if (!is_call(&every_call[i], "loop_after_fork"))
            check_equal(every_call[i].call(loop, 1), -ECHILD, __FILE__, __LINE__,
                        every_call[i].name);
    }
    if (pid == 0)
        _exit(0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    CHECK_EQ(poll_once(loop), 0);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
}

/* ---- busy loops ----------------------------------------------------------------- */

/* What a call returns on a thread that does not dispatch, or inside a function. */
static int expected_when_busy(const struct call *call, bool is_inside)
{
    if (is_call(call, "loop_hold") && !is_inside)
        return -EPERM;
    if (is_call(call, "loop_dispatch") || is_call(call, "loop_run"))
        return -EBUSY;
    if ((is_call(call, "loop_fd") && !check_has_host_fd()) ||
        (is_call(call, "loop_handle") && !check_is("afd")))
        return -EOPNOTSUPP;
    return call->kind == KINDLESS ? 0 : -EIDRM;
}

static void call_while_busy(struct fdmux_loop *loop, const struct call *call,
                            bool is_inside)
{
    int expected = expected_when_busy(call, is_inside);
    int r = call->call(loop, 1);

    check_equal(r < 0 ? r : 0, expected, __FILE__, __LINE__, call->name);
}

static int misuse_inside(struct fdmux_loop *loop, void *userdata)
{
    ++*(int *)userdata;
    for (size_t i = 0; i < every_call_count; i++)
        call_while_busy(loop, &every_call[i], true);
    return 0;
}

TEST(functions_may_call_everything_but_dispatch)
{
    struct fdmux_loop *loop = check_open_loop();
    int count = 0;

    CHECK_EQ(fdmux_post(loop, misuse_inside, &count), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(count, 1);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
}

static void *dispatch_until_stopped(void *userdata)
{
    struct fdmux_loop *loop = userdata;

    CHECK_EQ(fdmux_loop_run(loop), 0);
    return NULL;
}

static int mark_running(struct fdmux_loop *loop, void *userdata)
{
    (void)loop;
    mark(userdata);
    return 0;
}

/* fdmux_stream.h and fdmux_datagram.h are for the dispatching thread; fdmux.h is for
 * any thread. */
TEST(another_thread_may_call_everything_of_the_core_but_dispatch)
{
    struct fdmux_loop *loop = check_open_loop();
    static _Atomic int is_running;
    pthread_t thread;

    CHECK_EQ(fdmux_post(loop, mark_running, &is_running), 0);
    CHECK_EQ(pthread_create(&thread, NULL, dispatch_until_stopped, loop), 0);
    wait_for_mark(&is_running);
    for (size_t i = 0; i < every_call_count; i++) {
        if (strncmp(every_call[i].name, "stream", 6) != 0 &&
            strncmp(every_call[i].name, "datagram", 8) != 0 &&
            !is_call(&every_call[i], "loop_stop"))
            call_while_busy(loop, &every_call[i], false);
    }
    CHECK_EQ(fdmux_loop_stop(loop), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
}

/* ---- tokens of another kind or loop --------------------------------------------- */

/* One watcher of each kind, with its token at the index of its kind. */
struct scene {
    struct fdmux_loop *loop;
    struct channel channel;
    struct witness witness;
    struct listener *listener;
    struct calls calls[TOKEN_KINDS];
    uint64_t tokens[TOKEN_KINDS];
    int peer_fd;
};

static void open_scene(struct scene *scene)
{
    int fds[2];

    memset(scene, 0, sizeof *scene);
    scene->loop = check_open_loop();
    open_sockets(fds);
    scene->peer_fd = fds[1];
    scene->channel = open_channel();
    scene->tokens[IO] =
        watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &scene->calls[IO]);
    scene->tokens[TIMER] = add_timer(scene->loop, &scene->calls[TIMER]);
    scene->tokens[HOOK] = add_hook(scene->loop, &scene->calls[HOOK]);
    scene->tokens[STREAM] = add_stream(scene->loop, fds[0], &scene->witness);
    scene->listener = open_listener(scene->loop);
    scene->tokens[ENDPOINT] = connect_loopback(scene->listener, 0, 9);
}

static void close_scene(struct scene *scene)
{
    CHECK_EQ(poll_once(scene->loop), 0);
    verify_streams(scene->loop);
    fdmux_loop_destroy(scene->loop);
    free(scene->listener);
    close_channel(&scene->channel);
    CHECK_EQ(close(scene->peer_fd), 0);
}

/* Every function that takes a token of a kind other than `kind` refuses this one. */
static void expect_refused(struct fdmux_loop *loop, uint64_t token, enum kind kind)
{
    for (size_t i = 0; i < every_call_count; i++) {
        if (every_call[i].kind != KINDLESS && every_call[i].kind != kind)
            check_equal(every_call[i].call(loop, token), -EIDRM, __FILE__, __LINE__,
                        every_call[i].name);
    }
    if (kind != STREAM)
        CHECK_EQ(call_by_name("stream_write_batch", loop, token), 0);
}

TEST(token_of_one_kind_is_enoent_for_the_functions_of_every_other)
{
    static struct scene scene;

    open_scene(&scene);
    for (int kind = IO; kind < TOKEN_KINDS; kind++)
        expect_refused(scene.loop, scene.tokens[kind], (enum kind)kind);
    close_scene(&scene);
}

TEST(forged_and_foreign_tokens_are_enoent_for_every_function)
{
    static struct scene scenes[2];
    uint64_t random = 11;

    open_scene(&scenes[0]);
    open_scene(&scenes[1]);
    expect_refused(scenes[0].loop, 0, KINDLESS);
    expect_refused(scenes[0].loop, UINT64_MAX, KINDLESS);
    for (int i = 0; i < 1000; i++) {
        uint64_t high = check_random(&random);

        expect_refused(scenes[0].loop, high << 32 | check_random(&random), KINDLESS);
    }
    for (int kind = IO; kind < TOKEN_KINDS; kind++) {
        expect_refused(scenes[0].loop, scenes[1].tokens[kind], KINDLESS);
        for (int bit = 32; bit < 64; bit++)
            expect_refused(scenes[0].loop, scenes[0].tokens[kind] ^ UINT64_C(1) << bit,
                           KINDLESS);
    }
    close_scene(&scenes[0]);
    close_scene(&scenes[1]);
}

TEST(stale_tokens_are_enoent_for_every_function)
{
    static struct scene scene;
    struct fdmux_loop *loop;

    open_scene(&scene);
    loop = scene.loop;
    CHECK_EQ(fdmux_io_remove(loop, scene.tokens[IO]), 0);
    CHECK_EQ(fdmux_timer_remove(loop, scene.tokens[TIMER]), 0);
    CHECK_EQ(fdmux_hook_remove(loop, scene.tokens[HOOK]), 0);
    CHECK_EQ(fdmux_stream_close(loop, scene.tokens[STREAM], FDMUX_STREAM_DROP), 0);
    CHECK_EQ(fdmux_datagram_close(loop, scene.tokens[ENDPOINT], 0), 0);
    CHECK_EQ(poll_once(loop), 0);
    for (int kind = IO; kind < TOKEN_KINDS; kind++)
        expect_refused(loop, scene.tokens[kind], KINDLESS);
    close_scene(&scene);
}
