/* test_stream_borrow.c: a stream never closes a borrowed descriptor, and the caller may
 * reuse it as soon as the stream has given it up. */
#include "stream_fixtures.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* A stream on a borrowed socket, and its peer. */
struct loan {
    struct fdmux_loop *loop;
    struct witness witness;
    uint64_t stream;
    int fd;
    int peer;
};

static void borrow(struct loan *loan, struct fdmux_loop *loop, const int fds[2])
{
    struct fdmux_stream_options options = options_for(loop, &loan->witness);

    loan->loop = loop;
    loan->fd = fds[0];
    loan->peer = fds[1];
    options.flags = FDMUX_STREAM_BORROW;
    loan->stream = add_stream_with(loop, loan->fd, &options);
}

static void open_loan(struct loan *loan, struct fdmux_loop *loop)
{
    int fds[2];

    open_sockets(fds);
    borrow(loan, loop, fds);
}

static void close_loan(struct loan *loan)
{
    CHECK_EQ(loan->witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(loan->witness.destroyed, 1);
    CHECK(is_open(loan->fd));
    CHECK_EQ(close(loan->fd), 0);
    CHECK_EQ(close(loan->peer), 0);
}

static void drop(struct loan *loan)
{
    CHECK_EQ(fdmux_stream_close(loan->loop, loan->stream, FDMUX_STREAM_DROP), 0);
}

/* ---- never closed -------------------------------------------------------------- */

TEST(borrowed_descriptor_is_served_and_stays_open)
{
    struct fdmux_loop *loop = check_open_loop();
    struct loan loan = {.witness.reaction = echo};

    open_loan(&loan, loop);
    CHECK_EQ(fdmux_stream_fd(loop, loan.stream), loan.fd);
    CHECK_EQ(send(loan.peer, "hello", 5, 0), 5);
    CHECK_EQ(serve(loop), 0);
    expect_bytes(loan.peer, "hello");
    CHECK_EQ(fdmux_stream_close(loop, loan.stream, 0), 0);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(loan.witness.error, 0);
    CHECK_EQ(send(loan.fd, "mine", 4, 0), 4); /* still usable */
    expect_bytes(loan.peer, "mine");
    CHECK_EQ(stats_of(loop).io_live, 0);
    fdmux_loop_destroy(loop);
    close_loan(&loan);
}

TEST(borrowed_descriptor_outlives_the_loop)
{
    struct fdmux_loop *loop = check_open_loop();
    struct loan loan = {0};

    open_loan(&loan, loop);
    fdmux_loop_destroy(loop);
    CHECK_EQ(loan.witness.error, ESTALE);
    close_loan(&loan);
}

TEST(borrowed_descriptor_outlives_a_stream_that_failed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct loan loan = {0};
    int fds[2];

    open_tcp_sockets(fds);
    borrow(&loan, loop, fds);
    reset(loan.peer);
    serve_until(loop, &loan.witness.destroyed, 1);
    CHECK_EQ(loan.witness.error, ECONNRESET);
    fdmux_loop_destroy(loop);
    loan.peer = dup(loan.fd);
    close_loan(&loan);
}

TEST(borrowed_descriptor_of_a_refused_connection_stays_open)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    uint64_t stream;

    options.flags = FDMUX_STREAM_BORROW;
    CHECK_EQ(fdmux_stream_connect(loop, fd, &options, &stream), 0);
    serve_until(loop, &witness.destroyed, 1);
    CHECK_EQ(witness.error, ENOTCONN); /* never connected */
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fd), 0);
}

