/* test_stream_batch.c: what collected streams deliver when there is not room for all,
 * and what the core leaves alone until the batch was read. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

enum { STREAMS = 40 };

struct crowd {
    struct desk desk;
    struct witness witnesses[STREAMS];
    uint64_t streams[STREAMS];
    int peers[STREAMS];
};

static void join(struct crowd *crowd, int i)
{
    int fds[2];

    open_sockets(fds);
    crowd->peers[i] = fds[1];
    crowd->streams[i] = add_stream(&crowd->desk, fds[0], &crowd->witnesses[i]);
}

static struct crowd *open_crowd(uint32_t records, uint32_t arena)
{
    struct crowd *crowd = calloc(1, sizeof *crowd);

    open_desk(&crowd->desk, true, records, arena);
    for (int i = 0; i < STREAMS; i++)
        join(crowd, i);
    return crowd;
}

static void close_crowd(struct crowd *crowd)
{
    close_desk(&crowd->desk);
    for (int i = 0; i < STREAMS; i++)
        CHECK_EQ(close(crowd->peers[i]), 0);
    free(crowd);
}

static void feed_all(struct crowd *crowd, size_t length)
{
    static unsigned char bytes[100000];

    for (int i = 0; i < STREAMS; i++)
        CHECK(send(crowd->peers[i], bytes, length, MSG_DONTWAIT) > 0 ||
              errno == EAGAIN);
}

/* Dispatch, and leave the batch as it is. */
static uint32_t fill_batch(struct desk *desk)
{
    CHECK_EQ(fdmux_loop_dispatch(desk->loop, 0, NULL, 0), 0);
    verify_desk(desk);
    return desk->batch.record_count;
}

static void empty_batch(struct desk *desk)
{
    desk->batch.record_count = 0;
    desk->batch.arena_used = 0;
}

/* ---- a full arena -------------------------------------------------------------- */

TEST(a_stream_gets_at_most_64_kib_a_batch)
{
    struct crowd *crowd = open_crowd(64, 40 * ARENA_MIN);
    int rounds = 0;

    feed_all(crowd, 100000);
    while (crowd->witnesses[0].received < 100000) {
        CHECK_EQ(serve(&crowd->desk), 0);
        CHECK(++rounds < 10);
    }
    CHECK(rounds >= 2);
    for (int i = 0; i < STREAMS; i++)
        CHECK(crowd->witnesses[i].largest <= ARENA_MIN);
    close_crowd(crowd);
}

/* The arena holds three messages of 30000 bytes and then has no room to offer. */
TEST(streams_that_found_no_room_come_first_and_in_order)
{
    struct crowd *crowd = open_crowd(64, 2 * ARENA_MIN);
    uint32_t order[STREAMS];
    uint32_t seen = 0;

    feed_all(crowd, 30000);
    while (seen < STREAMS) {
        uint32_t count = fill_batch(&crowd->desk);

        CHECK(count > 0);
        for (uint32_t i = 0; i < count && seen < STREAMS; i++)
            order[seen++] = crowd->desk.batch.records[i].slot;
        empty_batch(&crowd->desk);
        feed_all(crowd, 100); /* those served are ready again at once */
    }
    for (uint32_t i = 0; i < STREAMS; i++)
        for (uint32_t j = 0; j < i; j++)
            CHECK(order[i] != order[j]);
    close_crowd(crowd);
}

TEST(no_stream_starves_when_more_is_ready_than_fits)
{
    struct crowd *crowd = open_crowd(64, ARENA_MIN);
    int most = 0;
    int least = 1 << 30;

    for (int round = 0; round < 20 * STREAMS; round++) {
        feed_all(crowd, 40000);
        CHECK_EQ(serve(&crowd->desk), 0);
    }
    for (int i = 0; i < STREAMS; i++) {
        int count = crowd->witnesses[i].counts[FDMUX_STREAM_DATA];

        most = count > most ? count : most;
        least = count < least ? count : least;
    }
    CHECK(least > 0);
    CHECK(most - least <= 2);
    close_crowd(crowd);
}

TEST(full_records_delay_but_lose_nothing)
{
    struct crowd *crowd = open_crowd(RECORDS_MIN, 4 * ARENA_MIN);

    feed_all(crowd, 10);
    for (int i = 0; i < STREAMS; i++)
        CHECK_EQ(shutdown(crowd->peers[i], SHUT_WR), 0);
    for (int round = 0; round < 20; round++)
        CHECK_EQ(serve(&crowd->desk), 0);
    for (int i = 0; i < STREAMS; i++) {
        CHECK_EQ(crowd->witnesses[i].received, 10);
        CHECK_EQ(crowd->witnesses[i].counts[FDMUX_STREAM_END], 1);
        CHECK_EQ(fdmux_stream_close(crowd->desk.loop, crowd->streams[i], 0), 0);
    }
    for (int round = 0; round < 20; round++)
        CHECK_EQ(serve(&crowd->desk), 0);
    for (int i = 0; i < STREAMS; i++)
        CHECK_EQ(crowd->witnesses[i].counts[FDMUX_STREAM_CLOSED], 1);
    close_crowd(crowd);
}

