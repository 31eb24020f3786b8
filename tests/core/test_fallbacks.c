/* test_fallbacks.c: kernels and sandboxes that lack or refuse a system call. */
#include "fixtures.h"

#include <fcntl.h>
#include <unistd.h>

#include "loop_state.h"

static const int missing_errors[] = {ENOSYS, EPERM};

/* ---- creating ------------------------------------------------------------------ */

UNIT_TEST(poll_is_chosen_where_the_others_are_missing_or_forbidden)
{
    for (int i = 0; i < 2; i++) {
        struct fdmux_loop *loop = NULL;
        struct calls calls = {0};

        fdmux_testing_fail(CALL_SET_OPEN, 1, missing_errors[i], 1);
        CHECK_EQ(fdmux_loop_create(NULL, &loop), 0);
        CHECK(strcmp(fdmux_loop_backend(loop), "poll") == 0);
        CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
        CHECK_EQ(fdmux_loop_dispatch(loop, 0, NULL, 0), 0);
        CHECK_EQ(calls.count, 1);
        VERIFY(loop);
        fdmux_loop_destroy(loop);
    }
}

SET_TEST(backend_asked_for_by_name_is_not_replaced)
{
    struct fdmux_loop_options options = {sizeof options, 0, check_backend()};
    struct fdmux_loop *loop = NULL;

    for (int i = 0; i < 2; i++) {
        fdmux_testing_fail(CALL_SET_OPEN, 1, missing_errors[i], 1);
        CHECK_EQ(fdmux_loop_create(&options, &loop), -missing_errors[i]);
        CHECK(loop == NULL);
    }
    fdmux_testing_fail(CALL_SET_OPEN, 1, EMFILE, 1);
    CHECK_EQ(fdmux_loop_create(NULL, &loop), -EMFILE);
    CHECK(loop == NULL);
}

static void check_flags(int fd)
{
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
}

BELL_TEST(pipe_replaces_a_missing_eventfd)
{
    const int errors[] = {ENOSYS, EPERM, ENODEV, ENOMEM};

    for (int i = 0; i < 4; i++) {
        struct fdmux_loop *loop;
        struct calls calls = {0};

        fdmux_testing_fail(FDMUX_CALL_EVENTFD, 1, errors[i], 1);
        loop = check_open_loop();
        CHECK(loop->bell.read_fd != loop->bell.write_fd);
        check_flags(loop->bell.read_fd);
        check_flags(loop->bell.write_fd);
        for (int round = 1; round < 4; round++) {
            CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
            CHECK_EQ(fdmux_loop_wake(loop), 0);
            CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
            CHECK_EQ(calls.count, round);
        }
        CHECK(!is_readable(loop->bell.read_fd));
        fdmux_loop_destroy(loop);
    }
}

BELL_TEST(neither_eventfd_nor_pipe_fails_the_constructor)
{
    struct fdmux_loop_options options = {sizeof options, 0, check_backend()};
    struct fdmux_loop *loop = NULL;

    fdmux_testing_fail(FDMUX_CALL_EVENTFD | FDMUX_CALL_PIPE, 1, ENOSYS, 1);
    CHECK_EQ(fdmux_loop_create(&options, &loop), -ENOSYS);
    CHECK(loop == NULL);
}

/* ---- waiting ------------------------------------------------------------------- */

EPOLL_TEST(milliseconds_replace_a_missing_epoll_pwait2)
{
    for (int i = 0; i < 2; i++) {
        struct fdmux_loop *loop = check_open_loop();
        int64_t start_ns = fdmux_loop_now(loop);

        CHECK((stats_of(loop).features & FDMUX_FEATURE_NANOSECONDS) != 0);
        fdmux_testing_fail(FDMUX_CALL_PWAIT2, 1, missing_errors[i], 1);
        for (int round = 0; round < 3; round++)
            CHECK_EQ(fdmux_loop_dispatch(loop, 300000, NULL, 0), 0);
        CHECK(fdmux_loop_now(loop) - start_ns >= 900000); /* never early */
        CHECK_EQ(fdmux_testing_calls(), 1);               /* tried once only */
        CHECK_EQ(stats_of(loop).features & FDMUX_FEATURE_NANOSECONDS, 0);
        fdmux_loop_destroy(loop);
    }
}

TEST(error_of_the_wait_is_returned_and_the_loop_goes_on)
{
    const int errors[] = {EBADF, EINVAL, EFAULT, ENOMEM};
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};
    uint32_t kinds = FDMUX_CALL_WAIT | FDMUX_CALL_PWAIT2;

    watch(loop, channel.read_fd, FDMUX_READ, &calls);
    feed(&channel);
    for (int i = 0; i < 4; i++) {
        fdmux_testing_fail(kinds, 1, errors[i], 0);
        CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), -errors[i]);
        VERIFY(loop);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(calls.count, i + 1);
    }
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