/* The streams that it accepts own their descriptors. */
TEST(borrowed_listener_stays_open_and_its_connections_are_owned)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness server = {0}, other = {0};
    struct fdmux_stream_options options = options_for(loop, &other);
    uint16_t port;
    int fd = dup(fdmux_stream_fd(loop, listen_on_loopback(loop, &options, &port)));
    int before = check_open_fds();
    uint64_t listener;
    int client;

    options = options_for(loop, &server);
    options.flags = FDMUX_STREAM_BORROW;
    CHECK_EQ(fdmux_stream_listen(loop, fd, &options, &listener), 0);
    client = connect_client(port);
    while (server.counts[FDMUX_STREAM_ACCEPTED] + other.counts[FDMUX_STREAM_ACCEPTED] ==
           0)
        CHECK_EQ(serve(loop), 0);
    CHECK_EQ(fdmux_stream_close(loop, listener, 0), 0);
    serve_until(loop, &server.destroyed, 1);
    CHECK(is_open(fd));
    fdmux_loop_destroy(loop);
    CHECK(is_open(fd));
    CHECK_EQ(close(client) | close(fd), 0);
    CHECK(check_open_fds() < before);
}

/* ---- given up at once ---------------------------------------------------------- */

/* The caller never has the descriptor of such a socket, so nothing would close it. */
TEST(socket_that_a_stream_makes_cannot_be_borrowed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);
    struct fdmux_stream_address where = {.struct_size = sizeof where,
                                         .host = "127.0.0.1"};
    uint64_t token = 7;

    options.flags = FDMUX_STREAM_BORROW;
    CHECK_EQ(fdmux_stream_listen_at(loop, &where, &options, &token), -EINVAL);
    CHECK_EQ(fdmux_stream_connect_to(loop, &where, &options, &token), -EINVAL);
    CHECK_EQ(token, 7);
    CHECK_EQ(stats_of(loop).io_live, 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(witness.destroyed, 0);
}

TEST(close_without_drop_keeps_the_descriptor_until_closed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct loan loan = {0};

    open_loan(&loan, loop);
    CHECK_EQ(fdmux_stream_close(loop, loan.stream, 0), 0);
    CHECK_EQ(fdmux_stream_fd(loop, loan.stream), loan.fd);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(fdmux_stream_fd(loop, loan.stream), -EIDRM);
    fdmux_loop_destroy(loop);
    close_loan(&loan);
}

TEST(dropped_stream_has_no_descriptor_but_is_there_until_closed)
{
    struct fdmux_loop *loop = check_open_loop();
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};
    struct loan loan = {0};
    int at_once;

    open_loan(&loan, loop);
    drop(&loan);
    at_once = loan.fd;
    CHECK_EQ(stats_of(loop).io_live, 0);
    CHECK_EQ(fdmux_stream_fd(loop, loan.stream), -EIDRM);
    CHECK_EQ(fdmux_stream_write(loop, loan.stream, "x", 1), -EPIPE);
    CHECK_EQ(fdmux_stream_pause(loop, loan.stream), 0);
    CHECK_EQ(fdmux_stream_resume(loop, loan.stream), 0);
    CHECK_EQ(fdmux_stream_shutdown(loop, loan.stream), 0);
    CHECK_EQ(fdmux_stream_stats(loop, loan.stream, &stats), 0);
    drop(&loan); /* a second time does nothing */
    verify_streams(loop);
    CHECK_EQ(loan.witness.last_kind, 0);
    CHECK_EQ(send(at_once, "open", 4, 0), 4); /* shutdown(2) was not called */
    expect_bytes(loan.peer, "open");
    CHECK_EQ(serve(loop), 0);
    fdmux_loop_destroy(loop);
    close_loan(&loan);
}

/* Close the borrowed socket, and give its number to one end of a new pair. */
static int take_number(struct loan *loan)
{
    int fds[2];

    CHECK_EQ(close(loan->fd), 0);
    open_sockets(fds);
    if (fds[0] != loan->fd) {
        CHECK_EQ(dup3(fds[0], loan->fd, O_CLOEXEC), loan->fd);
        CHECK_EQ(close(fds[0]), 0);
    }
    return fds[1];
}

