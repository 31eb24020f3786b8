/* test_dispatch_extension.c: a dispatch of the pending streams alone, as Python's
 * close() uses it outside of fdmux_loop_dispatch, and what their functions may do to
 * the loop. */
#include "stream_fixtures.h"

#include <sys/wait.h>
#include <unistd.h>

#include "dispatch.h"
#include "loop.h"
#include "loop_state.h"

enum { STREAMS = 4 };

/* Streams that were closed outside of a dispatch, so their CLOSED events are pending.
 */
struct scene {
    struct fdmux_loop *loop;
    struct witness witnesses[STREAMS];
    int peers[STREAMS];
    pid_t child; /* 0 in the child that a function has forked */
};

static void open_scene(struct scene *scene,
                       int (*reaction)(struct witness *witness,
                                       const struct fdmux_stream_event *event))
{
    memset(scene, 0, sizeof *scene);
    scene->loop = check_open_loop();
    for (int i = 0; i < STREAMS; i++) {
        int fds[2];
        uint64_t stream;

        open_sockets(fds);
        scene->witnesses[i].reaction = reaction;
        scene->witnesses[i].extra = scene;
        stream = add_stream(scene->loop, fds[0], &scene->witnesses[i]);
        scene->peers[i] = fds[1];
        CHECK_EQ(fdmux_stream_close(scene->loop, stream, FDMUX_STREAM_DROP), 0);
    }
}

static int closed_count(const struct scene *scene)
{
    int count = 0;

    for (int i = 0; i < STREAMS; i++)
        count += scene->witnesses[i].counts[FDMUX_STREAM_CLOSED];
    return count;
}

/* Each stream got CLOSED and `destroyed` once. */
static void check_ended(const struct scene *scene)
{
    for (int i = 0; i < STREAMS; i++) {
        CHECK_EQ(scene->witnesses[i].counts[FDMUX_STREAM_CLOSED], 1);
        CHECK_EQ(scene->witnesses[i].destroyed, 1);
    }
}

static void close_peers(const struct scene *scene)
{
    for (int i = 0; i < STREAMS; i++)
        CHECK_EQ(close(scene->peers[i]), 0);
}

TEST(every_pending_stream_is_closed_without_a_dispatch)
{
    struct scene scene;

    open_scene(&scene, NULL);
    CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), 0);
    check_ended(&scene);
    verify_streams(scene.loop);
    CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), 0); /* nothing is pending */
    check_ended(&scene);
    fdmux_loop_destroy(scene.loop);
    close_peers(&scene);
}

TEST(loop_without_streams_has_nothing_to_dispatch)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK_EQ(fdmux__loop_dispatch_extension(loop), 0);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
}

/* ---- functions that end the loop ----------------------------------------------- */

/* The first CLOSED event closes the loop. */
static int close_loop(struct witness *witness, const struct fdmux_stream_event *event)
{
    if (closed_count(witness->extra) > 1)
        return 0;
    CHECK_EQ(fdmux__loop_close(witness->loop), 0);
    CHECK_EQ(fdmux_stream_close(witness->loop, event->stream, 0), -ESTALE);
    return 0;
}

TEST(function_of_a_pending_stream_may_close_the_loop)
{
    struct scene scene;

    open_scene(&scene, close_loop);
    CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), -ESTALE);
    check_ended(&scene);
    CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), -ESTALE);
    check_ended(&scene);
    fdmux_loop_destroy(scene.loop);
    check_ended(&scene);
    close_peers(&scene);
}

/* The first CLOSED event destroys the loop; the dispatch frees its memory at its end.
 */
static int destroy_loop(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct fdmux_loop *loop = witness->loop;

    if (closed_count(witness->extra) > 1)
        return 0;
    (void)fdmux_loop_destroy(loop);
    CHECK_EQ(fdmux_stream_close(loop, event->stream, 0), -ESTALE);
    return 0;
}

TEST(function_of_a_pending_stream_may_destroy_the_loop)
{
    struct scene scene;

    open_scene(&scene, destroy_loop);
    CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), -ESTALE);
    check_ended(&scene);
    close_peers(&scene);
}

/* A watcher, a timer and a posted call end with the loop, too. */
TEST(other_watchers_end_with_a_loop_that_a_pending_stream_destroys)
{
    struct channel channel = open_channel();
    struct calls io = {0}, timer = {0}, post = {0};
    struct scene scene;

    open_scene(&scene, destroy_loop);
    (void)watch(scene.loop, channel.read_fd, FDMUX_READ, &io);
    (void)add_timer(scene.loop, &timer);
    CHECK_EQ(fdmux_post(scene.loop, count_post, &post), 0);
    feed(&channel);
    CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), -ESTALE);
    check_ended(&scene);
    CHECK_EQ(io.count, 0);
    CHECK_EQ(io.destroyed, 1);
    CHECK_EQ(timer.destroyed, 1);
    CHECK_EQ(post.count, 1); /* with a NULL loop */
    close_channel(&channel);
    close_peers(&scene);
}

static int fail(struct witness *witness, const struct fdmux_stream_event *event)
{
    (void)witness, (void)event;
    return -EDOM;
}

