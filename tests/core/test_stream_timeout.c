/* test_stream_timeout.c: idle and stalled streams end, neither early nor late.
 *
 * Most cases call the quarter-second tick themselves; one case waits for the timer. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

enum { TICK_MS = 250 };

struct timed {
    struct fdmux_loop *loop;
    struct witness witness;
    uint64_t stream;
    int peer;
};

static void open_timed(struct timed *timed, struct fdmux_loop *loop, int64_t idle_ms,
                       int64_t stall_ms)
{
    struct fdmux_stream_options options;
    int fds[2];

    *timed = (struct timed){.loop = loop};
    options = options_for(loop, &timed->witness);
    options.idle_timeout_ns = idle_ms * MS;
    options.stall_timeout_ns = stall_ms * MS;
    open_sockets(fds);
    set_buffer(fds[0], SO_SNDBUF, 4096);
    timed->peer = fds[1];
    timed->stream = add_stream_with(loop, fds[0], &options);
}

static void tick(struct timed *timed, int count)
{
    for (int i = 0; i < count; i++) {
        fdmux__hub_tick(timed->loop, 1);
        CHECK_EQ(serve(timed->loop), 0);
    }
}

static void expect_over(struct timed *timed)
{
    CHECK_EQ(timed->witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(timed->witness.destroyed, 1);
    CHECK_EQ(timed->witness.error, ETIMEDOUT);
    CHECK_EQ(close(timed->peer), 0);
}

static void fill_queue(struct timed *timed)
{
    static unsigned char bytes[1000];

    do
        CHECK_EQ(fdmux_stream_write(timed->loop, timed->stream, bytes, sizeof bytes),
                 0);
    while (queued(timed->loop, timed->stream) < 3000);
}

static void drain_peer(struct timed *timed)
{
    char bytes[1000];

    while (recv(timed->peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
}

/* ---- idle ---------------------------------------------------------------------- */

TEST(an_idle_stream_ends_with_etimedout)
{
    struct fdmux_loop *loop = check_open_loop();
    struct timed timed;

    open_timed(&timed, loop, 4 * TICK_MS, 0);
    tick(&timed, 4);
    CHECK_EQ(timed.witness.destroyed, 0); /* never early */
    CHECK_EQ(send(timed.peer, "x", 1, 0), 1);
    CHECK_EQ(serve(loop), 0);
    tick(&timed, 4);
    CHECK_EQ(timed.witness.destroyed, 0); /* a received byte resets it */
    CHECK_EQ(fdmux_stream_write(loop, timed.stream, "x", 1), 0);
    tick(&timed, 4);
    CHECK_EQ(timed.witness.destroyed, 0); /* a sent byte resets it */
    tick(&timed, 1);
    expect_over(&timed);
    fdmux_loop_destroy(loop);
}

TEST(timeouts_are_rounded_up_to_ticks)
{
    struct fdmux_loop *loop = check_open_loop();
    struct timed timed[2];

    open_timed(&timed[0], loop, 1, 0);
    open_timed(&timed[1], loop, TICK_MS + 1, 0);
    tick(&timed[0], 1);
    CHECK_EQ(timed[0].witness.destroyed, 0);
    tick(&timed[0], 1);
    expect_over(&timed[0]);
    CHECK_EQ(timed[1].witness.destroyed, 0);
    tick(&timed[1], 1);
    expect_over(&timed[1]);
    fdmux_loop_destroy(loop);
}

TEST(a_stream_whose_queue_does_not_move_is_idle_too)
{
    struct fdmux_loop *loop = check_open_loop();
    struct timed timed;

    open_timed(&timed, loop, 2 * TICK_MS, 0);
    fill_queue(&timed);
    tick(&timed, 2);
    CHECK_EQ(timed.witness.destroyed, 0);
    tick(&timed, 1);
    expect_over(&timed);
    fdmux_loop_destroy(loop);
}

/* The timeouts of a listener apply to the streams that it accepts. */
TEST(a_listener_is_never_idle)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    int client;

    options.idle_timeout_ns = options.stall_timeout_ns = TICK_MS * MS;
    (void)listen_on_loopback(loop, &options, &port);
    client = connect_client(port);
    serve_until(loop, &server.counts[FDMUX_STREAM_ACCEPTED], 1);
    fdmux__hub_tick(loop, 2);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(server.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(server.error, ETIMEDOUT);
    fdmux__hub_tick(loop, 10);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(server.destroyed, 0); /* the listener is open */
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(client), 0);
}

/* ---- stall --------------------------------------------------------------------- */

TEST(a_stalled_stream_ends_with_etimedout)
{
    struct fdmux_loop *loop = check_open_loop();
    struct timed timed;

    open_timed(&timed, loop, 0, 2 * TICK_MS);
    tick(&timed, 5);
    CHECK_EQ(timed.witness.destroyed, 0); /* nothing is queued */
    fill_queue(&timed);
    tick(&timed, 2);
    drain_peer(&timed);
    CHECK_EQ(serve(loop), 0); /* the peer takes some bytes */
    CHECK(queued(loop, timed.stream) < 3000);
    fill_queue(&timed);
    tick(&timed, 2);
    CHECK_EQ(timed.witness.destroyed, 0);
    tick(&timed, 1);
    expect_over(&timed);
    fdmux_loop_destroy(loop);
}

/* The peer keeps sending but reads nothing. */
TEST(received_bytes_do_not_reset_the_stall_timeout)
{
    struct fdmux_loop *loop = check_open_loop();
    struct timed timed;

    open_timed(&timed, loop, 0, 3 * TICK_MS);
    fill_queue(&timed);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(send(timed.peer, "x", 1, 0), 1);
        CHECK_EQ(serve(loop), 0);
        tick(&timed, 1);
    }
    CHECK_EQ(timed.witness.received, 3);
    CHECK_EQ(timed.witness.destroyed, 0);
    tick(&timed, 1);
    expect_over(&timed);
    fdmux_loop_destroy(loop);
}

/* ---- the timer ----------------------------------------------------------------- */

TEST(the_timer_runs_only_while_a_stream_needs_it)
{
    struct fdmux_loop *loop = check_open_loop();
    struct timed timed[2];
    int64_t deadline_ns = 0;

    open_timed(&timed[0], loop, 0, 0);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK(deadline_ns == INT64_MAX); /* no stream needs it: no timer is armed */
    open_timed(&timed[1], loop, 60000, 0);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK(deadline_ns < fdmux_loop_now(loop) + (TICK_MS + 1) * MS);
    CHECK_EQ(fdmux_stream_close(loop, timed[1].stream, 0), 0);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(fdmux_loop_next_deadline(loop, &deadline_ns), 0);
    CHECK(deadline_ns == INT64_MAX);
    CHECK_EQ(close(timed[0].peer) + close(timed[1].peer), 0);
    fdmux_loop_destroy(loop);
}

SLOW_TEST(the_timer_makes_the_ticks)
{
    struct fdmux_loop *loop = check_open_loop();
    struct timed timed;
    int64_t start_ns;

    start_ns = fdmux_loop_now(loop);
    open_timed(&timed, loop, 1, 0);
    serve_until(loop, &timed.witness.destroyed, 1);
    CHECK(fdmux_loop_now(loop) - start_ns >= TICK_MS * MS);
    expect_over(&timed);
    fdmux_loop_destroy(loop);
}
