/* test_at_close.c: the end of a loop is announced while everything still works. */
#include "fdmux_stream.h"
#include "hold_fixtures.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loop.h"

/* A library that closes its own watchers when it is told. */
struct library {
    struct fdmux_loop *loop;
    struct calls io;
    struct calls timer;
    uint64_t io_token;
    uint64_t timer_token;
    uint64_t hook;
    int close_count;
};

static void close_library(struct fdmux_loop *loop, void *userdata)
{
    struct library *library = userdata;

    CHECK(loop == library->loop);
    CHECK_EQ(library->io.destroyed + library->timer.destroyed, 0);
    library->close_count++;
    CHECK_EQ(fdmux_io_remove(loop, library->io_token), 0);
    CHECK_EQ(fdmux_timer_remove(loop, library->timer_token), 0);
    CHECK_EQ(fdmux_hook_remove(loop, library->hook), -EIDRM); /* it has ended */
    VERIFY(loop);
}

static void open_library(struct library *library, struct fdmux_loop *loop, int fd)
{
    *library = (struct library){.loop = loop};
    library->io_token = watch(loop, fd, FDMUX_READ, &library->io);
    library->timer_token = add_timer(loop, &library->timer);
    CHECK_EQ(fdmux_loop_at_close(loop, close_library, library, &library->hook), 0);
}

static void check_ended(const struct library *library)
{
    CHECK_EQ(library->close_count, 1);
    CHECK_EQ(library->io.destroyed, 1);
    CHECK_EQ(library->timer.destroyed, 1);
}

TEST(library_removes_its_watchers_before_they_are_destroyed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct library library;

    open_library(&library, loop, channel.read_fd);
    VERIFY(loop);
    CHECK_EQ(stats_of(loop).hook_live, 1);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(library.close_count, 0);
    fdmux_loop_destroy(loop);
    check_ended(&library);
    close_channel(&channel);
}

static struct {
    char letters[8];
    int count;
} trace;

static void note_close(struct fdmux_loop *loop, void *letter)
{
    (void)loop;
    trace.letters[trace.count++] = *(const char *)letter;
}

static int note_post(struct fdmux_loop *loop, void *letter)
{
    CHECK(loop == NULL);
    note_close(loop, letter);
    return 0;
}

TEST(last_added_is_called_first_and_all_before_the_posts)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t hooks[4];

    memset(&trace, 0, sizeof trace); /* another case of this process may have used it */
    CHECK_EQ(fdmux_post(loop, note_post, "p"), 0);
    CHECK_EQ(fdmux_loop_at_close(loop, note_close, "a", &hooks[0]), 0);
    CHECK_EQ(fdmux_loop_at_close(loop, note_close, "b", &hooks[1]), 0);
    CHECK_EQ(fdmux_loop_at_close(loop, note_close, "c", &hooks[2]), 0);
    CHECK_EQ(fdmux_loop_at_close(loop, note_close, "d", &hooks[3]), 0);
    CHECK_EQ(fdmux_hook_remove(loop, hooks[1]), 0);
    CHECK_EQ(fdmux_hook_remove(loop, hooks[3]), 0);
    CHECK_EQ(fdmux_hook_remove(loop, hooks[1]), -EIDRM);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
    CHECK(strcmp(trace.letters, "cap") == 0);
}

static void add_another(struct fdmux_loop *loop, void *letter)
{
    uint64_t hook;

    note_close(loop, letter);
    CHECK_EQ(fdmux_loop_at_close(loop, note_close, "x", &hook), 0);
    CHECK_EQ(fdmux_post(loop, note_post, "p"), 0);
}

TEST(what_is_added_at_the_close_runs_too)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t hook;

    memset(&trace, 0, sizeof trace);
    CHECK_EQ(fdmux_loop_at_close(loop, note_close, "a", &hook), 0);
    CHECK_EQ(fdmux_loop_at_close(loop, add_another, "b", &hook), 0);
    fdmux_loop_destroy(loop);
    CHECK(strcmp(trace.letters, "bxap") == 0);
}