TEST(interrupted_wait_is_eintr_and_an_interrupted_poll_is_nothing)
{
    struct fdmux_loop *loop = check_open_loop();

    fdmux_testing_fail(FDMUX_CALL_WAIT | FDMUX_CALL_PWAIT2, 1, EINTR, 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), -EINTR);
    fdmux_testing_fail(FDMUX_CALL_WAIT | FDMUX_CALL_PWAIT2, 1, EINTR, 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, 1000 * MS, NULL, 0), -EINTR);
    fdmux_testing_fail(FDMUX_CALL_WAIT | FDMUX_CALL_PWAIT2, 1, EINTR, 0);
    CHECK_EQ(poll_once(loop), 0);
    fdmux_loop_destroy(loop);
}

/* ---- hosting ------------------------------------------------------------------- */

EPOLL_TEST(host_falls_back_on_the_deadline_without_a_timerfd)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t timer = add_timer(loop, &calls);
    int64_t deadline_ns = 0;
    int fd;

    fdmux_testing_fail(FDMUX_CALL_TIMERFD, 1, ENODEV, 1);
    fd = fdmux_loop_fd(loop);
    CHECK(fd >= 0);
    CHECK_EQ(stats_of(loop).features & FDMUX_FEATURE_TIMER_IN_FD, 0);
    CHECK_EQ(fdmux_timer_arm(loop, timer, 1, 0), 0);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK_EQ(deadline_ns, 1);
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK(is_readable(fd));
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 1);
    CHECK(!is_readable(fd));
    fdmux_loop_destroy(loop);
}

EPOLL_TEST(failed_host_descriptor_can_be_asked_for_again)
{
    struct fdmux_loop *loop = check_open_loop();
    int fds = check_open_fds();

    fdmux_testing_fail(FDMUX_CALL_EPOLL_CREATE, 1, EMFILE, 0);
    CHECK_EQ(fdmux_loop_fd(loop), -EMFILE);
    fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, 1, ENOSPC, 0);
    CHECK_EQ(fdmux_loop_fd(loop), -ENOSPC);
    CHECK_EQ(check_open_fds(), fds);
    VERIFY(loop);
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK(fdmux_loop_fd(loop) >= 0);
    fdmux_loop_destroy(loop);
}

/* ---- epoll_ctl ----------------------------------------------------------------- */

struct scene {
    struct fdmux_loop *loop;
    struct channel channel;
    struct calls calls;
};

static struct scene *open_scene(void)
{
    static struct scene scene;

    scene = (struct scene){.loop = check_open_loop(), .channel = open_channel()};
    feed(&scene.channel);
    return &scene;
}

static void close_scene(struct scene *scene)
{
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    close_channel(&scene->channel);
}

static void check_called(struct scene *scene)
{
    int before = scene->calls.count;

    VERIFY(scene->loop);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls.count, before + 1);
}

EPOLL_TEST(refused_addition_registers_nothing)
{
    const int errors[] = {ENOSPC, ENOMEM, EBADF, EPERM, ELOOP, EINVAL};
    struct scene *scene = open_scene();

    for (int i = 0; i < 6; i++) {
        fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, 1, errors[i], 0);
        CHECK_EQ(try_watch(scene->loop, scene->channel.read_fd, FDMUX_READ),
                 -errors[i]);
        VERIFY(scene->loop);
        CHECK_EQ(stats_of(scene->loop).io_live + stats_of(scene->loop).fd_live, 0);
    }
    watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &scene->calls);
    check_called(scene);
    close_scene(scene);
}

EPOLL_TEST(refused_update_changes_nothing)
{
    const int errors[] = {ENOMEM, EBADF, EPERM};
    struct scene *scene = open_scene();
    uint64_t io = watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &scene->calls);

    for (int i = 0; i < 3; i++) {
        fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, 1, errors[i], 0);
        CHECK_EQ(fdmux_io_update(scene->loop, io, FDMUX_PRIORITY), -errors[i]);
        check_called(scene);
    }
    close_scene(scene);
}

/* The kernel still has an entry that the core has forgotten, so adding gives EEXIST. */
EPOLL_TEST(entry_left_behind_is_taken_over)
{
    struct scene *scene = open_scene();
    uint64_t io = watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &scene->calls);

    fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, 1, EPERM, 0);
    CHECK_EQ(fdmux_io_remove(scene->loop, io), 0); /* removal never fails */
    scene->calls.destroyed = 0;
    watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &scene->calls);
    check_called(scene);
    CHECK_EQ(stats_of(scene->loop).stale_event_count, 0);
    close_scene(scene);
}

