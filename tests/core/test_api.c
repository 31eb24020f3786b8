/* test_api.c: the function table, and what a loop reports about itself. */
#include "fixtures.h"

#include "fdmux_api.h"

#include <fcntl.h>

#include "backend.h"
#include "choose.h"
#include "loop.h"
#include "loop_state.h"

UNIT_TEST(table_has_every_function_and_its_own_size)
{
    const struct fdmux_api *api = fdmux_get_api();
    const char *bytes = (const char *)api;
    size_t first = offsetof(struct fdmux_api, loop_create);
    void (*none)(void) = NULL;

    CHECK_EQ(api->struct_size, sizeof *api);
    CHECK_EQ(api->abi_major, FDMUX_ABI_MAJOR);
    CHECK_EQ(api->abi_minor, FDMUX_ABI_MINOR);
    for (size_t at = first; at < sizeof *api; at += sizeof none)
        CHECK(memcmp(bytes + at, (const void *)&none, sizeof none) != 0);
}

TEST(table_runs_a_loop)
{
    const struct fdmux_api *api = fdmux_get_api();
    struct fdmux_loop_options options = {sizeof options, 0, check_backend()};
    struct fdmux_loop *loop = NULL;
    struct calls calls = {0};

    CHECK_EQ(api->loop_create(&options, &loop), 0);
    CHECK_EQ(api->post(loop, count_post, &calls), 0);
    CHECK_EQ(api->loop_dispatch(loop, 0, NULL, 0), 0);
    CHECK_EQ(calls.count, 1);
    CHECK(api->loop_destroy(loop) == NULL);
}

UNIT_TEST(best_backend_is_chosen_without_options)
{
    struct fdmux_loop *loop = NULL;

    CHECK_EQ(fdmux_loop_create(NULL, &loop), 0);
    CHECK(strcmp(fdmux_loop_backend(loop), fdmux__backend_name(0)) == 0);
    CHECK(fdmux_loop_destroy(loop) == NULL);
}

TEST(backend_has_the_name_that_was_asked_for)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK(strcmp(fdmux_loop_backend(loop), check_backend()) == 0);
    CHECK(fdmux_loop_backend(NULL) == NULL);
    fdmux_loop_destroy(loop);
}

UNIT_TEST(unknown_backend_is_enoent)
{
    struct fdmux_loop_options options = {sizeof options, 0, "kqueue-of-mars"};
    struct fdmux_loop *loop = NULL;

    CHECK_EQ(fdmux_loop_create(&options, &loop), -ENOENT);
    CHECK(loop == NULL);
}

UNIT_TEST(wrong_create_arguments_create_nothing)
{
    struct fdmux_loop_options options = {sizeof options, 0, NULL};
    struct fdmux_loop *loop = NULL;

    CHECK_EQ(fdmux_loop_create(&options, NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_create(NULL, NULL), -EFAULT);
    options.flags = 1;
    CHECK_EQ(fdmux_loop_create(&options, &loop), -EINVAL);
    options.flags = 0;
    options.struct_size = sizeof options - 1;
    CHECK_EQ(fdmux_loop_create(&options, &loop), -E2BIG);
    options.struct_size = 0;
    CHECK_EQ(fdmux_loop_create(&options, &loop), -E2BIG);
    CHECK(loop == NULL);
}

UNIT_TEST(destroy_accepts_null)
{
    CHECK(fdmux_loop_destroy(NULL) == NULL);
}

/* A binding closes a loop this way when its users may still have the pointer. */
TEST(closed_loop_is_stale_until_it_is_destroyed)
{
    struct fdmux_loop *loop = check_open_loop();
    int fds = check_open_fds();
    struct calls calls = {0};

    add_timer(loop, &calls);
    CHECK_EQ(fdmux__loop_close(loop), 0);
    CHECK_EQ(calls.destroyed, 1);
    CHECK(check_open_fds() < fds || check_is("afd")); /* its handles are no sockets */
    CHECK_EQ(fdmux__loop_close(loop), 0);
    CHECK_EQ(fdmux_loop_wake(loop), -ESTALE);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, NULL, 0), -ESTALE);
    CHECK_EQ(try_watch(loop, 0, FDMUX_READ), -ESTALE);
    CHECK(strcmp(fdmux_loop_backend(loop), check_backend()) == 0);
    CHECK(fdmux_loop_destroy(loop) == NULL);
    CHECK_EQ(calls.destroyed, 1);
}

TEST(loop_costs_at_most_two_descriptors)
{
    int before = check_open_fds();
    struct fdmux_loop *loop = check_open_loop();

    CHECK(check_open_fds() - before <= 2);
    fdmux_loop_destroy(loop);
}

TEST(every_descriptor_of_a_loop_is_close_on_exec)
{
    struct fdmux_loop *loop = check_open_loop();
    int host_fd = fdmux_loop_fd(loop);
    int first = loop->backend->ring != NULL ? host_fd : loop->bell.read_fd;

    CHECK(check_has_host_fd() ? host_fd >= 0 : host_fd == -EOPNOTSUPP);
    for (int fd = 3; fd < 64; fd++) {
        int flags = fcntl(fd, F_GETFD);

        CHECK(flags < 0 || (flags & FD_CLOEXEC) != 0 || fd < first);
    }
    CHECK(loop->backend->ring != NULL ||
          (fcntl(loop->bell.read_fd, F_GETFL) & O_NONBLOCK) != 0);
    fdmux_loop_destroy(loop);
}

TEST(stats_count_what_happened)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls = {0};
    struct fdmux_ready ready[4];
    struct fdmux_loop_stats stats;

    feed(&channel);
    watch(loop, channel.read_fd, FDMUX_READ, &calls);
    collect(loop, channel.read_fd, FDMUX_READ, 0);
    add_hook(loop, &calls);
    CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, &calls), 1, 0), 0);
    CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, ready, 4), 1);
    stats = stats_of(loop);
    CHECK_EQ(stats.struct_size, sizeof stats);
    CHECK_EQ(stats.iteration_count, 1);
    CHECK_EQ(stats.io_called_count, 1);
    CHECK_EQ(stats.io_collected_count, 1);
    CHECK_EQ(stats.timer_count, 1);
    CHECK_EQ(stats.post_count, 1);
    CHECK_EQ(stats.io_live, 2);
    CHECK_EQ(stats.fd_live, 1);
    CHECK_EQ(stats.timer_live, 1);
    CHECK_EQ(stats.hook_live, 1);
    CHECK_EQ(stats.stale_event_count + stats.rebuild_count, 0);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

TEST(features_are_those_of_the_backend)
{
    struct fdmux_loop *loop = check_open_loop();
    uint32_t of_sets =
        FDMUX_FEATURE_FD | FDMUX_FEATURE_TIMER_IN_FD | FDMUX_FEATURE_EDGE;
    uint32_t expected = (check_has_host_fd() ? of_sets : 0) |
                        (check_is("epoll") ? FDMUX_FEATURE_EXCLUSIVE : 0);

    CHECK_EQ(stats_of(loop).features & (of_sets | FDMUX_FEATURE_EXCLUSIVE), expected);
    fdmux_loop_destroy(loop);
}
