/* test_stream_ends.c: every end of a stream: by the peer, by its user, inside
 * functions, with its loop; and the effect of a negative result. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

/* ---- ends ---------------------------------------------------------------------- */

TEST(a_reset_is_closed_with_econnreset)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    int fds[2];

    open_tcp_sockets(fds);
    (void)add_stream(loop, fds[1], &witness);
    reset(fds[0]);
    serve_until(loop, &witness.destroyed, 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_END], 0);
    CHECK_EQ(witness.error, ECONNRESET);
    fdmux_loop_destroy(loop);
}

TEST(a_write_that_the_kernel_refuses_closes_the_stream)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    int fds[2];
    uint64_t stream;

    open_sockets(fds);
    stream = add_stream(loop, fds[0], &witness);
    CHECK_EQ(fdmux_stream_pause(loop, stream), 0);
    CHECK_EQ(close(fds[1]), 0);
    CHECK_EQ(fdmux_stream_write(loop, stream, "x", 1), 0); /* no SIGPIPE */
    serve_until(loop, &witness.destroyed, 1);
    CHECK_EQ(witness.error, EPIPE);
    fdmux_loop_destroy(loop);
}

static int close_self(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct fdmux_loop *loop = witness->loop;

    CHECK_EQ(fdmux_stream_close(loop, event->stream, FDMUX_STREAM_DROP), 0);
    CHECK_EQ(fdmux_stream_write(loop, event->stream, "x", 1), -EPIPE);
    CHECK_EQ(fdmux_stream_pause(loop, event->stream), 0);
    CHECK_EQ(fdmux_stream_resume(loop, event->stream), 0);
    return 0;
}

TEST(a_stream_may_close_itself_in_its_function)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {.reaction = close_self};
    int fds[2];

    open_sockets(fds);
    (void)add_stream(loop, fds[0], &witness);
    CHECK_EQ(send(fds[1], "a", 1, 0), 1);
    CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
    serve_until(loop, &witness.destroyed, 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_END], 0);
    CHECK_EQ(witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(close(fds[1]), 0);
    fdmux_loop_destroy(loop);
}

static int close_other(struct witness *witness, const struct fdmux_stream_event *event)
{
    const uint64_t *other = witness->extra;

    if (event->kind == FDMUX_STREAM_DATA)
        CHECK_EQ(fdmux_stream_close(witness->loop, *other, FDMUX_STREAM_DROP), 0);
    return 0;
}

TEST(a_stream_that_another_closed_gets_no_data_in_the_same_batch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witnesses[2] = {{.reaction = close_other},
                                   {.reaction = close_other}};
    uint64_t streams[2];
    int fds[2][2];

    for (int i = 0; i < 2; i++) {
        open_sockets(fds[i]);
        witnesses[i].extra = &streams[1 - i];
        streams[i] = add_stream(loop, fds[i][0], &witnesses[i]);
        CHECK_EQ(send(fds[i][1], "x", 1, 0), 1);
    }
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(witnesses[0].counts[FDMUX_STREAM_DATA] +
                 witnesses[1].counts[FDMUX_STREAM_DATA],
             1);
    CHECK_EQ(witnesses[0].destroyed + witnesses[1].destroyed, 1);
    fdmux_loop_destroy(loop);
    CHECK_EQ(witnesses[0].destroyed + witnesses[1].destroyed, 2);
    CHECK_EQ(close(fds[0][1]) + close(fds[1][1]), 0);
}

/* Add a stream while another one ends. */
static int add_another(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct witness *next = witness->extra;
    int fds[2];

    if (event->kind != FDMUX_STREAM_CLOSED || next->extra != NULL)
        return 0;
    open_sockets(fds);
    next->extra = next;
    next->token = add_stream(witness->loop, fds[0], next);
    CHECK((next->token & 0x0fffffff) != (witness->token & 0x0fffffff));
    CHECK_EQ(close(fds[1]), 0);
    return 0;
}

