/* test_stream_queue.c: bytes that the kernel does not take are queued up to a bound,
 * pause reading, and are sent or dropped at the end, as asked. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

enum { PIECE = 500, LOW = 1000, HIGH = 8000, MAX = 20000 };

/* A stream whose peer does not read, with small buffers. */
struct slow {
    struct fdmux_loop *loop;
    struct witness witness;
    uint64_t stream;
    int peer;
    size_t written;
    size_t read; /* bytes, by the peer */
    uint64_t read_hash;
    uint64_t written_hash;
};

static void open_slow(struct slow *slow, struct fdmux_loop *loop)
{
    struct fdmux_stream_options options;
    int fds[2];

    *slow = (struct slow){
        .loop = loop, .read_hash = HASH_START, .written_hash = HASH_START};
    options = options_for(loop, &slow->witness);
    options.queue_low = LOW;
    options.queue_high = HIGH;
    options.queue_max = MAX;
    open_sockets(fds);
    set_buffer(fds[0], SO_SNDBUF, 4096);
    slow->peer = fds[1];
    slow->stream = add_stream_with(loop, fds[0], &options);
}

static void write_some(struct slow *slow)
{
    unsigned char piece[PIECE];

    fill_pattern(piece, sizeof piece, slow->written);
    CHECK_EQ(fdmux_stream_write(slow->loop, slow->stream, piece, PIECE), 0);
    slow->written_hash = hash_bytes(slow->written_hash, piece, PIECE);
    slow->written += PIECE;
}

static void fill_queue(struct slow *slow, uint32_t length)
{
    while (queued(slow->loop, slow->stream) < length)
        write_some(slow);
}

/* Returns false if there is nothing to read. */
static bool read_some(struct slow *slow)
{
    unsigned char bytes[PIECE];
    ssize_t count = recv(slow->peer, bytes, sizeof bytes, MSG_DONTWAIT);

    if (count <= 0)
        return false;
    slow->read += (size_t)count;
    slow->read_hash = hash_bytes(slow->read_hash, bytes, (size_t)count);
    return true;
}

/* Dispatch and read until `length` bytes came. */
static void read_all(struct slow *slow, size_t length)
{
    for (int i = 0; i < 10000 && slow->read < length; i++) {
        while (read_some(slow))
            continue;
        CHECK_EQ(serve(slow->loop), 0);
    }
    CHECK_EQ(slow->read, length);
    CHECK(slow->read_hash == slow->written_hash);
}

/* ---- marks --------------------------------------------------------------------- */

TEST(reading_pauses_at_the_high_mark_and_resumes_at_the_low_one)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow;

    open_slow(&slow, loop);
    fill_queue(&slow, HIGH - PIECE);
    CHECK_EQ(send(slow.peer, "a", 1, 0), 1);
    serve_all(loop);
    CHECK_EQ(slow.witness.received, 1); /* still below the mark */
    fill_queue(&slow, HIGH);
    CHECK_EQ(send(slow.peer, "b", 1, 0), 1);
    serve_all(loop);
    CHECK_EQ(slow.witness.received, 1);
    while (slow.witness.counts[FDMUX_STREAM_WRITABLE] == 0) {
        CHECK(read_some(&slow));
        CHECK_EQ(serve(loop), 0);
    }
    CHECK(queued(loop, slow.stream) <= LOW);
    serve_all(loop);
    CHECK_EQ(slow.witness.received, 2);
    read_all(&slow, slow.written);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_DRAINED], 1);
    CHECK_EQ(queued(loop, slow.stream), 0);
    CHECK_EQ(close(slow.peer), 0);
    fdmux_loop_destroy(loop);
}

