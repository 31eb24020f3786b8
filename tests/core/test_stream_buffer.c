/* test_stream_buffer.c: a stream receives into the memory that its buffer function
 * names, at most as much as it asks for; the rest stays in the kernel. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

enum { ROOM = 300000, RECEIVE_DEFAULT = 65536, RECEIVE_MAX = 262144 };

/* A stream with a buffer function, and its peer. */
struct taker {
    struct fdmux_loop *loop;
    struct witness witness;
    uint64_t stream;
    int peer;
    int asked; /* calls of its buffer function */
    size_t size; /* the size that it asks for */
    int result; /* its result */
    int (*action)(struct taker *taker); /* called by the buffer function; may be NULL */
    bool is_elsewhere; /* a DATA event was outside of its buffer */
    unsigned char buffer[ROOM];
};

static int name_buffer(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                       size_t *ret_size, void *userdata)
{
    struct taker *taker = ((struct witness *)userdata)->extra;

    CHECK(loop == taker->loop);
    CHECK(stream == taker->stream);
    taker->asked++;
    *ret_buffer = taker->buffer;
    *ret_size = taker->size;
    return taker->action == NULL ? taker->result : taker->action(taker);
}

static int check_place(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct taker *taker = witness->extra;

    if (event->kind == FDMUX_STREAM_DATA && event->data != taker->buffer)
        taker->is_elsewhere = true;
    return 0;
}

static struct fdmux_stream_options prepare(struct taker *taker, size_t size)
{
    struct fdmux_stream_options options;

    memset(taker, 0, sizeof *taker);
    taker->loop = check_open_loop();
    taker->size = size;
    taker->witness.extra = taker;
    taker->witness.reaction = check_place;
    options = options_for(taker->loop, &taker->witness);
    options.buffer_fn = name_buffer;
    return options;
}

static void open_with(struct taker *taker, const struct fdmux_stream_options *options,
                      const int fds[2])
{
    taker->peer = fds[0];
    taker->stream = add_stream_with(taker->loop, fds[1], options);
}

static void open_taker(struct taker *taker, size_t size)
{
    struct fdmux_stream_options options = prepare(taker, size);
    int fds[2];

    open_sockets(fds);
    open_with(taker, &options, fds);
}

static void close_taker(struct taker *taker)
{
    fdmux_loop_destroy(taker->loop);
    CHECK_EQ(taker->witness.destroyed, 1);
    CHECK(!taker->is_elsewhere);
    CHECK_EQ(close(taker->peer), 0);
}

static void say(const struct taker *taker, const char *bytes)
{
    size_t length = strlen(bytes);

    CHECK_EQ(send(taker->peer, bytes, length, 0), (long)length);
}

static void serve_times(struct taker *taker, int times)
{
    for (int i = 0; i < times; i++)
        CHECK_EQ(serve(taker->loop), 0);
}

/* ---- how much ------------------------------------------------------------------ */

TEST(stream_receives_exactly_what_it_asks_for)
{
    static struct taker taker;

    open_taker(&taker, 4);
    say(&taker, "0123456789");
    serve_times(&taker, 1);
    CHECK_EQ(taker.witness.received, 4);
    CHECK(memcmp(taker.buffer, "0123", 4) == 0);
    serve_times(&taker, 1);
    CHECK_EQ(taker.witness.received, 8);
    CHECK(memcmp(taker.buffer, "4567", 4) == 0);
    serve_times(&taker, 1);
    CHECK_EQ(taker.witness.received, 10);
    CHECK_EQ(taker.witness.counts[FDMUX_STREAM_DATA], 3);
    CHECK_EQ(taker.asked, 3); /* before each receive */
    serve_times(&taker, 1);
    CHECK_EQ(taker.asked, 3); /* only when there is something to receive */
    close_taker(&taker);
}

TEST(size_may_change_from_one_receive_to_the_next)
{
    static struct taker taker;

    open_taker(&taker, 1);
    say(&taker, "abcdefghij");
    for (uint64_t total = 1; total <= 10; total += taker.size) {
        serve_times(&taker, 1);
        CHECK_EQ(taker.witness.received, total);
        taker.size++;
    }
    serve_times(&taker, 1);
    CHECK_EQ(taker.witness.received, 10);
    close_taker(&taker);
}

TEST(size_of_zero_receives_nothing_this_time)
{
    static struct taker taker;

    open_taker(&taker, 0);
    say(&taker, "later");
    serve_times(&taker, 3);
    CHECK_EQ(taker.asked, 3); /* it is still readable */
    CHECK_EQ(taker.witness.last_kind, 0);
    taker.size = sizeof taker.buffer;
    serve_times(&taker, 1);
    CHECK_EQ(taker.witness.received, 5);
    close_taker(&taker);
}

