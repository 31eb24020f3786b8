/* test_stream_handler.c: a stream may get its own functions and userdata; the old
 * `destroyed` is called once. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

static struct fdmux_stream_handler handler_for(struct fdmux_loop *loop,
                                               struct witness *witness)
{
    witness->loop = loop;
    return (struct fdmux_stream_handler){
        .struct_size = sizeof(struct fdmux_stream_handler),
        .fn = note_event,
        .userdata = witness,
        .destroyed = note_destroyed,
    };
}

static void count_end(void *userdata)
{
    ((struct witness *)userdata)->destroyed++; /* no CLOSED comes before */
}

static void give(struct fdmux_loop *loop, uint64_t stream, struct witness *witness)
{
    struct fdmux_stream_handler handler = handler_for(loop, witness);

    CHECK_EQ(fdmux_stream_set_handler(loop, stream, &handler), 0);
}

/* Open a stream whose `destroyed` is counted, also when its handler is replaced. */
static uint64_t open_stream(struct fdmux_loop *loop, struct witness *witness,
                            int *ret_peer)
{
    struct fdmux_stream_options options = options_for(loop, witness);
    int fds[2];

    options.destroyed = count_end;
    open_sockets(fds);
    *ret_peer = fds[1];
    return add_stream_with(loop, fds[0], &options);
}

/* ---- accepted streams ---------------------------------------------------------- */

enum { CLIENTS = 3 };

static int give_own(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct witness *sessions = witness->extra;

    if (event->kind == FDMUX_STREAM_ACCEPTED)
        give(witness->loop, event->stream,
             &sessions[witness->counts[FDMUX_STREAM_ACCEPTED] - 1]);
    return 0;
}

TEST(accepted_streams_get_handlers_of_their_own)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness sessions[CLIENTS] = {{.reaction = echo}, {0}, {0}};
    struct witness server = {.reaction = give_own, .extra = sessions};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    int clients[CLIENTS];

    (void)listen_on_loopback(loop, &options, &port);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connect_client(port);
        CHECK_EQ(send(clients[i], "hello", 5, 0), 5);
    }
    for (int i = 0; i < CLIENTS; i++) {
        serve_until(loop, &sessions[i].counts[FDMUX_STREAM_DATA], 1);
        CHECK_EQ(sessions[i].received, 5);
    }
    expect_bytes(clients[0], "hello");
    CHECK_EQ(server.destroyed, 0); /* the listener is still open */
    for (int i = 0; i < CLIENTS; i++) {
        CHECK_EQ(close(clients[i]), 0);
        serve_until(loop, &sessions[i].counts[FDMUX_STREAM_END], 1);
        CHECK_EQ(sessions[i].destroyed, 0);
    }
    fdmux_loop_destroy(loop);
    CHECK_EQ(server.counts[FDMUX_STREAM_DATA] + server.counts[FDMUX_STREAM_END], 0);
    CHECK_EQ(server.destroyed, 1);
    for (int i = 0; i < CLIENTS; i++)
        CHECK_EQ(sessions[i].destroyed, 1);
}

TEST(new_handler_of_a_listener_applies_to_streams_accepted_later)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness before = {0}, after = {0};
    struct fdmux_stream_options options = options_for(loop, &before);
    uint16_t port;
    uint64_t listener;
    int clients[2];

    options.destroyed = count_end;
    listener = listen_on_loopback(loop, &options, &port);
    clients[0] = connect_client(port);
    serve_until(loop, &before.counts[FDMUX_STREAM_ACCEPTED], 1);
    give(loop, listener, &after);
    CHECK_EQ(before.destroyed, 1);
    clients[1] = connect_client(port);
    serve_until(loop, &after.counts[FDMUX_STREAM_ACCEPTED], 1);
    CHECK_EQ(send(clients[0], "x", 1, 0), 1);
    CHECK_EQ(send(clients[1], "yz", 2, 0), 2);
    serve_until(loop, &before.counts[FDMUX_STREAM_DATA], 1);
    serve_until(loop, &after.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(before.received, 1); /* accepted before: unchanged */
    CHECK_EQ(after.received, 2);
    fdmux_loop_destroy(loop);
    CHECK_EQ(before.destroyed, 1);
    CHECK_EQ(after.destroyed, 1);
    CHECK_EQ(close(clients[0]) | close(clients[1]), 0);
}

/* ---- the old handler ----------------------------------------------------------- */

TEST(old_destroyed_is_called_once_and_before_set_handler_returns)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness before = {0}, after = {0};
    int peer;
    uint64_t stream = open_stream(loop, &before, &peer);

    give(loop, stream, &after);
    CHECK_EQ(before.destroyed, 1);
    CHECK_EQ(send(peer, "x", 1, 0), 1);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(before.last_kind, 0);
    CHECK_EQ(after.received, 1);
    CHECK_EQ(fdmux_stream_close(loop, stream, 0), 0);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(before.destroyed, 1);
    CHECK_EQ(after.destroyed, 1);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(peer), 0);
}