TEST(a_pause_and_the_high_mark_do_not_undo_each_other)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow;

    open_slow(&slow, loop);
    fill_queue(&slow, HIGH);
    CHECK_EQ(fdmux_stream_pause(loop, slow.stream), 0);
    CHECK_EQ(fdmux_stream_resume(loop, slow.stream), 0);
    CHECK_EQ(send(slow.peer, "x", 1, 0), 1);
    serve_all(loop);
    CHECK_EQ(slow.witness.received, 0); /* still paused by the high mark */
    CHECK_EQ(fdmux_stream_pause(loop, slow.stream), 0);
    read_all(&slow, slow.written);
    CHECK_EQ(slow.witness.received, 0); /* still paused by the caller */
    CHECK_EQ(fdmux_stream_resume(loop, slow.stream), 0);
    serve_all(loop);
    CHECK_EQ(slow.witness.received, 1);
    CHECK_EQ(close(slow.peer), 0);
    fdmux_loop_destroy(loop);
}

/* ---- bounds -------------------------------------------------------------------- */

TEST(a_full_queue_ends_the_stream)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow;
    static unsigned char bytes[MAX];
    uint32_t before;

    open_slow(&slow, loop);
    fill_queue(&slow, PIECE);
    before = queued(loop, slow.stream);
    CHECK_EQ(fdmux_stream_write(loop, slow.stream, bytes, MAX - before), 0);
    CHECK_EQ(queued(loop, slow.stream), MAX);
    CHECK_EQ(fdmux_stream_write(loop, slow.stream, bytes, 1), -ENOBUFS);
    CHECK_EQ(fdmux_stream_write(loop, slow.stream, bytes, 1), -EPIPE);
    serve_until(loop, &slow.witness.destroyed, 1);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(slow.witness.error, ENOBUFS);
    CHECK_EQ(close(slow.peer), 0);
    fdmux_loop_destroy(loop);
}

TEST(the_common_bound_ends_the_stream_with_the_longest_queue)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow[3];

    for (int i = 0; i < 3; i++)
        open_slow(&slow[i], loop);
    fill_queue(&slow[0], 6000);
    fill_queue(&slow[1], 3000);
    fill_queue(&slow[2], 1);
    CHECK_EQ(fdmux_stream_total_max(loop, queued(loop, slow[0].stream) +
                                              queued(loop, slow[1].stream) +
                                              queued(loop, slow[2].stream)),
             0);
    write_some(&slow[2]); /* closes the stream with the longest queue */
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(slow[0].witness.error, ENOBUFS);
    CHECK_EQ(slow[0].witness.destroyed, 1);
    CHECK_EQ(slow[1].witness.destroyed + slow[2].witness.destroyed, 0);
    read_all(&slow[2], slow[2].written);
    read_all(&slow[1], slow[1].written);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(close(slow[i].peer), 0);
    fdmux_loop_destroy(loop);
}

TEST(the_common_bound_may_be_lowered_below_what_is_queued)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow[2];

    open_slow(&slow[0], loop);
    open_slow(&slow[1], loop);
    fill_queue(&slow[0], 6000);
    fill_queue(&slow[1], 3000);
    CHECK_EQ(fdmux_stream_total_max(loop, 100), 0); /* less than is queued */
    CHECK_EQ(fdmux_stream_write(loop, slow[0].stream, "x", 1), -ENOBUFS);
    CHECK_EQ(fdmux_stream_write(loop, slow[1].stream, "x", 1), -ENOBUFS);
    serve_until(loop, &slow[1].witness.destroyed, 1);
    CHECK_EQ(slow[0].witness.error, ENOBUFS);
    CHECK_EQ(slow[1].witness.error, ENOBUFS);
    CHECK_EQ(close(slow[0].peer) + close(slow[1].peer), 0);
    fdmux_loop_destroy(loop);
}

/* ---- ends ---------------------------------------------------------------------- */

TEST(shutdown_comes_after_what_is_queued)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow;

    open_slow(&slow, loop);
    fill_queue(&slow, 3000);
    CHECK_EQ(fdmux_stream_shutdown(loop, slow.stream), 0);
    CHECK_EQ(fdmux_stream_write(loop, slow.stream, "x", 1), -EPIPE);
    read_all(&slow, slow.written);
    expect_end(slow.peer);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_DRAINED], 1);
    CHECK_EQ(send(slow.peer, "answer", 6, 0), 6);
    serve_until(loop, &slow.witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(slow.witness.received, 6);
    CHECK_EQ(close(slow.peer), 0);
    fdmux_loop_destroy(loop);
}

