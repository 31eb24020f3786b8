/* test_kqueue_devices.c: what kqueue cannot watch is watched beside it, on the model
 * (kqueue_model/kqueue_model.c), which refuses devices as macOS does. */
#include "fixtures.h"

#if defined(FDMUX_KQUEUE_MODEL)
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "kqueue_model.h"

/* A terminal, without echo and lines. */
struct terminal {
    int fd;   /* what a program sees */
    int keys; /* what is written here is typed */
};

static struct terminal open_terminal(void)
{
    struct terminal terminal;
    struct termios raw;

    terminal.keys = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(terminal.keys >= 0);
    CHECK_EQ(grantpt(terminal.keys), 0);
    CHECK_EQ(unlockpt(terminal.keys), 0);
    terminal.fd = open(ptsname(terminal.keys), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(terminal.fd >= 0);
    CHECK_EQ(tcgetattr(terminal.fd, &raw), 0);
    cfmakeraw(&raw);
    CHECK_EQ(tcsetattr(terminal.fd, TCSANOW, &raw), 0);
    return terminal;
}

static void type(const struct terminal *terminal)
{
    CHECK_EQ(write(terminal->keys, "x", 1), 1);
    wait_until_readable(terminal->fd);
}

static void close_terminal(const struct terminal *terminal)
{
    close(terminal->fd);
    close(terminal->keys);
}

KQUEUE_TEST(terminal_is_watched_updated_and_removed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct terminal terminal = open_terminal();
    struct calls calls = {0};
    uint64_t io = watch(loop, terminal.fd, FDMUX_READ, &calls);

    CHECK_EQ(fdmux_loop_dispatch(loop, MS, NULL, 0), 0);
    CHECK_EQ(calls.count, 0);
    type(&terminal);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_READ);
    VERIFY(loop);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_READ | FDMUX_WRITE), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_READ | FDMUX_WRITE);
    CHECK_EQ(fdmux_io_update(loop, io, 0), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 2);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_READ), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 3);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 3);
    fdmux_loop_destroy(loop);
    close_terminal(&terminal);
}

KQUEUE_TEST(closed_terminal_is_silent_and_does_not_spin)
{
    struct fdmux_loop *loop = check_open_loop();
    struct terminal terminal = open_terminal();
    struct terminal kept = open_terminal();
    struct calls calls = {0};
    struct calls other = {0};
    uint64_t io = watch(loop, terminal.fd, FDMUX_READ, &calls);

    watch(loop, kept.fd, FDMUX_READ, &other);
    type(&terminal);
    type(&kept);
    close_terminal(&terminal);
    while (other.count == 0)
        CHECK_EQ(fdmux_loop_dispatch(loop, MS, NULL, 0), 0);
    CHECK_EQ(calls.count, 0);
    CHECK_EQ(stats_of(loop).stale_event_count, 1);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_READ), -EBADF);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
    close_terminal(&kept);
}

struct addition {
    struct fdmux_loop *loop;
    int fd;
    struct calls calls;
};

static void *add_while_waiting(void *userdata)
{
    struct addition *addition = userdata;

    watch(addition->loop, addition->fd, FDMUX_READ, &addition->calls);
    return NULL;
}

KQUEUE_TEST(terminal_added_by_another_thread_ends_no_wait_but_its_event_does)
{
    struct terminal terminal = open_terminal();
    struct addition addition = {check_open_loop(), terminal.fd, {.result = -7}};
    pthread_t thread;

    type(&terminal);
    CHECK_EQ(pthread_create(&thread, NULL, add_while_waiting, &addition), 0);
    CHECK_EQ(fdmux_loop_dispatch(addition.loop, -1, NULL, 0), -7);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(addition.calls.count, 1);
    fdmux_loop_destroy(addition.loop);
    close_terminal(&terminal);
}

KQUEUE_TEST(terminals_and_sockets_take_turns)
{
    struct fdmux_loop *loop = check_open_loop();
    struct terminal terminal = open_terminal();
    struct channel channel = open_channel();
    int counts[2] = {0};

    collect(loop, terminal.fd, FDMUX_READ, 0);
    collect(loop, channel.read_fd, FDMUX_READ, 1);
    type(&terminal);
    feed(&channel);
    for (int i = 0; i < 10; i++) {
        struct fdmux_ready ready;

        CHECK_EQ(fdmux_loop_dispatch(loop, -1, &ready, 1), 1);
        counts[ready.tag]++;
    }
    CHECK(counts[0] >= 4 && counts[1] >= 4);
    fdmux_loop_destroy(loop);
    close_terminal(&terminal);
    close_channel(&channel);
}

KQUEUE_TEST(timer_and_wake_end_a_wait_beside_a_terminal)
{
    struct fdmux_loop *loop = check_open_loop();
    struct terminal terminal = open_terminal();
    struct calls calls = {0};
    int64_t deadline_ns;

    watch(loop, terminal.fd, FDMUX_READ, &calls);
    CHECK_EQ(fdmux_loop_wake(loop), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), 0);
    deadline_ns = fdmux_loop_now(loop) + 2 * MS;
    CHECK_EQ(fdmux_timer_arm(loop, collect_timer(loop, 1), deadline_ns, 0), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), -ENOBUFS);
    CHECK(fdmux_loop_now(loop) >= deadline_ns);
    CHECK_EQ(calls.count, 0);
    fdmux_loop_destroy(loop);
    close_terminal(&terminal);
}