TEST(negative_result_leaves_the_other_streams_pending)
{
    struct scene scene;

    open_scene(&scene, fail);
    for (int i = 1; i <= STREAMS; i++) {
        CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), -EDOM);
        CHECK_EQ(closed_count(&scene), i);
        verify_streams(scene.loop);
    }
    CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), 0);
    check_ended(&scene);
    fdmux_loop_destroy(scene.loop);
    close_peers(&scene);
}

/* ---- inside a dispatch --------------------------------------------------------- */

static int dispatch_extension(struct fdmux_loop *loop, void *userdata)
{
    const struct scene *scene = userdata;
    int before = closed_count(scene);

    CHECK_EQ(fdmux__loop_dispatch_extension(loop), 0);
    CHECK_EQ(closed_count(scene), before);
    return 0;
}

/* A function of the loop calls it: the running dispatch delivers the events. */
TEST(running_dispatch_delivers_the_pending_events_itself)
{
    struct scene scene;

    open_scene(&scene, NULL);
    CHECK_EQ(fdmux_post(scene.loop, dispatch_extension, &scene), 0);
    CHECK_EQ(serve(scene.loop), 0);
    check_ended(&scene);
    fdmux_loop_destroy(scene.loop);
    close_peers(&scene);
}

/* ---- fork ---------------------------------------------------------------------- */

/* The first CLOSED event forks, and its function returns in both processes. */
static int fork_once(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct scene *scene = witness->extra;

    (void)event;
    if (closed_count(scene) == 1) {
        scene->child = fork();
        CHECK(scene->child >= 0);
    }
    return 0;
}

/* The child gets no event of the parent's batch, and may destroy its copy. */
static void check_child(struct scene *scene, int r)
{
    CHECK_EQ(r, -ECHILD);
    CHECK_EQ(closed_count(scene), 1);
    CHECK_EQ(fdmux__loop_dispatch_extension(scene->loop), -ECHILD);
    CHECK_EQ(closed_count(scene), 1);
    fdmux_loop_destroy(scene->loop);
    _exit(0);
}

static void fork_in_function(bool is_hosted)
{
    struct scene scene;
    int status = 1;
    int r;

    open_scene(&scene, fork_once);
    if (is_hosted)
        CHECK(fdmux_loop_fd(scene.loop) >= 0);
    r = fdmux__loop_dispatch_extension(scene.loop);
    if (scene.child == 0)
        check_child(&scene, r);
    CHECK_EQ(r, 0);
    CHECK_EQ(waitpid(scene.child, &status, 0), scene.child);
    CHECK_EQ(status, 0);
    check_ended(&scene);
    verify_streams(scene.loop);
    fdmux_loop_destroy(scene.loop);
    close_peers(&scene);
}

TEST(child_forked_in_the_function_of_a_pending_stream_gets_echild)
{
    fork_in_function(false);
}

SET_TEST(child_forked_in_the_function_of_a_hosted_loop_gets_echild)
{
    fork_in_function(true);
}

/* ---- hosts --------------------------------------------------------------------- */

SET_TEST(hosted_descriptor_is_armed_for_the_next_timer)
{
    struct calls calls = {0};
    struct scene scene;
    uint64_t timer;
    int fd;

    open_scene(&scene, NULL);
    fd = fdmux_loop_fd(scene.loop);
    CHECK(is_readable(fd)); /* streams are pending */
    timer = add_timer(scene.loop, &calls);
    CHECK_EQ(
        fdmux_timer_arm(scene.loop, timer, fdmux_loop_now(scene.loop) + 20 * MS, 0), 0);
    CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), 0);
    check_ended(&scene);
    wait_until_readable(fd);
    CHECK_EQ(calls.count, 0); /* only fdmux_loop_dispatch calls timers */
    while (calls.count == 0)
        CHECK_EQ(poll_once(scene.loop), 0);
    CHECK_EQ(poll_once(scene.loop), 0);
    CHECK(!is_readable(fd)); /* armed for nothing again */
    fdmux_loop_destroy(scene.loop);
    close_peers(&scene);
}

SET_TEST(hosted_descriptor_is_quiet_when_nothing_is_pending_any_more)
{
    struct scene scene;
    int fd;

    open_scene(&scene, NULL);
    fd = fdmux_loop_fd(scene.loop);
    CHECK(is_readable(fd));
    CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), 0);
    CHECK(!is_readable(fd));
    fdmux_loop_destroy(scene.loop);
    close_peers(&scene);
}

SET_TEST(hosted_descriptor_stays_readable_while_a_stream_is_pending)
{
    struct scene scene;
    int fd;

    open_scene(&scene, fail);
    fd = fdmux_loop_fd(scene.loop);
    CHECK_EQ(fdmux__loop_dispatch_extension(scene.loop), -EDOM);
    CHECK(is_readable(fd));
    for (int i = 0; i < STREAMS; i++)
        scene.witnesses[i].reaction = NULL;
    CHECK_EQ(poll_once(scene.loop), 0);
    check_ended(&scene);
    CHECK_EQ(poll_once(scene.loop), 0);
    CHECK(!is_readable(fd));
    fdmux_loop_destroy(scene.loop);
    close_peers(&scene);
}