TEST(destroyed_that_stays_the_same_is_not_called)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_handler handler = handler_for(loop, &witness);
    int peer;
    uint64_t stream = open_stream(loop, &witness, &peer);

    handler.destroyed = count_end;
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fdmux_stream_set_handler(loop, stream, &handler), 0);
    CHECK_EQ(witness.destroyed, 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(witness.destroyed, 1);
    CHECK_EQ(close(peer), 0);
}

TEST(same_destroyed_with_other_userdata_is_called_for_the_old)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witnesses[2] = {{0}};
    struct fdmux_stream_handler handler = handler_for(loop, &witnesses[1]);
    int peer;
    uint64_t stream = open_stream(loop, &witnesses[0], &peer);

    handler.destroyed = count_end;
    CHECK_EQ(fdmux_stream_set_handler(loop, stream, &handler), 0);
    CHECK_EQ(witnesses[0].destroyed, 1);
    CHECK_EQ(witnesses[1].destroyed, 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(witnesses[0].destroyed, 1);
    CHECK_EQ(witnesses[1].destroyed, 1);
    CHECK_EQ(close(peer), 0);
}

TEST(handler_without_destroyed_gives_the_old_one_back)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness before = {0}, after = {0};
    struct fdmux_stream_handler handler = handler_for(loop, &after);
    int peer;
    uint64_t stream = open_stream(loop, &before, &peer);

    handler.destroyed = NULL;
    CHECK_EQ(fdmux_stream_set_handler(loop, stream, &handler), 0);
    CHECK_EQ(before.destroyed, 1);
    fdmux_loop_destroy(loop);
    CHECK_EQ(before.destroyed, 1);
    CHECK_EQ(after.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(after.destroyed, 0);
    CHECK_EQ(close(peer), 0);
}

/* ---- inside the stream's own functions ----------------------------------------- */

static int hand_over(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct witness *next = witness->extra;

    if (next != NULL)
        give(witness->loop, event->stream, next);
    return 0;
}

TEST(handler_set_in_a_function_gets_the_next_event)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness last = {0};
    struct witness second = {.reaction = hand_over, .extra = &last};
    struct witness first = {.reaction = hand_over, .extra = &second};
    int peer;

    (void)open_stream(loop, &first, &peer);
    second.counts[FDMUX_STREAM_CLOSED] = 1; /* it gets no CLOSED itself */
    CHECK_EQ(send(peer, "x", 1, 0), 1);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(first.received, 1);
    CHECK_EQ(first.destroyed, 1);
    CHECK_EQ(close(peer), 0);
    serve_until(loop, &second.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(second.destroyed, 1);
    CHECK_EQ(last.last_kind, 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(last.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(last.destroyed, 1);
}

/* The new handler gets `destroyed`, although the old one got CLOSED. */
TEST(handler_set_in_closed_is_the_one_that_is_destroyed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness after = {0};
    struct witness before = {.reaction = hand_over, .extra = &after};
    int peer;
    uint64_t stream = open_stream(loop, &before, &peer);

    after.counts[FDMUX_STREAM_CLOSED] = 1;
    CHECK_EQ(fdmux_stream_close(loop, stream, 0), 0);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(before.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(before.destroyed, 1);
    CHECK_EQ(after.destroyed, 1);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(peer), 0);
}

/* ---- with a buffer function ---------------------------------------------------- */

static int name_buffer(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                       size_t *ret_size, void *userdata)
{
    struct witness *witness = userdata;
    static char buffer[2];

    *ret_buffer = buffer;
    *ret_size = sizeof buffer;
    if (witness->extra != NULL)
        give(loop, stream, witness->extra);
    return 0;
}

TEST(buffer_function_comes_and_goes_with_the_handler)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_handler handler = handler_for(loop, &witness);
    int peer;
    uint64_t stream = open_stream(loop, &witness, &peer);

    handler.destroyed = count_end;
    for (int i = 0; i < 2; i++) {
        handler.buffer_fn = i == 0 ? name_buffer : NULL;
        CHECK_EQ(fdmux_stream_set_handler(loop, stream, &handler), 0);
        CHECK_EQ(send(peer, "abcd", 4, 0), 4);
        serve_all(loop);
        CHECK_EQ(witness.largest, i == 0 ? 2 : 4);
        CHECK_EQ(witness.counts[FDMUX_STREAM_DATA], i == 0 ? 2 : 3);
    }
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(peer), 0);
}

TEST(handler_set_in_a_buffer_function_gets_the_data)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness after = {0};
    struct witness before = {.extra = &after};
    struct fdmux_stream_options options = options_for(loop, &before);
    int fds[2];

    options.buffer_fn = name_buffer;
    options.destroyed = count_end;
    open_sockets(fds);
    (void)add_stream_with(loop, fds[0], &options);
    CHECK_EQ(send(fds[1], "ab", 2, 0), 2);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(before.last_kind, 0);
    CHECK_EQ(before.destroyed, 1);
    CHECK_EQ(after.received, 2);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
}