KQUEUE_TEST(terminal_has_no_edges_and_no_host)
{
    struct fdmux_loop *loop = check_open_loop();
    struct terminal terminal = open_terminal();
    struct calls calls = {0};
    uint64_t io;

    CHECK_EQ(try_watch(loop, terminal.fd, FDMUX_READ | FDMUX_EDGE), -EOPNOTSUPP);
    io = watch(loop, terminal.fd, FDMUX_READ, &calls);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_READ | FDMUX_EDGE), -EOPNOTSUPP);
    CHECK_EQ(fdmux_loop_fd(loop), -EOPNOTSUPP);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    CHECK(fdmux_loop_fd(loop) >= 0);
    CHECK_EQ(try_watch(loop, terminal.fd, FDMUX_READ), -EPERM);
    fdmux_loop_destroy(loop);
    close_terminal(&terminal);
}

KQUEUE_TEST(failed_wait_beside_a_terminal_is_reported)
{
    const int errors[] = {EINTR, ENOMEM};

    for (int i = 0; i < 2; i++) {
        struct fdmux_loop *loop = check_open_loop();
        struct terminal terminal = open_terminal();
        struct calls calls = {0};

        watch(loop, terminal.fd, FDMUX_READ, &calls);
        CHECK_EQ(poll_once(loop), 0);
        type(&terminal);
        fdmux_testing_fail(FDMUX_CALL_WAIT, 1, errors[i], 0);
        CHECK_EQ(fdmux_loop_dispatch(loop, 10000 * MS, NULL, 0), -errors[i]);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(calls.count, 1);
        fdmux_loop_destroy(loop);
        close_terminal(&terminal);
    }
}

KQUEUE_TEST(terminal_is_not_added_for_want_of_memory)
{
    for (int64_t nth = 1; nth <= 8; nth++) {
        struct fdmux_loop *loop = check_open_loop();
        struct terminal terminal = open_terminal();
        int r;

        fdmux_testing_fail(FDMUX_CALL_MEMORY, nth, ENOMEM, 0);
        r = try_watch(loop, terminal.fd, FDMUX_READ);
        CHECK(r == -ENOMEM || (r == 0 && fdmux_testing_calls() < nth));
        fdmux_testing_fail(0, 0, 0, 0);
        CHECK_EQ(poll_once(loop), 0);
        VERIFY(loop);
        fdmux_loop_destroy(loop);
        close_terminal(&terminal);
    }
}

/* ---- urgent data -------------------------------------------------------------------
 */

/* FreeBSD and NetBSD have no EVFILT_EXCEPT. */
KQUEUE_TEST(urgent_data_is_watched_beside_a_kqueue_without_the_filter)
{
    struct fdmux_loop *loop = check_open_loop();
    struct calls calls = {0};
    uint64_t io;
    int fds[2];

#if defined(EVFILT_EXCEPT)
    kqueue_model_refuse(EVFILT_EXCEPT, EINVAL);
#endif
    open_tcp_sockets(fds);
    io = watch(loop, fds[1], FDMUX_READ, &calls);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_READ | FDMUX_PRIORITY), 0);
    VERIFY(loop);
    CHECK_EQ(send(fds[0], "b", 1, MSG_OOB), 1);
    while ((calls.events & FDMUX_PRIORITY) == 0)
        CHECK_EQ(fdmux_loop_dispatch(loop, MS, NULL, 0), 0);
    CHECK_EQ(fdmux_io_update(loop, io, FDMUX_READ), 0);
    CHECK_EQ(send(fds[0], "a", 1, 0), 1);
    wait_until_readable(fds[1]);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.events, FDMUX_READ);
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    CHECK_EQ(try_watch(loop, fds[1], FDMUX_READ | FDMUX_PRIORITY | FDMUX_EDGE),
             -EOPNOTSUPP);
    kqueue_model_refuse(0, 0);
    fdmux_loop_destroy(loop);
    close(fds[0]);
    close(fds[1]);
}

KQUEUE_TEST(socket_stays_in_the_kqueue_if_poll_cannot_take_it)
{
    for (int64_t nth = 1; nth <= 4; nth++) {
        struct fdmux_loop *loop = check_open_loop();
        struct calls calls = {0};
        uint64_t io;
        int fds[2], r;

#if defined(EVFILT_EXCEPT)
        kqueue_model_refuse(EVFILT_EXCEPT, EINVAL);
#endif
        open_tcp_sockets(fds);
        io = watch(loop, fds[1], FDMUX_READ, &calls);
        fdmux_testing_fail(FDMUX_CALL_MEMORY, nth, ENOMEM, 0);
        r = fdmux_io_update(loop, io, FDMUX_READ | FDMUX_PRIORITY);
        CHECK(r == -ENOMEM || (r == 0 && fdmux_testing_calls() < nth));
        fdmux_testing_fail(0, 0, 0, 0);
        VERIFY(loop);
        CHECK_EQ(send(fds[0], "a", 1, 0), 1);
        wait_until_readable(fds[1]);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(calls.events, FDMUX_READ);
        kqueue_model_refuse(0, 0);
        fdmux_loop_destroy(loop);
        close(fds[0]);
        close(fds[1]);
    }
}
#endif