/* Writing is not held up by those that read, nor accepting. */
TEST(a_queue_is_flushed_and_connections_accepted_while_the_arena_is_full)
{
    struct crowd *crowd = open_crowd(64, ARENA_MIN);
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(&crowd->desk, &server);
    static unsigned char bytes[1000];
    uint16_t port;
    int client;

    (void)listen_on_loopback(&crowd->desk, &options, &port);
    while (queued(&crowd->desk, crowd->streams[STREAMS - 1]) == 0)
        CHECK_EQ(fdmux_stream_write(crowd->desk.loop, crowd->streams[STREAMS - 1],
                                    bytes, sizeof bytes),
                 0);
    client = connect_client(port);
    for (int round = 0; round < 3; round++) {
        feed_all(crowd, 60000);
        CHECK_EQ(serve(&crowd->desk), 0);
        while (recv(crowd->peers[STREAMS - 1], bytes, sizeof bytes, 0) > 0)
            continue;
    }
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], 1);
    CHECK_EQ(crowd->witnesses[STREAMS - 1].counts[FDMUX_STREAM_DRAINED], 1);
    CHECK_EQ(close(client), 0);
    close_crowd(crowd);
}

/* What a stream may receive at most is what it needs in the arena, not 64 KiB. */
TEST(small_receives_share_a_small_arena)
{
    struct desk desk;
    struct witness witnesses[10] = {{0}};
    struct fdmux_stream_options options;
    int fds[10][2];
    unsigned char bytes[6000] = {0};

    open_desk(&desk, true, 64, ARENA_MIN);
    for (int i = 0; i < 10; i++) {
        open_sockets(fds[i]);
        options = options_for(&desk, &witnesses[i]);
        options.receive_max = 4096;
        (void)add_stream_with(&desk, fds[i][0], &options);
        CHECK_EQ(send(fds[i][1], bytes, sizeof bytes, 0), sizeof bytes);
    }
    CHECK_EQ(fill_batch(&desk), 10);
    read_batch(&desk);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(witnesses[i].received, 4096);
    CHECK_EQ(serve(&desk), 0);
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(witnesses[i].received, sizeof bytes);
        CHECK_EQ(close(fds[i][1]), 0);
    }
    close_desk(&desk);
}

/* ---- a batch that was not read ------------------------------------------------- */

TEST(a_batch_that_is_not_emptied_is_only_added_to)
{
    struct crowd *crowd = open_crowd(32, 4 * ARENA_MIN);
    struct desk *desk = &crowd->desk;
    struct fdmux_stream_record before[32];
    unsigned char bytes[4 * 30];
    uint32_t count;

    for (int i = 0; i < 4; i++) {
        fill_pattern(bytes, 30, (uint64_t)i);
        CHECK_EQ(send(crowd->peers[i], bytes, 30, 0), 30);
    }
    count = fill_batch(desk);
    CHECK_EQ(count, 4);
    memcpy(before, desk->batch.records, sizeof before);
    memcpy(bytes, desk->batch.arena, sizeof bytes);
    for (int round = 0; round < 10; round++) {
        feed_all(crowd, 1000);
        CHECK(fill_batch(desk) >= count);
        CHECK(memcmp(before, desk->batch.records, count * sizeof *before) == 0);
        CHECK(memcmp(bytes, desk->batch.arena, sizeof bytes) == 0);
    }
    for (uint32_t i = 0; i < desk->batch.record_count; i++)
        for (uint32_t j = 0; j < i; j++) /* one DATA record a stream */
            CHECK(desk->batch.records[i].slot != desk->batch.records[j].slot);
    read_batch(desk);
    for (int round = 0; round < 10; round++)
        CHECK_EQ(serve(desk), 0);
    for (int i = 0; i < STREAMS; i++)
        CHECK_EQ(crowd->witnesses[i].received, 10 * 1000 + (i < 4 ? 30 : 0));
    close_crowd(crowd);
}

TEST(slots_are_not_used_again_while_their_records_are_unread)
{
    struct desk desk;
    struct witness witnesses[3] = {{0}};
    uint64_t stream;
    uint64_t next;
    int fds[2];
    int more[2];

    open_desk(&desk, true, RECORDS_MIN, ARENA_MIN);
    open_sockets(fds);
    open_sockets(more);
    stream = add_stream(&desk, fds[0], &witnesses[0]);
    CHECK_EQ(fdmux_stream_close(desk.loop, stream, 0), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fill_batch(&desk), 1);
    CHECK_EQ(desk.batch.records[0].kind, FDMUX_STREAM_CLOSED);
    next = add_stream(&desk, more[0], &witnesses[1]);
    CHECK(((next ^ stream) & 0x0fffffff) != 0);
    read_batch(&desk);
    CHECK_EQ(serve(&desk), 0);
    next = add_stream(&desk, more[1], &witnesses[2]);
    CHECK_EQ((next ^ stream) & 0x0fffffff, 0); /* and now it is */
    CHECK(next != stream);
    close_desk(&desk);
    CHECK_EQ(close(fds[1]), 0);
}

