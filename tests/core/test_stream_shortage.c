/* test_stream_shortage.c: what a shortage of the kernel's does to streams that are
 * ready together, and functions that end or fail while a queue drains. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

/* ---- accepting ----------------------------------------------------------------- */

/* The listener looks away; when a stream closes, it tries again at once. Two streams
 * lie before it in the table: one that ends, and one that stays. */
static void starve_and_feed(struct desk *desk, int error)
{
    struct witness ends = {0}, stays = {0}, server = {0};
    struct fdmux_stream_options options;
    uint16_t port;
    uint64_t ending;
    int first[2], second[2];
    int client;

    open_sockets(first);
    open_sockets(second);
    ending = add_stream(desk, first[0], &ends);
    (void)add_stream(desk, second[0], &stays);
    options = options_for(desk, &server);
    (void)listen_on_loopback(desk, &options, &port);
    client = connect_client(port);
    fdmux_testing_fail(FDMUX_CALL_ACCEPT, 1, error, 0);
    serve_all(desk);
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(server.counts[FDMUX_STREAM_REFUSED], 1);
    CHECK_EQ(server.error, error);
    CHECK_EQ(fdmux_stream_close(desk->loop, ending, 0), 0);
    serve_all(desk);
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], 1);
    CHECK_EQ(stays.last_kind, 0);
    close_desk(desk);
    CHECK_EQ(close(client) | close(first[1]) | close(second[1]), 0);
}

static void starve_of_buffers(struct desk *desk)
{
    starve_and_feed(desk, ENOBUFS);
}

static void starve_of_files(struct desk *desk)
{
    starve_and_feed(desk, ENFILE);
}

TEST(starved_listener_is_fed_when_any_stream_ends)
{
    on_both_desks(starve_of_buffers);
    on_both_desks(starve_of_files);
}

TEST(listener_stops_where_its_records_would_not_fit)
{
    enum { CLIENTS = 2 * RECORDS_MIN };
    struct witness server = {0};
    struct fdmux_stream_options options;
    struct desk desk;
    int clients[CLIENTS];
    uint16_t port;

    open_desk(&desk, true, RECORDS_MIN, ARENA_MIN);
    options = options_for(&desk, &server);
    (void)listen_on_loopback(&desk, &options, &port);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = connect_client(port);
    serve_until(&desk, &server.counts[FDMUX_STREAM_ACCEPTED], CLIENTS);
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], CLIENTS);
    close_desk(&desk);
    for (int i = 0; i < CLIENTS; i++)
        CHECK_EQ(close(clients[i]), 0);
}

/* ---- writing ------------------------------------------------------------------- */

static void write_in_crumbs(struct desk *desk)
{
    struct witness witness = {0};
    struct fdmux_stream_write_op ops[3];
    uint64_t stream;
    int fds[2];

    open_sockets(fds);
    stream = add_stream(desk, fds[0], &witness);
    ops[0] = (struct fdmux_stream_write_op){stream, "some", 4};
    ops[1] = (struct fdmux_stream_write_op){stream, " more", 5};
    ops[2] = (struct fdmux_stream_write_op){stream, " bytes", 6};
    fdmux_testing_short(3);
    CHECK_EQ(fdmux_stream_write_batch(desk->loop, ops, 3), 3);
    serve_all(desk);
    fdmux_testing_short(0);
    expect_bytes(fds[1], "some more bytes");
    CHECK_EQ(fdmux_stream_write_batch(desk->loop, ops, UINT32_MAX), -EINVAL);
    close_desk(desk);
    CHECK_EQ(close(fds[1]), 0);
}

TEST(batch_sent_in_crumbs_arrives_whole)
{
    on_both_desks(write_in_crumbs);
}

static int fail_when_writable(struct witness *witness,
                              const struct fdmux_stream_record *record,
                              const unsigned char *data)
{
    (void)witness, (void)data;
    return record->kind == FDMUX_STREAM_WRITABLE ? -EPROTO : 0;
}

