/* test_stream.c: how streams are created, paused and half-closed, and what they
 * count. */
#include "stream_fixtures.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

enum { PATH_SIZE = 100 };

/* ---- creation ------------------------------------------------------------------ */

TEST(bytes_come_and_go)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {.reaction = echo};
    int fds[2];
    uint64_t stream;

    open_sockets(fds);
    stream = add_stream(loop, fds[0], &witness);
    CHECK_EQ(fdmux_stream_fd(loop, stream), fds[0]);
    CHECK_EQ(send(fds[1], "hello", 5, 0), 5);
    serve_until(loop, &witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(witness.received, 5);
    CHECK(witness.hash == hash_bytes(HASH_START, (const unsigned char *)"hello", 5));
    expect_bytes(fds[1], "hello");
    CHECK_EQ(fdmux_stream_close(loop, stream, 0), 0);
    CHECK_EQ(fdmux_stream_write(loop, stream, "x", 1), -EPIPE);
    serve_until(loop, &witness.destroyed, 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(witness.error, 0);
    expect_end(fds[1]);
    CHECK_EQ(close(fds[1]), 0);
    fdmux_loop_destroy(loop);
}

static void greet(struct fdmux_loop *loop, const struct fdmux_stream_address *where,
                  uint64_t listener, struct witness *server)
{
    struct witness client = {0};
    struct fdmux_stream_options options = options_for(loop, &client);
    uint64_t stream = 0;

    CHECK_EQ(fdmux_stream_connect_to(loop, where, &options, &stream), 0);
    /* Bytes written before the connection is made are kept and sent later. */
    CHECK_EQ(fdmux_stream_write(loop, stream, "early ", 6), 0);
    CHECK_EQ(fdmux_stream_write(loop, stream, "bird", 4), 0);
    while (client.received < 10)
        serve_until(loop, &client.counts[FDMUX_STREAM_DATA],
                    client.counts[FDMUX_STREAM_DATA] + 1);
    CHECK_EQ(client.counts[FDMUX_STREAM_CONNECTED], 1);
    CHECK_EQ(server->counts[FDMUX_STREAM_ACCEPTED], 1);
    CHECK(client.hash ==
          hash_bytes(HASH_START, (const unsigned char *)"early bird", 10));
    CHECK_EQ(fdmux_stream_close(loop, stream, 0), 0);
    serve_until(loop, &server->counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(client.destroyed, 1);
    CHECK_EQ(fdmux_stream_close(loop, server->token, 0), 0);
    CHECK_EQ(fdmux_stream_close(loop, listener, 0), 0);
    serve_until(loop, &server->destroyed, 1);
    CHECK_EQ(server->counts[FDMUX_STREAM_CLOSED], 2);
}

static uint16_t bound_port(struct fdmux_loop *loop, uint64_t listener)
{
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    int fd = fdmux_stream_fd(loop, listener);

    CHECK_EQ(getsockname(fd, (struct sockaddr *)&bound, &size), 0);
    return (uint16_t)(((const unsigned char *)&bound)[2] << 8 |
                      ((const unsigned char *)&bound)[3]);
}

static void greet_at(const char *host)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_stream_address where = {.struct_size = sizeof where, .host = host};
    struct witness server = {.reaction = echo};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint64_t listener = 0;

#if !defined(_WIN32) /* which has no such option */
    where.flags = FDMUX_STREAM_REUSE_PORT;
#endif
    CHECK_EQ(fdmux_stream_listen_at(loop, &where, &options, &listener), 0);
    where.port = bound_port(loop, listener);
    greet(loop, &where, listener, &server);
    fdmux_loop_destroy(loop);
}

TEST(connects_and_accepts_over_ipv4)
{
    greet_at("127.0.0.1");
}

TEST(connects_and_accepts_over_ipv6)
{
    int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (probe >= 0)
        CHECK_EQ(close(probe), 0);
    greet_at(probe < 0 ? "127.0.0.1" : "::1"); /* for a kernel without IPv6 */
}

TEST(connects_and_accepts_over_unix_sockets)
{
    struct fdmux_loop *loop = check_open_loop();
    char path[PATH_SIZE];
    struct fdmux_stream_address where = {.struct_size = sizeof where, .path = path};
    struct witness server = {.reaction = echo};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint64_t listener = 0;

    snprintf(path, sizeof path, "/tmp/fdmux-stream-%d.sock", (int)getpid());
    CHECK_EQ(fdmux_stream_listen_at(loop, &where, &options, &listener), 0);
    CHECK_EQ(fdmux_stream_listen_at(loop, &where, &options, &listener), -EADDRINUSE);
    greet(loop, &where, listener, &server);
    CHECK_EQ(unlink(path), 0);
    fdmux_loop_destroy(loop);
}

TEST(what_was_written_before_is_sent_in_the_iteration_that_connects)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness client = {0};
    struct fdmux_stream_options options;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int peer;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, size), 0);
    CHECK_EQ(listen(listener, 1), 0);
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    options = options_for(loop, &client);
    CHECK_EQ(fdmux_stream_write(
                 loop, connect_to_loopback(loop, ntohs(address.sin_port), &options),
                 "early", 5),
             0);
    serve_until(loop, &client.counts[FDMUX_STREAM_CONNECTED], 1);
    CHECK_EQ(client.last_kind, FDMUX_STREAM_DRAINED);
    peer = accept(listener, NULL, NULL);
    expect_bytes(peer, "early");
    CHECK_EQ(close(peer) + close(listener), 0);
    fdmux_loop_destroy(loop);
}

