/* test_tls.c: handshakes, data both ways, and what is allowed when. */
#include "tls_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

/* A stream with TLS, and its peer. */
struct scene {
    struct fdmux_loop *loop;
    struct witness witness;
    struct peer peer;
    SSL *ssl;
    uint64_t stream;
};

static void open_scene(struct scene *scene, bool is_server, int version, bool is_tcp)
{
    int fds[2];

    scene->loop = check_open_loop();
    if (is_tcp)
        open_tcp_sockets(fds);
    else
        open_sockets(fds);
    scene->peer = open_peer(fds[1], !is_server, version);
    scene->stream =
        add_tls(scene->loop, fds[0], &scene->witness, is_server, &scene->ssl);
}

static void close_scene(struct scene *scene)
{
    fdmux_loop_destroy(scene->loop);
    CHECK_EQ(scene->witness.destroyed, 1);
    CHECK_EQ(scene->witness.counts[FDMUX_STREAM_CLOSED], 1);
    close_peer(&scene->peer);
    SSL_free(scene->ssl);
}

static int expect_tls_first(struct witness *witness,
                            const struct fdmux_stream_event *event)
{
    if (event->kind == FDMUX_STREAM_DATA)
        CHECK_EQ(witness->counts[FDMUX_STREAM_TLS], 1);
    return echo(witness, event);
}

static void talk(bool is_server, int version, bool is_tcp)
{
    struct scene scene = {.witness = {.reaction = expect_tls_first}};
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};

    open_scene(&scene, is_server, version, is_tcp);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    CHECK_EQ(SSL_version(scene.ssl), version == 0 ? TLS1_3_VERSION : version);
    peer_write(&scene.peer, SECRET, sizeof SECRET);
    pump_until_read(scene.loop, &scene.peer, sizeof SECRET);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_TLS], 1);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(fdmux_stream_stats(scene.loop, scene.stream, &stats), 0);
    CHECK_EQ(stats.received, sizeof SECRET);
    CHECK_EQ(stats.sent, sizeof SECRET);
    CHECK_EQ(stats.queued, 0);
    close_scene(&scene);
}

TEST(server_and_client_talk_over_a_local_socket)
{
    talk(true, 0, false);
    talk(false, 0, false);
}

TEST(server_and_client_talk_over_tcp)
{
    talk(true, 0, true);
    talk(false, 0, true);
}

TEST(tls_1_2_is_the_same)
{
    talk(true, TLS1_2_VERSION, true);
    talk(false, TLS1_2_VERSION, false);
}

/* ---- sizes --------------------------------------------------------------------- */

static const size_t sizes[] = {0, 1, 16383, 16384, 16385, 100000};

TEST(messages_of_every_size_around_a_record_come_back)
{
    static unsigned char bytes[100000];
    struct scene scene = {.witness = {.reaction = echo}};
    uint64_t hash = HASH_START;
    size_t total = 0;

    open_scene(&scene, true, 0, true);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fill_pattern(bytes, sizes[i], i);
        hash = hash_bytes(hash, bytes, sizes[i]);
        total += sizes[i];
        peer_write(&scene.peer, bytes, sizes[i]);
        pump_until_read(scene.loop, &scene.peer, total);
        CHECK_EQ(scene.peer.hash, hash);
        CHECK_EQ(scene.witness.hash, hash);
    }
    close_scene(&scene);
}

static void echo_around(int version)
{
    static unsigned char bytes[16384 + 300];
    struct scene scene = {.witness = {.reaction = echo}};
    size_t total = 0;

    open_scene(&scene, true, version, false);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    fill_pattern(bytes, sizeof bytes, 1);
    for (size_t size = 16384 - 300; size <= sizeof bytes; size++) {
        peer_write(&scene.peer, bytes, size);
        total += size;
        pump_until_read(scene.loop, &scene.peer, total);
    }
    CHECK_EQ(scene.peer.hash, scene.witness.hash);
    close_scene(&scene);
}

