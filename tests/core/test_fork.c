/* test_fork.c: a child of fork() gets -ECHILD and never disturbs its parent. */
#include "fixtures.h"

#include <sys/wait.h>
#include <unistd.h>

#include "loop_state.h"

struct scene {
    struct fdmux_loop *loop;
    struct channel channel;
    struct calls io;
    struct calls timer;
    struct calls hook;
    struct calls post;
    uint64_t io_token;
    uint64_t timer_token;
};

static struct scene *open_scene(void)
{
    static struct scene scene;

    scene = (struct scene){.loop = check_open_loop(), .channel = open_channel()};
    scene.io_token = watch(scene.loop, scene.channel.read_fd, FDMUX_READ, &scene.io);
    scene.timer_token = add_timer(scene.loop, &scene.timer);
    add_hook(scene.loop, &scene.hook);
    return &scene;
}

static void close_scene(struct scene *scene)
{
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    CHECK_EQ(scene->io.destroyed, 1);
    CHECK_EQ(scene->timer.destroyed, 1);
    close_channel(&scene->channel);
}

/* Run `child` in a child process; a failed check there fails this case. */
static void run_in_child(void (*child)(struct scene *), struct scene *scene)
{
    pid_t pid = fork();
    int status = 1;

    CHECK(pid >= 0);
    if (pid == 0) {
        child(scene);
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

/* The parent is not affected. */
static void check_parent(struct scene *scene)
{
    int before = scene->io.count;

    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->io.count, before);
    feed(&scene->channel);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->io.count, before + 1);
    drain(&scene->channel);
    CHECK_EQ(fdmux_loop_wake(scene->loop), 0);
    CHECK_EQ(fdmux_loop_dispatch(scene->loop, -1, NULL, 0), 0);
    VERIFY(scene->loop);
}

static void check_echild(struct scene *scene)
{
    struct fdmux_loop *loop = scene->loop;
    struct fdmux_loop_stats stats = {.struct_size = sizeof stats};
    struct fdmux_timer_options timer = {.struct_size = sizeof timer,
                                        .flags = FDMUX_COLLECT};
    struct fdmux_hook_options hook = {.struct_size = sizeof hook, .fn = count_hook};
    uint64_t token = 7;
    int64_t deadline_ns = 7;

    CHECK_EQ(fdmux_loop_fd(loop), -ECHILD);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), -ECHILD);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, NULL, 0), -ECHILD);
    CHECK_EQ(fdmux_loop_run(loop), -ECHILD);
    CHECK_EQ(fdmux_loop_stop(loop), -ECHILD);
    CHECK_EQ(fdmux_loop_wake(loop), -ECHILD);
    CHECK_EQ(fdmux_loop_stats(loop, &stats), -ECHILD);
    CHECK_EQ(try_watch(loop, scene->channel.read_fd, FDMUX_READ), -ECHILD);
    CHECK_EQ(fdmux_io_update(loop, scene->io_token, 0), -ECHILD);
    CHECK_EQ(fdmux_io_replace_fd(loop, scene->io_token, 0, 0), -ECHILD);
    CHECK_EQ(fdmux_io_remove(loop, scene->io_token), -ECHILD);
    CHECK_EQ(fdmux_timer_add(loop, &timer, &token), -ECHILD);
    CHECK_EQ(fdmux_timer_arm(loop, scene->timer_token, 1, 0), -ECHILD);
    CHECK_EQ(fdmux_timer_cancel(loop, scene->timer_token), -ECHILD);
    CHECK_EQ(fdmux_timer_remove(loop, scene->timer_token), -ECHILD);
    CHECK_EQ(fdmux_hook_add(loop, &hook, &token), -ECHILD);
    CHECK_EQ(fdmux_hook_remove(loop, token), -ECHILD);
    CHECK_EQ(fdmux_post(loop, count_post, NULL), -ECHILD);
    CHECK_EQ(token, 7);
    CHECK_EQ(deadline_ns, 7);
}

TEST(every_call_in_a_child_is_echild)
{
    struct scene *scene = open_scene();

    run_in_child(check_echild, scene);
    check_parent(scene);
    close_scene(scene);
}

static void destroy_in_child(struct scene *scene)
{
    bool has_bell = fdmux__is_fd(scene->loop->bell.read_fd);
    int fds = check_open_fds();

    fdmux_loop_destroy(scene->loop);
    CHECK_EQ(scene->io.destroyed, 1);
    CHECK_EQ(scene->timer.destroyed, 1);
    CHECK_EQ(scene->hook.destroyed, 1);
    CHECK_EQ(scene->post.count, 0); /* the parent runs that call */
    /* kqueue(2): no child inherits one. If there is no bell, nothing is closed. */
    CHECK(has_bell ? check_open_fds() < fds : check_open_fds() == fds);
    CHECK_EQ(fdmux_testing_allocations(), 0);
}

