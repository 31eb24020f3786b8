/* test_stream_peer.c: the peer's address, from the connection to the end. */
#include "stream_fixtures.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

union address {
    struct sockaddr generic;
    struct sockaddr_in inet;
    struct sockaddr_in6 inet6;
    unsigned char bytes[28];
};

static const struct fdmux_stream_address loopback4 = {.struct_size = sizeof loopback4,
                                                      .host = "127.0.0.1"};
static const struct fdmux_stream_address loopback6 = {.struct_size = sizeof loopback6,
                                                      .host = "::1"};

static union address name_of(int fd)
{
    union address own = {0};
    socklen_t size = sizeof own;

    CHECK_EQ(getsockname(fd, &own.generic, &size), 0);
    return own;
}

/* The stream must report exactly this name as its peer. */
static void expect_peer(struct fdmux_loop *loop, uint64_t stream, union address name,
                        int size)
{
    union address peer = {0};
    unsigned char beyond[29];

    CHECK_EQ(fdmux_stream_peer(loop, stream, &peer, sizeof peer), size);
    CHECK(memcmp(&peer, &name, (size_t)size) == 0);
    memset(beyond, 0xa5, sizeof beyond);
    CHECK_EQ(fdmux_stream_peer(loop, stream, beyond, (size_t)size), size); /* it fits */
    CHECK_EQ(beyond[size], 0xa5);
    memset(beyond, 0xa5, sizeof beyond);
    CHECK_EQ(fdmux_stream_peer(loop, stream, beyond, (size_t)size - 1), -ENOSPC);
    CHECK_EQ(fdmux_stream_peer(loop, stream, beyond, 0), -ENOSPC);
    CHECK_EQ(beyond[0], 0xa5);
}

static void expect_none(struct fdmux_loop *loop, uint64_t stream)
{
    unsigned char byte = 0xa5;

    CHECK_EQ(fdmux_stream_peer(loop, stream, &byte, 1), 0);
    CHECK_EQ(fdmux_stream_peer(loop, stream, &byte, 0), 0);
    CHECK_EQ(byte, 0xa5);
}

/* ---- both ends of a connection ------------------------------------------------- */

static void meet(const struct fdmux_stream_address *where, int size)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0}, client = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    struct fdmux_stream_address bound = *where;
    uint64_t listener = 0, stream = 0;
    union address name;

    CHECK_EQ(fdmux_stream_listen_at(loop, where, &options, &listener), 0);
    expect_none(loop, listener);
    name = name_of(fdmux_stream_fd(loop, listener));
    bound.port = ntohs(name.inet.sin_port); /* at the same offset in both families */
    options = options_for(loop, &client);
    CHECK_EQ(fdmux_stream_connect_to(loop, &bound, &options, &stream), 0);
    expect_none(loop, stream); /* not yet connected */
    serve_until(loop, &client.counts[FDMUX_STREAM_CONNECTED], 1);
    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 1);
    expect_peer(loop, stream, name, size);
    expect_peer(loop, server.token, name_of(fdmux_stream_fd(loop, stream)), size);
    fdmux_loop_destroy(loop);
}

TEST(peers_over_ipv4_are_known)
{
    meet(&loopback4, sizeof(struct sockaddr_in));
}

TEST(peers_over_ipv6_are_known)
{
    int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (probe < 0)
        return; /* a kernel without IPv6 */
    CHECK_EQ(close(probe), 0);
    meet(&loopback6, sizeof(struct sockaddr_in6));
}

TEST(peers_over_unix_sockets_have_no_address)
{
    struct fdmux_loop *loop = check_open_loop();
    char path[100];
    struct fdmux_stream_address where = {.struct_size = sizeof where, .path = path};
    struct witness server = {0}, client = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint64_t listener = 0, stream = 0;

    snprintf(path, sizeof path, "/tmp/fdmux-peer-%d.sock", (int)getpid());
    CHECK_EQ(fdmux_stream_listen_at(loop, &where, &options, &listener), 0);
    options = options_for(loop, &client);
    CHECK_EQ(fdmux_stream_connect_to(loop, &where, &options, &stream), 0);
    serve_until(loop, &client.counts[FDMUX_STREAM_CONNECTED], 1);
    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 1);
    expect_none(loop, stream);
    expect_none(loop, server.token);
    fdmux_loop_destroy(loop);
    CHECK_EQ(unlink(path), 0);
}

/* ---- sockets that were connected before ---------------------------------------- */

static void add_connected(uint32_t flags)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);
    int fds[2];

    options.flags = flags;
    open_tcp_sockets(fds);
    expect_peer(loop, add_stream_with(loop, fds[0], &options), name_of(fds[1]),
                sizeof(struct sockaddr_in));
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
    if (flags != 0)
        CHECK_EQ(close(fds[0]), 0);
}

TEST(peer_of_a_connected_socket_is_known)
{
    add_connected(0);
}

TEST(peer_of_a_borrowed_socket_is_known)
{
    add_connected(FDMUX_STREAM_BORROW);
}

TEST(socket_without_an_address_has_none)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct channel channel = open_channel();
    int fds[2];

    open_sockets(fds);
    expect_none(loop, add_stream(loop, fds[0], &witness));
    expect_none(loop, add_stream(loop, channel.read_fd, &witness)); /* not a socket */
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]) | close(channel.write_fd), 0);
}

/* ---- the end ------------------------------------------------------------------- */

struct farewell {
    union address peer;
    int size;
};

static int ask_when_closed(struct witness *witness,
                           const struct fdmux_stream_event *event)
{
    struct farewell *farewell = witness->extra;
    union address peer;
    socklen_t size = sizeof peer;

    if (event->kind != FDMUX_STREAM_CLOSED)
        return 0;
    /* getpeername(2) fails by then. */
    CHECK(getpeername(fdmux_stream_fd(witness->loop, event->stream), &peer.generic,
                      &size) < 0);
    farewell->size = fdmux_stream_peer(witness->loop, event->stream, &farewell->peer,
                                       sizeof farewell->peer);
    return 0;
}

TEST(peer_is_known_when_a_reset_has_ended_the_connection)
{
    struct fdmux_loop *loop = check_open_loop();
    struct farewell farewell = {0};
    struct witness server = {.reaction = ask_when_closed, .extra = &farewell};
    struct fdmux_stream_options options = options_for(loop, &server);
    union address name;
    uint64_t stream;
    uint16_t port;
    int client;

    (void)listen_on_loopback(loop, &options, &port);
    client = connect_client(port);
    name = name_of(client);
    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 1);
    stream = server.token;
    reset(client);
    serve_until(loop, &server.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(server.error, ECONNRESET);
    CHECK_EQ(farewell.size, sizeof(struct sockaddr_in));
    CHECK(memcmp(&farewell.peer, &name, sizeof(struct sockaddr_in)) == 0);
    CHECK_EQ(fdmux_stream_peer(loop, stream, &name, sizeof name), -EIDRM);
    server.reaction = NULL; /* not for the end of the listener */
    fdmux_loop_destroy(loop);
}