static int drop_when_writable(struct witness *witness,
                              const struct fdmux_stream_record *record,
                              const unsigned char *data)
{
    (void)data;
    if (record->kind != FDMUX_STREAM_WRITABLE)
        return 0;
    return fdmux_stream_close(witness->desk->loop, record->stream, FDMUX_STREAM_DROP);
}

/* The kernel is full at the first write, and takes all when it is asked again. */
static void open_choked(struct desk *desk, struct witness *witness, int ret_fds[2])
{
    struct fdmux_stream_options options;
    uint64_t stream;

    open_desk(desk, false, RECORDS_MIN, ARENA_MIN);
    open_sockets(ret_fds);
    options = options_for(desk, witness);
    options.queue_high = 1;
    stream = add_stream_with(desk, ret_fds[0], &options);
    fdmux_testing_fail(FDMUX_CALL_SEND, 1, EAGAIN, 0);
    CHECK_EQ(fdmux_stream_write(desk->loop, stream, "bytes", 5), 0);
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(queued(desk, stream), 5);
}

TEST(function_that_fails_as_it_may_write_again_delays_only_drained)
{
    struct witness witness = {.reaction = fail_when_writable};
    struct desk desk;
    int fds[2];

    open_choked(&desk, &witness, fds);
    CHECK_EQ(serve(&desk), -EPROTO);
    CHECK_EQ(witness.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DRAINED], 0);
    serve_all(&desk);
    CHECK_EQ(witness.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DRAINED], 1);
    expect_bytes(fds[1], "bytes");
    close_desk(&desk);
    CHECK_EQ(close(fds[1]), 0);
}

TEST(stream_dropped_as_it_may_write_again_is_not_drained)
{
    struct witness witness = {.reaction = drop_when_writable};
    struct desk desk;
    int fds[2];

    open_choked(&desk, &witness, fds);
    serve_all(&desk);
    CHECK_EQ(witness.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DRAINED], 0);
    CHECK_EQ(witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(witness.error, 0);
    expect_bytes(fds[1], "bytes");
    close_desk(&desk);
    CHECK_EQ(close(fds[1]), 0);
}

/* ---- failing in the middle of a batch ------------------------------------------ */

/* The other stream is full, and the kernel does not let it wait for room. */
static int break_other(struct witness *witness,
                       const struct fdmux_stream_record *record,
                       const unsigned char *data)
{
    uint64_t other = *(uint64_t *)witness->extra;

    (void)data;
    if (record->kind != FDMUX_STREAM_DATA)
        return 0;
    fdmux_testing_fail(FDMUX_CALL_SEND | FDMUX_CALL_EPOLL_CTL, 1, EAGAIN, 1);
    CHECK_EQ(fdmux_stream_write(witness->desk->loop, other, "x", 1), 0);
    fdmux_testing_fail(0, 0, 0, 0);
    return 0;
}

EPOLL_TEST(stream_that_failed_in_a_batch_is_told_nothing_more_of_it)
{
    struct witness witness = {.reaction = break_other}, other = {0};
    struct desk desk;
    uint64_t broken;
    int first[2], second[2];

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    open_sockets(first);
    open_sockets(second);
    (void)add_stream(&desk, first[0], &witness);
    broken = add_stream(&desk, second[0], &other);
    witness.extra = &broken;
    CHECK_EQ(send(first[1], "a", 1, 0), 1);
    CHECK_EQ(send(second[1], "b", 1, 0), 1);
    serve_all(&desk);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(other.counts[FDMUX_STREAM_DATA], 0);
    CHECK_EQ(other.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(other.error, EAGAIN);
    close_desk(&desk);
    CHECK_EQ(close(first[1]) | close(second[1]), 0);
}

TEST(batch_whose_arena_is_overfull_is_refused)
{
    struct desk desk;

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    desk.batch.arena_used = ARENA_MIN + 1;
    CHECK_EQ(fdmux_stream_collect(desk.loop, &desk.batch), -EINVAL);
    close_desk(&desk);
}