TEST(number_of_a_dropped_stream_may_be_reused_at_once)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness stranger = {0};
    struct loan loan = {0};
    int stranger_peer;

    open_loan(&loan, loop);
    CHECK_EQ(send(loan.peer, "old", 3, 0), 3); /* makes the old stream ready */
    drop(&loan);
    stranger_peer = take_number(&loan);
    (void)add_stream(loop, loan.fd, &stranger);
    CHECK_EQ(send(stranger_peer, "fresh", 5, 0), 5);
    serve_all(loop);
    CHECK_EQ(loan.witness.counts[FDMUX_STREAM_DATA], 0);
    CHECK_EQ(loan.witness.destroyed, 1);
    CHECK_EQ(stranger.received, 5);
    CHECK_EQ(stranger.counts[FDMUX_STREAM_CLOSED], 0);
    CHECK_EQ(stats_of(loop).stale_event_count, 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(stranger.destroyed, 1);
    CHECK(!is_open(loan.fd)); /* the new stream has closed it */
    CHECK_EQ(close(loan.peer) | close(stranger_peer), 0);
}

TEST(queued_bytes_never_reach_the_next_owner_of_the_number)
{
    struct fdmux_loop *loop = check_open_loop();
    static unsigned char bytes[100000];
    struct loan loan = {0};
    int stranger_peer;

    open_loan(&loan, loop);
    set_buffer(loan.fd, SO_SNDBUF, 4096);
    CHECK_EQ(fdmux_stream_write(loop, loan.stream, bytes, sizeof bytes), 0);
    CHECK(queued(loop, loan.stream) > 0);
    drop(&loan);
    stranger_peer = take_number(&loan);
    serve_all(loop);
    CHECK_EQ(loan.witness.destroyed, 1);
    CHECK(!is_readable(stranger_peer));
    fdmux_loop_destroy(loop);
    CHECK(!is_readable(stranger_peer));
    CHECK_EQ(close(stranger_peer), 0);
    close_loan(&loan);
}

/* ---- inside of a batch --------------------------------------------------------- */

struct swap {
    struct loan loans[2]; /* both are ready; the first one called ends the other */
    struct witness stranger;
    int stranger_peer;
    int victim;
};

static int swap_other(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct swap *swap = witness->extra;

    if (event->kind != FDMUX_STREAM_DATA || swap->stranger_peer >= 0)
        return 0;
    swap->victim = witness == &swap->loans[0].witness ? 1 : 0;
    drop(&swap->loans[swap->victim]);
    swap->stranger_peer = take_number(&swap->loans[swap->victim]);
    (void)add_stream(witness->loop, swap->loans[swap->victim].fd, &swap->stranger);
    CHECK_EQ(send(swap->stranger_peer, "fresh", 5, 0), 5);
    return 0;
}

TEST(event_of_the_same_batch_does_not_reach_the_next_owner_of_the_number)
{
    struct fdmux_loop *loop = check_open_loop();
    struct swap swap = {.stranger_peer = -1};
    struct loan *victim;

    for (int i = 0; i < 2; i++) {
        swap.loans[i].witness.reaction = swap_other;
        swap.loans[i].witness.extra = &swap;
        open_loan(&swap.loans[i], loop);
        CHECK_EQ(send(swap.loans[i].peer, "old", 3, 0), 3);
    }
    CHECK_EQ(serve(loop), 0);
    victim = &swap.loans[swap.victim];
    CHECK_EQ(victim->witness.counts[FDMUX_STREAM_DATA], 0);
    CHECK_EQ(victim->witness.destroyed, 1);
    CHECK_EQ(swap.stranger.last_kind, 0); /* its first event comes in the next batch */
    serve_all(loop);
    CHECK_EQ(swap.stranger.received, 5);
    CHECK_EQ(swap.loans[1 - swap.victim].witness.received, 3);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(victim->peer) | close(swap.stranger_peer), 0);
    close_loan(&swap.loans[1 - swap.victim]);
}

/* Drop the stream in any of its events, and close its descriptor at once. */
static int drop_self(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct loan *loan = witness->extra;

    if (event->kind == FDMUX_STREAM_CLOSED || loan->fd < 0)
        return 0;
    drop(loan);
    CHECK_EQ(close(loan->fd), 0);
    loan->fd = -1;
    return 0;
}

static void expect_dropped(struct loan *loan, uint32_t kind)
{
    serve_until(loan->loop, &loan->witness.destroyed, 1);
    CHECK_EQ(loan->witness.counts[kind], 1);
    CHECK_EQ(loan->witness.counts[FDMUX_STREAM_CLOSED], 1);
    for (uint32_t i = 1; i < KINDS; i++)
        CHECK(loan->witness.counts[i] == 0 || i == kind || i == FDMUX_STREAM_CLOSED);
    CHECK_EQ(loan->fd, -1);
    fdmux_loop_destroy(loan->loop);
    CHECK_EQ(close(loan->peer), 0);
}

