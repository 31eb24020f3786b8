/* test_stream_order.c: every byte arrives once and in order, whatever the kernel does.
 *
 * Two streams of one loop write to each other, in pieces of random sizes, while calls
 * are cut short, interrupted, refused, or fail for lack of buffers. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

/* Their sum is below the high-water mark: two streams that both stopped reading because
 * of full queues would wait for each other. */
enum { PIECE_MAX = 20000, QUEUE_FULL = 40000 };

struct side {
    struct witness witness;
    uint64_t stream;
    size_t written;
    uint64_t hash; /* of what was written */
};

struct traffic {
    struct fdmux_loop *loop;
    struct side sides[2];
    size_t total; /* in each direction */
    uint64_t seed;
    bool is_faulty;
    unsigned char piece[PIECE_MAX];
};

static void write_piece(struct traffic *traffic, struct side *side)
{
    size_t left = traffic->total - side->written;
    size_t length = 1 + check_random(&traffic->seed) % PIECE_MAX;

    if (left == 0 || queued(traffic->loop, side->stream) > QUEUE_FULL)
        return;
    length = length < left ? length : left;
    fill_pattern(traffic->piece, length, traffic->seed);
    CHECK_EQ(fdmux_stream_write(traffic->loop, side->stream, traffic->piece, length),
             0);
    side->hash = hash_bytes(side->hash, traffic->piece, length);
    side->written += length;
}

static void plan_fault(struct traffic *traffic)
{
    static const struct {
        uint32_t kind;
        int error;
    } faults[] = {
        {FDMUX_CALL_SEND, EAGAIN},  {FDMUX_CALL_SEND, EINTR},
        {FDMUX_CALL_SEND, ENOBUFS}, {FDMUX_CALL_SEND, ENOMEM},
        {FDMUX_CALL_RECV, EAGAIN},  {FDMUX_CALL_RECV, EINTR},
    };
    uint32_t chosen = check_random(&traffic->seed) % 6;
    int64_t nth = 1 + check_random(&traffic->seed) % 4;

    fdmux_testing_fail(faults[chosen].kind, nth, faults[chosen].error, 0);
}

static void open_traffic(struct traffic *traffic, size_t total)
{
    int fds[2];

    traffic->loop = check_open_loop();
    traffic->total = total;
    open_sockets(fds);
    for (int i = 0; i < 2; i++) {
        traffic->sides[i].hash = HASH_START;
        traffic->sides[i].stream =
            add_stream(traffic->loop, fds[i], &traffic->sides[i].witness);
    }
}

static void close_traffic(struct traffic *traffic)
{
    fdmux_testing_fail(0, 0, 0, 0);
    fdmux_testing_short(0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(traffic->sides[i].witness.received, traffic->total);
        CHECK(traffic->sides[i].witness.hash == traffic->sides[1 - i].hash);
        CHECK_EQ(traffic->sides[i].witness.counts[FDMUX_STREAM_CLOSED], 0);
    }
    fdmux_loop_destroy(traffic->loop);
    free(traffic);
}

static bool is_done(const struct traffic *traffic)
{
    return traffic->sides[0].witness.received == traffic->total &&
           traffic->sides[1].witness.received == traffic->total;
}

static void exchange(bool is_faulty, size_t total, int64_t short_max)
{
    struct traffic *traffic = calloc(1, sizeof *traffic);
    int64_t steps_max = 1000 + (int64_t)total;

    open_traffic(traffic, total);
    traffic->seed = 7 + (uint64_t)short_max;
    for (int64_t step = 0; !is_done(traffic); step++) {
        CHECK(step < steps_max);
        if (short_max > 0)
            fdmux_testing_short(1 + check_random(&traffic->seed) % short_max);
        if (is_faulty)
            plan_fault(traffic);
        write_piece(traffic, &traffic->sides[step % 2]);
        CHECK_EQ(serve(traffic->loop), 0);
        fdmux__hub_tick(traffic->loop, 1); /* retries writes that failed with ENOBUFS */
    }
    close_traffic(traffic);
}