static void feed_much(const struct taker *taker)
{
    static unsigned char bytes[ROOM];
    ssize_t sent;

    set_buffer(taker->peer, SO_SNDBUF, ROOM);
    sent = send(taker->peer, bytes, sizeof bytes, MSG_DONTWAIT);
    CHECK(sent > RECEIVE_DEFAULT);
}

TEST(more_than_receive_max_is_bounded)
{
    static struct taker taker;
    struct fdmux_stream_options options = prepare(&taker, SIZE_MAX);
    int fds[2];

    open_sockets(fds);
    options.receive_max = 100;
    open_with(&taker, &options, fds);
    feed_much(&taker);
    serve_times(&taker, 3);
    CHECK_EQ(taker.witness.largest, 100);
    CHECK_EQ(taker.witness.received, 300);
    close_taker(&taker);
}

TEST(receive_max_is_64_kib_by_default_and_may_be_256)
{
    static const uint32_t maxima[] = {0, RECEIVE_MAX};
    static struct taker taker;

    for (int i = 0; i < 2; i++) {
        struct fdmux_stream_options options = prepare(&taker, sizeof taker.buffer);
        int fds[2];

        open_sockets(fds);
        options.receive_max = maxima[i];
        open_with(&taker, &options, fds);
        feed_much(&taker);
        serve_times(&taker, 1);
        if (i == 0)
            CHECK_EQ(taker.witness.received, RECEIVE_DEFAULT);
        else
            CHECK(taker.witness.received > RECEIVE_DEFAULT &&
                  taker.witness.received <= RECEIVE_MAX);
        close_taker(&taker);
    }
}

/* ---- ends ---------------------------------------------------------------------- */