/* Code that still uses the old stream in this batch must not find a new one in its
 * slot. */
TEST(the_slot_of_an_ended_stream_is_not_reused_in_the_same_batch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness next = {0}, last = {0};
    struct witness first = {.reaction = add_another, .extra = &next};
    struct witness second = {.reaction = add_another, .extra = &next};
    int fds[2];

    open_sockets(fds);
    first.token = add_stream(loop, fds[0], &first);
    second.token = add_stream(loop, fds[1], &second);
    CHECK_EQ(fdmux_stream_close(loop, first.token, 0), 0);
    CHECK_EQ(fdmux_stream_close(loop, second.token, 0), 0);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(first.destroyed + second.destroyed, 2);
    CHECK(next.token != 0);
    CHECK_EQ(serve(loop), 0);
    open_sockets(fds);
    last.token = add_stream(loop, fds[0], &last);
    CHECK((last.token & 0x0fffffff) != (next.token & 0x0fffffff));
    CHECK(((last.token ^ first.token) & 0x0fffffff) == 0 ||
          ((last.token ^ second.token) & 0x0fffffff) == 0); /* now a slot is reused */
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
}

/* ---- the end of the loop ------------------------------------------------------- */

TEST(a_destroyed_loop_ends_its_streams)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witnesses[3] = {{0}};
    struct fdmux_stream_options options;
    uint16_t port;
    int fds[2];

    open_sockets(fds);
    set_buffer(fds[0], SO_SNDBUF, 4096);
    options = options_for(loop, &witnesses[0]);
    (void)listen_on_loopback(loop, &options, &port);
    options = options_for(loop, &witnesses[1]);
    (void)connect_to_loopback(loop, port, &options);
    for (uint64_t stream = add_stream(loop, fds[0], &witnesses[2]);
         queued(loop, stream) == 0;)
        CHECK_EQ(fdmux_stream_write(loop, stream, "0123456789", 10), 0);
    fdmux_loop_destroy(loop);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(witnesses[i].counts[FDMUX_STREAM_CLOSED], 1);
        CHECK_EQ(witnesses[i].error, ESTALE);
        CHECK_EQ(witnesses[i].destroyed, 1);
    }
    CHECK_EQ(close(fds[1]), 0);
}

static int destroy_loop(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct fdmux_loop *loop = witness->loop;
    uint64_t stream = event->stream;

    if (event->kind != FDMUX_STREAM_DATA)
        return 0;
    (void)fdmux_loop_destroy(loop);
    CHECK_EQ(fdmux_stream_write(loop, stream, "x", 1), -ESTALE);
    CHECK_EQ(fdmux_stream_close(loop, stream, 0), -ESTALE);
    return 0;
}

TEST(a_loop_may_be_destroyed_in_the_function_of_a_stream)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witnesses[4] = {{0}};
    int fds[4][2];

    for (int i = 0; i < 4; i++) {
        open_sockets(fds[i]);
        witnesses[i].reaction = destroy_loop;
        (void)add_stream(loop, fds[i][0], &witnesses[i]);
        CHECK_EQ(send(fds[i][1], "x", 1, 0), 1);
    }
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, NULL, 0), -ESTALE);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(witnesses[i].counts[FDMUX_STREAM_DATA], i == 0 ? 1 : 0);
        CHECK_EQ(witnesses[i].destroyed, 1);
        CHECK_EQ(close(fds[i][1]), 0);
    }
}

/* Destroy the loop at one kind of event. */
static int destroy_at_kind(struct witness *witness,
                           const struct fdmux_stream_event *event)
{
    const uint32_t *kind = witness->extra;

    if (event->kind == *kind)
        (void)fdmux_loop_destroy(witness->loop);
    return 0;
}

