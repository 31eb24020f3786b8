/* test_datagram_arguments.c: invalid options, addresses, datagrams and sockets are
 * refused; nothing changes, and descriptors stay the caller's. */
#include "datagram_fixtures.h"

#include <unistd.h>

static void expect_bad(struct fdmux_loop *loop, int fd,
                       const struct fdmux_datagram_options *options, int expected)
{
    uint64_t endpoint = 7;

    CHECK_EQ(fdmux_datagram_add(loop, fd, options, &endpoint), expected);
    CHECK_EQ(endpoint, 7);
}

TEST(bad_options_are_einval)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options good = datagram_options(listener), bad;
    uint16_t port;
    uint64_t endpoint;
    int fd = open_receiver(&port);

    expect_bad(loop, fd, NULL, -EFAULT);
    CHECK_EQ(fdmux_datagram_add(loop, fd, &good, NULL), -EFAULT);
    bad = good;
    bad.fn = NULL;
    expect_bad(loop, fd, &bad, -EINVAL);
    bad = good;
    bad.flags = 0x20;
    expect_bad(loop, fd, &bad, -EINVAL);
    bad = good;
    bad.size_max = 262145;
    expect_bad(loop, fd, &bad, -EINVAL);
    bad = good;
    bad.queue_max = UINT32_C(1) << 31;
    expect_bad(loop, fd, &bad, -EINVAL);
    bad = good;
    bad.struct_size--;
    expect_bad(loop, fd, &bad, -E2BIG);
    CHECK_EQ(fdmux_datagram_add(loop, fd, &good, &endpoint), 0);
    end_with(loop, listener, 1);
}

TEST(only_datagram_sockets_are_taken)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    struct channel channel = open_channel();
    int fds[2];

    open_sockets(fds);
    expect_bad(loop, fds[0], &options, -EPROTOTYPE);
    expect_bad(loop, channel.read_fd, &options, -ENOTSOCK);
    CHECK_EQ(close(fds[0]) + close(fds[1]), 0);
    expect_bad(loop, fds[0], &options, -EBADF);
    close_channel(&channel);
    end_with(loop, listener, 0);
}

static int try_bind(struct listener *listener, struct fdmux_datagram_address where)
{
    struct fdmux_datagram_options options = datagram_options(listener);
    uint64_t endpoint = 7;
    int fds = check_open_fds();
    int r;

    where.struct_size = sizeof where;
    r = fdmux_datagram_bind(listener->loop, &where, &options, &endpoint);
    CHECK_EQ(endpoint, 7);
    CHECK_EQ(check_open_fds(), fds);
    return r;
}

TEST(bad_addresses_are_einval_and_open_nothing)
{
    static char long_path[200];
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);

    memset(long_path, 'x', sizeof long_path - 1);
    CHECK_EQ(fdmux_datagram_features(loop) < 0, 0); /* makes what endpoints share */
    CHECK_EQ(try_bind(listener, (struct fdmux_datagram_address){.host = NULL}),
             -EINVAL);
    CHECK_EQ(try_bind(listener, (struct fdmux_datagram_address){.host = "localhost"}),
             -EINVAL);
    CHECK_EQ(try_bind(listener, (struct fdmux_datagram_address){.host = "127.0.0.1",
                                                                .path = "/tmp/x"}),
             -EINVAL);
    CHECK_EQ(try_bind(listener, (struct fdmux_datagram_address){.path = ""}), -EINVAL);
    CHECK_EQ(try_bind(listener, (struct fdmux_datagram_address){.path = long_path}),
             -EINVAL);
    CHECK_EQ(try_bind(listener,
                      (struct fdmux_datagram_address){.host = "127.0.0.1", .flags = 2}),
             -EINVAL);
    CHECK_EQ(
        try_bind(listener, (struct fdmux_datagram_address){.path = "/no/such/dir"}),
        -ENOENT);
    CHECK_EQ(try_bind(listener, (struct fdmux_datagram_address){.host = "192.0.2.1"}),
             -EADDRNOTAVAIL);
    end_with(loop, listener, 0);
}

