/* test_tokens.c: stale, forged, foreign and zero tokens, and wrong arguments. */
#include "fixtures.h"

/* Every function that takes a token refuses this one, whatever its kind. */
static void check_refused(struct fdmux_loop *loop, uint64_t token)
{
    CHECK_EQ(fdmux_io_update(loop, token, FDMUX_READ), -EIDRM);
    CHECK_EQ(fdmux_io_replace_fd(loop, token, 0, 0), -EIDRM);
    CHECK_EQ(fdmux_io_remove(loop, token), -EIDRM);
    CHECK_EQ(fdmux_timer_arm(loop, token, 1, 0), -EIDRM);
    CHECK_EQ(fdmux_timer_cancel(loop, token), -EIDRM);
    CHECK_EQ(fdmux_timer_remove(loop, token), -EIDRM);
    CHECK_EQ(fdmux_hook_remove(loop, token), -EIDRM);
}

/* A loop with one watcher of each kind. */
struct scene {
    struct fdmux_loop *loop;
    struct channel channel;
    struct calls calls[3];
    uint64_t tokens[3];
};

static struct scene *open_scene(void)
{
    static struct scene scene;

    scene = (struct scene){.loop = check_open_loop(), .channel = open_channel()};
    scene.tokens[0] =
        watch(scene.loop, scene.channel.read_fd, FDMUX_READ, &scene.calls[0]);
    scene.tokens[1] = add_timer(scene.loop, &scene.calls[1]);
    scene.tokens[2] = add_hook(scene.loop, &scene.calls[2]);
    return &scene;
}

static void close_scene(struct scene *scene)
{
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    close_channel(&scene->channel);
}

TEST(zero_and_all_ones_are_no_tokens)
{
    struct scene *scene = open_scene();

    check_refused(scene->loop, 0);
    check_refused(scene->loop, UINT64_MAX);
    check_refused(scene->loop, 1);
    close_scene(scene);
}

TEST(forged_tokens_find_nothing)
{
    struct scene *scene = open_scene();
    uint64_t random = 3;

    for (int i = 0; i < 20000; i++) {
        uint64_t high = check_random(&random);
        uint64_t token = high << 32 | check_random(&random);

        if (token != scene->tokens[0] && token != scene->tokens[1] &&
            token != scene->tokens[2])
            check_refused(scene->loop, token);
    }
    close_scene(scene);
}

TEST(tokens_with_one_bit_flipped_find_nothing)
{
    struct scene *scene = open_scene();

    for (int i = 0; i < 3; i++) {
        for (int bit = 0; bit < 64; bit++) {
            if (bit < 28 || bit > 31) /* these bits are the kind: see the next case */
                check_refused(scene->loop, scene->tokens[i] ^ UINT64_C(1) << bit);
        }
    }
    close_scene(scene);
}

TEST(token_of_another_kind_is_refused)
{
    struct scene *scene = open_scene();

    CHECK_EQ(fdmux_io_remove(scene->loop, scene->tokens[1]), -EIDRM);
    CHECK_EQ(fdmux_io_update(scene->loop, scene->tokens[2], 0), -EIDRM);
    CHECK_EQ(fdmux_timer_arm(scene->loop, scene->tokens[0], 1, 0), -EIDRM);
    CHECK_EQ(fdmux_hook_remove(scene->loop, scene->tokens[1]), -EIDRM);
    close_scene(scene);
}

TEST(token_of_another_loop_is_refused)
{
    struct scene *scene = open_scene();
    struct fdmux_loop *other = check_open_loop();

    for (int i = 0; i < 3; i++)
        check_refused(other, scene->tokens[i]);
    fdmux_loop_destroy(other);
    close_scene(scene);
}

