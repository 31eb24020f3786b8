/* test_datagram.c: endpoints of UDP and of Unix sockets: what is sent arrives, whole,
 * in order, with its address; and how an endpoint ends. */
#include "datagram_fixtures.h"

#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- receiving and answering ---------------------------------------------------- */

TEST(all_that_has_arrived_comes_in_one_event)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t port;
    uint64_t endpoint = bind_loopback(listener, 0, &port);
    int fd = open_talker(port);
    struct sockaddr_in own;
    socklen_t size = sizeof own;

    CHECK_EQ(getsockname(fd, (struct sockaddr *)&own, &size), 0);
    say(fd, "one");
    say(fd, "two");
    say(fd, "");
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_RECEIVED], 1);
    CHECK_EQ(listener->heard_count, 3);
    CHECK(strcmp(listener->heard[0].text, "one") == 0);
    CHECK(strcmp(listener->heard[1].text, "two") == 0);
    CHECK_EQ(listener->heard[2].length, 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(listener->heard[i].address_size, sizeof own);
        CHECK(memcmp(&listener->heard[i].address, &own, sizeof own) == 0);
        CHECK_EQ(listener->heard[i].local_size, 0);
        CHECK_EQ(listener->heard[i].flags, 0);
    }
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_RECEIVED], 1);
    CHECK_EQ(datagram_stats(loop, endpoint).received, 3);
    CHECK_EQ(datagram_stats(loop, endpoint).received_bytes, 6);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(a_batch_can_be_sent_back_as_it_is)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    int fds[3];
    uint16_t port;
    uint64_t endpoint;

    listener->reaction = echo_batch;
    endpoint = bind_loopback(listener, 0, &port);
    for (int i = 0; i < 3; i++) {
        char text[] = {(char)('a' + i), '\0'};

        fds[i] = open_talker(port);
        say(fds[i], text);
        say(fds[i], "more");
    }
    CHECK_EQ(run_once(loop), 0);
    for (int i = 0; i < 3; i++) {
        char text[] = {(char)('a' + i), '\0'};

        expect_text(fds[i], text);
        expect_text(fds[i], "more");
        CHECK_EQ(close(fds[i]), 0);
    }
    CHECK_EQ(datagram_stats(loop, endpoint).sent, 6);
    CHECK_EQ(datagram_stats(loop, endpoint).sent_bytes, 15);
    end_with(loop, listener, 1);
}

TEST(at_most_64_are_received_in_a_batch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t ports[2];
    int fds[2];

    for (int i = 0; i < 2; i++) {
        (void)bind_loopback(listener, 0, &ports[i]);
        fds[i] = open_talker(ports[i]);
    }
    for (int i = 0; i < 65; i++)
        say(fds[0], "busy");
    say(fds[1], "quiet");
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_RECEIVED], 2);
    CHECK_EQ(listener->largest_batch, 64);
    CHECK_EQ(listener->heard_count, 65); /* 64 of one endpoint, 1 of the other */
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->heard_count, 66);
    CHECK_EQ(close(fds[0]) + close(fds[1]), 0);
    end_with(loop, listener, 2);
}

TEST(connected_endpoints_talk_without_addresses)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *server = open_listener(loop);
    struct listener *client = open_listener(loop);
    struct sockaddr_in from;
    uint16_t port;
    uint64_t endpoint;

    server->reaction = echo_batch;
    (void)bind_loopback(server, 0, &port);
    endpoint = connect_loopback(client, 0, port);
    from = loopback(port);
    CHECK_EQ(send_text(loop, endpoint, 0, "hello"), 0);
    run_until(loop, &client->heard_count, 1);
    CHECK(strcmp(client->heard[0].text, "hello") == 0);
    CHECK(memcmp(&client->heard[0].address, &from, sizeof from) == 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(server->destroyed + client->destroyed, 2);
    CHECK_EQ(server->error, ESTALE);
    free(server);
    free(client);
}

TEST(ipv6_has_its_own_addresses)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    struct sockaddr_in6 where = {.sin6_family = AF_INET6,
                                 .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct fdmux_datagram datagram = {
        .data = "six",
        .length = 3,
        .address = &where,
        .address_size = sizeof where,
    };
    uint16_t port;
    uint64_t endpoint;

    listener->reaction = NULL;
    endpoint = bind_with(listener, "::1", &options, &port);
    where.sin6_port = htons(port);
    CHECK_EQ(fdmux_datagram_send(loop, endpoint, &datagram), 0);
    run_until(loop, &listener->heard_count, 1);
    CHECK(strcmp(listener->heard[0].text, "six") == 0);
    CHECK_EQ(listener->heard[0].address_size, sizeof where);
    CHECK_EQ(listener->heard[0].address.inet6.sin6_port, where.sin6_port);
    end_with(loop, listener, 1);
}

