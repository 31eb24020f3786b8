/* test_stream_accept.c: listeners: connections per batch, the limit, a lack of
 * descriptors, and connections that ended before they were accepted. */
#include "stream_fixtures.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

enum { CLIENTS = 40 };

static void connect_clients(int clients[], int count, uint16_t port)
{
    for (int i = 0; i < count; i++) {
        clients[i] = connect_client(port);
        CHECK(clients[i] >= 0);
    }
}

static void close_clients(const int clients[], int count)
{
    for (int i = 0; i < count; i++)
        CHECK_EQ(close(clients[i]), 0);
}

static struct fdmux_stream_stats stats_for(struct fdmux_loop *loop, uint64_t stream)
{
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};

    CHECK_EQ(fdmux_stream_stats(loop, stream, &stats), 0);
    return stats;
}

TEST(sixteen_connections_are_accepted_a_batch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    uint64_t listener = listen_on_loopback(loop, &options, &port);
    int clients[CLIENTS];
    int flags;

    connect_clients(clients, CLIENTS, port);
    for (int batch = 1; batch <= 2; batch++) {
        CHECK_EQ(serve(loop), 0);
        CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], 16 * batch);
    }
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], CLIENTS);
    CHECK_EQ(stats_for(loop, listener).connections, CLIENTS);
    CHECK_EQ(stats_for(loop, listener).accepted, CLIENTS);
    flags = fcntl(fdmux_stream_fd(loop, server.token), F_GETFD);
    CHECK((flags & FD_CLOEXEC) != 0);
    close_clients(clients, CLIENTS);
    serve_until(loop, &server.counts[FDMUX_STREAM_END], CLIENTS);
    fdmux_loop_destroy(loop);
}

TEST(connections_over_the_limit_are_refused_and_counted)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    uint64_t listener;
    int clients[5];
    char byte;

    options.connection_max = 2;
    listener = listen_on_loopback(loop, &options, &port);
    connect_clients(clients, 5, port);
    serve_all(loop);
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], 2);
    CHECK_EQ(stats_for(loop, listener).refused, 3);
    CHECK_EQ(stats_for(loop, listener).connections, 2);
    CHECK_EQ(recv(clients[4], &byte, 1, 0), 0); /* closed */
    CHECK_EQ(fdmux_stream_close(loop, server.token, 0), 0);
    serve_all(loop);
    CHECK_EQ(stats_for(loop, listener).connections, 1);
    CHECK_EQ(close(clients[4]), 0);
    clients[4] = connect_client(port);
    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 3);
    CHECK_EQ(stats_for(loop, listener).accepted, 3);
    close_clients(clients, 5);
    fdmux_loop_destroy(loop);
}

TEST(connections_outlive_their_listener)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct witness other = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    uint64_t listener = listen_on_loopback(loop, &options, &port);
    int fds[2];
    int client = connect_client(port);

    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 1);
    CHECK_EQ(fdmux_stream_close(loop, listener, 0), 0);
    serve_all(loop);
    CHECK_EQ(server.destroyed, 1);
    CHECK_EQ(connect_client(port), -1);
    open_sockets(fds);
    (void)add_stream(loop, fds[0], &other); /* reuses the listener's slot */
    CHECK_EQ(send(client, "x", 1, 0), 1);
    serve_until(loop, &server.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(fdmux_stream_close(loop, server.token, 0), 0);
    serve_until(loop, &server.counts[FDMUX_STREAM_CLOSED], 2);
    CHECK_EQ(close(client) + close(fds[1]), 0);
    fdmux_loop_destroy(loop);
}

static int pause_listener(struct witness *witness,
                          const struct fdmux_stream_event *event)
{
    const uint64_t *listener = witness->extra;

    if (event->kind == FDMUX_STREAM_ACCEPTED)
        CHECK_EQ(fdmux_stream_pause(witness->loop, *listener), 0);
    return 0;
}

static int close_listener(struct witness *witness,
                          const struct fdmux_stream_event *event)
{
    const uint64_t *listener = witness->extra;

    if (event->kind == FDMUX_STREAM_ACCEPTED)
        CHECK_EQ(fdmux_stream_close(witness->loop, *listener, 0), 0);
    return 0;
}