TEST(end_of_the_peer_comes_behind_the_bytes)
{
    static struct taker taker;

    open_taker(&taker, 4);
    say(&taker, "last words");
    CHECK_EQ(shutdown(taker.peer, SHUT_WR), 0);
    serve_until(taker.loop, &taker.witness.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(taker.witness.received, 10);
    CHECK_EQ(taker.witness.counts[FDMUX_STREAM_DATA], 3);
    close_taker(&taker);
}

/* recv(2): EFAULT. */
TEST(invalid_buffer_ends_the_stream)
{
    static struct taker taker;
    struct fdmux_stream_options options = prepare(&taker, 1);
    int fds[2];

    open_sockets(fds);
    open_with(&taker, &options, fds);
    say(&taker, "x");
    fdmux_testing_fail(FDMUX_CALL_RECV, 1, EFAULT, 0);
    serve_times(&taker, 1);
    CHECK_EQ(taker.witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(taker.witness.error, EFAULT);
    close_taker(&taker);
}

/* ---- what a buffer function may do --------------------------------------------- */

static int pause_stream(struct taker *taker)
{
    CHECK_EQ(fdmux_stream_pause(taker->loop, taker->stream), 0);
    return 0;
}

TEST(stream_that_pauses_as_it_is_asked_receives_nothing)
{
    static struct taker taker;

    open_taker(&taker, 100);
    taker.action = pause_stream;
    say(&taker, "bytes");
    serve_times(&taker, 3);
    CHECK_EQ(taker.asked, 1);
    CHECK_EQ(taker.witness.last_kind, 0);
    taker.action = NULL;
    CHECK_EQ(fdmux_stream_resume(taker.loop, taker.stream), 0);
    serve_times(&taker, 1);
    CHECK_EQ(taker.witness.received, 5);
    close_taker(&taker);
}

static int close_stream(struct taker *taker)
{
    CHECK_EQ(fdmux_stream_close(taker->loop, taker->stream, 0), 0);
    return 0;
}

static int drop_stream(struct taker *taker)
{
    CHECK_EQ(fdmux_stream_close(taker->loop, taker->stream, FDMUX_STREAM_DROP), 0);
    return 0;
}

TEST(stream_that_closes_as_it_is_asked_receives_nothing)
{
    static struct taker taker;

    for (int i = 0; i < 2; i++) {
        open_taker(&taker, 100);
        taker.action = i == 0 ? close_stream : drop_stream;
        say(&taker, "bytes");
        serve_times(&taker, 1);
        CHECK_EQ(taker.asked, 1);
        CHECK_EQ(taker.witness.counts[FDMUX_STREAM_DATA], 0);
        CHECK_EQ(taker.witness.counts[FDMUX_STREAM_CLOSED], 1);
        CHECK_EQ(taker.witness.destroyed, 1);
        close_taker(&taker);
    }
}

static int destroy_loop(struct taker *taker)
{
    fdmux_loop_destroy(taker->loop);
    return 0;
}

TEST(stream_may_destroy_the_loop_as_it_is_asked)
{
    static struct taker taker;

    open_taker(&taker, 100);
    taker.action = destroy_loop;
    say(&taker, "bytes");
    CHECK_EQ(fdmux_loop_dispatch(taker.loop, 0, NULL, 0), -ESTALE);
    CHECK_EQ(taker.witness.counts[FDMUX_STREAM_DATA], 0);
    CHECK_EQ(taker.witness.error, ESTALE);
    CHECK_EQ(taker.witness.destroyed, 1);
    CHECK_EQ(close(taker.peer), 0);
}

TEST(negative_result_ends_the_batch_and_loses_nothing)
{
    static struct taker taker;

    open_taker(&taker, 100);
    taker.result = -7;
    say(&taker, "bytes");
    for (int i = 1; i <= 3; i++) {
        CHECK_EQ(serve(taker.loop), -7);
        CHECK_EQ(taker.asked, i);
        CHECK_EQ(taker.witness.last_kind, 0);
    }
    taker.result = 0;
    serve_times(&taker, 1);
    CHECK_EQ(taker.witness.received, 5);
    close_taker(&taker);
}

/* ---- edges --------------------------------------------------------------------- */

enum { SHORT_RECEIVES = 8 };

/* Open a TCP stream that made enough short receives to be watched edge-triggered. */
static void open_edge_taker(struct taker *taker)
{
    struct fdmux_stream_options options = prepare(taker, 100);
    int fds[2];

    open_tcp_sockets(fds);
    open_with(taker, &options, fds);
    for (int i = 1; i <= SHORT_RECEIVES; i++) {
        say(taker, "x");
        serve_until(taker->loop, &taker->witness.counts[FDMUX_STREAM_DATA], i);
    }
}

static bool is_edge(const struct taker *taker)
{
    const struct fdmux__hub *hub = taker->loop->extensions[FDMUX__STREAMS].data;

    return (fdmux__hub_at(hub, fdmux__token_slot(taker->stream))->interest &
            FDMUX_EDGE) != 0;
}

static void serve_until_asked(struct taker *taker, int result)
{
    int before = taker->asked;

    wait_until_readable(fdmux_stream_fd(taker->loop, taker->stream));
    for (int i = 0; i < 100 && taker->asked == before; i++)
        CHECK_EQ(serve(taker->loop), result);
    CHECK_EQ(taker->asked, before + 1);
}

EDGE_TEST(edge_that_is_not_received_is_reported_again)
{
    static struct taker taker;

    open_edge_taker(&taker);
    CHECK(is_edge(&taker));
    taker.size = 0;
    say(&taker, "bytes");
    serve_until_asked(&taker, 0);
    taker.size = 100;
    serve_times(&taker, 2);
    CHECK_EQ(taker.witness.received, SHORT_RECEIVES + 5);
    close_taker(&taker);
}

EDGE_TEST(edge_behind_a_negative_result_is_reported_again)
{
    static struct taker taker;

    open_edge_taker(&taker);
    CHECK(is_edge(&taker));
    taker.result = -7;
    say(&taker, "bytes");
    serve_until_asked(&taker, -7);
    taker.result = 0;
    serve_times(&taker, 2);
    CHECK_EQ(taker.witness.received, SHORT_RECEIVES + 5);
    close_taker(&taker);
}

EDGE_TEST(edge_of_a_stream_that_pauses_as_it_is_asked_comes_after_the_pause)
{
    static struct taker taker;

    open_edge_taker(&taker);
    taker.action = pause_stream;
    say(&taker, "bytes");
    serve_until_asked(&taker, 0);
    taker.action = NULL;
    CHECK_EQ(fdmux_stream_resume(taker.loop, taker.stream), 0);
    serve_times(&taker, 2);
    CHECK_EQ(taker.witness.received, SHORT_RECEIVES + 5);
    close_taker(&taker);
}

/* If the buffer was filled, more bytes may be waiting. */
EDGE_TEST(edge_that_fills_the_buffer_is_reported_again)
{
    static struct taker taker;

    open_edge_taker(&taker);
    taker.size = 3;
    say(&taker, "0123456789");
    serve_until_asked(&taker, 0);
    serve_times(&taker, 5);
    CHECK_EQ(taker.witness.received, SHORT_RECEIVES + 10);
    close_taker(&taker);
}

/* ---- accepted streams ---------------------------------------------------------- */

static int name_common_buffer(struct fdmux_loop *loop, uint64_t stream,
                              void **ret_buffer, size_t *ret_size, void *userdata)
{
    static char buffer[4];

    (void)loop;
    CHECK(stream == ((struct witness *)userdata)->token);
    *ret_buffer = buffer;
    *ret_size = sizeof buffer;
    return 0;
}

TEST(accepted_stream_has_the_buffer_function_of_its_listener)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {.reaction = echo};
    struct fdmux_stream_options options = options_for(loop, &server);
    uint16_t port;
    int client;

    options.buffer_fn = name_common_buffer;
    (void)listen_on_loopback(loop, &options, &port);
    client = connect_client(port);
    CHECK_EQ(send(client, "hello", 5, 0), 5);
    serve_until(loop, &server.counts[FDMUX_STREAM_DATA], 2);
    CHECK_EQ(server.received, 5);
    CHECK_EQ(server.largest, 4);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(client), 0);
}
