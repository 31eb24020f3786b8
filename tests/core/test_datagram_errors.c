/* test_datagram_errors.c: what the network reports about datagrams that were sent, and
 * errors of receiving. */
#include "datagram_fixtures.h"

#include <unistd.h>

/* A port of loopback that nobody listens on. */
static uint16_t closed_port(void)
{
    uint16_t port;
    int fd = open_receiver(&port);

    CHECK_EQ(close(fd), 0);
    return port;
}

static void expect_error_of(const struct listener *listener, uint16_t port)
{
    struct sockaddr_in where = loopback(port);

    CHECK_EQ(listener->error, ECONNREFUSED);
    CHECK_EQ(listener->error_address_size, sizeof where);
    CHECK_EQ(listener->error_address.inet.sin_port, where.sin_port);
    CHECK_EQ(listener->error_address.inet.sin_addr.s_addr, where.sin_addr.s_addr);
}

TEST(the_error_queue_tells_which_peer_has_refused)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, good, bad[2] = {closed_port(), closed_port()};
    uint64_t endpoint = bind_loopback(listener, FDMUX_DATAGRAM_ERRORS, &own);
    int fd = open_receiver(&good);

    for (int i = 0; i < 2; i++) {
        CHECK_EQ(send_text(loop, endpoint, bad[i], "anybody?"), 0);
        /* The refusal does not keep a datagram to another peer from leaving. */
        CHECK_EQ(send_text(loop, endpoint, good, "you"), 0);
        expect_text(fd, "you");
        CHECK_EQ(run_once(loop), 0);
        CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], i + 1);
        expect_error_of(listener, bad[i]);
    }
    CHECK_EQ(datagram_stats(loop, endpoint).errors, 2);
    CHECK_EQ(datagram_stats(loop, endpoint).failed, 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 2); /* each once */
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

static int drop_without_a_system(struct listener *listener,
                                 const struct fdmux_datagram_event *event)
{
    if (event->kind == FDMUX_DATAGRAM_ERROR) {
        fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, 1, ENOMEM, 1);
        CHECK_EQ(
            fdmux_datagram_close(listener->loop, event->endpoint, FDMUX_DATAGRAM_DROP),
            0);
    }
    return 0;
}

EPOLL_TEST(what_was_dropped_is_not_sent_though_the_interest_could_not_be_changed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, good;
    uint64_t endpoint = bind_loopback(listener, FDMUX_DATAGRAM_ERRORS, &own);
    int fd = open_receiver(&good);

    listener->reaction = drop_without_a_system;
    CHECK_EQ(send_text(loop, endpoint, closed_port(), "anybody?"), 0);
    fdmux_testing_fail(FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, 1, EAGAIN, 0);
    CHECK_EQ(send_text(loop, endpoint, good, "you"), 0);
    CHECK_EQ(datagram_stats(loop, endpoint).queued > 0, true);
    (void)run_once(loop); /* the error, and room to send: in one event */
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 1);
    CHECK(!has_datagram(fd));
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(many_refusals_are_told_over_several_batches)
{
    enum { COUNT = 40 };
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, bad = closed_port();
    uint64_t endpoint = bind_loopback(listener, FDMUX_DATAGRAM_ERRORS, &own);

    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(send_text(loop, endpoint, bad, "x"), 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK(listener->counts[FDMUX_DATAGRAM_ERROR] < COUNT);
    run_until(loop, &listener->counts[FDMUX_DATAGRAM_ERROR], COUNT);
    expect_error_of(listener, bad);
    end_with(loop, listener, 1);
}

TEST(an_ipv6_peer_that_refuses_is_told_too)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    struct sockaddr_in6 where = {.sin6_family = AF_INET6,
                                 .sin6_addr = IN6ADDR_LOOPBACK_INIT,
                                 .sin6_port = htons(closed_port())};
    struct fdmux_datagram datagram = {
        .data = "?", .length = 1, .address = &where, .address_size = sizeof where};
    uint16_t own;
    uint64_t endpoint;

    options.flags = FDMUX_DATAGRAM_ERRORS;
    endpoint = bind_with(listener, "::1", &options, &own);
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &datagram), 0);
    run_until(loop, &listener->counts[FDMUX_DATAGRAM_ERROR], 1);
    CHECK_EQ(listener->error, ECONNREFUSED);
    CHECK_EQ(listener->error_address.inet6.sin6_port, where.sin6_port);
    end_with(loop, listener, 1);
}

TEST(a_connected_endpoint_is_told_without_asking)
{
    for (int is_asked = 0; is_asked < 2; is_asked++) {
        struct fdmux_loop *loop = check_open_loop();
        struct listener *listener = open_listener(loop);
        uint64_t endpoint = connect_loopback(
            listener, is_asked != 0 ? FDMUX_DATAGRAM_ERRORS : 0, closed_port());

        CHECK_EQ(send_text(loop, endpoint, 0, "anybody?"), 0);
        CHECK_EQ(run_once(loop), 0);
        CHECK_EQ(run_once(loop), 0);
        CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 1);
        CHECK_EQ(listener->error, ECONNREFUSED);
        CHECK_EQ(listener->counts[FDMUX_DATAGRAM_CLOSED], 0); /* it goes on */
        end_with(loop, listener, 1);
    }
}