TEST(a_listener_paused_or_closed_while_accepting_accepts_no_more)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness servers[2] = {{.reaction = pause_listener},
                                 {.reaction = close_listener}};

    for (int i = 0; i < 2; i++) {
        struct fdmux_stream_options options = options_for(loop, &servers[i]);
        uint64_t listener;
        uint16_t port;
        int clients[5];

        servers[i].extra = &listener;
        listener = listen_on_loopback(loop, &options, &port);
        connect_clients(clients, 5, port);
        serve_all(loop);
        CHECK_EQ(servers[i].counts[FDMUX_STREAM_ACCEPTED], 1);
        CHECK_EQ(servers[i].destroyed, i);
        if (i == 0) {
            CHECK_EQ(fdmux_stream_resume(loop, listener), 0);
            serve_all(loop);
            CHECK_EQ(servers[i].counts[FDMUX_STREAM_ACCEPTED], 2);
        }
        close_clients(clients, 5);
    }
    fdmux_loop_destroy(loop);
}

/* ---- errors of accept(2) ------------------------------------------------------- */

TEST(connections_that_died_are_skipped)
{
    struct fdmux_loop *loop = check_open_loop();
    static const int errors[] = {ECONNABORTED, EINTR, EPROTO, EPERM, ENETDOWN};
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    int clients[5];

    (void)listen_on_loopback(loop, &options, &port);
    for (int i = 0; i < 5; i++) {
        clients[i] = connect_client(port);
        fdmux_testing_fail(FDMUX_CALL_ACCEPT, 1, errors[i], 0);
        CHECK_EQ(serve(loop), 0);
        CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], i + 1);
    }
    fdmux_testing_fail(FDMUX_CALL_ACCEPT, 1, ECONNABORTED, 1);
    CHECK_EQ(close(clients[0]), 0);
    clients[0] = connect_client(port);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(fdmux_testing_calls(), 16); /* bounded, failures included */
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(server.counts[FDMUX_STREAM_CLOSED], 0);
    close_clients(clients, 5);
    fdmux_loop_destroy(loop);
}

TEST(a_listener_that_is_none_any_more_is_closed)
{
    struct fdmux_loop *loop = check_open_loop();
    static const int errors[] = {EBADF, EINVAL, ENOTSOCK};

    for (int i = 0; i < 3; i++) {
        struct witness server = {0};
        struct fdmux_stream_options options = options_for(loop, &server);
        uint16_t port;
        int client;

        (void)listen_on_loopback(loop, &options, &port);
        client = connect_client(port);
        fdmux_testing_fail(FDMUX_CALL_ACCEPT, 1, errors[i], 1);
        serve_until(loop, &server.destroyed, 1);
        fdmux_testing_fail(0, 0, 0, 0);
        CHECK_EQ(server.counts[FDMUX_STREAM_CLOSED], 1);
        CHECK_EQ(server.error, errors[i]);
        CHECK_EQ(close(client), 0);
    }
    fdmux_loop_destroy(loop);
}

TEST(without_descriptors_a_listener_backs_off)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    int clients[2];
    uint64_t before;

    (void)listen_on_loopback(loop, &options, &port);
    clients[0] = connect_client(port);
    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 1);
    fdmux_testing_fail(FDMUX_CALL_ACCEPT, 1, EMFILE, 1);
    clients[1] = connect_client(port);
    serve_until(loop, &server.counts[FDMUX_STREAM_REFUSED], 1);
    CHECK_EQ(server.error, EMFILE);
    before = stats_of(loop).iteration_count;
    CHECK(fdmux_loop_dispatch(loop, 5 * MS, NULL, 0) <= 0);
    CHECK(stats_of(loop).iteration_count - before < 10); /* no busy loop */
    CHECK_EQ(fdmux_testing_calls(), 1);
    /* Back-off: the listener retries after one tick, then two, then four each time. */
    for (int tick = 1; tick <= 15; tick++) {
        fdmux__hub_tick(loop, 1);
        serve_all(loop);
        CHECK_EQ(fdmux_testing_calls(), tick < 3    ? 2
                                        : tick < 7  ? 3
                                        : tick < 11 ? 4
                                        : tick < 15 ? 5
                                                    : 6);
    }
    CHECK_EQ(server.counts[FDMUX_STREAM_REFUSED], 1); /* reported once */
    fdmux_testing_fail(0, 0, 0, 0);
    fdmux__hub_tick(loop, 4);
    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 2);
    CHECK_EQ(server.counts[FDMUX_STREAM_CLOSED], 0);
    close_clients(clients, 2);
    fdmux_loop_destroy(loop);
}

