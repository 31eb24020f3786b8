/* test_return.c: after a batch that called functions, the function of
 * fdmux_loop_set_return decides whether dispatch returns although nothing was
 * collected. */
#include "fixtures.h"

#include <pthread.h>
#include <stdatomic.h>

struct asked {
    struct fdmux_loop *loop;
    int count;
    int positive_from; /* returns 1 from this call on; 0: never */
};

static int answer(struct fdmux_loop *loop, void *userdata)
{
    struct asked *asked = userdata;

    CHECK(loop == asked->loop);
    asked->count++;
    return asked->positive_from > 0 && asked->count >= asked->positive_from ? 1 : 0;
}

static struct asked open_asked(int positive_from)
{
    return (struct asked){.loop = check_open_loop(), .positive_from = positive_from};
}

static void set_answer(struct asked *asked)
{
    CHECK_EQ(fdmux_loop_set_return(asked->loop, answer, asked), 0);
}

TEST(positive_answer_ends_a_dispatch_that_would_wait_for_ever)
{
    struct asked asked = open_asked(1);
    struct calls calls = {0};

    set_answer(&asked);
    for (int i = 1; i <= 3; i++) {
        CHECK_EQ(fdmux_post(asked.loop, count_post, &calls), 0);
        CHECK_EQ(fdmux_loop_dispatch(asked.loop, -1, NULL, 0), 0);
        CHECK_EQ(calls.count, i);
        CHECK_EQ(asked.count, i);
    }
    fdmux_loop_destroy(asked.loop);
}

TEST(batch_that_calls_nothing_is_not_asked_about)
{
    struct asked asked = open_asked(1);
    struct channel channel = open_channel();
    struct fdmux_ready ready[1];

    set_answer(&asked);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, 2 * MS, NULL, 0), 0);
    CHECK_EQ(fdmux_loop_wake(asked.loop), 0);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, -1, NULL, 0), 0);
    (void)collect(asked.loop, channel.read_fd, FDMUX_READ, 0);
    feed(&channel);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, -1, ready, 1), 1);
    CHECK_EQ(asked.count, 0);
    fdmux_loop_destroy(asked.loop);
    close_channel(&channel);
}

static int post_again(struct fdmux_loop *loop, void *userdata)
{
    int *left = userdata;

    return loop != NULL && --*left > 0 ? fdmux_post(loop, post_again, left) : 0;
}

TEST(answer_of_zero_lets_dispatch_go_on)
{
    struct asked asked = open_asked(4);
    int left = 4; /* one per batch */

    set_answer(&asked);
    CHECK_EQ(fdmux_post(asked.loop, post_again, &left), 0);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, -1, NULL, 0), 0);
    CHECK_EQ(left, 0);
    CHECK_EQ(asked.count, 4);
    fdmux_loop_destroy(asked.loop);
}

/* Batches of every kind of function count. */
TEST(io_timers_and_posts_are_asked_about)
{
    struct asked asked = open_asked(1);
    struct channel channel = open_channel();
    struct calls calls = {0};

    set_answer(&asked);
    (void)watch(asked.loop, channel.read_fd, FDMUX_READ, &calls);
    feed(&channel);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, -1, NULL, 0), 0);
    drain(&channel);
    CHECK_EQ(fdmux_timer_arm(asked.loop, add_timer(asked.loop, &calls), 1, 0), 0);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, -1, NULL, 0), 0);
    CHECK_EQ(fdmux_post(asked.loop, count_post, &calls), 0);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, -1, NULL, 0), 0);
    CHECK_EQ(calls.count, 3);
    CHECK_EQ(asked.count, 3);
    fdmux_loop_destroy(asked.loop);
    close_channel(&channel);
}

TEST(null_removes_it)
{
    struct asked asked = open_asked(1);
    struct calls calls = {0};
    int64_t start_ns;

    set_answer(&asked);
    CHECK_EQ(fdmux_loop_set_return(asked.loop, NULL, NULL), 0);
    CHECK_EQ(fdmux_post(asked.loop, count_post, &calls), 0);
    start_ns = fdmux_loop_now(asked.loop);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, 2 * MS, NULL, 0), 0);
    CHECK(fdmux_loop_now(asked.loop) - start_ns >= 2 * MS);
    CHECK_EQ(calls.count, 1);
    CHECK_EQ(asked.count, 0);
    fdmux_loop_destroy(asked.loop);
}

