/* test_closed.c: descriptors that were closed without removal, reused, or
 * duplicated. */
#include "fixtures.h"

#include <fcntl.h>
#include <unistd.h>

/* Move `fd` to `number`, which must be free. */
static void move_fd(int fd, int number)
{
    CHECK_EQ(dup3(fd, number, O_CLOEXEC), number);
    CHECK_EQ(close(fd), 0);
}

/* A watched pipe. Its reading end was closed, and another pipe has the number. */
struct scene {
    struct fdmux_loop *loop;
    struct channel gone; /* read_fd now belongs to `reused` */
    struct channel reused;
    struct calls calls;
    uint64_t io;
};

static struct scene *open_scene(void)
{
    static struct scene scene;

    scene = (struct scene){
        .loop = check_open_loop(),
        .gone = open_channel(),
        .reused = open_channel(),
    };
    scene.io = watch(scene.loop, scene.gone.read_fd, FDMUX_READ, &scene.calls);
    return &scene;
}

static void reuse(struct scene *scene)
{
    CHECK_EQ(close(scene->gone.read_fd), 0);
    move_fd(scene->reused.read_fd, scene->gone.read_fd);
    scene->reused.read_fd = scene->gone.read_fd;
}

static void close_scene(struct scene *scene)
{
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    CHECK_EQ(scene->calls.destroyed, 1);
    close_channel(&scene->reused);
    CHECK_EQ(close(scene->gone.write_fd), 0);
}

TEST(closed_descriptor_is_silent_and_does_not_spin)
{
    struct scene *scene = open_scene();

    feed(&scene->gone);
    CHECK_EQ(close(scene->gone.read_fd), 0);
    CHECK_EQ(fdmux_loop_dispatch(scene->loop, 40 * MS, NULL, 0), 0);
    CHECK_EQ(scene->calls.count, 0);
    CHECK(stats_of(scene->loop).iteration_count <= 3);
    /* The others have a set in the kernel, which forgets what was closed. */
    CHECK_EQ(stats_of(scene->loop).stale_event_count,
             check_is("poll") || check_is("afd") ? 1 : 0);
    VERIFY(scene->loop);
    CHECK_EQ(fdmux_io_remove(scene->loop, scene->io), 0);
    CHECK_EQ(scene->calls.destroyed, 1);
    move_fd(scene->reused.read_fd, scene->gone.read_fd);
    scene->reused.read_fd = scene->gone.read_fd;
    close_scene(scene);
}

/* Its backend learns that the number is closed when the other watcher leaves. */
TEST(watcher_that_leaves_a_closed_descriptor_leaves_no_busy_loop)
{
    struct scene *scene = open_scene();
    struct calls writer = {0};
    uint64_t io = watch(scene->loop, scene->gone.read_fd, FDMUX_WRITE, &writer);

    feed(&scene->gone);
    CHECK_EQ(poll_once(scene->loop), 0); /* poll(2) knows it from its copy, too */
    CHECK_EQ(close(scene->gone.read_fd), 0);
    CHECK_EQ(fdmux_io_remove(scene->loop, io), 0);
    VERIFY(scene->loop);
    scene->calls.count = 0;
    CHECK_EQ(fdmux_loop_dispatch(scene->loop, 5 * MS, NULL, 0), 0);
    CHECK_EQ(scene->calls.count, 0);
    CHECK(stats_of(scene->loop).iteration_count <= 4);
    move_fd(scene->reused.read_fd, scene->gone.read_fd);
    scene->reused.read_fd = scene->gone.read_fd;
    close_scene(scene);
}

/* poll(2) cannot tell apart two files that had the same number; epoll(7) can. */
SET_TEST(new_watcher_of_a_reused_number_orphans_the_old_one)
{
    struct scene *scene = open_scene();
    struct calls fresh = {0};

    reuse(scene);
    feed(&scene->reused);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 0);
    watch(scene->loop, scene->reused.read_fd, FDMUX_READ, &fresh);
    VERIFY(scene->loop);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(fresh.count, 1);
    CHECK_EQ(scene->calls.count, 0);
    CHECK_EQ(fdmux_io_update(scene->loop, scene->io, 0), -EBADF);
    CHECK_EQ(fdmux_io_remove(scene->loop, scene->io), 0);
    VERIFY(scene->loop);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(fresh.count, 2);
    close_scene(scene);
}

/* A library has connected again and got the same number, and asks for what it asked for
 * before. */
SET_TEST(update_to_the_same_events_finds_the_new_file)
{
    struct scene *scene = open_scene();

    reuse(scene);
    feed(&scene->reused);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 0);
    CHECK_EQ(fdmux_io_update(scene->loop, scene->io, FDMUX_READ), 0);
    VERIFY(scene->loop);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    close_scene(scene);
}

