/* test_datagram_facts.c: what is told of a received datagram beside its bytes, and what
 * the kernel can do: local address, ECN, truncation, segments. */
#include "datagram_fixtures.h"

#include <unistd.h>

#define ECN_CAPABLE 2
#define ALL_FACTS (FDMUX_DATAGRAM_LOCAL | FDMUX_DATAGRAM_ECN)

/* ---- facts ---------------------------------------------------------------------- */

TEST(a_long_datagram_is_truncated_and_says_so)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    uint16_t port;
    uint64_t endpoint;
    int fd;

    options.size_max = 4;
    endpoint = bind_with(listener, "127.0.0.1", &options, &port);
    fd = open_talker(port);
    say(fd, "12345");
    say(fd, "1234");
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->heard[0].length, 4);
    CHECK_EQ(listener->heard[0].flags, FDMUX_DATAGRAM_TRUNCATED);
    CHECK(strcmp(listener->heard[0].text, "1234") == 0);
    CHECK_EQ(listener->heard[1].flags, 0);
    CHECK_EQ(datagram_stats(loop, endpoint).truncated, 1);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(endpoints_with_different_sizes_share_the_memory)
{
    static char bytes[200000];
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    uint16_t port;
    uint64_t endpoint;
    int udp, fds[2];

    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    (void)bind_loopback(listener, 0, &port);
    options.size_max = 262144;
    CHECK_EQ(fdmux_datagram_add(loop, fds[0], &options, &endpoint), 0);
    udp = open_talker(port);
    for (int i = 0; i < 3; i++) {
        say(udp, "small");
        CHECK_EQ(send(fds[1], bytes, sizeof bytes, 0), (long)sizeof bytes);
        CHECK_EQ(run_once(loop), 0);
        CHECK_EQ(listener->heard_count, 2 * i + 2);
    }
    for (int i = 0; i < 6; i++)
        CHECK(listener->heard[i].length == 5 ||
              listener->heard[i].length == sizeof bytes);
    CHECK_EQ(close(udp) + close(fds[1]), 0);
    end_with(loop, listener, 2);
}

TEST(local_address_and_ecn_are_told_on_request)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    struct sockaddr_in other = loopback(0);
    uint16_t port;
    int tos = ECN_CAPABLE;
    int fd;

    options.flags = ALL_FACTS;
    listener->reaction = echo_batch;
    (void)bind_with(listener, "0.0.0.0", &options, &port);
    fd = open_talker(port);
    /* Another address of this machine: the answer has to come from there. */
    other.sin_port = htons(port);
    other.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    CHECK_EQ(connect(fd, (struct sockaddr *)&other, sizeof other), 0);
    CHECK_EQ(setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof tos), 0);
    say(fd, "marked");
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->heard[0].flags, FDMUX_DATAGRAM_HAS_ECN);
    CHECK_EQ(listener->heard[0].ecn, ECN_CAPABLE);
    CHECK_EQ(listener->heard[0].local_size, sizeof other);
    CHECK_EQ(listener->heard[0].local.inet.sin_addr.s_addr, other.sin_addr.s_addr);
    CHECK_EQ(listener->heard[0].local.inet.sin_port, 0);
    expect_text(fd, "marked"); /* connected: only from `other` */
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

/* What was sent to a group came to the address of the group, which is no sender. */
TEST(a_group_is_not_taken_for_the_sender)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct sockaddr_in group = {.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_ALLHOSTS_GROUP)};
    struct sockaddr_in where;
    struct fdmux_datagram datagram;
    uint16_t own, port;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    int fd = open_receiver(&port);

    where = loopback(port);
    datagram = datagram_to(&where, "to you", 6);
    datagram.local = &group;
    datagram.local_size = sizeof group;
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &datagram), 0);
    expect_text(fd, "to you");
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

