/* test_stream_receive.c: how much a stream receives in one batch, and that every ready
 * stream receives in each batch. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

enum { STREAMS = 40, MUCH = 300000, RECEIVE_DEFAULT = 65536, RECEIVE_MAX = 262144 };

struct crowd {
    struct fdmux_loop *loop;
    struct witness witnesses[STREAMS];
    uint64_t streams[STREAMS];
    int peers[STREAMS];
};

static struct crowd *open_crowd(void)
{
    struct crowd *crowd = calloc(1, sizeof *crowd);

    CHECK(crowd != NULL);
    crowd->loop = check_open_loop();
    for (int i = 0; i < STREAMS; i++) {
        int fds[2];

        open_sockets(fds);
        crowd->peers[i] = fds[1];
        crowd->streams[i] = add_stream(crowd->loop, fds[0], &crowd->witnesses[i]);
    }
    return crowd;
}

static void close_crowd(struct crowd *crowd)
{
    fdmux_loop_destroy(crowd->loop);
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

TEST(every_stream_that_is_ready_receives_once_a_batch)
{
    struct crowd *crowd = open_crowd();

    for (int batch = 1; batch <= 5; batch++) {
        feed_all(crowd, 100000);
        CHECK_EQ(serve(crowd->loop), 0);
        for (int i = 0; i < STREAMS; i++) {
            CHECK_EQ(crowd->witnesses[i].counts[FDMUX_STREAM_DATA], batch);
            CHECK(crowd->witnesses[i].largest <= RECEIVE_DEFAULT);
        }
    }
    close_crowd(crowd);
}

TEST(stream_that_always_has_more_delays_no_other)
{
    struct crowd *crowd = open_crowd();

    for (int batch = 1; batch <= 5; batch++) {
        feed_all(crowd, 10);
        while (send(crowd->peers[0], crowd, sizeof *crowd, MSG_DONTWAIT) > 0)
            continue;
        CHECK_EQ(serve(crowd->loop), 0);
        for (int i = 1; i < STREAMS; i++)
            CHECK_EQ(crowd->witnesses[i].received, 10u * (unsigned)batch);
    }
    close_crowd(crowd);
}

/* Returns how much a stream with this limit receives in its first batch, of more bytes
 * than that. */
static uint64_t receive_much(uint32_t receive_max)
{
    static unsigned char bytes[MUCH];
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);
    uint64_t first;
    ssize_t sent;
    int fds[2];

    open_sockets(fds);
    set_buffer(fds[1], SO_SNDBUF, 2 * MUCH);
    options.receive_max = receive_max;
    (void)add_stream_with(loop, fds[0], &options);
    /* A batch for each byte takes long in an emulator. */
    sent = send(fds[1], bytes, receive_max == 1 ? 1000 : sizeof bytes, 0);
    CHECK_EQ(serve(loop), 0);
    first = witness.received;
    CHECK_EQ(witness.counts[FDMUX_STREAM_DATA], 1);
    while (witness.received < (uint64_t)sent)
        CHECK_EQ(serve(loop), 0); /* the rest comes in later batches */
    CHECK_EQ(witness.largest, first);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
    return first;
}

TEST(receive_max_bounds_what_comes_in_one_batch)
{
    uint64_t most = receive_much(RECEIVE_MAX);

    CHECK_EQ(receive_much(1), 1);
    CHECK_EQ(receive_much(4096), 4096);
    CHECK_EQ(receive_much(0), RECEIVE_DEFAULT);
    /* How much exactly depends on the kernel's buffer. */
    CHECK(most > RECEIVE_DEFAULT && most <= RECEIVE_MAX);
}