/* Returns a port on which nothing listens: it was bound and closed again. */
static uint16_t free_port(struct fdmux_loop *loop)
{
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);
    uint16_t port;
    uint64_t listener = listen_on_loopback(loop, &options, &port);

    CHECK_EQ(fdmux_stream_close(loop, listener, 0), 0);
    serve_until(loop, &witness.destroyed, 1);
    return port;
}

TEST(a_refused_connection_is_closed_with_the_errno)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);
    uint64_t stream = connect_to_loopback(loop, free_port(loop), &options);

    CHECK_EQ(fdmux_stream_write(loop, stream, "lost", 4), 0);
    serve_until(loop, &witness.destroyed, 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_CONNECTED], 0);
    CHECK_EQ(witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(witness.error, ECONNREFUSED);
    fdmux_loop_destroy(loop);
}

TEST(a_socket_that_never_began_to_connect_is_closed_and_does_not_spin)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    uint64_t stream = 0;

    CHECK_EQ(fdmux_stream_connect(loop, fd, &options, &stream), 0);
    serve_until(loop, &witness.destroyed, 1);
    CHECK_EQ(witness.error, ENOTCONN);
    fdmux_loop_destroy(loop);
}

/* ---- half-close ---------------------------------------------------------------- */

TEST(writing_goes_on_after_the_peers_end)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    int fds[2];
    uint64_t stream;

    open_tcp_sockets(fds);
    stream = add_stream(loop, fds[1], &witness);
    CHECK_EQ(send(fds[0], "last words", 10, 0), 10);
    CHECK_EQ(shutdown(fds[0], SHUT_WR), 0);
    serve_until(loop, &witness.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(witness.received, 10);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(witness.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(fdmux_stream_write(loop, stream, "answer", 6), 0);
    expect_bytes(fds[0], "answer");
    CHECK_EQ(fdmux_stream_shutdown(loop, stream), 0);
    CHECK_EQ(fdmux_stream_shutdown(loop, stream), 0);
    CHECK_EQ(fdmux_stream_write(loop, stream, "late", 4), -EPIPE);
    expect_end(fds[0]);
    CHECK_EQ(witness.counts[FDMUX_STREAM_CLOSED], 0);
    CHECK_EQ(close(fds[0]), 0);
    fdmux_loop_destroy(loop);
}

TEST(reading_goes_on_after_shutdown)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    int fds[2];
    uint64_t stream;

    open_tcp_sockets(fds);
    stream = add_stream(loop, fds[1], &witness);
    CHECK_EQ(fdmux_stream_shutdown(loop, stream), 0);
    expect_end(fds[0]);
    CHECK_EQ(send(fds[0], "still here", 10, 0), 10);
    serve_until(loop, &witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(witness.received, 10);
    CHECK_EQ(close(fds[0]), 0);
    serve_until(loop, &witness.counts[FDMUX_STREAM_END], 1);
    fdmux_loop_destroy(loop);
}

TEST(shutdown_waits_for_the_connection)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct witness client = {0};
    struct fdmux_stream_options server_options = options_for(loop, &server);
    struct fdmux_stream_options client_options = options_for(loop, &client);
    uint16_t port;
    uint64_t stream;

    (void)listen_on_loopback(loop, &server_options, &port);
    stream = connect_to_loopback(loop, port, &client_options);
    CHECK_EQ(fdmux_stream_shutdown(loop, stream), 0);
    serve_until(loop, &server.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(client.counts[FDMUX_STREAM_CONNECTED], 1);
    CHECK_EQ(client.counts[FDMUX_STREAM_CLOSED], 0);
    CHECK_EQ(fdmux_stream_write(loop, server.token, "yes", 3), 0);
    serve_until(loop, &client.counts[FDMUX_STREAM_DATA], 1);
    fdmux_loop_destroy(loop);
}

/* A listener with a full queue answers no further clients, so they stay connecting. */
TEST(shutdown_does_not_give_up_a_connection_that_is_under_way)
{
    struct fdmux_loop *loop = check_open_loop();
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    struct witness client = {0};
    struct fdmux_stream_options options = options_for(loop, &client);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint64_t stream = 0;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, size), 0);
    CHECK_EQ(listen(listener, 0), 0);
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    for (int i = 0; i < 4; i++)
        stream = connect_to_loopback(loop, ntohs(address.sin_port), &options);
    CHECK_EQ(fdmux_stream_shutdown(loop, stream), 0);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(serve(loop), 0);
    CHECK_EQ(client.counts[FDMUX_STREAM_CLOSED], 0);
    CHECK(client.counts[FDMUX_STREAM_CONNECTED] < 4);
    CHECK_EQ(close(listener), 0);
    fdmux_loop_destroy(loop);
}