/* The error of the first datagram is the result of the second send, which is tried
 * again and does leave. */
TEST(the_error_of_an_earlier_datagram_is_not_that_of_a_later_one)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint64_t endpoint = connect_loopback(listener, 0, closed_port());

    CHECK_EQ(send_text(loop, endpoint, 0, "first"), 0);
    CHECK_EQ(send_text(loop, endpoint, 0, "second"), 0);
    CHECK_EQ(datagram_stats(loop, endpoint).sent, 2);
    CHECK_EQ(datagram_stats(loop, endpoint).failed, 0);
    CHECK_EQ(datagram_stats(loop, endpoint).errors, 1);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 2); /* one for each */
    end_with(loop, listener, 1);
}

TEST(an_error_that_stays_is_that_of_the_datagram)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own;
    uint64_t endpoint = bind_loopback(listener, 0, &own);

    fdmux_testing_fail(FDMUX_CALL_SEND, 1, EPERM, 1); /* a firewall, sendto(2) */
    CHECK_EQ(send_text(loop, endpoint, own, "no"), -EPERM);
    CHECK_EQ(fdmux_testing_calls(), 2);
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(datagram_stats(loop, endpoint).failed, 1);
    /* Told once, and noted although the socket is full when it is tried again. */
    fdmux_testing_fail(FDMUX_CALL_SEND, 1, EHOSTUNREACH, 0);
    CHECK_EQ(send_text(loop, endpoint, own, "yes"), 0);
    run_until(loop, &listener->heard_count, 1);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 1);
    CHECK_EQ(listener->error, EHOSTUNREACH);
    CHECK_EQ(listener->error_address_size, 0);
    end_with(loop, listener, 1);
}

static int close_on_error(struct listener *listener,
                          const struct fdmux_datagram_event *event)
{
    if (event->kind == FDMUX_DATAGRAM_ERROR)
        CHECK_EQ(
            fdmux_datagram_close(listener->loop, event->endpoint, FDMUX_DATAGRAM_DROP),
            0);
    return 0;
}

TEST(an_endpoint_may_close_itself_when_it_is_told_an_error)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    uint16_t own, bad = closed_port();
    uint64_t endpoint;
    int fd = open_receiver(&own);

    listener->reaction = close_on_error;
    options.flags = FDMUX_DATAGRAM_ERRORS | FDMUX_DATAGRAM_BORROW;
    CHECK_EQ(fdmux_datagram_add(loop, fd, &options, &endpoint), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(send_text(loop, endpoint, bad, "x"), 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 1);
    CHECK_EQ(listener->destroyed, 1);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

/* The same for the error of a call of ours, which is told after it. */
TEST(an_endpoint_may_close_itself_when_it_is_told_that_a_send_has_failed)
{
    static const char bytes[70000];
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct sockaddr_in where = loopback(closed_port());
    struct fdmux_datagram datagram = datagram_to(&where, bytes, sizeof bytes);
    uint16_t own;
    uint64_t endpoint = bind_loopback(listener, 0, &own);

    listener->reaction = close_on_error;
    CHECK_EQ(fdmux_datagram_send_many(loop, endpoint, &datagram, 1), 0);
    run_until(loop, &listener->destroyed, 1);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 1);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_CLOSED], 1);
    CHECK_EQ(listener->error, 0); /* of CLOSED: as asked */
    end_with(loop, listener, 1);
}

/* ---- errors of receiving --------------------------------------------------------- */

TEST(a_receive_that_cannot_succeed_ends_the_endpoint)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own;
    int fd;

    (void)bind_loopback(listener, 0, &own);
    fd = open_talker(own);
    say(fd, "x");
    fdmux_testing_fail(FDMUX_CALL_RECVMMSG | FDMUX_CALL_RECV, 1, EIO, 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->destroyed, 1);
    CHECK_EQ(listener->error, EIO);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(a_receive_without_memory_is_repeated)
{
    const int errors[] = {ENOMEM, ENOBUFS, EINTR, EAGAIN};
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own;
    int fd;

    (void)bind_loopback(listener, 0, &own);
    fd = open_talker(own);
    for (int i = 0; i < 4; i++) {
        say(fd, "x");
        fdmux_testing_fail(FDMUX_CALL_RECVMMSG | FDMUX_CALL_RECV, 1, errors[i], 0);
        CHECK_EQ(run_once(loop), 0);
        CHECK_EQ(listener->heard_count, i);
        CHECK_EQ(run_once(loop), 0);
        CHECK_EQ(listener->heard_count, i + 1);
    }
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 0);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}