TEST(update_to_the_same_events_of_a_closed_number_is_ebadf)
{
    struct scene *scene = open_scene();

    CHECK_EQ(close(scene->gone.read_fd), 0);
    CHECK_EQ(fdmux_io_update(scene->loop, scene->io, FDMUX_READ), -EBADF);
    VERIFY(scene->loop);
    CHECK_EQ(fdmux_io_update(scene->loop, scene->io, 0), 0); /* nothing to be deaf to */
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 0);
    move_fd(scene->reused.read_fd, scene->gone.read_fd);
    scene->reused.read_fd = scene->gone.read_fd;
    close_scene(scene);
}

EPOLL_TEST(new_exclusive_watcher_of_a_reused_number_orphans_the_old_one)
{
    struct scene *scene = open_scene();
    struct calls calls[2] = {0};
    uint32_t events = FDMUX_READ | FDMUX_EXCLUSIVE;

    CHECK_EQ(fdmux_io_remove(scene->loop, scene->io), 0);
    watch(scene->loop, scene->gone.read_fd, events, &calls[0]);
    reuse(scene);
    feed(&scene->reused);
    watch(scene->loop, scene->reused.read_fd, events, &calls[1]);
    VERIFY(scene->loop);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(calls[0].count, 0);
    CHECK_EQ(calls[1].count, 1);
    close_scene(scene);
}

/* After a wait found the descriptor closed, poll tells the files apart, too. */
TEST(number_reused_after_it_was_found_closed_is_not_the_old_one)
{
    struct scene *scene = open_scene();
    struct calls fresh = {0};

    CHECK_EQ(close(scene->gone.read_fd), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    move_fd(scene->reused.read_fd, scene->gone.read_fd);
    scene->reused.read_fd = scene->gone.read_fd;
    feed(&scene->reused);
    watch(scene->loop, scene->reused.read_fd, FDMUX_READ, &fresh);
    VERIFY(scene->loop);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(fresh.count, 1);
    CHECK_EQ(scene->calls.count, 0);
    close_scene(scene);
}

TEST(leaving_watcher_does_not_revive_its_neighbour_on_a_reused_number)
{
    struct scene *scene = open_scene();
    struct calls writer = {0};
    uint64_t io = watch(scene->loop, scene->gone.read_fd, FDMUX_PRIORITY, &writer);

    CHECK_EQ(close(scene->gone.read_fd), 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    move_fd(scene->reused.read_fd, scene->gone.read_fd);
    scene->reused.read_fd = scene->gone.read_fd;
    feed(&scene->reused);
    CHECK_EQ(fdmux_io_remove(scene->loop, io), 0);
    VERIFY(scene->loop);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 0);
    close_scene(scene);
}

SET_TEST(update_on_a_reused_number_means_the_new_file)
{
    struct scene *scene = open_scene();

    reuse(scene);
    feed(&scene->reused);
    CHECK_EQ(fdmux_io_update(scene->loop, scene->io, FDMUX_READ | FDMUX_PRIORITY), 0);
    VERIFY(scene->loop);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    close_scene(scene);
}

/* epoll(7): a file that stays open as a dup stays in the set under its old number. */
EPOLL_TEST(removed_but_dup_ed_descriptor_is_silenced_by_a_rebuild)
{
    struct scene *scene = open_scene();
    int dup_fd = fcntl(scene->gone.read_fd, F_DUPFD_CLOEXEC, 0);
    struct calls other = {0};

    watch(scene->loop, scene->reused.read_fd, FDMUX_READ, &other);
    CHECK_EQ(close(scene->gone.read_fd), 0);
    CHECK_EQ(fdmux_io_remove(scene->loop, scene->io), 0);
    feed(&scene->gone);
    CHECK_EQ(fdmux_loop_dispatch(scene->loop, 40 * MS, NULL, 0), 0);
    CHECK(stats_of(scene->loop).iteration_count <= 5);
    CHECK_EQ(stats_of(scene->loop).rebuild_count, 1);
    CHECK_EQ(scene->calls.count, 0);
    VERIFY(scene->loop);
    feed(&scene->reused);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(other.count, 1);
    scene->gone.read_fd = dup_fd;
    CHECK_EQ(close(dup_fd), 0);
    close_scene(scene);
}

EPOLL_TEST(dup_of_the_old_file_does_not_speak_for_the_new_one)
{
    struct scene *scene = open_scene();
    int dup_fd = fcntl(scene->gone.read_fd, F_DUPFD_CLOEXEC, 0);

    reuse(scene);
    CHECK_EQ(
        fdmux_io_replace_fd(scene->loop, scene->io, scene->reused.read_fd, FDMUX_READ),
        0);
    VERIFY(scene->loop);
    feed(&scene->gone); /* the old file, now open only as the dup */
    CHECK_EQ(fdmux_loop_dispatch(scene->loop, 40 * MS, NULL, 0), 0);
    CHECK_EQ(scene->calls.count, 0);
    CHECK(stats_of(scene->loop).iteration_count <= 5);
    CHECK_EQ(stats_of(scene->loop).rebuild_count, 1);
    feed(&scene->reused);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, 1);
    CHECK_EQ(close(dup_fd), 0);
    close_scene(scene);
}

