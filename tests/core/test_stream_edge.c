/* test_stream_edge.c: streams that are watched for edges lose nothing: not what lies
 * behind the bytes, not more than fits, not what a fault has kept back. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"
#include "testing.h"

enum { SHORT_RECEIVES = 8 };

/* A stream over TCP, and the peer that writes to it. */
struct line {
    struct desk *desk;
    struct witness witness;
    uint64_t stream;
    int peer;
};

static bool is_edge(const struct line *line)
{
    const struct fdmux__hub *hub = line->desk->loop->extension_data;
    const struct fdmux__stream *stream =
        fdmux__hub_at(hub, fdmux__token_slot(line->stream));

    return (stream->interest & FDMUX_EDGE) != 0;
}

static bool can_edge(const struct line *line)
{
    return strcmp(fdmux_loop_backend(line->desk->loop), "epoll") == 0;
}

static void say(struct line *line, size_t size)
{
    static const char bytes[100000];

    CHECK_EQ(send(line->peer, bytes, size, MSG_NOSIGNAL), (long)size);
}

/* So many bytes in all must have arrived. */
static void expect_received(struct line *line, uint64_t size)
{
    for (int i = 0; i < 1000 && line->witness.received < size; i++)
        CHECK(serve(line->desk) >= 0);
    CHECK_EQ(line->witness.received, size);
    verify_desk(line->desk);
}

static void open_line(struct line *line, struct desk *desk, uint32_t receive_max)
{
    struct fdmux_stream_options options;
    int fds[2];

    memset(line, 0, sizeof *line);
    line->desk = desk;
    options = options_for(desk, &line->witness);
    options.receive_max = receive_max;
    open_tcp_sockets(fds);
    line->peer = fds[0];
    line->stream = add_stream_with(desk, fds[1], &options);
}

/* The same after so many short receives that edges are enough. */
static void open_edge_line(struct line *line, struct desk *desk, uint32_t receive_max)
{
    open_line(line, desk, receive_max);
    for (uint64_t i = 1; i <= SHORT_RECEIVES; i++) {
        CHECK(!is_edge(line));
        say(line, 1);
        expect_received(line, i);
    }
    CHECK_EQ(is_edge(line), can_edge(line));
}

static void close_line(struct line *line)
{
    CHECK_EQ(close(line->peer), 0);
    close_desk(line->desk);
}

static void go_on(struct desk *desk)
{
    struct line line;

    open_edge_line(&line, desk, 0);
    for (uint64_t i = 1; i <= 50; i++) {
        say(&line, 10);
        expect_received(&line, SHORT_RECEIVES + 10 * i);
    }
    CHECK_EQ(is_edge(&line), can_edge(&line));
    close_line(&line);
}

TEST(short_receives_lead_to_edges_and_every_byte_comes)
{
    on_both_desks(go_on);
}

