/* test_hold_kinds.c: every kind of function may take a hold, also while a loop ends. */
#include "hold_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

#include "loop.h"
#include "stream_fixtures.h"

/* ---- every kind of function ---------------------------------------------------- */

TEST(hooks_hold)
{
    struct fdmux_loop *loop = check_open_loop();

    for (int i = 0; i < 2; i++)
        (void)add_hook_with(loop, hold_in_timer, &hold_a);
    post_holding(loop, &hold_a);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("a..Aa.A"); /* the loop waits between hooks and the rest */
    fdmux_loop_destroy(loop);
}

SET_TEST(hooks_that_run_before_a_host_waits_hold)
{
    struct fdmux_loop *loop = check_open_loop();

    CHECK(fdmux_loop_fd(loop) >= 0);
    (void)add_hook_with(loop, hold_in_timer, &hold_a);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("a.Aa.A");
    fdmux_loop_destroy(loop);
}

TEST(timers_hold)
{
    struct fdmux_loop *loop = check_open_loop();

    for (int i = 0; i < 2; i++)
        arm_holding(loop, &hold_a);
    CHECK_EQ(poll_once(loop), 0);
    EXPECT("a..A");
    fdmux_loop_destroy(loop);
}

static int hold_in_stream(struct fdmux_loop *loop,
                          const struct fdmux_stream_event *event, void *hold)
{
    (void)event;
    return hold_and_note(loop, hold);
}

static int hold_and_name(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                         size_t *ret_size, void *userdata)
{
    static char buffer[16];

    (void)stream;
    *ret_buffer = buffer;
    *ret_size = sizeof buffer;
    return hold_and_note(loop, userdata);
}

static uint64_t add_holding_stream(struct fdmux_loop *loop, int fd,
                                   fdmux_stream_buffer_fn buffer_fn)
{
    struct fdmux_stream_options options = {.struct_size = sizeof options,
                                           .fn = hold_in_stream,
                                           .buffer_fn = buffer_fn,
                                           .userdata = &hold_a};

    return add_stream_with(loop, fd, &options);
}

TEST(functions_of_streams_hold)
{
    struct fdmux_loop *loop = check_open_loop();
    uint64_t streams[2];
    int fds[2][2];

    for (int i = 0; i < 2; i++) {
        open_sockets(fds[i]);
        streams[i] = add_holding_stream(loop, fds[i][0], i == 0 ? NULL : hold_and_name);
        CHECK_EQ(send(fds[i][1], "x", 1, 0), 1);
    }
    CHECK_EQ(serve(loop), 0);
    EXPECT("a...A"); /* two events, and the buffer function */
    for (int i = 0; i < 2; i++)
        CHECK_EQ(fdmux_stream_close(loop, streams[i], 0), 0);
    CHECK_EQ(serve(loop), 0);
    EXPECT("a..A"); /* CLOSED */
    fdmux_loop_destroy(loop);
    EXPECT("");
    CHECK_EQ(close(fds[0][1]) | close(fds[1][1]), 0);
}

/* ---- the end of the loop ------------------------------------------------------- */

static void open_streams(struct fdmux_loop *loop, int ret_peers[2])
{
    int fds[2];

    for (int i = 0; i < 2; i++) {
        open_sockets(fds);
        (void)add_holding_stream(loop, fds[0], NULL);
        ret_peers[i] = fds[1];
    }
}

TEST(streams_of_a_loop_that_is_destroyed_outside_of_a_dispatch_hold)
{
    struct fdmux_loop *loop = check_open_loop();
    int peers[2];

    open_streams(loop, peers);
    fdmux_loop_destroy(loop);
    EXPECT("a..A");
    CHECK_EQ(close(peers[0]) | close(peers[1]), 0);
}

/* As a binding does: the loop is closed and its memory stays. */
TEST(streams_of_a_loop_that_is_closed_outside_of_a_dispatch_hold)
{
    struct fdmux_loop *loop = check_open_loop();
    int peers[2];

    open_streams(loop, peers);
    CHECK_EQ(fdmux__loop_close(loop), 0);
    EXPECT("a..A");
    CHECK_EQ(fdmux_loop_hold(loop, &hold_a), -ESTALE);
    fdmux_loop_destroy(loop);
    EXPECT("");
    CHECK_EQ(close(peers[0]) | close(peers[1]), 0);
}

static int end_loop(struct fdmux_loop *loop, void *userdata)
{
    const bool *is_closed = userdata;

    (void)hold_and_note(loop, &hold_b);
    if (*is_closed)
        CHECK_EQ(fdmux__loop_close(loop), 0);
    else
        fdmux_loop_destroy(loop);
    return hold_and_note(loop, &hold_b); /* still works */
}

static void end_inside(bool is_closed)
{
    struct fdmux_loop *loop = check_open_loop();
    int peers[2];

    open_streams(loop, peers);
    CHECK_EQ(fdmux_post(loop, end_loop, &is_closed), 0);
    CHECK_EQ(poll_once(loop), -ESTALE);
    EXPECT("b..Ba..A"); /* the batch ends before the loop does */
    if (is_closed)
        fdmux_loop_destroy(loop);
    CHECK_EQ(close(peers[0]) | close(peers[1]), 0);
}

TEST(streams_of_a_loop_that_its_function_destroys_hold)
{
    end_inside(false);
}

TEST(streams_of_a_loop_that_its_function_closes_hold)
{
    end_inside(true);
}