TEST(a_paused_endpoint_receives_nothing_and_still_sends)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t own, port;
    uint64_t endpoint = bind_loopback(listener, 0, &own);
    int fd = open_talker(own), receiver = open_receiver(&port);

    CHECK_EQ(fdmux_datagram_pause(loop, endpoint), 0);
    say(fd, "waits");
    fdmux_testing_fail(FDMUX_CALL_SEND, 1, EAGAIN, 0);
    CHECK_EQ(send_text(loop, endpoint, port, "queued"), 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->heard_count, 0);
    expect_text(receiver, "queued");
    CHECK_EQ(fdmux_datagram_resume(loop, endpoint), 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK(strcmp(listener->heard[0].text, "waits") == 0);
    CHECK_EQ(close(fd) + close(receiver), 0);
    end_with(loop, listener, 1);
}

/* ---- Unix ----------------------------------------------------------------------- */

static struct fdmux_datagram_address unix_address(const char *path, size_t length)
{
    return (struct fdmux_datagram_address){
        .struct_size = sizeof(struct fdmux_datagram_address),
        .path = path,
        .path_length = (uint16_t)length,
    };
}

/* A server and a client of these names talk to each other. */
static void talk_over(const char *server_path, const char *client_path, size_t length)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *server = open_listener(loop);
    struct listener *client = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(server);
    struct fdmux_datagram_address where = unix_address(server_path, length);
    struct fdmux_datagram_address own = unix_address(client_path, length);
    uint64_t endpoint;

    server->reaction = echo_batch;
    CHECK_EQ(fdmux_datagram_bind(loop, &where, &options, &endpoint), 0);
    options = datagram_options(client);
    CHECK_EQ(fdmux_datagram_connect(loop, &where, &own, &options, &endpoint), 0);
    CHECK_EQ(send_text(loop, endpoint, 0, "over unix"), 0);
    run_until(loop, &client->heard_count, 1);
    CHECK(strcmp(client->heard[0].text, "over unix") == 0);
    CHECK_EQ(server->heard[0].address.local.sun_family, AF_UNIX);
    fdmux_loop_destroy(loop);
    free(server);
    free(client);
}

TEST(unix_paths_and_abstract_names_have_datagrams)
{
    char paths[2][64];
    char names[2][64];
    int length = 0;

    for (int i = 0; i < 2; i++) {
        (void)snprintf(paths[i], sizeof paths[i], "/tmp/fdmux-datagram-%d-%d",
                       (int)getpid(), i);
        length = snprintf(names[i], sizeof names[i], "0fdmux-datagram-%d-%d",
                          (int)getpid(), i);
        names[i][0] = '\0'; /* abstract, unix(7) */
    }
    talk_over(paths[0], paths[1], 0);
    CHECK_EQ(unlink(paths[0]) + unlink(paths[1]), 0);
    talk_over(names[0], names[1], (size_t)length);
}

TEST(a_sender_without_a_name_has_no_address)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    uint64_t endpoint;
    int fds[2];

    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    CHECK_EQ(fdmux_datagram_add(loop, fds[0], &options, &endpoint), 0);
    CHECK_EQ(fdmux_datagram_fd(loop, endpoint), fds[0]);
    say(fds[1], "");
    say(fds[1], "nobody");
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->heard_count, 2); /* an empty one is a datagram too */
    CHECK_EQ(listener->heard[0].length, 0);
    CHECK_EQ(listener->heard[1].address_size, 0);
    CHECK_EQ(close(fds[1]), 0);
    end_with(loop, listener, 1);
}

/* A Unix socket that is not connected is always writable, however full the queue of the
 * receiver is. */
TEST(a_full_unix_receiver_is_tried_again_without_spinning)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    struct fdmux_datagram datagram = {
        .data = "x", .length = 1, .address = &where, .address_size = sizeof where};
    char got[4];
    uint64_t endpoint;
    int sent = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void)snprintf(where.sun_path, sizeof where.sun_path, "/tmp/fdmux-full-%d",
                   (int)getpid());
    CHECK_EQ(bind(fd, (struct sockaddr *)&where, sizeof where), 0);
    CHECK_EQ(fdmux_datagram_add(loop, socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0),
                                &options, &endpoint),
             0);
    while (datagram_stats(loop, endpoint).queued_count == 0 && sent < 10000) {
        CHECK_EQ(fdmux_datagram_send(loop, endpoint, &datagram), 0);
        sent++;
    }
    CHECK_EQ(datagram_stats(loop, endpoint).queued_count, 1);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(run_once(loop), 0);
    CHECK(stats_of(loop).io_called_count == 0); /* it waits for its timer */
    for (int i = 0; i < sent - 1; i++)
        CHECK_EQ(recv(fd, got, sizeof got, 0), 1);
    while (!has_datagram(fd))
        CHECK(fdmux_loop_dispatch(loop, 20 * MS, NULL, 0) >= 0);
    CHECK_EQ(datagram_stats(loop, endpoint).queued_count, 0);
    CHECK_EQ(close(fd) + unlink(where.sun_path), 0);
    end_with(loop, listener, 1);
}