static void check_inet6(const char *host, const char *expected_host)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    union fdmux__sockaddr where;
    union fdmux__sockaddr expected;
    socklen_t size;
    uint16_t port;
    int tclass = ECN_CAPABLE, tos = ECN_CAPABLE;
    int fd;

    options.flags = ALL_FACTS | FDMUX_DATAGRAM_ERRORS;
    listener->reaction = echo_batch;
    (void)bind_with(listener, "::", &options, &port);
    CHECK_EQ(fdmux__sockaddr_parse(expected_host, 0, &expected, &size), 0);
    CHECK_EQ(fdmux__sockaddr_parse(host, port, &where, &size), 0);
    fd = socket(where.generic.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(connect(fd, &where.generic, size), 0);
    if (where.generic.sa_family == AF_INET6)
        CHECK_EQ(setsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &tclass, sizeof tclass), 0);
    else
        CHECK_EQ(setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof tos), 0);
    say(fd, "six");
    run_until(loop, &listener->heard_count, 1);
    CHECK_EQ(listener->heard[0].ecn, ECN_CAPABLE);
    CHECK_EQ(listener->heard[0].local_size, sizeof expected.inet6);
    CHECK(memcmp(&listener->heard[0].local.inet6.sin6_addr, &expected.inet6.sin6_addr,
                 16) == 0);
    expect_text(fd, "six");
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(facts_of_ipv6_and_of_ipv4_on_a_socket_of_both)
{
    check_inet6("::1", "::1");
    check_inet6("127.0.0.1", "::ffff:127.0.0.1");
}

/* ---- segments -------------------------------------------------------------------- */

enum { SEGMENT = 1000, SEGMENTS = 100, LENGTH = SEGMENT * SEGMENTS - 1 };

static unsigned char pattern[LENGTH];

static void make_pattern(void)
{
    for (int i = 0; i < LENGTH; i++)
        pattern[i] = (unsigned char)(i / 7);
}

/* The segments arrive as datagrams, each whole, the last one shorter. */
static void expect_segments(int fd)
{
    unsigned char got[2 * SEGMENT];

    for (int i = 0; i < SEGMENTS; i++) {
        long expected = i == SEGMENTS - 1 ? SEGMENT - 1 : SEGMENT;

        wait_until_readable(fd);
        CHECK_EQ(recv(fd, got, sizeof got, 0), expected);
        CHECK(memcmp(got, pattern + i * SEGMENT, (size_t)expected) == 0);
    }
    CHECK(!has_datagram(fd));
}

static void send_segments(struct fdmux_loop *loop, uint64_t endpoint, uint16_t port)
{
    struct sockaddr_in where = loopback(port);
    struct fdmux_datagram datagram = datagram_to(&where, pattern, LENGTH);

    datagram.segment_size = SEGMENT;
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &datagram), 0);
}

