/* test_no_fd.c: a watcher may begin without a descriptor, and lose the one it has. */
#include "fixtures.h"

#include <fcntl.h>
#include <unistd.h>

struct scene {
    struct fdmux_loop *loop;
    struct channel channel;
    struct calls calls;
    uint64_t io; /* has no descriptor yet */
};

static struct scene *open_scene(void)
{
    static struct scene scene;

    scene = (struct scene){.loop = check_open_loop(), .channel = open_channel()};
    scene.io = watch(scene.loop, -1, FDMUX_READ, &scene.calls);
    return &scene;
}

static void close_scene(struct scene *scene)
{
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    CHECK_EQ(scene->calls.destroyed, 1);
    close_channel(&scene->channel);
}

static int replace(const struct scene *scene, int fd, uint32_t events)
{
    int r = fdmux_io_replace_fd(scene->loop, scene->io, fd, events);

    VERIFY(scene->loop);
    return r;
}

TEST(watcher_without_a_descriptor_watches_nothing)
{
    struct scene *scene = open_scene();

    VERIFY(scene->loop);
    CHECK(scene->io > 0);
    CHECK_EQ(stats_of(scene->loop).io_live, 1);
    CHECK_EQ(stats_of(scene->loop).fd_live, 0);
    CHECK_EQ(fdmux_io_fd(scene->loop, scene->io), -EBADF);
    CHECK_EQ(fdmux_io_update(scene->loop, scene->io, FDMUX_WRITE), -EBADF);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 0);
    close_scene(scene);
}

TEST(watcher_gets_its_descriptor_and_events_later)
{
    struct scene *scene = open_scene();
    int fds[2];

    open_sockets(fds);
    CHECK_EQ(replace(scene, fds[0], FDMUX_WRITE), 0);
    CHECK_EQ(fdmux_io_fd(scene->loop, scene->io), fds[0]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    CHECK_EQ(scene->calls.events, FDMUX_WRITE);
    CHECK_EQ(scene->calls.token, scene->io);
    CHECK_EQ(replace(scene, scene->channel.read_fd, FDMUX_READ), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    feed(&scene->channel);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 2);
    CHECK_EQ(scene->calls.events, FDMUX_READ);
    CHECK_EQ(close(fds[0]) + close(fds[1]), 0);
    close_scene(scene);
}

TEST(watcher_is_without_a_descriptor_between_two_connections)
{
    struct scene *scene = open_scene();
    struct calls other = {0};

    watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &other);
    CHECK_EQ(replace(scene, scene->channel.read_fd, FDMUX_READ), 0);
    feed(&scene->channel);
    CHECK_EQ(replace(scene, -1, 0), 0);
    CHECK_EQ(fdmux_io_fd(scene->loop, scene->io), -EBADF);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 0);
    CHECK_EQ(other.count, 1);
    CHECK_EQ(replace(scene, -1, FDMUX_READ), 0); /* again is no error */
    CHECK_EQ(replace(scene, scene->channel.read_fd, FDMUX_READ), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    close_scene(scene);
}

TEST(watcher_may_lose_a_descriptor_that_is_closed_already)
{
    struct scene *scene = open_scene();

    CHECK_EQ(replace(scene, scene->channel.read_fd, FDMUX_READ), 0);
    CHECK_EQ(close(scene->channel.read_fd), 0);
    CHECK_EQ(replace(scene, -1, 0), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(stats_of(scene->loop).fd_live, 0);
    scene->channel.read_fd = fcntl(scene->channel.write_fd, F_DUPFD_CLOEXEC, 0);
    close_scene(scene);
}

TEST(refused_descriptor_leaves_the_watcher_without_one)
{
    struct scene *scene = open_scene();

    CHECK_EQ(replace(scene, 19999, FDMUX_READ), -EBADF);
    CHECK_EQ(replace(scene, -2, FDMUX_READ), -EBADF);
    CHECK_EQ(replace(scene, scene->channel.read_fd, UINT32_C(1) << 31), -EINVAL);
    fdmux_testing_fail(FDMUX_CALL_MEMORY, 1, ENOMEM, 1);
    CHECK_EQ(replace(scene, scene->channel.read_fd, FDMUX_READ), -ENOMEM);
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(fdmux_io_fd(scene->loop, scene->io), -EBADF);
    CHECK_EQ(stats_of(scene->loop).io_live, 1);
    CHECK_EQ(stats_of(scene->loop).fd_live, 0);
    CHECK_EQ(replace(scene, scene->channel.read_fd, FDMUX_READ), 0);
    close_scene(scene);
}

static int let_go(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata)
{
    int *count = userdata;

    (void)events;
    ++*count;
    CHECK_EQ(fdmux_io_replace_fd(loop, io, -1, 0), 0);
    return 0;
}

TEST(watcher_may_let_its_descriptor_go_in_its_function)
{
    struct scene *scene = open_scene();
    struct calls other = {0};
    int count = 0;

    watch_with(scene->loop, scene->channel.read_fd, FDMUX_READ, let_go, &count);
    watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &other);
    feed(&scene->channel);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(count, 1);
    CHECK(other.count >= 2);
    close_scene(scene);
}

TEST(watcher_without_a_descriptor_survives_a_fork)
{
    struct scene *scene = open_scene();
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        CHECK_EQ(fdmux_io_fd(scene->loop, scene->io), -ECHILD);
        CHECK_EQ(fdmux_loop_after_fork(scene->loop), 0);
        CHECK_EQ(replace(scene, scene->channel.read_fd, FDMUX_READ), 0);
        CHECK_EQ(fdmux_io_fd(scene->loop, scene->io), scene->channel.read_fd);
        feed(&scene->channel);
        CHECK_EQ(poll_once(scene->loop), 0);
        CHECK_EQ(scene->calls.count, 1);
        _exit(0);
    }
    expect_exit(child);
    close_scene(scene);
}