SLOW_TEST(every_size_around_a_record_comes_back)
{
    echo_around(0);
    echo_around(TLS1_2_VERSION);
}

TEST(bytes_that_arrive_one_by_one_are_put_together)
{
    struct scene scene = {.witness = {.reaction = echo}};

    open_scene(&scene, true, 0, false);
    fdmux_testing_short(1);
    scene.peer.step = 1;
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    peer_write(&scene.peer, SECRET, sizeof SECRET);
    pump_until_read(scene.loop, &scene.peer, sizeof SECRET);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_DATA], 1);
    fdmux_testing_short(0);
    close_scene(&scene);
}

static uint32_t records(struct peer *peer)
{
    static unsigned char bytes[1 << 18];
    ssize_t count = recv(peer->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    uint32_t found = 0;

    for (ssize_t at = 0; at < count; found++)
        at += 5 + (bytes[at + 3] << 8 | bytes[at + 4]); /* RFC 8446, 5.1 */
    return found;
}

static int write_often(struct witness *witness, const struct fdmux_stream_event *event)
{
    for (int i = 0; event->kind == FDMUX_STREAM_DATA && i < 20; i++)
        CHECK_EQ(fdmux_stream_write(witness->loop, event->stream, SECRET, 10), 0);
    return 0;
}

TEST(writes_of_one_call_share_a_record_and_a_send)
{
    struct scene scene = {.witness = {.reaction = write_often}};
    struct fdmux_stream_write_op ops[5];

    open_scene(&scene, true, 0, false);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    fdmux_testing_fail(FDMUX_CALL_SEND, 0, 0, 0);
    peer_write(&scene.peer, "x", 1);
    CHECK_EQ(serve(scene.loop), 0);
    CHECK_EQ(fdmux_testing_calls(), 1);
    CHECK_EQ(records(&scene.peer), 1);
    for (int i = 0; i < 5; i++)
        ops[i] = (struct fdmux_stream_write_op){scene.stream, SECRET, 10};
    CHECK_EQ(fdmux_stream_write_batch(scene.loop, ops, 5), 5);
    CHECK_EQ(fdmux_testing_calls(), 2);
    CHECK_EQ(records(&scene.peer), 1);
    close_scene(&scene);
}

/* ---- before the handshake is done ---------------------------------------------- */

TEST(what_is_written_before_the_handshake_is_held_and_encrypted)
{
    struct scene scene = {0};

    open_scene(&scene, false, 0, false);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, SECRET, sizeof SECRET), 0);
    CHECK_EQ(queued(scene.loop, scene.stream), sizeof SECRET);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    pump_until_read(scene.loop, &scene.peer, sizeof SECRET);
    CHECK_EQ(queued(scene.loop, scene.stream), 0);
    pump_until(scene.loop, &scene.peer, &scene.witness.counts[FDMUX_STREAM_DRAINED], 1);
    close_scene(&scene);
}

TEST(what_is_held_is_limited)
{
    static unsigned char bytes[262144];
    struct scene scene = {0};

    open_scene(&scene, false, 0, false);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, bytes, 200000), 0);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, bytes, 100000), -ENOBUFS);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, bytes, 1), -EPIPE);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, ENOBUFS);
    close_scene(&scene);
}

TEST(nothing_written_leaves_if_the_handshake_never_ends)
{
    struct scene scene = {0};
    char bytes[8192];
    ssize_t count;

    open_scene(&scene, false, 0, false);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, SECRET, sizeof SECRET), 0);
    serve_all(scene.loop);
    CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, FDMUX_STREAM_DROP), 0);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    count = recv(scene.peer.fd, bytes, sizeof bytes, 0);
    CHECK(count > 0); /* the client's first message */
    CHECK(memmem(bytes, (size_t)count, SECRET, strlen(SECRET)) == NULL);
    close_scene(&scene);
}

/* ---- STARTTLS ------------------------------------------------------------------ */