static uint16_t open_wide_receiver(int *ret_fd)
{
    uint16_t port;
    int size = 1 << 20;

    *ret_fd = open_receiver(&port);
    CHECK_EQ(setsockopt(*ret_fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
    return port;
}

/* Each refusal leads to the same datagrams: without GSO from the beginning; a probe
 * without a descriptor; a device or path that divides no segments, udp(7). */
TEST(segments_arrive_with_gso_and_without)
{
    static const struct {
        uint32_t kinds;
        int nth;
        int error;
    } refusals[] = {
        {0, 0, 0},
        {FDMUX_CALL_SOCKET, 1, EMFILE}, /* the probe */
        {FDMUX_CALL_SOCKET, 2, ENOPROTOOPT}, /* UDP_SEGMENT */
        {FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, 1, EIO},
        {FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, 1, EINVAL},
        {FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, 1, EAGAIN},
        {FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, 2, EAGAIN},
    };

    make_pattern();
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct fdmux_loop *loop = check_open_loop();
        struct listener *listener = open_listener(loop);
        uint16_t own, port;
        uint64_t endpoint = bind_loopback(listener, 0, &own);
        int fd;

        port = open_wide_receiver(&fd);
        fdmux_testing_fail(refusals[i].kinds, refusals[i].nth, refusals[i].error, 0);
        send_segments(loop, endpoint, port);
        fdmux_testing_fail(0, 0, 0, 0);
        CHECK_EQ(run_once(loop), 0);
        expect_segments(fd);
        CHECK_EQ(datagram_stats(loop, endpoint).sent, SEGMENTS);
        CHECK_EQ(datagram_stats(loop, endpoint).failed, 0);
        CHECK_EQ(close(fd), 0);
        end_with(loop, listener, 1);
    }
}

/* A Unix socket ignores UDP_SEGMENT, and would send one datagram. */
TEST(segments_over_a_unix_socket_arrive_as_datagrams)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    struct fdmux_datagram datagram = {
        .data = "one two tea", .length = 11, .segment_size = 4};
    uint64_t endpoint;
    int fds[2];

    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    CHECK_EQ(fdmux_datagram_add(loop, fds[0], &options, &endpoint), 0);
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &datagram), 0);
    expect_text(fds[1], "one ");
    expect_text(fds[1], "two ");
    expect_text(fds[1], "tea");
    CHECK_EQ(datagram_stats(loop, endpoint).sent, 3);
    CHECK_EQ(close(fds[1]), 0);
    end_with(loop, listener, 1);
}

TEST(joined_datagrams_are_divided_again)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *sender = open_listener(loop);
    struct listener *receiver = open_listener(loop);
    uint16_t own, port;
    uint64_t from, to;
    int size = 1 << 20;

    make_pattern();
    from = bind_loopback(sender, 0, &own);
    to = bind_loopback(receiver, FDMUX_DATAGRAM_GRO | ALL_FACTS, &port);
    CHECK_EQ(setsockopt(fdmux_datagram_fd(loop, to), SOL_SOCKET, SO_RCVBUF, &size,
                        sizeof size),
             0);
    send_segments(loop, from, port);
    run_until(loop, &receiver->heard_count, SEGMENTS);
    CHECK_EQ(receiver->heard_count, SEGMENTS);
    for (int i = 0; i < SEGMENTS; i++) {
        CHECK_EQ(receiver->heard[i].length, i == SEGMENTS - 1 ? SEGMENT - 1 : SEGMENT);
        CHECK(memcmp(receiver->heard[i].text, pattern + i * SEGMENT, TEXT_MAX - 1) ==
              0);
        CHECK_EQ(receiver->heard[i].address.inet.sin_port, htons(own));
        CHECK_EQ(receiver->heard[i].local.inet.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    }
    CHECK_EQ(datagram_stats(loop, to).received, SEGMENTS);
    CHECK_EQ(datagram_stats(loop, to).received_bytes, LENGTH);
    fdmux_loop_destroy(loop);
    free(sender);
    free(receiver);
}

/* ---- features -------------------------------------------------------------------- */

TEST(features_are_asked_of_the_kernel_once)
{
    struct fdmux_loop *loop = check_open_loop();
    int all =
        FDMUX_DATAGRAM_CAN_BATCH | FDMUX_DATAGRAM_CAN_GSO | FDMUX_DATAGRAM_CAN_GRO;
    int features;

    fdmux_testing_fail(FDMUX_CALL_SOCKET, 1, EMFILE, 1);
    CHECK_EQ(fdmux_datagram_features(loop), -EMFILE);
    fdmux_testing_fail(0, 0, 0, 0);
    features = fdmux_datagram_features(loop);
    CHECK(features >= 0 && (features & ~all) == 0);
    fdmux_testing_fail(FDMUX_CALL_ANY, 1, EMFILE, 1);
    CHECK_EQ(fdmux_datagram_features(loop), features);
    CHECK_EQ(fdmux_testing_calls(), 0);
    fdmux_testing_fail(0, 0, 0, 0);
    fdmux_loop_destroy(loop);
}

