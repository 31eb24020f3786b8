/* test_stream_odd_sockets.c: streams on what is no connection: a pipe, a datagram
 * socket, a socket connected to itself; and calls that stop half-way. */
#include "stream_fixtures.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

static uint64_t connect_stream(struct desk *desk, int fd, struct witness *witness)
{
    struct fdmux_stream_options options = options_for(desk, witness);
    uint64_t token = 0;

    CHECK_EQ(fdmux_stream_connect(desk->loop, fd, &options, &token), 0);
    desk->witnesses[token & 0x0fffffff] = witness;
    return token;
}

static void expect_failure(struct desk *desk, struct witness *witness, int error)
{
    serve_until(desk, &witness->counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(witness->error, error);
    CHECK_EQ(witness->counts[FDMUX_STREAM_CONNECTED], 0);
    CHECK_EQ(witness->destroyed, 1);
    close_desk(desk);
}

static void connect_a_pipe(struct desk *desk)
{
    struct witness witness = {0};
    struct channel channel = open_channel();

    (void)connect_stream(desk, channel.write_fd, &witness);
    expect_failure(desk, &witness, ENOTSOCK);
    CHECK_EQ(close(channel.read_fd), 0);
}

TEST(connecting_what_is_no_socket_ends_with_its_errno)
{
    on_both_desks(connect_a_pipe);
}

static void connect_to_self(struct desk *desk)
{
    struct sockaddr_in own = {.sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof own;
    struct witness witness = {0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    CHECK_EQ(bind(fd, (struct sockaddr *)&own, size), 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&own, &size), 0);
    CHECK(connect(fd, (struct sockaddr *)&own, size) == 0 || errno == EINPROGRESS);
    (void)connect_stream(desk, fd, &witness);
    expect_failure(desk, &witness, ECONNREFUSED);
}

TEST(socket_connected_to_itself_was_refused)
{
    on_both_desks(connect_to_self);
}

/* A datagram socket is writable at any time, and has no peer. */
static void go_on_waiting(struct desk *desk)
{
    struct witness witness = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    uint64_t stream = connect_stream(desk, fd, &witness);

    for (int i = 0; i < 3; i++)
        CHECK_EQ(serve(desk), 0);
    CHECK_EQ(witness.last_kind, 0);
    CHECK_EQ(fdmux_stream_close(desk->loop, stream, FDMUX_STREAM_DROP), 0);
    expect_failure(desk, &witness, 0);
}

TEST(writable_without_a_peer_is_not_connected)
{
    on_both_desks(go_on_waiting);
}

/* Here the interrupted connect(2) was not even begun. */
static void interrupt_connect(struct desk *desk)
{
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(desk, &witness);

    fdmux_testing_fail(FDMUX_CALL_SOCKET, 2, EINTR, 0);
    (void)connect_to_loopback(desk, 1, &options);
    fdmux_testing_fail(0, 0, 0, 0);
    expect_failure(desk, &witness, ENOTCONN);
}

TEST(interrupted_connect_is_waited_for)
{
    on_both_desks(interrupt_connect);
}

static void listen_with_faults(struct desk *desk)
{
    struct fdmux_stream_address where = {
        .struct_size = sizeof where,
        .host = "127.0.0.1",
        .flags = FDMUX_STREAM_REUSE_PORT,
    };
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(desk, &witness);
    uint64_t token = 0;
    int fds = check_open_fds();
    int failed = 0;

    fdmux_testing_fail(FDMUX_CALL_SOCKET, 1, EACCES, 0);
    while (fdmux_stream_listen_at(desk->loop, &where, &options, &token) < 0) {
        CHECK_EQ(token, 0);
        CHECK_EQ(check_open_fds(), fds);
        fdmux_testing_fail(FDMUX_CALL_SOCKET, ++failed + 1, EACCES, 0);
    }
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(failed, 5); /* socket, two options, bind, listen */
    desk->witnesses[token & 0x0fffffff] = &witness;
    close_desk(desk);
}

TEST(listening_fails_whole_at_any_of_its_calls)
{
    on_both_desks(listen_with_faults);
}