TEST(removed_token_stays_refused_when_its_slot_is_reused)
{
    struct scene *scene = open_scene();
    uint64_t stale = scene->tokens[0];
    struct calls calls = {0};

    CHECK_EQ(fdmux_io_remove(scene->loop, stale), 0);
    CHECK_EQ(scene->calls[0].destroyed, 1);
    CHECK(watch(scene->loop, scene->channel.read_fd, FDMUX_READ, &calls) != stale);
    check_refused(scene->loop, stale);
    CHECK_EQ(fdmux_timer_remove(scene->loop, scene->tokens[1]), 0);
    check_refused(scene->loop, scene->tokens[1]);
    CHECK_EQ(fdmux_hook_remove(scene->loop, scene->tokens[2]), 0);
    check_refused(scene->loop, scene->tokens[2]);
    close_scene(scene);
}

TEST(null_loop_is_efault_everywhere)
{
    struct fdmux_loop_stats stats = {.struct_size = sizeof stats};
    struct fdmux_io_options io = {.struct_size = sizeof io, .fn = count_io};
    struct fdmux_timer_options timer = {.struct_size = sizeof timer, .fn = count_timer};
    struct fdmux_hook_options hook = {.struct_size = sizeof hook, .fn = count_hook};
    uint64_t token = 7;
    int64_t deadline_ns = 7;

    CHECK_EQ(fdmux_loop_fd(NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_next_deadline(NULL, &deadline_ns), -EFAULT);
    CHECK_EQ(fdmux_loop_dispatch(NULL, 0, NULL, 0), -EFAULT);
    CHECK_EQ(fdmux_loop_run(NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_stop(NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_wake(NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_stats(NULL, &stats), -EFAULT);
    CHECK_EQ(fdmux_loop_after_fork(NULL), -EFAULT);
    CHECK_EQ(fdmux_io_add(NULL, &io, &token), -EFAULT);
    CHECK_EQ(fdmux_timer_add(NULL, &timer, &token), -EFAULT);
    CHECK_EQ(fdmux_hook_add(NULL, &hook, &token), -EFAULT);
    CHECK_EQ(fdmux_post(NULL, count_post, NULL), -EFAULT);
    CHECK_EQ(fdmux_io_update(NULL, 1, 0), -EFAULT);
    CHECK_EQ(fdmux_io_replace_fd(NULL, 1, 0, 0), -EFAULT);
    CHECK_EQ(fdmux_io_remove(NULL, 1), -EFAULT);
    CHECK_EQ(fdmux_timer_arm(NULL, 1, 0, 0), -EFAULT);
    CHECK_EQ(fdmux_timer_cancel(NULL, 1), -EFAULT);
    CHECK_EQ(fdmux_timer_remove(NULL, 1), -EFAULT);
    CHECK_EQ(fdmux_hook_remove(NULL, 1), -EFAULT);
    CHECK_EQ(token, 7);
    CHECK_EQ(deadline_ns, 7);
}

TEST(memory_that_is_no_loop_is_einval)
{
    static uint64_t garbage[512];
    struct fdmux_loop *loop = (void *)garbage;

    memset(garbage, 0x5a, sizeof garbage);
    CHECK_EQ(fdmux_loop_wake(loop), -EINVAL);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, NULL, 0), -EINVAL);
    CHECK(fdmux_loop_backend(loop) == NULL);
    CHECK(fdmux_loop_destroy(loop) == NULL);
    CHECK_EQ(garbage[0], 0x5a5a5a5a5a5a5a5a);
}

TEST(wrong_io_options_are_einval_and_register_nothing)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_io_options options = {.struct_size = sizeof options, .fn = count_io};
    uint64_t token = 7;

    CHECK_EQ(fdmux_io_add(loop, NULL, &token), -EFAULT);
    CHECK_EQ(fdmux_io_add(loop, &options, NULL), -EFAULT);
    for (uint32_t bit = 0x40; bit != 0; bit <<= 1) {
        options.events = FDMUX_READ | bit;
        if ((bit & (FDMUX_EDGE | FDMUX_ONESHOT | FDMUX_EXCLUSIVE)) == 0)
            CHECK_EQ(fdmux_io_add(loop, &options, &token), -EINVAL);
    }
    options.events = 0;
    options.flags = FDMUX_COLLECT; /* and a function */
    CHECK_EQ(fdmux_io_add(loop, &options, &token), -EINVAL);
    options.flags = FDMUX_COLLECT << 1;
    CHECK_EQ(fdmux_io_add(loop, &options, &token), -EINVAL);
    options.flags = 0;
    options.fn = NULL; /* forgotten */
    CHECK_EQ(fdmux_io_add(loop, &options, &token), -EINVAL);
    options.flags = FDMUX_COLLECT;
    options.struct_size++;
    CHECK_EQ(fdmux_io_add(loop, &options, &token), -E2BIG);
    options.struct_size = 0;
    CHECK_EQ(fdmux_io_add(loop, &options, &token), -E2BIG);
    CHECK_EQ(token, 7);
    CHECK_EQ(stats_of(loop).io_live + stats_of(loop).fd_live, 0);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
}

TEST(wrong_timer_and_hook_options_are_einval)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_timer_options timer = {.struct_size = sizeof timer,
                                        .flags = FDMUX_COLLECT};
    struct fdmux_hook_options hook = {.struct_size = sizeof hook};
    uint64_t token = 7;

    CHECK_EQ(fdmux_timer_add(loop, NULL, &token), -EFAULT);
    CHECK_EQ(fdmux_timer_add(loop, &timer, NULL), -EFAULT);
    timer.fn = count_timer; /* and the flag */
    CHECK_EQ(fdmux_timer_add(loop, &timer, &token), -EINVAL);
    timer.flags = FDMUX_COLLECT << 1;
    CHECK_EQ(fdmux_timer_add(loop, &timer, &token), -EINVAL);
    timer.flags = 0;
    timer.fn = NULL; /* forgotten */
    CHECK_EQ(fdmux_timer_add(loop, &timer, &token), -EINVAL);
    timer.flags = FDMUX_COLLECT;
    timer.struct_size--;
    CHECK_EQ(fdmux_timer_add(loop, &timer, &token), -E2BIG);
    CHECK_EQ(fdmux_hook_add(loop, &hook, &token), -EINVAL); /* without a function */
    hook.fn = count_hook;
    CHECK_EQ(fdmux_hook_add(loop, NULL, &token), -EFAULT);
    CHECK_EQ(fdmux_hook_add(loop, &hook, NULL), -EFAULT);
    hook.struct_size--;
    CHECK_EQ(fdmux_hook_add(loop, &hook, &token), -E2BIG);
    CHECK_EQ(token, 7);
    CHECK_EQ(stats_of(loop).timer_live + stats_of(loop).hook_live, 0);
    fdmux_loop_destroy(loop);
}