static void prepare_drop(struct loan *loan)
{
    *loan = (struct loan){.witness = {.reaction = drop_self, .extra = loan}};
}

TEST(stream_may_drop_and_close_its_descriptor_as_data_comes)
{
    struct loan loan;

    prepare_drop(&loan);
    open_loan(&loan, check_open_loop());
    CHECK_EQ(send(loan.peer, "x", 1, 0), 1);
    CHECK_EQ(shutdown(loan.peer, SHUT_WR), 0);
    expect_dropped(&loan, FDMUX_STREAM_DATA);
}

TEST(stream_may_drop_and_close_its_descriptor_at_the_end)
{
    struct loan loan;

    prepare_drop(&loan);
    open_loan(&loan, check_open_loop());
    CHECK_EQ(shutdown(loan.peer, SHUT_WR), 0);
    expect_dropped(&loan, FDMUX_STREAM_END);
}

/* The kernel takes nothing at the first write, and everything later. */
static void open_full_loan(struct loan *loan)
{
    prepare_drop(loan);
    open_loan(loan, check_open_loop());
    fdmux_testing_fail(FDMUX_CALL_SEND, 1, EAGAIN, 0);
    CHECK_EQ(fdmux_stream_write(loan->loop, loan->stream, "bytes", 5), 0);
    fdmux_testing_fail(0, 0, 0, 0);
}

TEST(stream_may_drop_and_close_its_descriptor_when_writable)
{
    struct loan loan;

    open_full_loan(&loan);
    CHECK_EQ(fdmux_stream_await_writable(loan.loop, loan.stream, 0), 0);
    expect_dropped(&loan, FDMUX_STREAM_WRITABLE);
}

TEST(stream_may_drop_and_close_its_descriptor_when_drained)
{
    struct loan loan;

    open_full_loan(&loan);
    expect_dropped(&loan, FDMUX_STREAM_DRAINED);
}

TEST(stream_may_drop_and_close_its_descriptor_when_connected)
{
    struct loan loan;
    struct fdmux_stream_options options;
    int fds[2];

    prepare_drop(&loan);
    loan.loop = check_open_loop();
    options = options_for(loan.loop, &loan.witness);
    options.flags = FDMUX_STREAM_BORROW;
    open_tcp_sockets(fds);
    loan.fd = fds[0];
    loan.peer = fds[1];
    CHECK_EQ(fdmux_stream_connect(loan.loop, loan.fd, &options, &loan.stream), 0);
    expect_dropped(&loan, FDMUX_STREAM_CONNECTED);
}

static int name_no_buffer(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                          size_t *ret_size, void *userdata)
{
    struct loan *loan = ((struct witness *)userdata)->extra;

    (void)loop, (void)stream, (void)ret_buffer, (void)ret_size;
    drop(loan);
    CHECK_EQ(close(loan->fd), 0);
    loan->fd = -1;
    return 0;
}

TEST(stream_may_drop_and_close_its_descriptor_as_it_names_a_buffer)
{
    struct loan loan;
    struct fdmux_stream_options options;
    int fds[2];

    prepare_drop(&loan);
    loan.loop = check_open_loop();
    options = options_for(loan.loop, &loan.witness);
    options.flags = FDMUX_STREAM_BORROW;
    options.buffer_fn = name_no_buffer;
    open_sockets(fds);
    loan.fd = fds[0];
    loan.peer = fds[1];
    loan.stream = add_stream_with(loan.loop, loan.fd, &options);
    CHECK_EQ(send(loan.peer, "x", 1, 0), 1);
    serve_until(loan.loop, &loan.witness.destroyed, 1);
    CHECK_EQ(loan.witness.counts[FDMUX_STREAM_DATA], 0);
    fdmux_loop_destroy(loan.loop);
    CHECK_EQ(close(loan.peer), 0);
}