EPOLL_TEST(entry_left_behind_is_silenced)
{
    struct scene *scene = open_scene();
    uint64_t io = watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &scene->calls);

    fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, 1, EPERM, 0);
    CHECK_EQ(fdmux_io_remove(scene->loop, io), 0);
    CHECK_EQ(fdmux_loop_dispatch(scene->loop, 5 * MS, NULL, 0), 0);
    CHECK_EQ(scene->calls.count, 0);
    CHECK_EQ(stats_of(scene->loop).rebuild_count, 1);
    CHECK(stats_of(scene->loop).iteration_count <= 5);
    close_scene(scene);
}

EPOLL_TEST(unknown_entry_is_registered_anew)
{
    struct scene *scene = open_scene();
    uint64_t io = watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &scene->calls);

    fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, 1, ENOENT, 0);
    CHECK_EQ(fdmux_io_update(scene->loop, io, FDMUX_READ | FDMUX_PRIORITY), 0);
    check_called(scene);
    close_scene(scene);
}

EPOLL_TEST(removal_ignores_what_the_kernel_says)
{
    const int errors[] = {ENOENT, EBADF, EPERM, ENOMEM};
    struct scene *scene = open_scene();

    for (int i = 0; i < 4; i++) {
        struct calls calls = {0};
        uint64_t io = watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &calls);

        fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, 1, errors[i], 0);
        CHECK_EQ(fdmux_io_remove(scene->loop, io), 0);
        CHECK_EQ(calls.destroyed, 1);
        VERIFY(scene->loop);
    }
    close_scene(scene);
}

/* ---- rebuilding ---------------------------------------------------------------- */

/* Make the kernel report a file that is open only as a dup. */
static int make_ghost(struct scene *scene)
{
    struct channel ghost = open_channel();
    int dup_fd = fcntl(ghost.read_fd, F_DUPFD_CLOEXEC, 0);
    struct calls calls = {0};
    uint64_t io = watch(scene->loop, ghost.read_fd, FDMUX_READ, &calls);

    feed(&ghost);
    close_channel(&ghost);
    CHECK_EQ(fdmux_io_remove(scene->loop, io), 0);
    return dup_fd;
}

EPOLL_TEST(rebuild_without_a_descriptor_is_tried_again)
{
    struct scene *scene = open_scene();
    int dup_fd = make_ghost(scene);

    watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &scene->calls);
    fdmux_testing_fail(FDMUX_CALL_EPOLL_CREATE, 1, EMFILE, 1);
    for (int i = 0; i < 5; i++)
        check_called(scene);
    CHECK_EQ(stats_of(scene->loop).rebuild_count, 0);
    fdmux_testing_fail(0, 0, 0, 0);
    check_called(scene);
    CHECK_EQ(stats_of(scene->loop).rebuild_count, 1);
    close(dup_fd);
    close_scene(scene);
}

EPOLL_TEST(rebuild_that_its_host_cannot_watch_is_tried_again)
{
    struct scene *scene = open_scene();
    int dup_fd = make_ghost(scene);
    int fds;

    CHECK(fdmux_loop_fd(scene->loop) >= 0);
    watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &scene->calls);
    fds = check_open_fds();
    /* One call for each node, one for the wake descriptor, and the third for the
     * host. */
    for (int i = 0; i < 3; i++) {
        fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, 3, ENOSPC, 0);
        check_called(scene);
        CHECK_EQ(check_open_fds(), fds);
    }
    CHECK_EQ(stats_of(scene->loop).rebuild_count, 0);
    fdmux_testing_fail(0, 0, 0, 0);
    check_called(scene);
    CHECK_EQ(stats_of(scene->loop).rebuild_count, 1);
    CHECK(is_readable(fdmux_loop_fd(scene->loop)));
    close(dup_fd);
    close_scene(scene);
}

/* If memory runs out during a rebuild, every watcher still gets its events. */
EPOLL_TEST(rebuild_that_ran_out_of_memory_is_completed)
{
    for (int64_t nth = 1; nth < 8; nth++) {
        struct scene *scene = open_scene();
        int dup_fd = make_ghost(scene);
        int before;

        watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &scene->calls);
        fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, nth, ENOMEM, 1);
        for (int i = 0; i < 5; i++)
            (void)poll_once(scene->loop);
        fdmux_testing_fail(0, 0, 0, 0);
        before = scene->calls.count;
        for (int i = 0; i < 3; i++)
            CHECK_EQ(poll_once(scene->loop), 0);
        CHECK_EQ(scene->calls.count, before + 3);
        CHECK_EQ(stats_of(scene->loop).rebuild_count, 1);
        close(dup_fd);
        close_scene(scene);
    }
}
