/* test_stream_timeout.c: idle and stalled streams end, neither early nor for ever.
 *
 * Ticks of a quarter of a second are made by hand; one case waits for the timer. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

enum { TICK_MS = 250 };

struct timed {
    struct desk *desk;
    struct witness witness;
    uint64_t stream;
    int peer;
};

static void open_timed(struct timed *timed, struct desk *desk, int64_t idle_ms,
                       int64_t stall_ms)
{
    struct fdmux_stream_options options;
    int fds[2];

    *timed = (struct timed){.desk = desk};
    options = options_for(desk, &timed->witness);
    options.idle_timeout_ns = idle_ms * MS;
    options.stall_timeout_ns = stall_ms * MS;
    open_sockets(fds);
    set_buffer(fds[0], SO_SNDBUF, 4096);
    timed->peer = fds[1];
    timed->stream = add_stream_with(desk, fds[0], &options);
}

static void tick(struct timed *timed, int count)
{
    for (int i = 0; i < count; i++) {
        fdmux__hub_tick(timed->desk->loop, 1);
        CHECK_EQ(serve(timed->desk), 0);
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
        CHECK_EQ(
            fdmux_stream_write(timed->desk->loop, timed->stream, bytes, sizeof bytes),
            0);
    while (queued(timed->desk, timed->stream) < 3000);
}

static void drain_peer(struct timed *timed)
{
    char bytes[1000];

    while (recv(timed->peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
}

/* ---- idle ---------------------------------------------------------------------- */

static void idle(struct desk *desk)
{
    struct timed timed;

    open_timed(&timed, desk, 4 * TICK_MS, 0);
    tick(&timed, 4);
    CHECK_EQ(timed.witness.destroyed, 0); /* never early */
    CHECK_EQ(send(timed.peer, "x", 1, 0), 1);
    CHECK_EQ(serve(desk), 0);
    tick(&timed, 4);
    CHECK_EQ(timed.witness.destroyed, 0); /* a byte in */
    CHECK_EQ(fdmux_stream_write(desk->loop, timed.stream, "x", 1), 0);
    tick(&timed, 4);
    CHECK_EQ(timed.witness.destroyed, 0); /* a byte out */
    tick(&timed, 1);
    expect_over(&timed);
    close_desk(desk);
}

TEST(an_idle_stream_ends_with_etimedout)
{
    on_both_desks(idle);
}

static void round_up(struct desk *desk)
{
    struct timed timed[2];

    open_timed(&timed[0], desk, 1, 0);
    open_timed(&timed[1], desk, TICK_MS + 1, 0);
    tick(&timed[0], 1);
    CHECK_EQ(timed[0].witness.destroyed, 0);
    tick(&timed[0], 1);
    expect_over(&timed[0]);
    CHECK_EQ(timed[1].witness.destroyed, 0);
    tick(&timed[1], 1);
    expect_over(&timed[1]);
    close_desk(desk);
}

TEST(timeouts_are_rounded_up_to_ticks)
{
    on_both_desks(round_up);
}

static void idle_with_queue(struct desk *desk)
{
    struct timed timed;

    open_timed(&timed, desk, 2 * TICK_MS, 0);
    fill_queue(&timed);
    tick(&timed, 2);
    CHECK_EQ(timed.witness.destroyed, 0);
    tick(&timed, 1);
    expect_over(&timed);
    close_desk(desk);
}

TEST(a_stream_whose_queue_does_not_move_is_idle_too)
{
    on_both_desks(idle_with_queue);
}

/* ---- stall --------------------------------------------------------------------- */

static void stall(struct desk *desk)
{
    struct timed timed;

    open_timed(&timed, desk, 0, 2 * TICK_MS);
    tick(&timed, 5);
    CHECK_EQ(timed.witness.destroyed, 0); /* nothing is queued */
    fill_queue(&timed);
    tick(&timed, 2);
    drain_peer(&timed);
    CHECK_EQ(serve(desk), 0); /* some is taken */
    CHECK(queued(desk, timed.stream) < 3000);
    fill_queue(&timed);
    tick(&timed, 2);
    CHECK_EQ(timed.witness.destroyed, 0);
    tick(&timed, 1);
    expect_over(&timed);
    close_desk(desk);
}

TEST(a_stalled_stream_ends_with_etimedout)
{
    on_both_desks(stall);
}

/* A peer that goes on sending, but takes nothing. */
static void stall_while_receiving(struct desk *desk)
{
    struct timed timed;

    open_timed(&timed, desk, 0, 3 * TICK_MS);
    fill_queue(&timed);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(send(timed.peer, "x", 1, 0), 1);
        CHECK_EQ(serve(desk), 0);
        tick(&timed, 1);
    }
    CHECK_EQ(timed.witness.received, 3);
    CHECK_EQ(timed.witness.destroyed, 0);
    tick(&timed, 1);
    expect_over(&timed);
    close_desk(desk);
}

TEST(what_a_stalled_peer_sends_does_not_help_it)
{
    on_both_desks(stall_while_receiving);
}

/* ---- the timer ----------------------------------------------------------------- */

static void nothing_ticks(struct desk *desk)
{
    struct timed timed[2];
    int64_t deadline_ns = 0;

    open_timed(&timed[0], desk, 0, 0);
    CHECK_EQ(fdmux_loop_next_deadline(desk->loop, &deadline_ns), 0);
    CHECK(deadline_ns == INT64_MAX); /* nobody waits: no timer wakes the loop */
    open_timed(&timed[1], desk, 60000, 0);
    CHECK_EQ(fdmux_loop_next_deadline(desk->loop, &deadline_ns), 0);
    CHECK(deadline_ns < fdmux_loop_now(desk->loop) + (TICK_MS + 1) * MS);
    CHECK_EQ(fdmux_stream_close(desk->loop, timed[1].stream, 0), 0);
    CHECK_EQ(serve(desk), 0);
    CHECK_EQ(fdmux_loop_next_deadline(desk->loop, &deadline_ns), 0);
    CHECK(deadline_ns == INT64_MAX);
    CHECK_EQ(close(timed[0].peer) + close(timed[1].peer), 0);
    close_desk(desk);
}

TEST(the_timer_runs_only_while_a_stream_needs_it)
{
    on_both_desks(nothing_ticks);
}

SLOW_TEST(the_timer_makes_the_ticks)
{
    struct desk desk;
    struct timed timed;
    int64_t start_ns;

    open_desk(&desk, true, RECORDS_MIN, ARENA_MIN);
    start_ns = fdmux_loop_now(desk.loop);
    open_timed(&timed, &desk, 1, 0);
    serve_until(&desk, &timed.witness.destroyed, 1);
    CHECK(fdmux_loop_now(desk.loop) - start_ns >= TICK_MS * MS);
    expect_over(&timed);
    close_desk(&desk);
}