TEST(close_sends_what_is_queued_and_receives_nothing)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow;

    open_slow(&slow, loop);
    fill_queue(&slow, 3000);
    CHECK_EQ(fdmux_stream_close(loop, slow.stream, 0), 0);
    CHECK_EQ(send(slow.peer, "ignored", 7, 0), 7);
    serve_all(loop);
    CHECK_EQ(slow.witness.destroyed, 0);
    read_all(&slow, slow.written);
    serve_until(loop, &slow.witness.destroyed, 1);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_DATA], 0);
    CHECK_EQ(slow.witness.error, 0);
    CHECK_EQ(close(slow.peer), 0);
    fdmux_loop_destroy(loop);
}

TEST(close_with_drop_ends_at_once)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow;
    size_t taken;

    open_slow(&slow, loop);
    fill_queue(&slow, 3000);
    taken = slow.written - queued(loop, slow.stream);
    CHECK_EQ(fdmux_stream_close(loop, slow.stream, 0), 0);
    CHECK_EQ(fdmux_stream_close(loop, slow.stream, FDMUX_STREAM_DROP), 0);
    serve_until(loop, &slow.witness.destroyed, 1);
    CHECK_EQ(slow.witness.error, 0);
    while (read_some(&slow))
        continue;
    CHECK_EQ(slow.read, taken);
    expect_end(slow.peer);
    CHECK_EQ(close(slow.peer), 0);
    fdmux_loop_destroy(loop);
}

TEST(a_peer_that_leaves_ends_a_close_that_is_flushing)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow;

    open_slow(&slow, loop);
    fill_queue(&slow, 3000);
    CHECK_EQ(fdmux_stream_close(loop, slow.stream, 0), 0);
    while (read_some(&slow))
        continue;
    CHECK_EQ(close(slow.peer), 0);
    serve_until(loop, &slow.witness.destroyed, 1);
    CHECK_EQ(slow.witness.error, EPIPE);
    fdmux_loop_destroy(loop);
}

static int write_more(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct slow *slow = witness->extra;

    if (event->kind == FDMUX_STREAM_DRAINED &&
        witness->counts[FDMUX_STREAM_DRAINED] < 3)
        fill_queue(slow, HIGH);
    if (event->kind == FDMUX_STREAM_WRITABLE)
        write_some(slow);
    return 0;
}

TEST(writing_in_answer_to_writable_and_drained_keeps_the_order)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow;

    open_slow(&slow, loop);
    slow.witness.reaction = write_more;
    slow.witness.extra = &slow;
    fill_queue(&slow, HIGH);
    while (slow.witness.counts[FDMUX_STREAM_DRAINED] < 3) {
        while (read_some(&slow))
            continue;
        CHECK_EQ(serve(loop), 0);
    }
    read_all(&slow, slow.written);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_WRITABLE], 3);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_CLOSED], 0);
    CHECK_EQ(close(slow.peer), 0);
    fdmux_loop_destroy(loop);
}

/* ---- no kernel buffers --------------------------------------------------------- */

TEST(a_kernel_without_buffers_is_waited_for_without_spinning)
{
    struct fdmux_loop *loop = check_open_loop();
    struct slow slow;
    int64_t calls;

    open_slow(&slow, loop);
    fdmux_testing_fail(FDMUX_CALL_SEND, 1, ENOBUFS, 1);
    write_some(&slow); /* the kernel's buffer is empty, so the socket is writable */
    CHECK_EQ(queued(loop, slow.stream), PIECE);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(serve(loop), 0);
    calls = fdmux_testing_calls();
    CHECK(calls <= 2);
    fdmux__hub_tick(loop, 1);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(fdmux_testing_calls(), calls + 1);
    fdmux_testing_fail(0, 0, 0, 0);
    fdmux__hub_tick(loop, 1);
    CHECK_EQ(serve(loop), 0);
    read_all(&slow, slow.written);
    CHECK_EQ(slow.witness.counts[FDMUX_STREAM_DRAINED], 1);
    CHECK_EQ(close(slow.peer), 0);
    fdmux_loop_destroy(loop);
}