static int start_in_data(struct witness *witness,
                         const struct fdmux_stream_event *event)
{
    struct scene *scene = witness->extra;
    struct fdmux_tls_options options = tls_options(scene->ssl);

    if (event->kind != FDMUX_STREAM_DATA)
        return 0;
    if (witness->counts[FDMUX_STREAM_TLS] > 0)
        return echo(witness, event);
    CHECK(event->length > 9 && memcmp(event->data, "STARTTLS\n", 9) == 0);
    CHECK_EQ(fdmux_stream_write(witness->loop, event->stream, "OK\n", 3), 0);
    options.received = (const char *)event->data + 9;
    options.received_length = event->length - 9;
    CHECK_EQ(fdmux_stream_start_tls(witness->loop, event->stream, &options), 0);
    return fdmux_stream_write(witness->loop, event->stream, SECRET, sizeof SECRET);
}

/* The client's first message arrives together with its request. */
TEST(tls_starts_in_the_middle_with_bytes_that_were_received)
{
    struct scene scene = {.witness = {.reaction = start_in_data, .extra = &scene}};
    char first[4096] = "STARTTLS\n";
    int fds[2], count;

    scene.loop = check_open_loop();
    open_sockets(fds);
    scene.peer = open_peer(fds[1], false, 0);
    scene.ssl = new_ssl(true, 0);
    scene.stream = add_stream(scene.loop, fds[0], &scene.witness);
    CHECK_EQ(SSL_do_handshake(scene.peer.ssl), -1);
    count = BIO_read(SSL_get_wbio(scene.peer.ssl), first + 9, sizeof first - 9);
    CHECK_EQ(send(fds[1], first, (size_t)count + 9, 0), count + 9);
    CHECK_EQ(serve(scene.loop), 0);
    CHECK_EQ(recv(fds[1], first, 3, 0), 3);
    CHECK(memcmp(first, "OK\n", 3) == 0);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    pump_until_read(scene.loop, &scene.peer, sizeof SECRET);
    peer_write(&scene.peer, SECRET, sizeof SECRET);
    pump_until_read(scene.loop, &scene.peer, 2 * sizeof SECRET);
    close_scene(&scene);
}

TEST(plaintext_that_was_queued_leaves_first)
{
    static unsigned char bytes[200000], got[200000];
    struct scene scene = {0};
    struct fdmux_tls_options options;
    size_t count = 0;
    int fds[2];

    scene.loop = check_open_loop();
    open_sockets(fds);
    set_buffer(fds[0], SO_SNDBUF, 4096);
    scene.peer = open_peer(fds[1], false, 0);
    scene.ssl = new_ssl(true, 0);
    scene.stream = add_stream(scene.loop, fds[0], &scene.witness);
    fill_pattern(bytes, sizeof bytes, 1);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, bytes, sizeof bytes), 0);
    options = tls_options(scene.ssl);
    CHECK_EQ(fdmux_stream_start_tls(scene.loop, scene.stream, &options), 0);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, SECRET, sizeof SECRET), 0);
    while (count < sizeof bytes) {
        ssize_t r = recv(fds[1], got + count, sizeof got - count, MSG_DONTWAIT);

        CHECK_EQ(serve(scene.loop), 0);
        count += r > 0 ? (size_t)r : 0;
    }
    CHECK(memcmp(bytes, got, sizeof got) == 0);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    pump_until_read(scene.loop, &scene.peer, sizeof SECRET);
    close_scene(&scene);
}

/* ---- accepted and connecting streams ------------------------------------------- */

struct side {
    struct witness witness;
    SSL *ssl;
};