static void end_behind_bytes(struct desk *desk)
{
    struct line line;

    open_edge_line(&line, desk, 0);
    say(&line, 10);
    CHECK_EQ(shutdown(line.peer, SHUT_WR), 0);
    serve_until(desk, &line.witness.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(line.witness.received, SHORT_RECEIVES + 10);
    close_line(&line);
}

TEST(the_end_behind_the_last_bytes_is_not_missed)
{
    on_both_desks(end_behind_bytes);
}

static void reset_behind_bytes(struct desk *desk)
{
    struct linger linger = {.l_onoff = 1};
    struct line line;

    open_edge_line(&line, desk, 0);
    CHECK_EQ(setsockopt(line.peer, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    CHECK_EQ(close(line.peer), 0);
    serve_until(desk, &line.witness.destroyed, 1);
    CHECK_EQ(line.witness.error, ECONNRESET);
    close_desk(desk);
}

TEST(a_reset_is_not_missed)
{
    on_both_desks(reset_behind_bytes);
}

static void more_than_fits(struct desk *desk)
{
    struct line line;

    open_edge_line(&line, desk, 100);
    say(&line, 1000);
    expect_received(&line, SHORT_RECEIVES + 1000);
    CHECK(!is_edge(&line)); /* the last receive was full */
    say(&line, 150);
    expect_received(&line, SHORT_RECEIVES + 1150);
    close_line(&line);
}

TEST(more_than_one_receive_takes_comes_all_the_same)
{
    on_both_desks(more_than_fits);
}

static void cut_short(struct desk *desk)
{
    struct line line;

    open_edge_line(&line, desk, 0);
    fdmux_testing_short(3);
    say(&line, 100);
    expect_received(&line, SHORT_RECEIVES + 100);
    fdmux_testing_short(0);
    close_line(&line);
}

TEST(a_receive_that_was_cut_short_is_not_the_last)
{
    on_both_desks(cut_short);
}

static void refuse_once(struct desk *desk)
{
    struct line line;

    open_edge_line(&line, desk, 0);
    fdmux_testing_fail(FDMUX_CALL_RECV, 1, EAGAIN, 0);
    say(&line, 10);
    expect_received(&line, SHORT_RECEIVES + 10);
    close_line(&line);
}

TEST(a_receive_that_found_nothing_is_tried_again)
{
    on_both_desks(refuse_once);
}

static void pause_and_resume(struct desk *desk)
{
    struct line line;

    open_edge_line(&line, desk, 0);
    CHECK_EQ(fdmux_stream_pause(desk->loop, line.stream), 0);
    say(&line, 10);
    serve_all(desk);
    CHECK_EQ(line.witness.received, SHORT_RECEIVES);
    CHECK_EQ(fdmux_stream_resume(desk->loop, line.stream), 0);
    expect_received(&line, SHORT_RECEIVES + 10);
    close_line(&line);
}

TEST(what_came_during_a_pause_comes_after_it)
{
    on_both_desks(pause_and_resume);
}

static void go_round_urgent_data(struct desk *desk)
{
    struct line line;

    open_edge_line(&line, desk, 0);
    say(&line, 3);
    CHECK_EQ(send(line.peer, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
    say(&line, 3);
    expect_received(&line, SHORT_RECEIVES + 6); /* recv(2) stops at the mark */
    close_line(&line);
}

TEST(bytes_behind_urgent_data_come)
{
    on_both_desks(go_round_urgent_data);
}

static void choke_and_drain(struct desk *desk)
{
    static unsigned char bytes[200000];
    struct line line;

    open_edge_line(&line, desk, 0);
    while (queued(desk, line.stream) == 0)
        CHECK_EQ(fdmux_stream_write(desk->loop, line.stream, bytes, sizeof bytes), 0);
    CHECK(!is_edge(&line)); /* it waits for two things */
    while (queued(desk, line.stream) > 0) {
        while (recv(line.peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
            continue;
        CHECK(serve(desk) >= 0);
    }
    serve_all(desk);
    say(&line, 10);
    expect_received(&line, SHORT_RECEIVES + 10);
    close_line(&line);
}

TEST(a_queue_is_drained_by_level)
{
    on_both_desks(choke_and_drain);
}

/* Only an unread batch lets a stream be ready twice in one. */
TEST(what_comes_while_the_batch_is_unread_waits_for_the_next)
{
    struct desk *desk = calloc(1, sizeof *desk);
    struct line line;

    CHECK(desk != NULL);
    open_desk(desk, true, 64, 4 * ARENA_MIN);
    open_edge_line(&line, desk, 0);
    say(&line, 10);
    CHECK(fdmux_loop_dispatch(desk->loop, 0, NULL, 0) >= 0);
    say(&line, 10);
    CHECK(fdmux_loop_dispatch(desk->loop, 0, NULL, 0) >= 0);
    read_batch(desk);
    expect_received(&line, SHORT_RECEIVES + 20);
    close_line(&line);
    free(desk);
}

static int watch_nothing(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                         void *userdata)
{
    (void)loop, (void)io, (void)events, (void)userdata;
    return 0;
}

static void share(struct desk *desk)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options, .events = FDMUX_READ, .fn = watch_nothing};
    uint64_t other;
    struct line line;

    open_line(&line, desk, 0);
    options.fd = fdmux_stream_fd(desk->loop, line.stream);
    CHECK_EQ(fdmux_io_add(desk->loop, &options, &other), 0);
    for (uint64_t i = 1; i <= 2 * SHORT_RECEIVES; i++) {
        say(&line, 1);
        expect_received(&line, i);
    }
    CHECK(!is_edge(&line));
    close_line(&line);
}

TEST(a_stream_that_others_watch_too_stays_level_triggered)
{
    on_both_desks(share);
}

static void refuse_edges(struct desk *desk)
{
    struct line line;

    open_line(&line, desk, 0);
    for (uint64_t i = 1; i <= 2 * SHORT_RECEIVES; i++) {
        fdmux_testing_fail(FDMUX_CALL_EPOLL_CTL, 1, ENOMEM, 0);
        say(&line, 1);
        expect_received(&line, i);
    }
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK(!is_edge(&line));
    CHECK_EQ(line.witness.counts[FDMUX_STREAM_CLOSED], 0);
    close_line(&line);
}

TEST(a_kernel_that_refuses_edges_costs_nothing_else)
{
    on_both_desks(refuse_edges);
}

/* A receive from a Unix socket stops where descriptors were passed. */
static void stay_level(struct desk *desk)
{
    struct line line = {.desk = desk};
    int fds[2];

    open_sockets(fds);
    line.peer = fds[0];
    line.stream = add_stream(desk, fds[1], &line.witness);
    for (uint64_t i = 1; i <= 2 * SHORT_RECEIVES; i++) {
        say(&line, 1);
        expect_received(&line, i);
    }
    CHECK(!is_edge(&line));
    close_line(&line);
}

TEST(unix_sockets_stay_level_triggered)
{
    on_both_desks(stay_level);
}
