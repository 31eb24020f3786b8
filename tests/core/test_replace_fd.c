/* test_replace_fd.c: a watcher moves to another descriptor. */
#include "fixtures.h"

#include <fcntl.h>
#include <unistd.h>

struct scene {
    struct fdmux_loop *loop;
    struct channel channels[2];
    struct calls calls;
    uint64_t io; /* watches channels[0] */
};

static struct scene *open_scene(void)
{
    static struct scene scene;

    scene = (struct scene){
        .loop = check_open_loop(),
        .channels = {open_channel(), open_channel()},
    };
    scene.io = watch(scene.loop, scene.channels[0].read_fd, FDMUX_READ, &scene.calls);
    return &scene;
}

static void close_scene(struct scene *scene)
{
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    CHECK_EQ(scene->calls.destroyed, 1);
    close_channel(&scene->channels[0]);
    close_channel(&scene->channels[1]);
}

TEST(watcher_follows_to_another_descriptor)
{
    struct scene *scene = open_scene();

    CHECK_EQ(fdmux_io_replace_fd(scene->loop, scene->io, scene->channels[1].read_fd,
                                 FDMUX_READ),
             0);
    VERIFY(scene->loop);
    CHECK_EQ(stats_of(scene->loop).fd_live, 1);
    feed(&scene->channels[0]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 0);
    feed(&scene->channels[1]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    CHECK_EQ(scene->calls.token, scene->io);
    close_scene(scene);
}

TEST(watcher_joins_others_that_stay)
{
    struct scene *scene = open_scene();
    struct calls calls[2] = {0};

    watch(scene->loop, scene->channels[0].read_fd, FDMUX_READ, &calls[0]);
    watch(scene->loop, scene->channels[1].read_fd, FDMUX_READ, &calls[1]);
    CHECK_EQ(fdmux_io_replace_fd(scene->loop, scene->io, scene->channels[1].read_fd,
                                 FDMUX_READ),
             0);
    VERIFY(scene->loop);
    feed(&scene->channels[0]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(calls[0].count, 1);
    CHECK_EQ(scene->calls.count, 0);
    feed(&scene->channels[1]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(calls[1].count, 1);
    CHECK_EQ(scene->calls.count, 1);
    close_scene(scene);
}

TEST(same_number_with_another_file_is_registered_anew)
{
    struct scene *scene = open_scene();
    int number = scene->channels[0].read_fd;

    CHECK_EQ(dup3(scene->channels[1].read_fd, number, O_CLOEXEC), number);
    CHECK_EQ(fdmux_io_replace_fd(scene->loop, scene->io, number, FDMUX_READ), 0);
    VERIFY(scene->loop);
    feed(&scene->channels[1]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    close_scene(scene);
}

TEST(update_of_a_number_with_another_file_watches_that_one)
{
    struct scene *scene = open_scene();
    int number = scene->channels[0].read_fd;

    CHECK_EQ(dup3(scene->channels[1].read_fd, number, O_CLOEXEC), number);
    CHECK_EQ(fdmux_io_update(scene->loop, scene->io, FDMUX_READ), 0);
    VERIFY(scene->loop);
    feed(&scene->channels[1]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    close_scene(scene);
}

TEST(same_number_with_the_same_file_changes_nothing)
{
    struct scene *scene = open_scene();

    CHECK_EQ(fdmux_io_replace_fd(scene->loop, scene->io, scene->channels[0].read_fd,
                                 FDMUX_READ),
             0);
    VERIFY(scene->loop);
    feed(&scene->channels[0]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    close_scene(scene);
}

TEST(failure_leaves_the_watcher_where_it_was)
{
    struct scene *scene = open_scene();

    CHECK_EQ(fdmux_io_replace_fd(scene->loop, scene->io, -2, FDMUX_READ), -EBADF);
    CHECK_EQ(fdmux_io_replace_fd(scene->loop, scene->io, 19999, FDMUX_READ), -EBADF);
    VERIFY(scene->loop);
    CHECK_EQ(stats_of(scene->loop).io_live, 1);
    CHECK_EQ(stats_of(scene->loop).fd_live, 1);
    feed(&scene->channels[0]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    CHECK_EQ(scene->calls.destroyed, 0);
    close_scene(scene);
}

SET_TEST(options_that_do_not_agree_leave_the_watcher_where_it_was)
{
    struct scene *scene = open_scene();
    struct calls edge = {0};

    watch(scene->loop, scene->channels[1].read_fd, FDMUX_READ | FDMUX_EDGE, &edge);
    CHECK_EQ(fdmux_io_replace_fd(scene->loop, scene->io, scene->channels[1].read_fd,
                                 FDMUX_READ),
             -EEXIST);
    VERIFY(scene->loop);
    feed(&scene->channels[0]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    close_scene(scene);
}

TEST(orphaned_watcher_works_again_after_replace_fd)
{
    struct scene *scene = open_scene();

    CHECK_EQ(close(scene->channels[0].read_fd), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(fdmux_io_replace_fd(scene->loop, scene->io, scene->channels[1].read_fd,
                                 FDMUX_READ),
             0);
    VERIFY(scene->loop);
    feed(&scene->channels[1]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    scene->channels[0].read_fd = fcntl(scene->channels[1].read_fd, F_DUPFD_CLOEXEC, 0);
    close_scene(scene);
}

struct mover {
    int fd;
    int count;
};

static int move_self(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                     void *userdata)
{
    struct mover *mover = userdata;

    (void)events;
    mover->count++;
    CHECK_EQ(fdmux_io_replace_fd(loop, io, mover->fd, FDMUX_READ), 0);
    return 0;
}

TEST(watcher_may_move_itself_in_its_callback)
{
    struct scene *scene = open_scene();
    struct mover mover = {.fd = scene->channels[1].read_fd};
    struct calls last = {0};

    watch_with(scene->loop, scene->channels[0].read_fd, FDMUX_READ, move_self, &mover);
    watch(scene->loop, scene->channels[0].read_fd, FDMUX_READ, &last);
    feed(&scene->channels[0]);
    feed(&scene->channels[1]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(mover.count, 1); /* once per batch */
    VERIFY(scene->loop);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(mover.count, 2);
    CHECK(last.count >= 1);
    close_scene(scene);
}
