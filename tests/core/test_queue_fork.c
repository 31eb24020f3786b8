/* test_queue_fork.c: a child of fork() cannot use its parent's queue. It may close and
 * unref the queue, which does not affect the parent. */
#include "fixtures.h"

#include <sys/wait.h>
#include <unistd.h>

static void note_drop(void *item, void *userdata)
{
    (void)item;
    ++*(int *)userdata;
}

static struct fdmux_queue *open_queue(int *dropped)
{
    struct fdmux_queue_options options = {
        .struct_size = sizeof options,
        .drop = note_drop,
        .userdata = dropped,
    };
    struct fdmux_queue *queue = NULL;

    CHECK_EQ(fdmux_queue_create(&options, &queue), 0);
    CHECK_EQ(fdmux_queue_put(queue, dropped), 0);
    return queue;
}

static void run_in_child(void (*child)(struct fdmux_queue *), struct fdmux_queue *queue)
{
    pid_t pid = fork();
    int status = 1;

    CHECK(pid >= 0);
    if (pid == 0) {
        child(queue);
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

/* The item is still there, and the descriptor reports it. */
static void close_in_parent(struct fdmux_queue *queue, const int *dropped)
{
    void *item = NULL;

    CHECK(is_readable(fdmux_queue_fd(queue)));
    CHECK_EQ(fdmux_queue_take(queue, &item, 1), 1);
    CHECK(item == dropped);
    CHECK(!is_readable(fdmux_queue_fd(queue)));
    CHECK_EQ(*dropped, 0);
    fdmux_queue_unref(queue);
}

static void use_in_child(struct fdmux_queue *queue)
{
    void *item = NULL;

    CHECK_EQ(fdmux_queue_put(queue, queue), -ECHILD);
    CHECK_EQ(fdmux_queue_take(queue, &item, 1), -ECHILD);
    CHECK_EQ(fdmux_queue_fd(queue), -ECHILD);
    CHECK_EQ(fdmux_queue_set_drop(queue, note_drop, &item), -ECHILD);
    CHECK(item == NULL);
}

UNIT_TEST(every_call_on_a_queue_in_a_child_is_echild)
{
    int dropped = 0;
    struct fdmux_queue *queue = open_queue(&dropped);

    run_in_child(use_in_child, queue);
    close_in_parent(queue, &dropped);
}

static void close_in_child(struct fdmux_queue *queue)
{
    int fds = check_open_fds();

    CHECK_EQ(fdmux_queue_close(queue), 0);
    CHECK(check_open_fds() < fds);
    CHECK_EQ(fdmux_queue_close(queue), 0);
    CHECK_EQ(fdmux_queue_put(queue, queue), -ESTALE);
    fdmux_queue_unref(queue);
    CHECK_EQ(fdmux_testing_allocations(), 0);
}

UNIT_TEST(queue_closed_in_a_child_stays_open_in_its_parent)
{
    int dropped = 0;
    struct fdmux_queue *queue = open_queue(&dropped);

    run_in_child(close_in_child, queue);
    close_in_parent(queue, &dropped);
}

static void unref_in_child(struct fdmux_queue *queue)
{
    int fds = check_open_fds();

    fdmux_queue_unref(queue);
    CHECK(check_open_fds() < fds);
    CHECK_EQ(fdmux_testing_allocations(), 0);
}

UNIT_TEST(last_reference_in_a_child_drops_no_item_of_the_parent)
{
    int dropped = 0;
    struct fdmux_queue *queue = open_queue(&dropped);

    run_in_child(unref_in_child, queue);
    close_in_parent(queue, &dropped);
}
