/* test_stream_ends.c: every end of a stream: by the peer, by its user, inside
 * functions, with its loop; and what a function's negative result does. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

static void reset(int fd)
{
    struct linger linger = {.l_onoff = 1};

    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    CHECK_EQ(close(fd), 0);
}

/* ---- ends ---------------------------------------------------------------------- */

static void reset_by_peer(struct desk *desk)
{
    struct witness witness = {0};
    int fds[2];

    open_tcp_sockets(fds);
    (void)add_stream(desk, fds[1], &witness);
    reset(fds[0]);
    serve_until(desk, &witness.destroyed, 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_END], 0);
    CHECK_EQ(witness.error, ECONNRESET);
    close_desk(desk);
}

TEST(a_reset_is_closed_with_econnreset)
{
    on_both_desks(reset_by_peer);
}

static void write_to_the_gone(struct desk *desk)
{
    struct witness witness = {0};
    int fds[2];
    uint64_t stream;

    open_sockets(fds);
    stream = add_stream(desk, fds[0], &witness);
    CHECK_EQ(fdmux_stream_pause(desk->loop, stream), 0);
    CHECK_EQ(close(fds[1]), 0);
    CHECK_EQ(fdmux_stream_write(desk->loop, stream, "x", 1), 0); /* no SIGPIPE */
    serve_until(desk, &witness.destroyed, 1);
    CHECK_EQ(witness.error, EPIPE);
    close_desk(desk);
}

TEST(a_write_that_the_kernel_refuses_closes_the_stream)
{
    on_both_desks(write_to_the_gone);
}

static int close_self(struct witness *witness, const struct fdmux_stream_record *record,
                      const unsigned char *data)
{
    struct fdmux_loop *loop = witness->desk->loop;

    (void)data;
    CHECK_EQ(fdmux_stream_close(loop, record->stream, FDMUX_STREAM_DROP), 0);
    CHECK_EQ(fdmux_stream_write(loop, record->stream, "x", 1), -EPIPE);
    CHECK_EQ(fdmux_stream_pause(loop, record->stream), 0);
    CHECK_EQ(fdmux_stream_resume(loop, record->stream), 0);
    return 0;
}

static void close_inside(struct desk *desk)
{
    struct witness witness = {.reaction = close_self};
    int fds[2];

    desk->is_collected = false; /* only a function can be inside */
    open_sockets(fds);
    (void)add_stream(desk, fds[0], &witness);
    CHECK_EQ(send(fds[1], "a", 1, 0), 1);
    CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
    serve_until(desk, &witness.destroyed, 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_END], 0);
    CHECK_EQ(witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(close(fds[1]), 0);
    close_desk(desk);
}

TEST(a_stream_may_close_itself_in_its_function)
{
    on_both_desks(close_inside);
}

static int close_other(struct witness *witness,
                       const struct fdmux_stream_record *record,
                       const unsigned char *data)
{
    const uint64_t *other = witness->extra;

    (void)data;
    if (record->kind == FDMUX_STREAM_DATA)
        CHECK_EQ(fdmux_stream_close(witness->desk->loop, *other, FDMUX_STREAM_DROP), 0);
    return 0;
}

TEST(a_stream_that_another_closed_gets_no_data_in_the_same_batch)
{
    struct desk desk;
    struct witness witnesses[2] = {{.reaction = close_other},
                                   {.reaction = close_other}};
    uint64_t streams[2];
    int fds[2][2];

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    for (int i = 0; i < 2; i++) {
        open_sockets(fds[i]);
        witnesses[i].extra = &streams[1 - i];
        streams[i] = add_stream(&desk, fds[i][0], &witnesses[i]);
        CHECK_EQ(send(fds[i][1], "x", 1, 0), 1);
    }
    CHECK_EQ(serve(&desk), 0);
    CHECK_EQ(witnesses[0].counts[FDMUX_STREAM_DATA] +
                 witnesses[1].counts[FDMUX_STREAM_DATA],
             1);
    CHECK_EQ(witnesses[0].destroyed + witnesses[1].destroyed, 1);
    close_desk(&desk);
    CHECK_EQ(witnesses[0].destroyed + witnesses[1].destroyed, 2);
    CHECK_EQ(close(fds[0][1]) + close(fds[1][1]), 0);
}