TEST(a_loop_may_be_destroyed_when_accepting_and_when_closing)
{
    for (uint32_t kind = FDMUX_STREAM_ACCEPTED; kind <= FDMUX_STREAM_CLOSED;
         kind += FDMUX_STREAM_CLOSED - FDMUX_STREAM_ACCEPTED) {
        struct fdmux_loop *loop = check_open_loop();
        struct witness server = {.reaction = destroy_at_kind, .extra = &kind};
        struct fdmux_stream_options options = options_for(loop, &server);
        uint16_t port;
        uint64_t listener = listen_on_loopback(loop, &options, &port);
        int clients[3];

        for (int i = 0; i < 3; i++)
            clients[i] = connect_client(port);
        if (kind == FDMUX_STREAM_CLOSED)
            CHECK_EQ(fdmux_stream_close(loop, listener, 0), 0);
        CHECK_EQ(fdmux_loop_dispatch(loop, 1000 * MS, NULL, 0), -ESTALE);
        CHECK_EQ(server.destroyed, 1);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(close(clients[i]), 0);
    }
}

/* ---- results of functions ------------------------------------------------------ */

static int refuse_once(struct witness *witness, const struct fdmux_stream_event *event)
{
    return event->kind == FDMUX_STREAM_DATA && witness->counts[FDMUX_STREAM_DATA] == 1
               ? -EDOM
               : 0;
}

TEST(a_negative_result_ends_the_batch_and_loses_nothing)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witnesses[3] = {{0}};
    int fds[3][2];
    int errors = 0;

    for (int i = 0; i < 3; i++) {
        open_sockets(fds[i]);
        witnesses[i].reaction = refuse_once;
        (void)add_stream(loop, fds[i][0], &witnesses[i]);
        CHECK_EQ(send(fds[i][1], "abc", 3, 0), 3);
        CHECK_EQ(shutdown(fds[i][1], SHUT_WR), 0);
    }
    for (int i = 0; i < 10; i++) {
        int r = serve(loop);

        CHECK(r == 0 || r == -EDOM);
        errors += r == -EDOM ? 1 : 0;
    }
    CHECK_EQ(errors, 3);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(witnesses[i].received, 3);
        CHECK_EQ(witnesses[i].counts[FDMUX_STREAM_END], 1);
        CHECK_EQ(close(fds[i][1]), 0);
    }
    fdmux_loop_destroy(loop);
}

static int refuse_all(struct witness *witness, const struct fdmux_stream_event *event)
{
    (void)witness, (void)event;
    return -EDOM;
}

TEST(a_function_that_refuses_everything_still_ends)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {.reaction = refuse_all};
    struct fdmux_stream_options options;
    uint16_t port;
    uint64_t listener;
    int client;

    options = options_for(loop, &server);
    listener = listen_on_loopback(loop, &options, &port);
    client = connect_client(port);
    CHECK_EQ(fdmux_loop_dispatch(loop, 1000 * MS, NULL, 0), -EDOM);
    CHECK_EQ(fdmux_stream_close(loop, server.token, 0), 0);
    CHECK_EQ(fdmux_stream_close(loop, listener, 0), 0);
    CHECK_EQ(serve(loop), -EDOM);
    CHECK_EQ(serve(loop), -EDOM);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(server.counts[FDMUX_STREAM_CLOSED], 2);
    CHECK_EQ(server.destroyed, 1);
    CHECK_EQ(close(client), 0);
    fdmux_loop_destroy(loop);
}

/* ---- hosts --------------------------------------------------------------------- */

SET_TEST(hosted_descriptor_is_readable_for_a_stream_closed_outside_of_a_dispatch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    int fds[2];
    int host_fd;
    uint64_t stream;

    open_sockets(fds);
    stream = add_stream(loop, fds[0], &witness);
    host_fd = fdmux_loop_fd(loop);
    CHECK_EQ(serve(loop), 0);
    CHECK(!is_readable(host_fd));
    CHECK_EQ(fdmux_stream_close(loop, stream, 0), 0);
    wait_until_readable(host_fd);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(witness.destroyed, 1);
    CHECK_EQ(serve(loop), 0);
    CHECK(!is_readable(host_fd));
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
}