TEST(second_one_takes_the_place_of_the_first)
{
    struct asked first = open_asked(1);
    struct asked second = {.loop = first.loop, .positive_from = 1};
    struct calls calls = {0};

    set_answer(&first);
    set_answer(&second);
    CHECK_EQ(fdmux_post(first.loop, count_post, &calls), 0);
    CHECK_EQ(fdmux_loop_dispatch(first.loop, -1, NULL, 0), 0);
    CHECK_EQ(first.count, 0);
    CHECK_EQ(second.count, 1);
    fdmux_loop_destroy(first.loop);
}

/* A function set inside a batch already decides for that batch. */
static int set_inside(struct fdmux_loop *loop, void *userdata)
{
    if (loop != NULL)
        set_answer(userdata);
    return 0;
}

TEST(set_inside_a_function_it_is_asked_about_this_batch)
{
    struct asked asked = open_asked(1);

    CHECK_EQ(fdmux_post(asked.loop, set_inside, &asked), 0);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, -1, NULL, 0), 0);
    CHECK_EQ(asked.count, 1);
    fdmux_loop_destroy(asked.loop);
}

TEST(negative_result_of_a_function_is_returned_without_asking)
{
    struct asked asked = open_asked(1);
    struct calls failing = {.result = -7};

    set_answer(&asked);
    CHECK_EQ(fdmux_post(asked.loop, count_post, &failing), 0);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, -1, NULL, 0), -7);
    CHECK_EQ(asked.count, 0);
    fdmux_loop_destroy(asked.loop);
}

TEST(collected_events_are_returned_with_their_count)
{
    struct asked asked = open_asked(1);
    struct channel channel = open_channel();
    struct fdmux_ready ready[1];
    struct calls calls = {0};

    set_answer(&asked);
    (void)collect(asked.loop, channel.read_fd, FDMUX_READ, 5);
    feed(&channel);
    CHECK_EQ(fdmux_post(asked.loop, count_post, &calls), 0);
    CHECK_EQ(fdmux_loop_dispatch(asked.loop, -1, ready, 1), 1);
    CHECK_EQ(ready[0].tag, 5);
    CHECK_EQ(calls.count, 1);
    fdmux_loop_destroy(asked.loop);
    close_channel(&channel);
}

static int stop_later(struct fdmux_loop *loop, void *userdata)
{
    int *left = userdata;

    if (--*left == 0)
        return fdmux_loop_stop(loop);
    return fdmux_post(loop, stop_later, left);
}

TEST(run_goes_on_until_it_is_stopped)
{
    struct asked asked = open_asked(1);
    int left = 3;

    set_answer(&asked);
    CHECK_EQ(fdmux_post(asked.loop, stop_later, &left), 0);
    CHECK_EQ(fdmux_loop_run(asked.loop), 0);
    CHECK_EQ(left, 0);
    fdmux_loop_destroy(asked.loop);
}

/* ---- another thread ------------------------------------------------------------ */

enum { ROUNDS = 2000 };

static int say_no(struct fdmux_loop *loop, void *userdata)
{
    (void)loop;
    atomic_fetch_add((_Atomic int *)userdata, 1);
    return 0;
}

struct setter {
    struct fdmux_loop *loop;
    _Atomic int asked;
};

static void *set_and_remove(void *userdata)
{
    struct setter *setter = userdata;
    static struct calls calls;

    for (int i = 0; i < ROUNDS; i++) {
        CHECK_EQ(fdmux_loop_set_return(setter->loop, say_no, &setter->asked), 0);
        CHECK_EQ(fdmux_post(setter->loop, count_post, &calls), 0);
        CHECK_EQ(fdmux_loop_set_return(setter->loop, NULL, NULL), 0);
    }
    CHECK_EQ(fdmux_loop_stop(setter->loop), 0);
    return NULL;
}

TEST(thread_may_set_it_while_another_dispatches)
{
    struct setter setter = {.loop = check_open_loop()};
    pthread_t thread;

    CHECK_EQ(pthread_create(&thread, NULL, set_and_remove, &setter), 0);
    CHECK_EQ(fdmux_loop_run(setter.loop), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(atomic_load(&setter.asked) <= ROUNDS);
    fdmux_loop_destroy(setter.loop);
}
