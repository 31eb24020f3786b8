/* test_datagram_queue.c: what the kernel does not take is queued, in order and within
 * limits, and sent later; what it refuses is told. */
#include "datagram_fixtures.h"

#include <unistd.h>

static void refuse_next_send(int error)
{
    fdmux_testing_fail(FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, 1, error, 0);
}

static void refuse_sends(int error)
{
    fdmux_testing_fail(FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, 1, error, 1);
}

static void refuse_none(void)
{
    fdmux_testing_fail(0, 0, 0, 0);
}

TEST(queued_datagrams_leave_in_order)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, port;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    int fd = open_receiver(&port);
    static const char *const texts[] = {"first", "second", "", "third"};

    refuse_sends(EAGAIN);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(send_text(loop, endpoint, port, texts[i]), 0);
    CHECK_EQ(datagram_stats(loop, endpoint).queued_count, 4);
    CHECK_EQ(datagram_stats(loop, endpoint).queued, 16 + 4 * 64);
    CHECK_EQ(fdmux_datagram_queued(loop, endpoint), 16 + 4 * 64);
    CHECK_EQ(run_once(loop), 0); /* the kernel still takes none */
    refuse_none();
    CHECK(!has_datagram(fd));
    CHECK_EQ(run_once(loop), 0);
    for (int i = 0; i < 4; i++)
        expect_text(fd, texts[i]);
    CHECK_EQ(datagram_stats(loop, endpoint).queued, 0);
    CHECK_EQ(datagram_stats(loop, endpoint).sent, 4);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_WRITABLE], 0); /* nobody has asked */
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(a_send_goes_behind_the_queue)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, port;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    int fd = open_receiver(&port);

    refuse_next_send(EAGAIN);
    CHECK_EQ(send_text(loop, endpoint, port, "queued"), 0);
    CHECK_EQ(send_text(loop, endpoint, port, "behind"), 0);
    CHECK(!has_datagram(fd));
    run_once(loop);
    expect_text(fd, "queued");
    expect_text(fd, "behind");
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(a_full_queue_drops_and_counts_and_tells_when_there_is_room)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    uint16_t own, port;
    uint64_t endpoint;
    int fd = open_receiver(&port);

    options.queue_max = 3 * (64 + 4);
    options.queue_low = 64 + 4;
    endpoint = bind_with(listener, "127.0.0.1", &options, &own);
    refuse_sends(EAGAIN);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(send_text(loop, endpoint, port, "four"), 0);
    CHECK_EQ(send_text(loop, endpoint, port, "four"), -ENOBUFS);
    CHECK_EQ(send_text(loop, endpoint, port, ""), -ENOBUFS);
    CHECK_EQ(datagram_stats(loop, endpoint).dropped, 2);
    CHECK_EQ(datagram_stats(loop, endpoint).queued_count, 3);
    refuse_none();
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_WRITABLE], 1);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_WRITABLE], 1);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(writable_comes_when_it_was_asked_for)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, port;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    int fd = open_receiver(&port);

    CHECK_EQ(fdmux_datagram_await_writable(loop, endpoint, 0), 0);
    refuse_next_send(EAGAIN);
    CHECK_EQ(send_text(loop, endpoint, port, "x"), 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_WRITABLE], 1);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(close_sends_the_queue_first_and_drop_does_not)
{
    for (int is_drop = 0; is_drop < 2; is_drop++) {
        struct fdmux_loop *loop = check_open_loop();
        struct listener *listener = open_listener(loop);
        uint16_t own, port;
        uint64_t endpoint = bind_loopback(listener, 0, &own);
        int fd = open_receiver(&port);
        int talker = open_talker(own);

        refuse_next_send(EAGAIN);
        CHECK_EQ(send_text(loop, endpoint, port, "last"), 0);
        CHECK_EQ(fdmux_datagram_close(loop, endpoint,
                                      is_drop != 0 ? FDMUX_DATAGRAM_DROP : 0),
                 0);
        say(talker, "too late");
        CHECK_EQ(run_once(loop), 0);
        CHECK_EQ(run_once(loop), 0);
        CHECK_EQ(listener->destroyed, 1);
        CHECK_EQ(listener->heard_count, 0);
        CHECK_EQ(has_datagram(fd), is_drop == 0);
        CHECK_EQ(close(fd) + close(talker), 0);
        end_with(loop, listener, 1);
    }
}