/* ---- ends ----------------------------------------------------------------------- */

static int close_at_once(struct listener *listener,
                         const struct fdmux_datagram_event *event)
{
    if (event->kind == FDMUX_DATAGRAM_RECEIVED) {
        CHECK_EQ(fdmux_datagram_close(listener->loop, event->endpoint, 0), 0);
        CHECK_EQ(send_text(listener->loop, event->endpoint, 9, "late"), -EPIPE);
    }
    return 0;
}

TEST(an_endpoint_may_close_itself_and_hears_nothing_more)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t port;
    uint64_t endpoint = bind_loopback(listener, 0, &port);
    int fd = open_talker(port);

    listener->reaction = close_at_once;
    say(fd, "bye");
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_CLOSED], 1);
    CHECK_EQ(listener->error, 0);
    CHECK_EQ(listener->destroyed, 1);
    CHECK_EQ(fdmux_datagram_close(loop, endpoint, 0), -EIDRM);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

TEST(a_borrowed_descriptor_stays_open)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    struct fdmux_datagram_options options = datagram_options(listener);
    uint16_t port;
    uint64_t endpoint;
    int fd = open_receiver(&port);

    options.flags = FDMUX_DATAGRAM_BORROW;
    CHECK_EQ(fdmux_datagram_add(loop, fd, &options, &endpoint), 0);
    CHECK_EQ(fdmux_datagram_close(loop, endpoint, FDMUX_DATAGRAM_DROP), 0);
    CHECK_EQ(fdmux_datagram_fd(loop, endpoint), -EIDRM);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_CLOSED], 0); /* not inside of close */
    CHECK_EQ(close(fd), 0);
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(listener->destroyed, 1);
    end_with(loop, listener, 1);
}

TEST(a_shut_down_socket_ends_its_endpoint)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint64_t endpoint = connect_loopback(listener, 0, 9);

    CHECK_EQ(shutdown(fdmux_datagram_fd(loop, endpoint), SHUT_RD), 0);
    run_until(loop, &listener->destroyed, 1);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_RECEIVED], 0);
    CHECK_EQ(listener->error, ESHUTDOWN);
    end_with(loop, listener, 1);
}

static int fail_with_eio(struct listener *listener,
                         const struct fdmux_datagram_event *event)
{
    (void)listener;
    return event->kind == FDMUX_DATAGRAM_RECEIVED ? -EIO : 0;
}

TEST(a_negative_result_ends_the_batch_and_nothing_else)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t port;
    int fd;

    listener->reaction = fail_with_eio;
    (void)bind_loopback(listener, 0, &port);
    fd = open_talker(port);
    say(fd, "one");
    CHECK_EQ(run_once(loop), -EIO);
    say(fd, "two");
    CHECK_EQ(run_once(loop), -EIO);
    CHECK_EQ(listener->heard_count, 2);
    CHECK_EQ(close(fd), 0);
    end_with(loop, listener, 1);
}

static int close_loop(struct listener *listener,
                      const struct fdmux_datagram_event *event)
{
    if (event->kind == FDMUX_DATAGRAM_RECEIVED)
        fdmux_loop_destroy(listener->loop);
    return 0;
}

TEST(a_function_may_destroy_the_loop)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *listener = open_listener(loop);
    uint16_t ports[2];
    int fd;

    listener->reaction = close_loop;
    for (int i = 0; i < 2; i++)
        (void)bind_loopback(listener, 0, &ports[i]);
    fd = open_talker(ports[0]);
    say(fd, "end");
    CHECK_EQ(poll_once(loop), -ESTALE);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_CLOSED], 2);
    CHECK_EQ(listener->destroyed, 2);
    CHECK_EQ(close(fd), 0);
    free(listener);
}

TEST(another_handler_takes_over)
{
    struct fdmux_loop *loop = check_open_loop();
    struct listener *first = open_listener(loop);
    struct listener *second = open_listener(loop);
    struct fdmux_datagram_handler handler = {
        .struct_size = sizeof handler,
        .fn = note_datagrams,
        .userdata = second,
        .destroyed = note_gone,
    };
    uint16_t port;
    uint64_t endpoint = bind_loopback(first, 0, &port);
    int fd = open_talker(port);

    first->counts[FDMUX_DATAGRAM_CLOSED] = 1; /* note_gone wants it */
    CHECK_EQ(fdmux_datagram_set_handler(loop, endpoint, &handler), 0);
    CHECK_EQ(first->destroyed, 1);
    CHECK_EQ(fdmux_datagram_set_handler(loop, endpoint, &handler), 0);
    CHECK_EQ(second->destroyed, 0);
    say(fd, "for the second");
    CHECK_EQ(run_once(loop), 0);
    CHECK_EQ(first->heard_count, 0);
    CHECK_EQ(second->heard_count, 1);
    CHECK_EQ(close(fd), 0);
    free(first);
    end_with(loop, second, 1);
}