/* ---- loops that end ------------------------------------------------------------ */

TEST(a_destroyed_loop_ends_its_streams)
{
    struct desk desk;
    struct witness witnesses[3] = {{0}};
    struct fdmux_stream_options options;
    uint16_t port;
    int fds[2];

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    open_sockets(fds);
    set_buffer(fds[0], SO_SNDBUF, 4096);
    options = options_for(&desk, &witnesses[0]);
    (void)listen_on_loopback(&desk, &options, &port);
    options = options_for(&desk, &witnesses[1]);
    (void)connect_to_loopback(&desk, port, &options);
    for (uint64_t stream = add_stream(&desk, fds[0], &witnesses[2]);
         queued(&desk, stream) == 0;)
        CHECK_EQ(fdmux_stream_write(desk.loop, stream, "0123456789", 10), 0);
    close_desk(&desk);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(witnesses[i].counts[FDMUX_STREAM_CLOSED], 1);
        CHECK_EQ(witnesses[i].error, ESTALE);
        CHECK_EQ(witnesses[i].destroyed, 1);
    }
    CHECK_EQ(close(fds[1]), 0);
}

static int destroy_loop(struct witness *witness,
                        const struct fdmux_stream_record *record,
                        const unsigned char *data)
{
    struct fdmux_loop *loop = witness->desk->loop;
    uint64_t stream = record->stream;

    (void)data;
    if (record->kind != FDMUX_STREAM_DATA)
        return 0;
    (void)fdmux_loop_destroy(loop);
    CHECK_EQ(fdmux_stream_write(loop, stream, "x", 1), -ESTALE);
    CHECK_EQ(fdmux_stream_close(loop, stream, 0), -ESTALE);
    return 0;
}

TEST(a_loop_may_be_destroyed_in_the_function_of_a_stream)
{
    struct desk desk;
    struct witness witnesses[4] = {{0}};
    int fds[4][2];

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    for (int i = 0; i < 4; i++) {
        open_sockets(fds[i]);
        witnesses[i].reaction = destroy_loop;
        (void)add_stream(&desk, fds[i][0], &witnesses[i]);
        CHECK_EQ(send(fds[i][1], "x", 1, 0), 1);
    }
    CHECK_EQ(fdmux_loop_dispatch(desk.loop, 0, NULL, 0), -ESTALE);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(witnesses[i].counts[FDMUX_STREAM_DATA], i == 0 ? 1 : 0);
        CHECK_EQ(witnesses[i].destroyed, 1);
        CHECK_EQ(close(fds[i][1]), 0);
    }
    free(desk.batch.records);
    free(desk.batch.arena);
}

/* Destroys the loop at any record but its last. */
static int destroy_at_kind(struct witness *witness,
                           const struct fdmux_stream_record *record,
                           const unsigned char *data)
{
    const uint32_t *kind = witness->extra;

    (void)data;
    if (record->kind == *kind)
        (void)fdmux_loop_destroy(witness->desk->loop);
    return 0;
}

TEST(a_loop_may_be_destroyed_when_accepting_and_when_closing)
{
    for (uint32_t kind = FDMUX_STREAM_ACCEPTED; kind <= FDMUX_STREAM_CLOSED;
         kind += FDMUX_STREAM_CLOSED - FDMUX_STREAM_ACCEPTED) {
        struct desk desk;
        struct witness server = {.reaction = destroy_at_kind, .extra = &kind};
        struct fdmux_stream_options options;
        uint16_t port;
        int clients[3];
        uint64_t listener;

        open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
        options = options_for(&desk, &server);
        listener = listen_on_loopback(&desk, &options, &port);
        for (int i = 0; i < 3; i++)
            clients[i] = connect_client(port);
        if (kind == FDMUX_STREAM_CLOSED)
            CHECK_EQ(fdmux_stream_close(desk.loop, listener, 0), 0);
        CHECK_EQ(fdmux_loop_dispatch(desk.loop, 1000 * MS, NULL, 0), -ESTALE);
        CHECK_EQ(server.destroyed, 1);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(close(clients[i]), 0);
        free(desk.batch.records);
        free(desk.batch.arena);
    }
}