EPOLL_TEST(rebuild_does_not_bring_closed_numbers_back)
{
    struct scene *scene = open_scene();
    struct channel ghost = open_channel();
    int dup_fd = fcntl(ghost.read_fd, F_DUPFD_CLOEXEC, 0);
    struct calls calls = {0};
    uint64_t io = watch(scene->loop, ghost.read_fd, FDMUX_READ, &calls);

    CHECK_EQ(close(ghost.read_fd), 0);
    CHECK_EQ(fdmux_io_remove(scene->loop, io), 0);
    reuse(scene); /* the watcher was added for the old file */
    feed(&scene->reused);
    feed(&ghost);
    CHECK_EQ(fdmux_loop_dispatch(scene->loop, 40 * MS, NULL, 0), 0);
    CHECK_EQ(stats_of(scene->loop).rebuild_count, 1);
    CHECK_EQ(scene->calls.count, 0);
    CHECK_EQ(close(dup_fd), 0);
    CHECK_EQ(close(ghost.write_fd), 0);
    close_scene(scene);
}

EPOLL_TEST(rebuild_keeps_edge_exclusive_and_oneshot_watchers)
{
    struct scene *scene = open_scene();
    int dup_fd = fcntl(scene->gone.read_fd, F_DUPFD_CLOEXEC, 0);
    uint32_t options[] = {0, FDMUX_EDGE, FDMUX_EXCLUSIVE, FDMUX_ONESHOT};
    struct channel channels[4];
    struct calls calls[4] = {0};

    for (int i = 0; i < 4; i++) {
        channels[i] = open_channel();
        watch(scene->loop, channels[i].read_fd, FDMUX_READ | options[i], &calls[i]);
    }
    CHECK_EQ(close(scene->gone.read_fd), 0);
    CHECK_EQ(fdmux_io_remove(scene->loop, scene->io), 0);
    feed(&scene->gone);
    CHECK_EQ(fdmux_loop_dispatch(scene->loop, 40 * MS, NULL, 0), 0);
    CHECK_EQ(stats_of(scene->loop).rebuild_count, 1);
    for (int i = 0; i < 4; i++)
        feed(&channels[i]);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(stats_of(scene->loop).stale_event_count, 1);
    CHECK_EQ(close(dup_fd), 0);
    close_scene(scene);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(calls[i].count, 1);
        close_channel(&channels[i]);
    }
}

/* Removing a ready descriptor during a batch must not count as a stale event. */
struct replacer {
    uint64_t victim;
    int fd;
    struct calls calls;
};

static int replace_victim(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                          void *userdata)
{
    struct replacer *replacer = userdata;

    (void)io, (void)events;
    if (replacer->victim != 0) {
        CHECK_EQ(fdmux_io_remove(loop, replacer->victim), 0);
        watch(loop, replacer->fd, FDMUX_READ, &replacer->calls);
    }
    replacer->victim = 0;
    return 0;
}

TEST(callback_may_close_a_ready_socket_and_reuse_its_number)
{
    struct scene *scene = open_scene();
    struct channel trigger = open_channel();
    struct replacer replacer = {.fd = scene->gone.read_fd};

    CHECK_EQ(fdmux_io_remove(scene->loop, scene->io), 0);
    watch_with(scene->loop, trigger.read_fd, FDMUX_READ, replace_victim, &replacer);
    scene->calls = (struct calls){0};
    scene->io = watch(scene->loop, scene->gone.read_fd, FDMUX_READ, &scene->calls);
    replacer.victim = scene->io;
    feed(&trigger);
    feed(&scene->gone);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count + replacer.calls.count, 0);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(replacer.calls.count, 1);
    CHECK_EQ(stats_of(scene->loop).rebuild_count, 0);
    close_channel(&trigger);
    reuse(scene);
    close_scene(scene);
}

/* The slot of the removed node is reused before the core handles its pending edge. */
SET_TEST(kept_edge_of_a_removed_descriptor_is_no_reason_for_a_rebuild)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channels[3] = {open_channel(), open_channel(), open_channel()};
    struct fdmux_ready ready[1];
    uint64_t ios[2];

    for (uint32_t i = 0; i < 2; i++) {
        ios[i] = collect(loop, channels[i].read_fd, FDMUX_READ | FDMUX_EDGE, i);
        feed(&channels[i]);
    }
    for (int i = 0; i < 5; i++)
        CHECK_EQ(poll_once(loop), -ENOBUFS);
    CHECK_EQ(fdmux_io_remove(loop, ios[0]), 0);
    CHECK_EQ(fdmux_io_remove(loop, ios[1]), 0);
    collect(loop, channels[2].read_fd, FDMUX_READ, 2);
    collect(loop, channels[2].write_fd, 0, 3);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 1), 0);
    CHECK_EQ(stats_of(loop).stale_event_count, 0);
    CHECK_EQ(stats_of(loop).rebuild_count, 0);
    fdmux_loop_destroy(loop);
    for (int i = 0; i < 3; i++)
        close_channel(&channels[i]);
}