TEST(a_kernel_without_batches_and_segments_says_so)
{
    struct fdmux_loop *loop = check_open_loop();

    fdmux_testing_fail(FDMUX_CALL_RECVMMSG, 1, ENOSYS, 1);
    CHECK_EQ(fdmux_datagram_features(loop) & FDMUX_DATAGRAM_CAN_BATCH, 0);
    fdmux_testing_fail(0, 0, 0, 0);
    fdmux_loop_destroy(loop);
    loop = check_open_loop();
    fdmux_testing_fail(FDMUX_CALL_SOCKET, 2, ENOPROTOOPT, 1);
    CHECK_EQ(fdmux_datagram_features(loop) &
                 (FDMUX_DATAGRAM_CAN_GSO | FDMUX_DATAGRAM_CAN_GRO),
             0);
    fdmux_testing_fail(0, 0, 0, 0);
    fdmux_loop_destroy(loop);
}

/* ---- without batch calls ----------------------------------------------------------
 */

/* The same exchange, one call for each datagram. Refused once, the batch calls are not
 * tried again. */
TEST(datagrams_are_served_one_by_one_where_batch_calls_are_missing)
{
    const int errors[] = {ENOSYS, EPERM};

    for (int i = 0; i < 2; i++) {
        struct fdmux_loop *loop = check_open_loop();
        struct listener *listener = open_listener(loop);
        uint16_t port;
        int fd;

        listener->reaction = echo_batch;
        (void)bind_loopback(listener, ALL_FACTS, &port);
        fd = open_talker(port);
        for (int round = 0; round < 2; round++) {
            fdmux_testing_fail(FDMUX_CALL_RECVMMSG |
                                   (errors[i] == ENOSYS ? FDMUX_CALL_SENDMMSG : 0u),
                               1, errors[i], 1);
            for (int j = 0; j < 70; j++)
                say(fd, "one");
            CHECK_EQ(run_once(loop), 0);
            CHECK_EQ(run_once(loop), 0);
            CHECK_EQ(fdmux_testing_calls(),
                     round != 0 ? 0 : (errors[i] == ENOSYS ? 2 : 1));
            fdmux_testing_fail(0, 0, 0, 0);
            for (int j = 0; j < 70; j++)
                expect_text(fd, "one");
        }
        CHECK_EQ(listener->heard_count, 140);
        CHECK_EQ(listener->largest_batch, 64);
        CHECK_EQ(listener->heard[0].local.inet.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
        CHECK_EQ(close(fd), 0);
        end_with(loop, listener, 1);
    }
}

TEST(an_error_between_single_receives_is_told_after_the_datagrams)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t port;
    int fd;

    (void)bind_loopback(listener, 0, &port);
    fd = open_talker(port);
    say(fd, "one");
    fdmux_testing_fail(FDMUX_CALL_RECVMMSG, 1, ENOSYS, 1);
    CHECK_EQ(run_once(loop), 0);
    say(fd, "two");
    fdmux_testing_fail(FDMUX_CALL_RECV, 2, ECONNREFUSED, 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->heard_count, 2);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 1);
    CHECK_EQ(listener->error, ECONNREFUSED);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(what_the_kernel_drops_is_counted)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t port;
    uint64_t endpoint = bind_loopback(listener, 0, &port);
    int size = 1, fd = open_talker(port);

    CHECK_EQ(setsockopt(fdmux_datagram_fd(loop, endpoint), SOL_SOCKET, SO_RCVBUF, &size,
                        sizeof size),
             0);
    for (int i = 0; i < 100; i++)
        say(fd, "flood");
    for (int i = 0; i < 3; i++)
        CHECK_EQ(run_once(loop), 0);
    CHECK(datagram_stats(loop, endpoint).kernel_dropped > 0);
    CHECK_EQ(datagram_stats(loop, endpoint).kernel_dropped +
                 datagram_stats(loop, endpoint).received,
             100);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}
