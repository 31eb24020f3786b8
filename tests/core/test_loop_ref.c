/* test_loop_ref.c: a loop is shared by references, as a queue is. */
#include "fixtures.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

UNIT_TEST(no_loop_has_no_references)
{
    uint64_t foreign[512] = {0};

    CHECK(fdmux_loop_ref(NULL) == NULL);
    CHECK(fdmux_loop_unref(NULL) == NULL);
    CHECK(fdmux_loop_ref((void *)foreign) == NULL);
    CHECK(fdmux_loop_unref((void *)foreign) == NULL);
    CHECK(fdmux_loop_destroy((void *)foreign) == NULL);
}

TEST(referenced_loop_is_closed_by_destroy_and_stays_in_memory)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};

    add_timer(loop, &calls);
    CHECK(fdmux_loop_ref(loop) == loop);
    CHECK(fdmux_loop_ref(loop) == loop);
    CHECK(fdmux_loop_destroy(loop) == NULL);
    CHECK_EQ(calls.destroyed, 1);
    CHECK_EQ(fdmux_post(loop, count_post, &calls), -ESTALE);
    CHECK_EQ(fdmux_loop_wake(loop), -ESTALE);
    CHECK(fdmux_loop_unref(loop) == NULL);
    CHECK_EQ(poll_once(loop), -ESTALE);
    CHECK(fdmux_loop_unref(loop) == NULL); /* check.c: no memory is left */
    CHECK_EQ(calls.count, 0);
}

TEST(last_reference_closes_the_loop)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};

    add_timer(loop, &calls);
    fdmux_loop_ref(loop);
    fdmux_loop_unref(loop);
    CHECK_EQ(calls.destroyed, 0);
    CHECK_EQ(poll_once(loop), 0);
    fdmux_loop_unref(loop);
    CHECK_EQ(calls.destroyed, 1);
}

static int drop_last(struct fdmux_loop *loop, void *userdata)
{
    struct calls *calls = userdata;

    fdmux_loop_unref(loop);
    CHECK_EQ(calls->destroyed, 0); /* the dispatch finishes the loop at its end */
    CHECK_EQ(fdmux_loop_wake(loop), -ESTALE);
    return 0;
}

TEST(last_reference_may_be_given_up_in_a_function)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};

    add_timer(loop, &calls);
    CHECK_EQ(fdmux_post(loop, drop_last, &calls), 0);
    CHECK_EQ(poll_once(loop), -ESTALE);
    CHECK_EQ(calls.destroyed, 1);
}

/* Each thread posts until the loop is closed, and holds the only thing that keeps the
 * memory then. */
struct poster {
    struct fdmux_loop *loop;
    _Atomic int is_posting;
    int result;
};

static int do_nothing(struct fdmux_loop *loop, void *userdata)
{
    (void)loop, (void)userdata;
    return 0;
}

static void *post_until_closed(void *userdata)
{
    struct poster *poster = userdata;

    while (poster->result == 0) {
        poster->result = fdmux_post(poster->loop, do_nothing, NULL);
        mark(&poster->is_posting);
    }
    fdmux_loop_unref(poster->loop);
    return NULL;
}

TEST(threads_with_references_post_to_a_loop_that_ends)
{
    enum { THREADS = 4 };
    struct fdmux_loop *loop = check_open_loop();
    static struct poster posters[THREADS];
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++) {
        posters[i] = (struct poster){.loop = fdmux_loop_ref(loop)};
        CHECK_EQ(pthread_create(&threads[i], NULL, post_until_closed, &posters[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        wait_for_mark(&posters[i].is_posting);
        CHECK_EQ(poll_once(loop), 0);
    }
    fdmux_loop_destroy(loop);
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(posters[i].result, -ESTALE);
    }
}

TEST(child_gives_up_references_and_leaves_the_parents_alone)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    pid_t child;

    add_timer(loop, &calls);
    fdmux_loop_ref(loop);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        fdmux_loop_unref(loop);
        CHECK_EQ(calls.destroyed, 0);
        fdmux_loop_unref(loop);
        CHECK_EQ(calls.destroyed, 1);
        CHECK_EQ(fdmux_testing_allocations(), 0);
        _exit(0);
    }
    expect_exit(child);
    fdmux_loop_unref(loop);
    CHECK_EQ(poll_once(loop), 0);
    fdmux_loop_unref(loop);
    CHECK_EQ(calls.destroyed, 1);
}