TEST(connect_refuses_two_families_borrowing_and_no_peer)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    struct fdmux_datagram_address peer = {
        .struct_size = sizeof peer, .host = "127.0.0.1", .port = 9};
    struct fdmux_datagram_address own = {.struct_size = sizeof own, .host = "::1"};
    uint64_t endpoint = 7;

    CHECK_EQ(fdmux_datagram_connect(loop, &peer, &own, &options, &endpoint), -EINVAL);
    CHECK_EQ(fdmux_datagram_connect(loop, NULL, &own, &options, &endpoint), -EFAULT);
    CHECK_EQ(fdmux_datagram_bind(loop, NULL, &options, &endpoint), -EFAULT);
    options.flags = FDMUX_DATAGRAM_BORROW;
    own.host = "127.0.0.1";
    CHECK_EQ(fdmux_datagram_connect(loop, &peer, &own, &options, &endpoint), -EINVAL);
    options.flags = 0;
    CHECK_EQ(endpoint, 7);
    CHECK_EQ(fdmux_datagram_connect(loop, &peer, &own, &options, &endpoint), 0);
    end_with(loop, listener, 1);
}

TEST(two_endpoints_share_a_port_if_both_ask_for_it)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    struct fdmux_datagram_address where = {.struct_size = sizeof where,
                                           .host = "127.0.0.1",
                                           .flags = FDMUX_DATAGRAM_REUSE_PORT};
    struct sockaddr_in bound;
    socklen_t size = sizeof bound;
    uint64_t first, second;

    CHECK_EQ(fdmux_datagram_bind(loop, &where, &options, &first), 0);
    CHECK_EQ(
        getsockname(fdmux_datagram_fd(loop, first), (struct sockaddr *)&bound, &size),
        0);
    where.port = ntohs(bound.sin_port);
    CHECK_EQ(fdmux_datagram_bind(loop, &where, &options, &second), 0);
    where.flags = 0;
    CHECK_EQ(fdmux_datagram_bind(loop, &where, &options, &second), -EADDRINUSE);
    end_with(loop, listener, 2);
}

TEST(bad_datagrams_are_einval_and_nothing_is_sent)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    struct sockaddr_in where = loopback(own);
    struct fdmux_datagram good = datagram_to(&where, "x", 1), bad = good;

    CHECK_EQ(fdmux_datagram_send(loop, endpoint, NULL), -EFAULT);
    CHECK_EQ(fdmux_datagram_send_many(loop, endpoint, NULL, 0), -EFAULT);
    bad.data = NULL;
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &bad), -EINVAL);
    bad = good;
    bad.address_size = 1;
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &bad), -EINVAL);
    bad.address_size = 300;
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &bad), -EINVAL);
    bad = good;
    bad.local = &where;
    bad.local_size = 100;
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &bad), -EINVAL);
    bad = good;
    bad.length = UINT32_C(1) << 31;
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &bad), -EINVAL);
    {
        struct fdmux_datagram both[2] = {good, bad};

        CHECK_EQ(fdmux_datagram_send_many(loop, endpoint, both, 2), -EINVAL);
    }
    CHECK_EQ(fdmux_datagram_send_many(loop, endpoint, &good, 0), 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->heard_count, 0);
    CHECK_EQ(fdmux_datagram_close(loop, endpoint, 2), -EINVAL);
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &good), 0);
    end_with(loop, listener, 1);
}

TEST(bad_handlers_and_stats_are_einval)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_handler handler = {.struct_size = sizeof handler};
    struct fdmux_datagram_stats stats = {.struct_size = 8};
    uint16_t own;
    uint64_t endpoint = bind_loopback(listener, 0, &own);

    CHECK_EQ(fdmux_datagram_set_handler(loop, endpoint, &handler), -EINVAL);
    CHECK_EQ(fdmux_datagram_set_handler(loop, endpoint, NULL), -EFAULT);
    CHECK_EQ(fdmux_datagram_stats(loop, endpoint, &stats), -E2BIG);
    CHECK_EQ(fdmux_datagram_stats(loop, endpoint, NULL), -EFAULT);
    end_with(loop, listener, 1);
}
