/* test_stream_writable.c: a stream that asks for it gets WRITABLE once when its queue
 * has fallen to a mark, whether or not it had reached the high mark. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

enum { LOW = 1000, HIGH = 8000, PIECE = 500 };

/* A stream whose socket takes one piece at a time, and nothing at first. */
struct slow {
    struct fdmux_loop *loop;
    struct witness witness;
    uint64_t stream;
    int peer;
};

static int note_queue(struct witness *witness, const struct fdmux_stream_event *event)
{
    uint32_t *at_writable = witness->extra;

    if (event->kind == FDMUX_STREAM_WRITABLE && at_writable != NULL)
        *at_writable = queued(witness->loop, event->stream);
    return 0;
}

static void open_slow_with(struct slow *slow, struct fdmux_loop *loop,
                           uint32_t queue_low)
{
    struct fdmux_stream_options options;
    int fds[2];

    *slow = (struct slow){.loop = loop, .witness.reaction = note_queue};
    options = options_for(loop, &slow->witness);
    options.queue_low = queue_low;
    options.queue_high = HIGH;
    open_sockets(fds);
    slow->peer = fds[1];
    slow->stream = add_stream_with(loop, fds[0], &options);
}

static void open_slow(struct slow *slow, struct fdmux_loop *loop)
{
    open_slow_with(slow, loop, LOW);
}

static void close_slow(struct slow *slow)
{
    fdmux_testing_short(0);
    fdmux_loop_destroy(slow->loop);
    CHECK_EQ(close(slow->peer), 0);
}

/* Only the first write calls the kernel, which takes nothing. */
static void queue_bytes(struct fdmux_loop *loop, uint64_t stream, uint32_t length)
{
    static unsigned char bytes[100000];

    fdmux_testing_fail(FDMUX_CALL_SEND, 1, EAGAIN, 0);
    CHECK_EQ(fdmux_stream_write(loop, stream, bytes, length), 0);
    fdmux_testing_fail(0, 0, 0, 0);
    fdmux_testing_short(PIECE);
    CHECK_EQ(queued(loop, stream), length);
}

static void fill_queue(struct slow *slow, uint32_t length)
{
    queue_bytes(slow->loop, slow->stream, length);
}

/* Dispatch until everything is sent or `writable` WRITABLE events have come. */
static void drain_until(struct slow *slow, int writable)
{
    for (int i = 0; i < 100; i++) {
        if (slow->witness.counts[FDMUX_STREAM_WRITABLE] >= writable)
            return;
        CHECK_EQ(serve(slow->loop), 0);
    }
    CHECK_EQ(queued(slow->loop, slow->stream), 0);
}

static void await(struct slow *slow, uint32_t queue_low)
{
    CHECK_EQ(fdmux_stream_await_writable(slow->loop, slow->stream, queue_low), 0);
}

TEST(queue_that_never_was_high_is_not_reported_unless_asked_for)
{
    struct slow slow;

    open_slow(&slow, check_open_loop());
    fill_queue(&slow, HIGH / 2);
    drain_until(&slow, 1);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_WRITABLE], 0);
    fill_queue(&slow, HIGH / 2);
    await(&slow, LOW);
    drain_until(&slow, 1);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_WRITABLE], 1);
    close_slow(&slow);
}

TEST(writable_comes_at_the_mark_that_was_asked_for)
{
    static const uint32_t marks[] = {3000, 2000, 1, 0};

    for (int i = 0; i < 4; i++) {
        uint32_t at_writable = UINT32_MAX;
        struct slow slow;

        open_slow(&slow, check_open_loop());
        slow.witness.extra = &at_writable;
        fill_queue(&slow, HIGH / 2);
        await(&slow, marks[i]);
        CHECK_EQ(serve(slow.loop), 0);
        CHECK_EQ(slow.witness.counts[FDMUX_STREAM_WRITABLE], 0);
        drain_until(&slow, 1);
        CHECK_EQ(at_writable, marks[i] - marks[i] % PIECE);
        close_slow(&slow);
    }
}