TEST(many_are_queued_from_the_first_that_the_kernel_does_not_take)
{
    enum { COUNT = 200 };
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram datagrams[COUNT];
    char bytes[COUNT];
    uint16_t own, port;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    int fd = open_receiver(&port);
    struct sockaddr_in where = loopback(port);

    for (int i = 0; i < COUNT; i++) {
        bytes[i] = (char)i;
        datagrams[i] = datagram_to(&where, &bytes[i], 1);
    }
    fdmux_testing_fail(FDMUX_CALL_SENDMMSG, 2, EAGAIN, 0); /* after the first 64 */
    CHECK_EQ(fdmux_datagram_send_many(loop, endpoint, datagrams, COUNT), COUNT);
    CHECK_EQ(datagram_stats(loop, endpoint).sent, 64);
    CHECK_EQ(datagram_stats(loop, endpoint).queued_count, COUNT - 64);
    refuse_none();
    CHECK_EQ(run_once(loop), 0);
    for (int i = 0; i < COUNT; i++) {
        char got;

        CHECK_EQ(recv(fd, &got, 1, 0), 1);
        CHECK_EQ(got, bytes[i]);
    }
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

/* ---- what the kernel refuses ---------------------------------------------------- */

TEST(a_send_returns_the_error_of_its_datagram)
{
    static char huge[70000];
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, port;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    int fd = open_receiver(&port);
    struct sockaddr_in where = loopback(port);
    struct fdmux_datagram datagram = datagram_to(&where, huge, sizeof huge);

    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &datagram), -EMSGSIZE);
    CHECK_EQ(datagram_stats(loop, endpoint).failed, 1);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 0); /* it was returned */
    CHECK_EQ(send_text(loop, endpoint, port, "small"), 0);
    expect_text(fd, "small");
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(many_skip_what_cannot_be_sent_and_tell_the_first)
{
    static char huge[70000];
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, port;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    int fd = open_receiver(&port);
    struct sockaddr_in where = loopback(port), nowhere = loopback(1);
    struct fdmux_datagram datagrams[] = {
        datagram_to(&where, "a", 1), datagram_to(&nowhere, huge, sizeof huge),
        datagram_to(&where, "b", 1), datagram_to(&where, huge, sizeof huge),
        datagram_to(&where, "c", 1),
    };

    CHECK_EQ(fdmux_datagram_send_many(loop, endpoint, datagrams, 5), 3);
    CHECK_EQ(datagram_stats(loop, endpoint).failed, 2);
    expect_text(fd, "a");
    expect_text(fd, "b");
    expect_text(fd, "c");
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 1);
    CHECK_EQ(listener->error, EMSGSIZE);
    CHECK_EQ(listener->error_address_size, sizeof nowhere);
    CHECK(memcmp(&listener->error_address, &nowhere, sizeof nowhere) == 0);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(a_queued_datagram_that_fails_later_is_told)
{
    static char huge[70000];
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, port;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    int fd = open_receiver(&port);
    struct sockaddr_in where = loopback(port);
    struct fdmux_datagram datagram = datagram_to(&where, huge, sizeof huge);

    refuse_next_send(EAGAIN);
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &datagram), 0);
    CHECK_EQ(send_text(loop, endpoint, port, "behind it"), 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_ERROR], 1);
    CHECK_EQ(listener->error, EMSGSIZE);
    expect_text(fd, "behind it");
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

/* ip(7): with IP_RECVERR a full queue of the device is told, too. */
TEST(what_the_kernel_has_no_memory_for_is_dropped_and_counted)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, port;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    int fd = open_receiver(&port);

    refuse_next_send(ENOBUFS);
    CHECK_EQ(send_text(loop, endpoint, port, "dropped"), -ENOBUFS);
    CHECK_EQ(datagram_stats(loop, endpoint).dropped, 1);
    CHECK_EQ(datagram_stats(loop, endpoint).queued_count, 0);
    refuse_next_send(EINTR); /* tried again at once */
    CHECK_EQ(send_text(loop, endpoint, port, "sent"), 0);
    expect_text(fd, "sent");
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(without_memory_for_the_queue_it_is_dropped)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own;
    uint64_t endpoint = bind_loopback(listener, 0, &own);

    refuse_next_send(EAGAIN);
    CHECK_EQ(send_text(loop, endpoint, own, "queued"), 0);
    /* The queue has room for 4096 bytes; this one needs more. */
    fdmux_testing_fail(FDMUX_CALL_MEMORY, 1, ENOMEM, 0);
    {
        static char large[5000];
        struct sockaddr_in where = loopback(own);
        struct fdmux_datagram datagram = datagram_to(&where, large, sizeof large);

        CHECK_EQ(fdmux_datagram_send(loop, endpoint, &datagram), -ENOMEM);
    }
    refuse_none();
    CHECK_EQ(datagram_stats(loop, endpoint).dropped, 1);
    run_until(loop, &listener->heard_count, 1);
    CHECK(strcmp(listener->heard[0].text, "queued") == 0);
    end_with(loop, listener, 1);
}