TEST(wrong_arguments_of_calls_are_refused)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_loop_stats stats = {.struct_size = 8};
    struct fdmux_ready ready;
    uint64_t timer = collect_timer(loop, 0);

    CHECK_EQ(fdmux_loop_dispatch(loop, 0, &ready, -1), -EINVAL);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, NULL, 1), -EFAULT);
    CHECK_EQ(fdmux_loop_next_deadline(loop, NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_stats(loop, NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_stats(loop, &stats), -E2BIG);
    CHECK_EQ(fdmux_post(loop, NULL, NULL), -EINVAL);
    CHECK_EQ(fdmux_timer_arm(loop, timer, -1, 0), -EINVAL);
    CHECK_EQ(fdmux_timer_arm(loop, timer, 1, -1), -EINVAL);
    CHECK_EQ(fdmux_timer_cancel(loop, timer), 0);
    fdmux_loop_destroy(loop);
}

TEST(wrong_update_leaves_the_watcher_as_it_was)
{
    struct scene *scene = open_scene();

    CHECK_EQ(fdmux_io_update(scene->loop, scene->tokens[0], FDMUX_TIMER), -EINVAL);
    CHECK_EQ(fdmux_io_update(scene->loop, scene->tokens[0], 0x80000000), -EINVAL);
    feed(&scene->channel);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls[0].count, 1);
    close_scene(scene);
}