static int start_and_echo(struct witness *witness,
                          const struct fdmux_stream_event *event)
{
    struct side *side = witness->extra;

    if (event->kind == FDMUX_STREAM_ACCEPTED) {
        struct fdmux_tls_options options;

        side->ssl = new_ssl(true, 0);
        options = tls_options(side->ssl);
        return fdmux_stream_start_tls(witness->loop, event->stream, &options);
    }
    if (event->kind == FDMUX_STREAM_TLS)
        CHECK(witness->counts[FDMUX_STREAM_CONNECTED] == 1 || side->ssl != NULL);
    return event->kind == FDMUX_STREAM_DATA && SSL_is_server(side->ssl)
               ? echo(witness, event)
               : 0;
}

TEST(accepted_and_connecting_streams_begin_by_themselves)
{
    struct fdmux_loop *loop = check_open_loop();
    struct side server = {.witness = {.reaction = start_and_echo, .extra = &server}};
    struct side client = {.witness = {.reaction = start_and_echo, .extra = &client}};
    struct fdmux_stream_options options = options_for(loop, &server.witness);
    struct fdmux_tls_options tls;
    uint64_t listener, stream;
    uint16_t port;

    listener = listen_on_loopback(loop, &options, &port);
    options = options_for(loop, &client.witness);
    stream = connect_to_loopback(loop, port, &options);
    client.ssl = new_ssl(false, 0);
    tls = tls_options(client.ssl);
    CHECK_EQ(fdmux_stream_start_tls(loop, stream, &tls), 0);
    CHECK_EQ(fdmux_stream_write(loop, stream, SECRET, sizeof SECRET), 0);
    CHECK_EQ(fdmux_stream_start_tls(loop, stream, &tls), -EALREADY);
    CHECK_EQ(fdmux_stream_start_tls(loop, listener, &tls), -EINVAL);
    serve_until(loop, &client.witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(client.witness.received, sizeof SECRET);
    CHECK_EQ(client.witness.counts[FDMUX_STREAM_CONNECTED], 1);
    CHECK_EQ(fdmux_stream_close(loop, stream, 0), 0);
    serve_until(loop, &server.witness.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(server.witness.counts[FDMUX_STREAM_CLOSED], 0);
    fdmux_loop_destroy(loop);
    SSL_free(server.ssl);
    SSL_free(client.ssl);
}

/* ---- wrong calls --------------------------------------------------------------- */

TEST(wrong_options_are_refused)
{
    struct fdmux_tls_functions functions = openssl;
    struct scene scene = {0};
    struct fdmux_tls_options good, bad;
    uint64_t code = 7;
    int fds[2];

    scene.loop = check_open_loop();
    open_sockets(fds);
    scene.peer = open_peer(fds[1], false, 0);
    scene.ssl = new_ssl(true, 0);
    scene.stream = add_stream(scene.loop, fds[0], &scene.witness);
    good = tls_options(scene.ssl);
#define REFUSED(error, change)                                                         \
    bad = good;                                                                        \
    change;                                                                            \
    CHECK_EQ(fdmux_stream_start_tls(scene.loop, scene.stream, &bad), error)
    REFUSED(-E2BIG, bad.struct_size--);
    REFUSED(-EFAULT, bad.ssl = NULL);
    REFUSED(-EFAULT, bad.functions = NULL);
    REFUSED(-EINVAL, bad.flags = 4);
    REFUSED(-EINVAL, bad.reserved = 1);
    REFUSED(-EFAULT, bad.received_length = 1);
    REFUSED(-EINVAL, (functions.read = NULL, bad.functions = &functions));
    CHECK_EQ(fdmux_stream_start_tls(scene.loop, scene.stream, NULL), -EFAULT);
    CHECK_EQ(fdmux_stream_start_tls(scene.loop, 12345, &good), -EIDRM);
    CHECK_EQ(fdmux_stream_tls_error(scene.loop, scene.stream, &code), -EINVAL);
    CHECK_EQ(code, 7);
    CHECK_EQ(fdmux_stream_shutdown(scene.loop, scene.stream), 0);
    CHECK_EQ(fdmux_stream_start_tls(scene.loop, scene.stream, &good), -EPIPE);
    close_scene(&scene);
}