TEST(destroy_in_a_child_leaves_the_parent_alone)
{
    struct scene *scene = open_scene();

    CHECK_EQ(fdmux_post(scene->loop, count_post, &scene->post), 0);
    run_in_child(destroy_in_child, scene);
    check_parent(scene);
    CHECK_EQ(scene->post.count, 1);
    close_scene(scene);
}

static void go_on_in_child(struct scene *scene)
{
    struct channel channel = open_channel();

    CHECK_EQ(fdmux_loop_after_fork(scene->loop), 0);
    VERIFY(scene->loop);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->post.count, 0); /* the parent runs that call */
    CHECK_EQ(
        fdmux_io_replace_fd(scene->loop, scene->io_token, channel.read_fd, FDMUX_READ),
        0);
    feed(&channel);
    CHECK_EQ(fdmux_timer_arm(scene->loop, scene->timer_token, 1, 0), 0);
    CHECK_EQ(fdmux_post(scene->loop, count_post, &scene->post), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->io.count, 1);
    CHECK_EQ(scene->timer.count, 1);
    CHECK_EQ(scene->post.count, 1);
    CHECK(scene->hook.count >= 2);
    VERIFY(scene->loop);
    if (check_has_host_fd())
        CHECK(fdmux_loop_fd(scene->loop) >= 0);
    fdmux_loop_destroy(scene->loop);
    CHECK_EQ(scene->io.destroyed, 1);
    CHECK_EQ(fdmux_testing_allocations(), 0);
}

TEST(child_goes_on_after_after_fork)
{
    struct scene *scene = open_scene();

    CHECK_EQ(fdmux_post(scene->loop, count_post, &scene->post), 0);
    run_in_child(go_on_in_child, scene);
    check_parent(scene);
    CHECK_EQ(scene->post.count, 1);
    close_scene(scene);
}

SET_TEST(hosted_parent_keeps_its_descriptor)
{
    struct scene *scene = open_scene();
    int fd = fdmux_loop_fd(scene->loop);

    CHECK(fd >= 0);
    run_in_child(go_on_in_child, scene);
    CHECK(!is_readable(fd));
    feed(&scene->channel);
    CHECK(is_readable(fd));
    drain(&scene->channel);
    check_parent(scene);
    close_scene(scene);
}

static void watch_with_parent(struct scene *scene)
{
    CHECK_EQ(fdmux_loop_after_fork(scene->loop), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->io.count, 1); /* the pipe is shared, so it is readable here, too */
    CHECK_EQ(fdmux_io_remove(scene->loop, scene->io_token), 0);
    VERIFY(scene->loop);
}

TEST(child_has_the_same_watchers_and_its_removals_leave_the_parent_alone)
{
    struct scene *scene = open_scene();

    feed(&scene->channel);
    run_in_child(watch_with_parent, scene);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->io.count, 1); /* the parent lost no event */
    drain(&scene->channel);
    check_parent(scene);
    close_scene(scene);
}

TEST(after_fork_without_a_fork_does_nothing)
{
    struct scene *scene = open_scene();

    CHECK_EQ(fdmux_loop_after_fork(scene->loop), 0);
    check_parent(scene);
    close_scene(scene);
}

static int fork_and_leave(struct fdmux_loop *loop, void *userdata)
{
    pid_t pid = fork();
    int status = 1;

    (void)userdata;
    CHECK(pid >= 0);
    if (pid == 0)
        _exit(fdmux_loop_wake(loop) == -ECHILD ? 0 : 1);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    return 0;
}

TEST(fork_inside_a_function_leaves_the_parent_alone)
{
    struct scene *scene = open_scene();

    CHECK_EQ(fdmux_post(scene->loop, fork_and_leave, NULL), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    check_parent(scene);
    close_scene(scene);
}

static void fork_again(struct scene *scene)
{
    CHECK_EQ(fdmux_loop_after_fork(scene->loop), 0);
    run_in_child(go_on_in_child, scene);
    CHECK_EQ(poll_once(scene->loop), 0);
    fdmux_loop_destroy(scene->loop);
}

TEST(grandchild_gets_echild_as_well)
{
    struct scene *scene = open_scene();

    run_in_child(fork_again, scene);
    check_parent(scene);
    close_scene(scene);
}