TEST(four_mib_each_way)
{
    exchange(false, 4 << 20, 0);
}

TEST(faults_lose_nothing)
{
    exchange(true, 1 << 20, 0);
}

TEST(short_calls_keep_the_order)
{
    exchange(false, 8 << 10, 7);
}

TEST(short_calls_and_faults_keep_the_order)
{
    exchange(true, 100 << 10, 1000);
    exchange(true, 4 << 10, 3);
}

/* ---- many writes in one call --------------------------------------------------- */

enum { OPS = 300 };

static void fill_ops(struct fdmux_stream_write_op ops[OPS], const uint64_t streams[2],
                     const unsigned char *bytes, uint64_t *seed)
{
    size_t offset = 0;

    for (int i = 0; i < OPS; i++) {
        size_t length = check_random(seed) % 40;

        ops[i] = (struct fdmux_stream_write_op){
            .stream = streams[check_random(seed) % 2],
            .data = bytes + offset,
            .length = length,
        };
        offset += length;
    }
}

static void batched_writes(bool is_short)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness readers[2] = {{0}};
    struct witness writers[2] = {{0}};
    struct fdmux_stream_write_op ops[OPS];
    uint64_t streams[2];
    uint64_t hashes[2] = {HASH_START, HASH_START};
    unsigned char bytes[OPS * 40];
    uint64_t seed = 11;
    int fds[2][2];

    fill_pattern(bytes, sizeof bytes, 3);
    for (int i = 0; i < 2; i++) {
        open_sockets(fds[i]);
        streams[i] = add_stream(loop, fds[i][0], &writers[i]);
        (void)add_stream(loop, fds[i][1], &readers[i]);
    }
    fdmux_testing_short(is_short ? 7 : 0);
    for (int round = 0; round < 5; round++) {
        fill_ops(ops, streams, bytes, &seed);
        for (int i = 0; i < OPS; i++) {
            uint64_t *hash = &hashes[ops[i].stream == streams[1]];

            *hash = hash_bytes(*hash, ops[i].data, ops[i].length);
        }
        CHECK_EQ(fdmux_stream_write_batch(loop, ops, OPS), OPS);
        CHECK_EQ(serve(loop), 0);
    }
    fdmux_testing_short(0);
    serve_all(loop);
    for (int i = 0; i < 2; i++)
        CHECK(readers[i].hash == hashes[i]);
    fdmux_loop_destroy(loop);
}

TEST(batched_writes_keep_the_order_of_each_stream)
{
    batched_writes(false);
    batched_writes(true);
}

static int64_t sends_of(struct fdmux_loop *loop,
                        const struct fdmux_stream_write_op *ops, uint32_t count,
                        int accepted)
{
    fdmux_testing_fail(FDMUX_CALL_SEND, 0, 0, 0);
    CHECK_EQ(fdmux_stream_write_batch(loop, ops, count), accepted);
    return fdmux_testing_calls();
}

TEST(adjacent_writes_to_one_stream_use_one_call)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witnesses[2] = {{0}};
    struct fdmux_stream_write_op ops[130];
    uint64_t streams[2];
    int fds[2][2];

    for (int i = 0; i < 2; i++) {
        open_sockets(fds[i]);
        streams[i] = add_stream(loop, fds[i][0], &witnesses[i]);
    }
    for (int i = 0; i < 130; i++)
        ops[i] = (struct fdmux_stream_write_op){streams[0], "ab", 2};
    CHECK_EQ(sends_of(loop, ops, 64, 64), 1);
    CHECK_EQ(sends_of(loop, ops, 130, 130), 3); /* 64 parts per call */
    ops[1].stream = streams[1];
    CHECK_EQ(sends_of(loop, ops, 10, 10), 3);
    CHECK_EQ(fdmux_stream_close(loop, streams[1], 0), 0);
    CHECK_EQ(sends_of(loop, ops, 10, 9), 2); /* the closed stream is skipped */
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(sends_of(loop, ops, 10, 9), 2);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[0][1]) + close(fds[1][1]), 0);
}