/* ---- results of functions ------------------------------------------------------ */

static int refuse_once(struct witness *witness,
                       const struct fdmux_stream_record *record,
                       const unsigned char *data)
{
    (void)data;
    return record->kind == FDMUX_STREAM_DATA && witness->counts[FDMUX_STREAM_DATA] == 1
               ? -EDOM
               : 0;
}

TEST(a_negative_result_ends_the_batch_and_loses_nothing)
{
    struct desk desk;
    struct witness witnesses[3] = {{0}};
    int fds[3][2];
    int errors = 0;

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    for (int i = 0; i < 3; i++) {
        open_sockets(fds[i]);
        witnesses[i].reaction = refuse_once;
        (void)add_stream(&desk, fds[i][0], &witnesses[i]);
        CHECK_EQ(send(fds[i][1], "abc", 3, 0), 3);
        CHECK_EQ(shutdown(fds[i][1], SHUT_WR), 0);
    }
    for (int i = 0; i < 10; i++) {
        int r = serve(&desk);

        CHECK(r == 0 || r == -EDOM);
        errors += r == -EDOM ? 1 : 0;
    }
    CHECK_EQ(errors, 3);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(witnesses[i].received, 3);
        CHECK_EQ(witnesses[i].counts[FDMUX_STREAM_END], 1);
        CHECK_EQ(close(fds[i][1]), 0);
    }
    close_desk(&desk);
}

static int refuse_all(struct witness *witness, const struct fdmux_stream_record *record,
                      const unsigned char *data)
{
    (void)witness, (void)record, (void)data;
    return -EDOM;
}

TEST(a_function_that_refuses_everything_still_ends)
{
    struct desk desk;
    struct witness server = {.reaction = refuse_all};
    struct fdmux_stream_options options;
    uint16_t port;
    uint64_t listener;
    int client;

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    options = options_for(&desk, &server);
    listener = listen_on_loopback(&desk, &options, &port);
    client = connect_client(port);
    CHECK_EQ(fdmux_loop_dispatch(desk.loop, 1000 * MS, NULL, 0), -EDOM);
    CHECK_EQ(fdmux_stream_close(desk.loop, server.token, 0), 0);
    CHECK_EQ(fdmux_stream_close(desk.loop, listener, 0), 0);
    CHECK_EQ(serve(&desk), -EDOM);
    CHECK_EQ(serve(&desk), -EDOM);
    CHECK_EQ(serve(&desk), 0);
    CHECK_EQ(server.counts[FDMUX_STREAM_CLOSED], 2);
    CHECK_EQ(server.destroyed, 1);
    CHECK_EQ(close(client), 0);
    close_desk(&desk);
}

/* ---- hosts --------------------------------------------------------------------- */

EPOLL_TEST(a_host_learns_of_a_stream_that_was_closed_outside_of_a_dispatch)
{
    struct desk desk;
    struct witness witness = {0};
    int fds[2];
    int host_fd;
    uint64_t stream;

    open_desk(&desk, true, RECORDS_MIN, ARENA_MIN);
    open_sockets(fds);
    stream = add_stream(&desk, fds[0], &witness);
    host_fd = fdmux_loop_fd(desk.loop);
    CHECK_EQ(serve(&desk), 0);
    CHECK(!is_readable(host_fd));
    CHECK_EQ(fdmux_stream_close(desk.loop, stream, 0), 0);
    wait_until_readable(host_fd);
    CHECK_EQ(serve(&desk), 0);
    CHECK_EQ(witness.destroyed, 1);
    CHECK_EQ(serve(&desk), 0);
    CHECK(!is_readable(host_fd));
    close_desk(&desk);
    CHECK_EQ(close(fds[1]), 0);
}