TEST(wrong_arguments_add_nothing)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t hook = 7;

    memset(&trace, 0, sizeof trace);
    CHECK_EQ(fdmux_loop_at_close(NULL, note_close, "a", &hook), -EFAULT);
    CHECK_EQ(fdmux_loop_at_close(loop, note_close, "a", NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_at_close(loop, NULL, "a", &hook), -EINVAL);
    fdmux_testing_fail(FDMUX_CALL_MEMORY, 1, ENOMEM, 0);
    CHECK_EQ(fdmux_loop_at_close(loop, note_close, "a", &hook), -ENOMEM);
    CHECK_EQ(hook, 7);
    CHECK_EQ(stats_of(loop).hook_live, 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(trace.count, 0);
}

/* ---- what works at the close ----------------------------------------------------- */

/* A stream over a pair of sockets. */
struct line {
    uint64_t stream;
    int peer_fd;
    struct calls unused;
};

static int ignore_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                        void *userdata)
{
    (void)loop, (void)event, (void)userdata;
    return 0;
}

static void try_everything(struct fdmux_loop *loop, void *userdata)
{
    struct line *line = userdata;
    uint64_t io = watch(loop, line->peer_fd, FDMUX_READ, &line->unused);

    CHECK_EQ(poll_once(loop), -EBUSY);
    CHECK_EQ(fdmux_loop_run(loop), -EBUSY);
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_WRITE), 0);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    CHECK_EQ(line->unused.destroyed, 0); /* the functions are one batch */
    CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, &line->unused), FDMUX_SOON, 0), 0);
    CHECK_EQ(fdmux_stream_write(loop, line->stream, "bye", 3), 0);
    CHECK_EQ(hold_and_note(loop, &hold_a), 0);
}

static void end_with_hold(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    CHECK_EQ(hold_and_note(loop, &hold_a), 0);
}

TEST(everything_but_dispatching_works_at_the_close)
{
    struct fdmux_stream_options options = {.struct_size = sizeof options,
                                           .fn = ignore_event};
    struct fdmux_loop *loop = check_open_loop();
    struct line line = {0};
    char text[8] = {0};
    uint64_t hook;
    int fds[2];

    open_sockets(fds);
    line.peer_fd = fds[1];
    CHECK_EQ(fdmux_stream_add(loop, fds[0], &options, &line.stream), 0);
    CHECK_EQ(fdmux_loop_at_close(loop, end_with_hold, NULL, &hook), 0);
    CHECK_EQ(fdmux_loop_at_close(loop, try_everything, &line, &hook), 0);
    fdmux_loop_destroy(loop);
    EXPECT("a..A");
    CHECK_EQ(line.unused.count, 0);
    CHECK_EQ(line.unused.destroyed, 2);
    CHECK_EQ(read(line.peer_fd, text, sizeof text), 3);
    CHECK(strcmp(text, "bye") == 0);
    CHECK_EQ(close(line.peer_fd), 0);
}

/* ---- closing inside of a dispatch ------------------------------------------------ */

static int close_loop_in_io(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                            void *userdata)
{
    struct library *library = userdata;

    (void)io, (void)events;
    CHECK_EQ(fdmux__loop_close(loop), 0);
    CHECK_EQ(library->close_count, 0); /* a library may be further up the stack */
    CHECK_EQ(fdmux_timer_cancel(loop, library->timer_token), 1); /* still works */
    return 0;
}

TEST(loop_closed_in_a_function_is_announced_at_the_end_of_the_dispatch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channels[2] = {open_channel(), open_channel()};
    struct library library;
    struct calls later = {0};

    open_library(&library, loop, channels[0].read_fd);
    CHECK_EQ(fdmux_timer_arm(loop, library.timer_token, FDMUX_SOON, 0), 0);
    watch_with(loop, channels[1].read_fd, FDMUX_READ, close_loop_in_io, &library);
    watch(loop, channels[1].read_fd, FDMUX_READ, &later);
    feed(&channels[1]);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), -ESTALE);
    check_ended(&library);
    CHECK_EQ(later.count, 0); /* no function of the loop is called after the close */
    CHECK_EQ(fdmux_loop_wake(loop), -ESTALE);
    CHECK_EQ(fdmux__loop_close(loop), 0);
    fdmux_loop_destroy(loop);
    check_ended(&library);
    close_channel(&channels[0]);
    close_channel(&channels[1]);
}

static void destroy_again(struct fdmux_loop *loop, void *userdata)
{
    int *count = userdata;

    ++*count;
    fdmux_loop_destroy(loop);
    CHECK_EQ(fdmux_loop_wake(loop), 0); /* until this function has returned */
}

TEST(loop_may_be_destroyed_by_the_function_that_hears_of_the_close)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t hook;
    int count = 0;

    CHECK_EQ(fdmux_loop_at_close(loop, destroy_again, &count, &hook), 0);
    CHECK_EQ(fdmux__loop_close(loop), 0);
    CHECK_EQ(count, 1);
}

/* ---- threads --------------------------------------------------------------------- */