TEST(dispatch_returns_at_once_while_records_are_unread)
{
    struct crowd *crowd = open_crowd(RECORDS_MIN, ARENA_MIN);
    int64_t start_ns = fdmux_loop_now(crowd->desk.loop);

    feed_all(crowd, 10);
    CHECK(fill_batch(&crowd->desk) > 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fdmux_loop_dispatch(crowd->desk.loop, 5000 * MS, NULL, 0), 0);
    CHECK(fdmux_loop_now(crowd->desk.loop) - start_ns < 4000 * MS);
    close_crowd(crowd);
}

/* ---- nowhere to deliver -------------------------------------------------------- */

TEST(collected_streams_need_a_batch)
{
    struct desk desk;
    struct witness witness = {0};
    struct fdmux_stream_options options;
    uint64_t stream = 7;
    int fds[2];

    open_desk(&desk, true, RECORDS_MIN, ARENA_MIN);
    CHECK_EQ(fdmux_stream_collect(desk.loop, NULL), 0);
    open_sockets(fds);
    options = options_for(&desk, &witness);
    CHECK_EQ(fdmux_stream_add(desk.loop, fds[0], &options, &stream), -ENOBUFS);
    CHECK_EQ(fdmux_stream_listen(desk.loop, fds[0], &options, &stream), -ENOBUFS);
    CHECK_EQ(stream, 7);
    CHECK_EQ(fdmux_stream_collect(desk.loop, &desk.batch), 0);
    stream = add_stream(&desk, fds[0], &witness);
    CHECK_EQ(send(fds[1], "x", 1, 0), 1);
    CHECK_EQ(serve(&desk), 0);
    CHECK_EQ(witness.received, 1);
    close_desk(&desk);
    CHECK_EQ(close(fds[1]), 0);
}

static uint64_t iterations_in(struct fdmux_loop *loop, int64_t timeout_ns)
{
    uint64_t before = stats_of(loop).iteration_count;
    int r = fdmux_loop_dispatch(loop, timeout_ns, NULL, 0);

    CHECK(r == 0 || r == -EINTR);
    return stats_of(loop).iteration_count - before;
}

/* Readable, writable, closed, and with connections waiting, all without a batch. */
TEST(while_nothing_collects_streams_wait_without_spinning)
{
    struct crowd *crowd = open_crowd(64, 4 * ARENA_MIN);
    struct desk *desk = &crowd->desk;
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(desk, &server);
    static unsigned char bytes[100000];
    uint16_t port;
    int client;

    (void)listen_on_loopback(desk, &options, &port);
    while (queued(desk, crowd->streams[0]) == 0)
        CHECK_EQ(fdmux_stream_write(desk->loop, crowd->streams[0], bytes, 1000), 0);
    CHECK_EQ(fdmux_stream_collect(desk->loop, NULL), 0);
    client = connect_client(port);
    feed_all(crowd, 10);
    CHECK_EQ(fdmux_stream_close(desk->loop, crowd->streams[1], 0), 0);
    while (recv(crowd->peers[0], bytes, sizeof bytes, 0) > 0)
        continue;
    (void)iterations_in(desk->loop, 0);
    CHECK(iterations_in(desk->loop, 5 * MS) < 10);
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], 0);
    CHECK_EQ(fdmux_stream_collect(desk->loop, &desk->batch), 0);
    serve_all(desk);
    CHECK_EQ(server.counts[FDMUX_STREAM_ACCEPTED], 1);
    CHECK_EQ(crowd->witnesses[0].counts[FDMUX_STREAM_DRAINED], 1);
    CHECK_EQ(crowd->witnesses[1].counts[FDMUX_STREAM_CLOSED], 1);
    for (int i = 2; i < STREAMS; i++)
        CHECK_EQ(crowd->witnesses[i].received, 10);
    CHECK_EQ(close(client), 0);
    close_crowd(crowd);
}

/* A called stream beside collected ones that have no room. */
TEST(called_streams_do_not_wait_for_collected_ones)
{
    struct crowd *crowd = open_crowd(RECORDS_MIN, ARENA_MIN);
    struct desk *desk = &crowd->desk;
    struct witness called = {0};
    uint64_t stream;
    int fds[2];

    feed_all(crowd, 40000);
    open_sockets(fds);
    desk->is_collected = false;
    stream = add_stream(desk, fds[0], &called);
    CHECK(fill_batch(desk) > 0);
    CHECK_EQ(send(fds[1], "x", 1, 0), 1);
    (void)fill_batch(desk);
    CHECK_EQ(called.received, 1);
    CHECK_EQ(fdmux_stream_close(desk->loop, stream, 0), 0);
    (void)fill_batch(desk);
    CHECK_EQ(called.destroyed, 1);
    CHECK_EQ(close(fds[1]), 0);
    close_crowd(crowd);
}
