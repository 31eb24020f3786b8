/* test_post.c: posted calls: exactly once, in order, from any thread. */
#include "fixtures.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 4, POSTS = 20000 };

struct order {
    int count;
    int numbers[8];
};

static int note_number(struct fdmux_loop *loop, struct order *order, int number)
{
    CHECK(loop != NULL);
    order->numbers[order->count++] = number;
    return 0;
}

static int note_one(struct fdmux_loop *loop, void *userdata)
{
    return note_number(loop, userdata, 1);
}

static int note_two(struct fdmux_loop *loop, void *userdata)
{
    return note_number(loop, userdata, 2);
}

static int note_three_and_post(struct fdmux_loop *loop, void *userdata)
{
    CHECK_EQ(fdmux_post(loop, note_one, userdata), 0);
    return note_number(loop, userdata, 3);
}

TEST(posts_run_in_order_and_what_they_post_in_the_next_iteration)
{
    struct fdmux_loop *loop = check_open_loop();
    struct order order = {0};

    CHECK_EQ(fdmux_post(loop, note_one, &order), 0);
    CHECK_EQ(fdmux_post(loop, note_three_and_post, &order), 0);
    CHECK_EQ(fdmux_post(loop, note_two, &order), 0);
    CHECK_EQ(order.count, 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(order.count, 3);
    VERIFY(loop);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(order.count, 4);
    CHECK(memcmp(order.numbers, (int[]){1, 3, 2, 1}, 4 * sizeof(int)) == 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(order.count, 4);
    fdmux_loop_destroy(loop);
}

TEST(negative_result_leaves_the_rest_for_the_next_dispatch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls[3] = {{0}, {.result = -9}, {0}};

    for (int i = 0; i < 3; i++)
        CHECK_EQ(fdmux_post(loop, count_post, &calls[i]), 0);
    CHECK_EQ(poll_once(loop), -9);
    CHECK_EQ(calls[2].count, 0);
    VERIFY(loop);
    CHECK_EQ(poll_once(loop), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(calls[i].count, 1);
    fdmux_loop_destroy(loop);
}

TEST(pending_posts_run_with_a_null_loop_when_it_is_destroyed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls[3] = {{.result = -9}, {0}, {0}};

    CHECK_EQ(fdmux_post(loop, count_post, &calls[0]), 0);
    CHECK_EQ(fdmux_post(loop, count_post, &calls[1]), 0);
    CHECK_EQ(poll_once(loop), -9); /* ends a batch early */
    CHECK_EQ(fdmux_post(loop, count_post, &calls[2]), 0);
    fdmux_loop_destroy(loop);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(calls[i].count, 1);
        CHECK_EQ(calls[i].events, i == 0 ? 0 : 1); /* 1: the loop was NULL */
    }
}

static int destroy_loop(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    CHECK(fdmux_loop_destroy(loop) == NULL);
    return 0;
}

TEST(posts_behind_one_that_destroys_the_loop_run_with_a_null_loop)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};

    CHECK_EQ(fdmux_post(loop, destroy_loop, NULL), 0);
    CHECK_EQ(fdmux_post(loop, count_post, &calls), 0);
    CHECK_EQ(poll_once(loop), -ESTALE);
    CHECK_EQ(calls.count, 1);
    CHECK_EQ(calls.events, 1);
}

/* ---- threads ------------------------------------------------------------------- */

struct poster {
    struct fdmux_loop *loop;
    int *total;
    int index;
    int next; /* the next number expected */
    pthread_t thread;
};

struct message {
    struct poster *poster;
    int number;
};

static struct message messages[THREADS][POSTS];

static int receive(struct fdmux_loop *loop, void *userdata)
{
    struct message *message = userdata;
    struct poster *poster = message->poster;

    CHECK_EQ(message->number, poster->next);
    poster->next++;
    ++*poster->total;
    if (*poster->total == THREADS * POSTS)
        CHECK_EQ(fdmux_loop_stop(loop), 0);
    return 0;
}

static void *post_all(void *userdata)
{
    struct poster *poster = userdata;

    for (int i = 0; i < POSTS; i++)
        CHECK_EQ(fdmux_post(poster->loop, receive, &messages[poster->index][i]), 0);
    return NULL;
}

static void start_poster(struct poster *poster, struct fdmux_loop *loop, int *total,
                         int index)
{
    *poster = (struct poster){.loop = loop, .total = total, .index = index};
    for (int i = 0; i < POSTS; i++)
        messages[index][i] = (struct message){poster, i};
}

TEST(threads_post_exactly_once_and_each_in_order)
{
    struct fdmux_loop *loop = check_open_loop();
    struct poster posters[THREADS];
    int total = 0;

    for (int i = 0; i < THREADS; i++)
        start_poster(&posters[i], loop, &total, i);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
    CHECK_EQ(fdmux_loop_run(loop), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(posters[i].thread, NULL), 0);
    CHECK_EQ(total, THREADS * POSTS);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(posters[i].next, POSTS);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
}

struct caller {
    struct fdmux_loop *loop;
    pthread_t main_thread;
    bool is_same_thread;
};

static int note_thread(struct fdmux_loop *loop, void *userdata)
{
    struct caller *caller = userdata;

    caller->is_same_thread = pthread_equal(pthread_self(), caller->main_thread) != 0;
    CHECK_EQ(fdmux_loop_stop(loop), 0);
    return 0;
}

static void *post_to_sleeper(void *userdata)
{
    struct caller *caller = userdata;

    CHECK_EQ(fdmux_post(caller->loop, note_thread, caller), 0);
    return NULL;
}

TEST(post_from_a_thread_runs_on_the_sleeping_dispatcher)
{
    struct caller caller = {check_open_loop(), pthread_self(), false};
    pthread_t thread;

    CHECK_EQ(pthread_create(&thread, NULL, post_to_sleeper, &caller), 0);
    CHECK_EQ(fdmux_loop_run(caller.loop), 0);
    CHECK(caller.is_same_thread);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    fdmux_loop_destroy(caller.loop);
}