struct meeting {
    struct fdmux_loop *loop;
    _Atomic int is_waiting;
    pthread_t closed_by;
    int close_count;
};

static int say_waiting(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    struct meeting *meeting = userdata;

    (void)loop, (void)hook;
    mark(&meeting->is_waiting);
    return 0;
}

static void note_thread(struct fdmux_loop *loop, void *userdata)
{
    struct meeting *meeting = userdata;

    (void)loop;
    meeting->closed_by = pthread_self();
    meeting->close_count++;
}

static void *wait_for_end(void *userdata)
{
    struct meeting *meeting = userdata;

    CHECK_EQ(fdmux_loop_dispatch(meeting->loop, -1, NULL, 0), -ESTALE);
    return NULL;
}

TEST(thread_that_dispatches_calls_them_when_another_closes)
{
    struct meeting meeting = {.loop = check_open_loop()};
    pthread_t thread;
    uint64_t hook;

    CHECK_EQ(fdmux_loop_at_close(meeting.loop, note_thread, &meeting, &hook), 0);
    add_hook_with(meeting.loop, say_waiting, &meeting);
    CHECK_EQ(pthread_create(&thread, NULL, wait_for_end, &meeting), 0);
    wait_for_mark(&meeting.is_waiting);
    CHECK_EQ(fdmux__loop_close(meeting.loop), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(meeting.close_count, 1);
    CHECK(pthread_equal(meeting.closed_by, thread));
    fdmux_loop_destroy(meeting.loop);
    CHECK_EQ(meeting.close_count, 1);
}

static void *close_it(void *loop)
{
    CHECK_EQ(fdmux__loop_close(loop), 0);
    return NULL;
}

TEST(two_threads_that_close_call_them_once)
{
    for (int i = 0; i < 50; i++) {
        struct meeting meeting = {.loop = check_open_loop()};
        pthread_t threads[2];
        uint64_t hook;

        CHECK_EQ(fdmux_loop_at_close(meeting.loop, note_thread, &meeting, &hook), 0);
        for (int t = 0; t < 2; t++)
            CHECK_EQ(pthread_create(&threads[t], NULL, close_it, meeting.loop), 0);
        for (int t = 0; t < 2; t++)
            CHECK_EQ(pthread_join(threads[t], NULL), 0);
        CHECK_EQ(meeting.close_count, 1);
        fdmux_loop_destroy(meeting.loop);
    }
}

/* ---- fork ------------------------------------------------------------------------ */

TEST(child_hears_of_the_close_only_after_after_fork)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct library library;

    for (int is_reopened = 0; is_reopened < 2; is_reopened++) {
        pid_t child;

        loop = is_reopened == 0 ? loop : check_open_loop();
        open_library(&library, loop, channel.read_fd);
        child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            if (is_reopened != 0)
                CHECK_EQ(fdmux_loop_after_fork(loop), 0);
            fdmux_loop_destroy(loop);
            CHECK_EQ(library.close_count, is_reopened);
            CHECK_EQ(library.io.destroyed, 1); /* the memory is the child's */
            _exit(0);
        }
        expect_exit(child);
        fdmux_loop_destroy(loop);
        check_ended(&library);
    }
    close_channel(&channel);
}

/* Counts in shared memory, one for each process. */
struct forking {
    _Atomic int *counts;
    pid_t child;
};

static void fork_at_close(struct fdmux_loop *loop, void *userdata)
{
    struct forking *forking = userdata;

    (void)loop;
    forking->child = fork();
    CHECK(forking->child >= 0);
}

static void count_at_close(struct fdmux_loop *loop, void *userdata)
{
    const struct forking *forking = userdata;

    (void)loop;
    forking->counts[forking->child == 0 ? 1 : 0]++;
}

TEST(child_forked_at_the_close_calls_no_more)
{
    struct fdmux_loop *loop = check_open_loop();
    struct forking forking = {0};
    uint64_t hook;

    forking.counts =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(forking.counts != MAP_FAILED);
    CHECK_EQ(fdmux_loop_at_close(loop, count_at_close, &forking, &hook), 0);
    CHECK_EQ(fdmux_loop_at_close(loop, fork_at_close, &forking, &hook), 0);
    fdmux_loop_destroy(loop);
    if (forking.child == 0)
        _exit(0);
    expect_exit(forking.child);
    CHECK_EQ(forking.counts[0], 1);
    CHECK_EQ(forking.counts[1], 0);
    CHECK_EQ(munmap((void *)forking.counts, 4096), 0);
}
