/* fixtures.c: see fixtures.h. */
#include "fixtures.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend.h"
#include "loop_state.h"

int count_io(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata)
{
    struct calls *calls = userdata;

    (void)loop;
    CHECK_EQ(calls->destroyed, 0);
    calls->count++;
    calls->events = events;
    calls->token = io;
    return calls->result;
}

int count_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    return count_io(loop, timer, FDMUX_TIMER, userdata);
}

int count_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    return count_io(loop, hook, 0, userdata);
}

int count_post(struct fdmux_loop *loop, void *userdata)
{
    return count_io(loop, 0, loop == NULL, userdata);
}

void count_destroyed(void *userdata)
{
    ((struct calls *)userdata)->destroyed++;
}

static int add_io(struct fdmux_loop *loop, struct fdmux_io_options *options,
                  uint64_t *ret_io)
{
    options->struct_size = sizeof *options;
    return fdmux_io_add(loop, options, ret_io);
}

uint64_t watch(struct fdmux_loop *loop, int fd, uint32_t events, struct calls *calls)
{
    struct fdmux_io_options options = {
        .fd = fd,
        .events = events,
        .fn = count_io,
        .userdata = calls,
        .destroyed = count_destroyed,
    };
    uint64_t io = 0;

    CHECK_EQ(add_io(loop, &options, &io), 0);
    return io;
}

uint64_t watch_with(struct fdmux_loop *loop, int fd, uint32_t events, fdmux_io_fn fn,
                    void *userdata)
{
    struct fdmux_io_options options = {
        .fd = fd,
        .events = events,
        .fn = fn,
        .userdata = userdata,
    };
    uint64_t io = 0;

    CHECK_EQ(add_io(loop, &options, &io), 0);
    return io;
}

uint64_t collect(struct fdmux_loop *loop, int fd, uint32_t events, uint32_t tag)
{
    struct fdmux_io_options options = {
        .fd = fd, .events = events, .tag = tag, .flags = FDMUX_COLLECT};
    uint64_t io = 0;

    CHECK_EQ(add_io(loop, &options, &io), 0);
    return io;
}

int try_watch(struct fdmux_loop *loop, int fd, uint32_t events)
{
    struct fdmux_io_options options = {
        .fd = fd, .events = events, .flags = FDMUX_COLLECT};
    uint64_t io = 7;
    int r = add_io(loop, &options, &io);

    if (r < 0)
        CHECK_EQ(io, 7); /* results are written on success only */
    return r;
}

static uint64_t add_any_timer(struct fdmux_loop *loop,
                              struct fdmux_timer_options options)
{
    uint64_t timer = 0;

    options.struct_size = sizeof options;
    CHECK_EQ(fdmux_timer_add(loop, &options, &timer), 0);
    return timer;
}

uint64_t add_timer(struct fdmux_loop *loop, struct calls *calls)
{
    struct fdmux_timer_options options = {
        .fn = count_timer,
        .userdata = calls,
        .destroyed = count_destroyed,
    };

    return add_any_timer(loop, options);
}

uint64_t add_timer_with(struct fdmux_loop *loop, fdmux_timer_fn fn, void *userdata)
{
    struct fdmux_timer_options options = {.fn = fn, .userdata = userdata};

    return add_any_timer(loop, options);
}

uint64_t collect_timer(struct fdmux_loop *loop, uint32_t tag)
{
    struct fdmux_timer_options options = {.tag = tag, .flags = FDMUX_COLLECT};

    return add_any_timer(loop, options);
}

static uint64_t add_any_hook(struct fdmux_loop *loop, struct fdmux_hook_options options)
{
    uint64_t hook = 0;

    options.struct_size = sizeof options;
    CHECK_EQ(fdmux_hook_add(loop, &options, &hook), 0);
    return hook;
}

uint64_t add_hook(struct fdmux_loop *loop, struct calls *calls)
{
    struct fdmux_hook_options options = {
        .fn = count_hook,
        .userdata = calls,
        .destroyed = count_destroyed,
    };

    return add_any_hook(loop, options);
}

uint64_t add_hook_with(struct fdmux_loop *loop, fdmux_hook_fn fn, void *userdata)
{
    struct fdmux_hook_options options = {.fn = fn, .userdata = userdata};

    return add_any_hook(loop, options);
}

int poll_once(struct fdmux_loop *loop)
{
    return fdmux_loop_dispatch(loop, 0, NULL, 0);
}

struct fdmux_loop_stats stats_of(struct fdmux_loop *loop)
{
    struct fdmux_loop_stats stats = {.struct_size = sizeof stats};

    CHECK_EQ(fdmux_loop_stats(loop, &stats), 0);
    return stats;
}

struct channel open_channel(void)
{
    int fds[2];

    CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    return (struct channel){fds[0], fds[1]};
}

void close_channel(struct channel *channel)
{
    CHECK_EQ(close(channel->read_fd), 0);
    CHECK_EQ(close(channel->write_fd), 0);
}

void feed(const struct channel *channel)
{
    CHECK_EQ(write(channel->write_fd, "x", 1), 1);
}

void drain(const struct channel *channel)
{
    char byte;

    CHECK_EQ(read(channel->read_fd, &byte, 1), 1);
}

void open_sockets(int ret_fds[2])
{
    int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

    CHECK_EQ(socketpair(AF_UNIX, type, 0, ret_fds), 0);
}

void open_tcp_sockets(int ret_fds[2])
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ret_fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0 && ret_fds[0] >= 0);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, size), 0);
    CHECK_EQ(listen(listener, 1), 0);
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    CHECK_EQ(connect(ret_fds[0], (struct sockaddr *)&address, size), 0);
    ret_fds[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(ret_fds[1] >= 0);
    CHECK_EQ(close(listener), 0);
}

bool is_rung(struct fdmux_loop *loop)
{
    return loop->backend->ring != NULL ? atomic_load(&loop->is_wake_rung)
                                       : is_readable(loop->bell.read_fd);
}

bool is_readable(int fd)
{
    struct pollfd probe = {.fd = fd, .events = POLLIN};

    return poll(&probe, 1, 0) == 1;
}

void wait_until_readable(int fd)
{
    struct pollfd probe = {.fd = fd, .events = POLLIN};

    CHECK_EQ(poll(&probe, 1, 10000), 1);
}

void expect_exit(pid_t child)
{
    int status = 0;

    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void mark(_Atomic int *flag)
{
    atomic_store(flag, 1);
}

void wait_for_mark(_Atomic int *flag)
{
    while (atomic_load(flag) == 0)
        sched_yield();
}
