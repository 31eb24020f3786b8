/* test_fork_threads.c: a function that forks may return in the child, whatever other
 * threads of the parent were doing: a lock that one of them had has no owner there. */
#include "fixtures.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 100, PATIENCE_MS = 5000 };

static pid_t child;
static _Atomic int is_over;

static int fork_here(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    if (loop != NULL)
        child = fork();
    return 0;
}

/* This thread has the loop's lock nearly all the time. */
static void *add_and_remove(void *userdata)
{
    while (atomic_load(&is_over) == 0)
        CHECK_EQ(fdmux_io_remove(userdata, collect(userdata, 0, 0, 0)), 0);
    return NULL;
}

/* Returns the exit status of the child; kills a child that hangs. */
static int wait_for_child(void)
{
    int status = 1;

    for (int i = 0; i < PATIENCE_MS; i++) {
        if (waitpid(child, &status, WNOHANG) == child)
            return status;
        usleep(1000);
    }
    CHECK_EQ(kill(child, SIGKILL), 0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    return status;
}

TEST(child_returns_although_another_thread_had_the_lock)
{
    struct fdmux_loop *loop = check_open_loop();
    pthread_t thread;

    CHECK_EQ(pthread_create(&thread, NULL, add_and_remove, loop), 0);
    for (int i = 0; i < ROUNDS; i++) {
        int r;

        CHECK_EQ(fdmux_post(loop, fork_here, NULL), 0);
        r = poll_once(loop);
        CHECK(child >= 0);
        if (child == 0)
            _exit(r == -ECHILD ? 0 : 1);
        CHECK_EQ(r, 0);
        CHECK_EQ(wait_for_child(), 0);
    }
    mark(&is_over);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
}
