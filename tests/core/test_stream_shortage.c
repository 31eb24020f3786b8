/* test_stream_shortage.c: how a shortage in the kernel affects streams that are ready
 * together, and functions that end a stream or fail while a queue drains. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

/* ---- accepting ----------------------------------------------------------------- */

/* The listener stops watching; when a stream closes, it retries at once. Two streams
 * come before it in the table: one that ends, and one that stays. */
static void starve_and_feed(int error)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness ends = {0}, stays = {0}, server = {0};
    struct fdmux_stream_options options;
    uint16_t port;
    uint64_t ending;
    int first[2], second[2];
    int client;

    open_sockets(first);
    open_sockets(second);
    ending = add_stream(loop, first[0], &ends);
    (void)add_stream(loop, second[0], &stays);
    options = options_for(loop, &server);
    (void)listen_on_loopback(loop, &options, &port);
    client = connect_client(port);
    fdmux_testing_fail(FDMUX_CALL_ACCEPT, 1, error, 0);
    serve_all(loop);
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(server.counts[FDMUX_STREAM_REFUSED], 1);
    CHECK_EQ(server.error, error);
    CHECK_EQ(fdmux_stream_close(loop, ending, 0), 0);
    serve_all(loop);
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], 1);
    CHECK_EQ(stays.last_kind, 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(client) | close(first[1]) | close(second[1]), 0);
}

TEST(starved_listener_accepts_again_when_any_stream_ends)
{
    starve_and_feed(ENOBUFS);
    starve_and_feed(ENFILE);
}

/* ---- writing ------------------------------------------------------------------- */

TEST(batch_sent_in_small_parts_arrives_whole)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_write_op ops[3];
    uint64_t stream;
    int fds[2];

    open_sockets(fds);
    stream = add_stream(loop, fds[0], &witness);
    ops[0] = (struct fdmux_stream_write_op){stream, "some", 4};
    ops[1] = (struct fdmux_stream_write_op){stream, " more", 5};
    ops[2] = (struct fdmux_stream_write_op){stream, " bytes", 6};
    fdmux_testing_short(3);
    CHECK_EQ(fdmux_stream_write_batch(loop, ops, 3), 3);
    serve_all(loop);
    fdmux_testing_short(0);
    expect_bytes(fds[1], "some more bytes");
    CHECK_EQ(fdmux_stream_write_batch(loop, ops, UINT32_MAX), -EINVAL);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
}

static int fail_when_writable(struct witness *witness,
                              const struct fdmux_stream_event *event)
{
    (void)witness;
    return event->kind == FDMUX_STREAM_WRITABLE ? -EPROTO : 0;
}

static int drop_when_writable(struct witness *witness,
                              const struct fdmux_stream_event *event)
{
    if (event->kind != FDMUX_STREAM_WRITABLE)
        return 0;
    return fdmux_stream_close(witness->loop, event->stream, FDMUX_STREAM_DROP);
}

/* The kernel takes nothing at the first write, and everything later. */
static struct fdmux_loop *open_choked(struct witness *witness, int ret_fds[2])
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_stream_options options = options_for(loop, witness);
    uint64_t stream;

    open_sockets(ret_fds);
    options.queue_high = 1;
    stream = add_stream_with(loop, ret_fds[0], &options);
    fdmux_testing_fail(FDMUX_CALL_SEND, 1, EAGAIN, 0);
    CHECK_EQ(fdmux_stream_write(loop, stream, "bytes", 5), 0);
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(queued(loop, stream), 5);
    return loop;
}

TEST(function_that_fails_as_it_may_write_again_delays_only_drained)
{
    struct witness witness = {.reaction = fail_when_writable};
    int fds[2];
    struct fdmux_loop *loop = open_choked(&witness, fds);

    CHECK_EQ(serve(loop), -EPROTO);
    CHECK_EQ(witness.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DRAINED], 0);
    serve_all(loop);
    CHECK_EQ(witness.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DRAINED], 1);
    expect_bytes(fds[1], "bytes");
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
}

TEST(stream_dropped_as_it_may_write_again_is_not_drained)
{
    struct witness witness = {.reaction = drop_when_writable};
    int fds[2];
    struct fdmux_loop *loop = open_choked(&witness, fds);

    serve_all(loop);
    CHECK_EQ(witness.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DRAINED], 0);
    CHECK_EQ(witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(witness.error, 0);
    expect_bytes(fds[1], "bytes");
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
}

/* ---- failing in the middle of a batch ------------------------------------------ */

/* The other stream is full, and the kernel refuses to watch it for writing. */
static int break_other(struct witness *witness, const struct fdmux_stream_event *event)
{
    uint64_t other = *(uint64_t *)witness->extra;

    if (event->kind != FDMUX_STREAM_DATA)
        return 0;
    fdmux_testing_fail(FDMUX_CALL_SEND | CALL_SET_CHANGE, 1, EAGAIN, 1);
    CHECK_EQ(fdmux_stream_write(witness->loop, other, "x", 1), 0);
    fdmux_testing_fail(0, 0, 0, 0);
    return 0;
}

SET_TEST(stream_that_failed_in_a_batch_gets_no_more_events_of_it)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {.reaction = break_other}, other = {0};
    uint64_t broken;
    int first[2], second[2];

    open_sockets(first);
    open_sockets(second);
    (void)add_stream(loop, first[0], &witness);
    broken = add_stream(loop, second[0], &other);
    witness.extra = &broken;
    CHECK_EQ(send(first[1], "a", 1, 0), 1);
    CHECK_EQ(send(second[1], "b", 1, 0), 1);
    serve_all(loop);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(other.counts[FDMUX_STREAM_DATA], 0);
    CHECK_EQ(other.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(other.error, EAGAIN);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(first[1]) | close(second[1]), 0);
}
