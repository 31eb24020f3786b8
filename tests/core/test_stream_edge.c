/* test_stream_edge.c: streams that are watched edge-triggered lose nothing: not an end
 * after the last bytes, not more bytes than fit, not what a fault has delayed. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"
#include "testing.h"

enum { SHORT_RECEIVES = 8 };

/* A stream over TCP, and the peer that writes to it. */
struct line {
    struct fdmux_loop *loop;
    struct witness witness;
    uint64_t stream;
    int peer;
};

static bool is_edge(const struct line *line)
{
    const struct fdmux__hub *hub = line->loop->extensions[FDMUX__STREAMS].data;
    const struct fdmux__stream *stream =
        fdmux__hub_at(hub, fdmux__token_slot(line->stream));

    return (stream->interest & FDMUX_EDGE) != 0;
}

/* Edges must tell of urgent data, too. */
static bool can_edge(const struct line *line)
{
#if defined(KQUEUE_MODEL_OLDEST)
    (void)line;
    return false;
#else
    return (stats_of(line->loop).features & FDMUX_FEATURE_EDGE) != 0;
#endif
}

static void send_bytes(struct line *line, size_t size)
{
    static const char bytes[100000];

    CHECK_EQ(send(line->peer, bytes, size, MSG_NOSIGNAL), (long)size);
}

/* `size` bytes in all must have arrived. */
static void expect_received(struct line *line, uint64_t size)
{
    for (int i = 0; i < 1000 && line->witness.received < size; i++)
        CHECK(serve(line->loop) >= 0);
    CHECK_EQ(line->witness.received, size);
    verify_streams(line->loop);
}

static void open_line(struct line *line, uint32_t receive_max)
{
    struct fdmux_stream_options options;
    int fds[2];

    *line = (struct line){.loop = check_open_loop()};
    options = options_for(line->loop, &line->witness);
    options.receive_max = receive_max;
    open_tcp_sockets(fds);
    line->peer = fds[0];
    line->stream = add_stream_with(line->loop, fds[1], &options);
}

/* Open a line that made enough short receives to be watched edge-triggered. */
static void open_edge_line(struct line *line, uint32_t receive_max)
{
    open_line(line, receive_max);
    for (uint64_t i = 1; i <= SHORT_RECEIVES; i++) {
        CHECK(!is_edge(line));
        send_bytes(line, 1);
        expect_received(line, i);
    }
    CHECK_EQ(is_edge(line), can_edge(line));
}

static void close_line(struct line *line)
{
    CHECK_EQ(close(line->peer), 0);
    fdmux_loop_destroy(line->loop);
}

TEST(short_receives_lead_to_edges_and_every_byte_comes)
{
    struct line line;

    open_edge_line(&line, 0);
    for (uint64_t i = 1; i <= 50; i++) {
        send_bytes(&line, 10);
        expect_received(&line, SHORT_RECEIVES + 10 * i);
    }
    CHECK_EQ(is_edge(&line), can_edge(&line));
    close_line(&line);
}