/* ---- pausing, counting --------------------------------------------------------- */

TEST(a_paused_stream_receives_nothing_until_resumed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    int fds[2];
    uint64_t stream;

    open_sockets(fds);
    stream = add_stream(loop, fds[0], &witness);
    CHECK_EQ(fdmux_stream_pause(loop, stream), 0);
    CHECK_EQ(fdmux_stream_pause(loop, stream), 0);
    CHECK_EQ(send(fds[1], "x", 1, 0), 1);
    serve_all(loop);
    CHECK_EQ(witness.received, 0);
    CHECK_EQ(fdmux_stream_write(loop, stream, "out", 3), 0);
    expect_bytes(fds[1], "out");
    CHECK_EQ(fdmux_stream_resume(loop, stream), 0);
    serve_until(loop, &witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(witness.received, 1);
    CHECK_EQ(close(fds[1]), 0);
    fdmux_loop_destroy(loop);
}

TEST(bytes_are_counted)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {.reaction = echo};
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};
    uint64_t stream;
    int fds[2];

    open_sockets(fds);
    stream = add_stream(loop, fds[0], &witness);
    CHECK_EQ(send(fds[1], "12345", 5, 0), 5);
    serve_until(loop, &witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(fdmux_stream_write(loop, stream, "678", 3), 0);
    CHECK_EQ(fdmux_stream_stats(loop, stream, &stats), 0);
    CHECK_EQ(stats.received, 5);
    CHECK_EQ(stats.sent, 8);
    CHECK_EQ(stats.queued, 0);
    CHECK_EQ(stats.connections + stats.accepted + stats.refused, 0);
    CHECK_EQ(fdmux_stream_close(loop, stream, 0), 0);
    serve_until(loop, &witness.destroyed, 1);
    CHECK_EQ(close(fds[1]), 0);
    fdmux_loop_destroy(loop);
}

TEST(a_listener_counts_for_what_it_accepted)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {.reaction = echo};
    struct fdmux_stream_options options = options_for(loop, &server);
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};
    uint16_t port;
    uint64_t listener = listen_on_loopback(loop, &options, &port);
    int clients[2] = {connect_client(port), connect_client(port)};

    CHECK_EQ(send(clients[0], "12345", 5, 0), 5);
    CHECK_EQ(send(clients[1], "678", 3, 0), 3);
    while (server.received < 8)
        serve_until(loop, &server.counts[FDMUX_STREAM_DATA],
                    server.counts[FDMUX_STREAM_DATA] + 1);
    expect_bytes(clients[0], "12345");
    CHECK_EQ(close(clients[0]), 0);
    serve_until(loop, &server.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(fdmux_stream_stats(loop, listener, &stats), 0);
    CHECK_EQ(stats.accepted, 2);
    CHECK_EQ(stats.connections, 2);
    CHECK_EQ(stats.refused, 0);
    CHECK_EQ(stats.received, 8); /* of all accepted streams */
    CHECK_EQ(stats.sent, 8);
    CHECK_EQ(stats.queued, 0);
    CHECK_EQ(close(clients[1]), 0);
    fdmux_loop_destroy(loop);
}

/* ---- size ---------------------------------------------------------------------- */

/* An idle connection needs a stream, a watcher and a node. Their tables double, so up
 * to twice their size is reserved. */
UNIT_TEST(an_idle_connection_takes_at_most_half_a_kib)
{
    size_t size = sizeof(struct fdmux__stream) + sizeof(struct fdmux__io) +
                  sizeof(struct fdmux__node);

    CHECK(size <= 512);
}