TEST(writable_comes_once_each_time_it_is_asked_for)
{
    struct slow slow;

    open_slow(&slow, check_open_loop());
    for (int i = 1; i <= 3; i++) {
        fill_queue(&slow, HIGH / 2);
        await(&slow, LOW);
        await(&slow, LOW);
        drain_until(&slow, i + 1);
        CHECK_EQ(slow.witness.counts[FDMUX_STREAM_WRITABLE], i);
        CHECK_EQ(slow.witness.counts[FDMUX_STREAM_DRAINED], i);
    }
    fill_queue(&slow, HIGH / 2);
    drain_until(&slow, 4);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_WRITABLE], 3);
    close_slow(&slow);
}

TEST(queue_that_was_high_and_is_awaited_is_reported_once)
{
    struct slow slow;

    open_slow(&slow, check_open_loop());
    fill_queue(&slow, HIGH);
    await(&slow, LOW);
    drain_until(&slow, 2);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(send(slow.peer, "x", 1, 0), 1);
    serve_all(slow.loop);
    CHECK_EQ(slow.witness.received, 1); /* reading has resumed */
    close_slow(&slow);
}

TEST(writable_comes_before_drained)
{
    struct slow slow;

    open_slow(&slow, check_open_loop());
    fill_queue(&slow, PIECE);
    await(&slow, 0);
    drain_until(&slow, 1);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_DRAINED], 1);
    CHECK_EQ(slow.witness.last_kind, FDMUX_STREAM_DRAINED);
    close_slow(&slow);
}

/* The request applies to the next queue. */
TEST(stream_with_nothing_queued_neither_spins_nor_gets_writable)
{
    struct slow slow;
    uint64_t before;
    int r;

    open_slow(&slow, check_open_loop());
    await(&slow, LOW);
    before = stats_of(slow.loop).iteration_count;
    r = fdmux_loop_dispatch(slow.loop, 5 * MS, NULL, 0);
    CHECK(r == 0 || r == -EINTR);
    CHECK(stats_of(slow.loop).iteration_count - before < 10);
    CHECK_EQ(slow.witness.last_kind, 0);
    fill_queue(&slow, HIGH / 2);
    drain_until(&slow, 1);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_WRITABLE], 1);
    close_slow(&slow);
}

/* ---- accepted streams ---------------------------------------------------------- */

static int accept_one(struct fdmux_loop *loop, struct witness *server, uint16_t port)
{
    int before = server->counts[FDMUX_STREAM_ACCEPTED];
    int client = connect_client(port);

    serve_until(loop, &server->counts[FDMUX_STREAM_ACCEPTED], before + 1);
    return client;
}

TEST(accepted_streams_have_marks_of_their_own)
{
    struct fdmux_loop *loop = check_open_loop();
    uint32_t at_writable = UINT32_MAX;
    struct witness server = {.reaction = note_queue, .extra = &at_writable};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    int clients[2];

    options.queue_low = 1;
    options.queue_high = HIGH;
    (void)listen_on_loopback(loop, &options, &port);
    clients[0] = accept_one(loop, &server, port);
    CHECK_EQ(fdmux_stream_await_writable(loop, server.token, 6000), 0);
    clients[1] = accept_one(loop, &server, port);
    queue_bytes(loop, server.token, HIGH / 2);
    serve_all(loop);
    CHECK_EQ(server.counts[FDMUX_STREAM_WRITABLE], 0);
    queue_bytes(loop, server.token, HIGH);
    serve_until(loop, &server.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(at_writable, 0);
    fdmux_testing_short(0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(clients[0]) | close(clients[1]), 0);
}

/* Streams with the same options share them, whatever others were added between. */
TEST(added_streams_keep_the_marks_of_their_options)
{
    static const uint32_t marks[] = {LOW, LOW, 2000, LOW, 2000, 2000};
    struct fdmux_loop *loop = check_open_loop();
    uint32_t at_writable[6];
    struct slow slow[6];

    for (int i = 0; i < 6; i++) {
        open_slow_with(&slow[i], loop, marks[i]);
        slow[i].witness.extra = &at_writable[i];
    }
    for (int i = 0; i < 6; i++)
        fill_queue(&slow[i], 2 * HIGH);
    for (int i = 0; i < 6; i++) {
        drain_until(&slow[i], 1);
        CHECK_EQ(at_writable[i], marks[i]);
    }
    for (int i = 1; i < 6; i++)
        CHECK_EQ(close(slow[i].peer), 0);
    close_slow(&slow[0]);
}