TEST(the_end_behind_the_last_bytes_is_not_missed)
{
    struct line line;

    open_edge_line(&line, 0);
    send_bytes(&line, 10);
    CHECK_EQ(shutdown(line.peer, SHUT_WR), 0);
    serve_until(line.loop, &line.witness.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(line.witness.received, SHORT_RECEIVES + 10);
    close_line(&line);
}

TEST(a_reset_is_not_missed)
{
    struct line line;

    open_edge_line(&line, 0);
    reset(line.peer);
    serve_until(line.loop, &line.witness.destroyed, 1);
    CHECK_EQ(line.witness.error, ECONNRESET);
    fdmux_loop_destroy(line.loop);
}

TEST(bytes_beyond_one_receive_are_received)
{
    struct line line;

    open_edge_line(&line, 100);
    send_bytes(&line, 1000);
    expect_received(&line, SHORT_RECEIVES + 1000);
    CHECK(!is_edge(&line)); /* the last receive was full */
    send_bytes(&line, 150);
    expect_received(&line, SHORT_RECEIVES + 1150);
    close_line(&line);
}

TEST(a_receive_that_was_cut_short_is_not_the_last)
{
    struct line line;

    open_edge_line(&line, 0);
    fdmux_testing_short(3);
    send_bytes(&line, 100);
    expect_received(&line, SHORT_RECEIVES + 100);
    fdmux_testing_short(0);
    close_line(&line);
}

TEST(a_receive_that_found_nothing_is_tried_again)
{
    struct line line;

    open_edge_line(&line, 0);
    fdmux_testing_fail(FDMUX_CALL_RECV, 1, EAGAIN, 0);
    send_bytes(&line, 10);
    expect_received(&line, SHORT_RECEIVES + 10);
    close_line(&line);
}

TEST(bytes_that_came_during_a_pause_come_after_it)
{
    struct line line;

    open_edge_line(&line, 0);
    CHECK_EQ(fdmux_stream_pause(line.loop, line.stream), 0);
    send_bytes(&line, 10);
    serve_all(line.loop);
    CHECK_EQ(line.witness.received, SHORT_RECEIVES);
    CHECK_EQ(fdmux_stream_resume(line.loop, line.stream), 0);
    expect_received(&line, SHORT_RECEIVES + 10);
    close_line(&line);
}

TEST(bytes_behind_urgent_data_come)
{
    struct line line;

    open_edge_line(&line, 0);
    send_bytes(&line, 3);
    CHECK_EQ(send(line.peer, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
    send_bytes(&line, 3);
    expect_received(&line, SHORT_RECEIVES + 6); /* recv(2) stops at the urgent mark */
    close_line(&line);
}

TEST(a_queue_is_drained_by_level)
{
    static unsigned char bytes[200000];
    struct line line;

    open_edge_line(&line, 0);
    while (queued(line.loop, line.stream) == 0)
        CHECK_EQ(fdmux_stream_write(line.loop, line.stream, bytes, sizeof bytes), 0);
    CHECK(!is_edge(&line)); /* it waits for reading and writing */
    while (queued(line.loop, line.stream) > 0) {
        while (recv(line.peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
            continue;
        CHECK(serve(line.loop) >= 0);
    }
    serve_all(line.loop);
    send_bytes(&line, 10);
    expect_received(&line, SHORT_RECEIVES + 10);
    close_line(&line);
}

static int watch_nothing(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                         void *userdata)
{
    (void)loop, (void)io, (void)events, (void)userdata;
    return 0;
}

TEST(a_stream_that_others_watch_too_stays_level_triggered)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options, .events = FDMUX_READ, .fn = watch_nothing};
    uint64_t other;
    struct line line;

    open_line(&line, 0);
    options.fd = fdmux_stream_fd(line.loop, line.stream);
    CHECK_EQ(fdmux_io_add(line.loop, &options, &other), 0);
    for (uint64_t i = 1; i <= 2 * SHORT_RECEIVES; i++) {
        send_bytes(&line, 1);
        expect_received(&line, i);
    }
    CHECK(!is_edge(&line));
    close_line(&line);
}

TEST(a_kernel_that_refuses_edges_costs_nothing_else)
{
    struct line line;

    open_line(&line, 0);
    for (uint64_t i = 1; i <= 2 * SHORT_RECEIVES; i++) {
        fdmux_testing_fail(CALL_SET_CHANGE, 1, ENOMEM, 0);
        send_bytes(&line, 1);
        expect_received(&line, i);
    }
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK(!is_edge(&line));
    CHECK_EQ(line.witness.counts[FDMUX_STREAM_CLOSED], 0);
    close_line(&line);
}

/* recv(2) from a Unix socket stops where descriptors were passed. */
TEST(unix_sockets_stay_level_triggered)
{
    struct line line = {.loop = check_open_loop()};
    int fds[2];

    open_sockets(fds);
    line.peer = fds[0];
    line.stream = add_stream(line.loop, fds[1], &line.witness);
    for (uint64_t i = 1; i <= 2 * SHORT_RECEIVES; i++) {
        send_bytes(&line, 1);
        expect_received(&line, i);
    }
    CHECK(!is_edge(&line));
    close_line(&line);
}