TEST(a_listener_tries_again_at_once_when_a_stream_closes)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    int clients[2];

    (void)listen_on_loopback(loop, &options, &port);
    clients[0] = connect_client(port);
    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 1);
    fdmux_testing_fail(FDMUX_CALL_ACCEPT, 1, ENFILE, 1);
    clients[1] = connect_client(port);
    serve_until(loop, &server.counts[FDMUX_STREAM_REFUSED], 1);
    fdmux_testing_fail(0, 0, 0, 0);
    serve_all(loop);
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], 1);
    CHECK_EQ(fdmux_stream_close(loop, server.token, 0), 0);
    serve_all(loop); /* without waiting for a tick */
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], 2);
    close_clients(clients, 2);
    fdmux_loop_destroy(loop);
}

TEST(a_shortage_is_over_when_no_connection_waits)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    const struct fdmux__hub *hub;
    uint16_t port;
    int client;

    (void)listen_on_loopback(loop, &options, &port);
    hub = loop->extensions[FDMUX__STREAMS].data;
    for (int episode = 1; episode <= 2; episode++) {
        fdmux_testing_fail(FDMUX_CALL_ACCEPT, 1, EMFILE, 0);
        client = connect_client(port);
        serve_until(loop, &server.counts[FDMUX_STREAM_REFUSED], episode);
        CHECK_EQ(hub->timed_count, 1);
        fdmux_testing_fail(FDMUX_CALL_ACCEPT, 1, EAGAIN, 0);
        fdmux__hub_tick(loop, 1);
        CHECK_EQ(serve(loop), 0);
        CHECK_EQ(hub->timed_count, 0); /* the shortage is over, so no timer runs */
        serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], episode);
        CHECK_EQ(close(client), 0);
    }
    fdmux_loop_destroy(loop);
}

TEST(a_listener_without_descriptors_can_be_closed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    const struct fdmux__hub *hub;
    uint16_t port;
    uint64_t listener = listen_on_loopback(loop, &options, &port);
    int client = connect_client(port);

    fdmux_testing_fail(FDMUX_CALL_ACCEPT, 1, EMFILE, 1);
    serve_until(loop, &server.counts[FDMUX_STREAM_REFUSED], 1);
    CHECK_EQ(fdmux_stream_close(loop, listener, 0), 0);
    serve_until(loop, &server.destroyed, 1);
    hub = loop->extensions[FDMUX__STREAMS].data;
    CHECK_EQ(hub->timed_count + hub->backed_off_count, 0);
    CHECK_EQ(close(client), 0);
    fdmux_loop_destroy(loop);
}

/* epoll_ctl(2): ENOSPC, the user's limit of watches. */
SET_TEST(a_connection_that_cannot_be_watched_is_refused)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    uint64_t listener = listen_on_loopback(loop, &options, &port);
    int clients[2];
    char byte;

    clients[0] = connect_client(port);
    fdmux_testing_fail(CALL_SET_CHANGE, 1, ENOSPC, 0);
    serve_all(loop);
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], 0);
    CHECK_EQ(stats_for(loop, listener).refused, 1);
    CHECK_EQ(stats_for(loop, listener).connections, 0);
    CHECK_EQ(recv(clients[0], &byte, 1, 0), 0);
    clients[1] = connect_client(port);
    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 1);
    close_clients(clients, 2);
    fdmux_loop_destroy(loop);
}
