/* test_stream_odd_sockets.c: streams on descriptors that are no connections: a pipe, a
 * datagram socket, a socket connected to itself; and calls that fail half-way. */
#include "stream_fixtures.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static uint64_t connect_stream(struct fdmux_loop *loop, int fd, struct witness *witness)
{
    struct fdmux_stream_options options = options_for(loop, witness);
    uint64_t token = 0;

    CHECK_EQ(fdmux_stream_connect(loop, fd, &options, &token), 0);
    return token;
}

static void expect_failure(struct fdmux_loop *loop, struct witness *witness, int error)
{
    serve_until(loop, &witness->counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(witness->error, error);
    CHECK_EQ(witness->counts[FDMUX_STREAM_CONNECTED], 0);
    CHECK_EQ(witness->destroyed, 1);
    fdmux_loop_destroy(loop);
}

TEST(connecting_what_is_no_socket_ends_with_its_errno)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct channel channel = open_channel();

    (void)connect_stream(loop, channel.write_fd, &witness);
    expect_failure(loop, &witness, ENOTSOCK);
    CHECK_EQ(close(channel.read_fd), 0);
}

TEST(socket_connected_to_itself_was_refused)
{
    struct fdmux_loop *loop = check_open_loop();
    struct sockaddr_in own = {.sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof own;
    struct witness witness = {0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    CHECK_EQ(bind(fd, (struct sockaddr *)&own, size), 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&own, &size), 0);
    CHECK(connect(fd, (struct sockaddr *)&own, size) == 0 || errno == EINPROGRESS);
    (void)connect_stream(loop, fd, &witness);
    expect_failure(loop, &witness, ECONNREFUSED);
}

/* A datagram socket is always writable and has no peer. */
TEST(writable_without_a_peer_is_not_connected)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    uint64_t stream = connect_stream(loop, fd, &witness);

    for (int i = 0; i < 3; i++)
        CHECK_EQ(serve(loop), 0);
    CHECK_EQ(witness.last_kind, 0);
    CHECK_EQ(fdmux_stream_close(loop, stream, FDMUX_STREAM_DROP), 0);
    expect_failure(loop, &witness, 0);
}

/* The interrupted connect(2) has not even begun here. */
TEST(interrupted_connect_is_waited_for)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);

    fdmux_testing_fail(FDMUX_CALL_SOCKET, 2, EINTR, 0);
    (void)connect_to_loopback(loop, 1, &options);
    fdmux_testing_fail(0, 0, 0, 0);
    expect_failure(loop, &witness, ENOTCONN);
}

TEST(listening_fails_whole_at_any_of_its_calls)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_stream_address where = {
        .struct_size = sizeof where,
        .host = "127.0.0.1",
#if !defined(_WIN32) /* which has no such option */
        .flags = FDMUX_STREAM_REUSE_PORT,
#endif
    };
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);
    uint64_t token = 0;
    int fds = check_open_fds();
    int failed = 0;
    int options_set = where.flags != 0 ? 2 : 1;

    fdmux_testing_fail(FDMUX_CALL_SOCKET, 1, EACCES, 0);
    while (fdmux_stream_listen_at(loop, &where, &options, &token) < 0) {
        CHECK_EQ(token, 0);
        CHECK_EQ(check_open_fds(), fds);
        fdmux_testing_fail(FDMUX_CALL_SOCKET, ++failed + 1, EACCES, 0);
    }
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(failed, 3 + options_set); /* socket, options, bind, listen */
    fdmux_loop_destroy(loop);
}
