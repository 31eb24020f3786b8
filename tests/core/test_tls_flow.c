/* test_tls_flow.c: flow control of streams with TLS: pausing, small buffers, full
 * queues, much data both ways, renewed keys. */
#include "tls_fixtures.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MUCH ((size_t)64 << 20)

struct scene {
    struct fdmux_loop *loop;
    struct witness witness;
    struct peer peer;
    SSL *ssl;
    uint64_t stream;
    uint32_t flags; /* of the options of TLS */
};

static void open_with(struct scene *scene, struct fdmux_stream_options options,
                      int version)
{
    struct fdmux_tls_options tls;
    int fds[2];

    open_sockets(fds);
    scene->peer = open_peer(fds[1], false, version);
    scene->stream = add_stream_with(scene->loop, fds[0], &options);
    scene->ssl = new_ssl(true, version);
    tls = tls_options(scene->ssl);
    tls.flags = scene->flags;
    CHECK_EQ(fdmux_stream_start_tls(scene->loop, scene->stream, &tls), 0);
    shake_hands(scene->loop, &scene->peer, &scene->witness);
}

static void open_scene(struct scene *scene, int version)
{
    scene->loop = check_open_loop();
    open_with(scene, options_for(scene->loop, &scene->witness), version);
}

static void close_scene(struct scene *scene)
{
    fdmux_loop_destroy(scene->loop);
    CHECK_EQ(scene->witness.destroyed, 1);
    close_peer(&scene->peer);
    SSL_free(scene->ssl);
}

static void serve_some(struct scene *scene, int times)
{
    for (int i = 0; i < times; i++) {
        pump(&scene->peer);
        CHECK(serve(scene->loop) >= 0);
    }
}

/* ---- reading ------------------------------------------------------------------- */

TEST(a_paused_stream_reads_nothing_until_it_is_resumed)
{
    struct scene scene = {0};

    open_scene(&scene, 0);
    CHECK_EQ(fdmux_stream_pause(scene.loop, scene.stream), 0);
    peer_write(&scene.peer, SECRET, 16);
    fdmux_testing_fail(FDMUX_CALL_RECV, 0, 0, 0);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(serve(scene.loop), 0);
    CHECK_EQ(fdmux_testing_calls(), 0);
    CHECK_EQ(scene.witness.received, 0);
    CHECK_EQ(fdmux_stream_resume(scene.loop, scene.stream), 0);
    serve_until(scene.loop, &scene.witness.counts[FDMUX_STREAM_DATA], 1);
    close_scene(&scene);
}

TEST(the_handshake_goes_on_while_paused_and_data_waits)
{
    struct scene scene = {0};
    int fds[2];

    scene.loop = check_open_loop();
    open_sockets(fds);
    scene.peer = open_peer(fds[1], false, 0);
    scene.stream = add_tls(scene.loop, fds[0], &scene.witness, true, &scene.ssl);
    CHECK_EQ(fdmux_stream_pause(scene.loop, scene.stream), 0);
    for (int i = 0; !SSL_is_init_finished(scene.peer.ssl); i++) {
        CHECK(i < 100);
        CHECK_EQ(serve(scene.loop), 0);
        pump(&scene.peer);
    }
    peer_write(&scene.peer, SECRET, 16); /* arrives with the end of the handshake */
    serve_some(&scene, 10);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_TLS], 1);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_DATA], 0);
    CHECK_EQ(fdmux_stream_resume(scene.loop, scene.stream), 0);
    serve_until(scene.loop, &scene.witness.counts[FDMUX_STREAM_DATA], 1);
    close_scene(&scene);
}

static unsigned char small[1000];

static int offer_small(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                       size_t *ret_size, void *userdata)
{
    (void)loop, (void)stream, (void)userdata;
    *ret_buffer = small;
    *ret_size = sizeof small;
    return 0;
}

static int pause_each(struct witness *witness, const struct fdmux_stream_event *event)
{
    if (event->kind == FDMUX_STREAM_DATA) {
        CHECK(event->data == small);
        CHECK_EQ(fdmux_stream_pause(witness->loop, event->stream), 0);
    }
    return 0;
}

/* A record is larger than the buffer: the kernel has nothing to report. */
TEST(leftovers_are_delivered_when_resumed_without_the_kernel)
{
    static unsigned char bytes[16384];
    struct scene scene = {.witness = {.reaction = pause_each}};
    struct fdmux_stream_options options;

    scene.loop = check_open_loop();
    options = options_for(scene.loop, &scene.witness);
    options.buffer_fn = offer_small;
    open_with(&scene, options, 0);
    fill_pattern(bytes, sizeof bytes, 3);
    peer_write(&scene.peer, bytes, sizeof bytes);
    for (int i = 0; i < 17; i++) {
        serve_until(scene.loop, &scene.witness.counts[FDMUX_STREAM_DATA], i + 1);
        CHECK_EQ(serve(scene.loop), 0);
        CHECK_EQ(scene.witness.counts[FDMUX_STREAM_DATA], i + 1);
        CHECK_EQ(fdmux_stream_resume(scene.loop, scene.stream), 0);
    }
    CHECK_EQ(scene.witness.received, sizeof bytes);
    CHECK_EQ(scene.witness.hash, hash_bytes(HASH_START, bytes, sizeof bytes));
    CHECK_EQ(scene.witness.largest, sizeof small);
    close_scene(&scene);
}

TEST(leftovers_are_delivered_once_in_a_batch)
{
    static unsigned char bytes[16384];
    struct scene scene = {0};
    struct fdmux_stream_options options;

    scene.loop = check_open_loop();
    options = options_for(scene.loop, &scene.witness);
    options.buffer_fn = offer_small;
    open_with(&scene, options, 0);
    peer_write(&scene.peer, bytes, sizeof bytes);
    for (int i = 1; i <= 17; i++) {
        CHECK_EQ(serve(scene.loop), 0);
        CHECK_EQ(scene.witness.counts[FDMUX_STREAM_DATA], i);
    }
    CHECK_EQ(scene.witness.received, sizeof bytes);
    close_scene(&scene);
}

TEST(a_small_receive_max_is_respected)
{
    static unsigned char bytes[40000];
    struct scene scene = {0};
    struct fdmux_stream_options options;

    scene.loop = check_open_loop();
    options = options_for(scene.loop, &scene.witness);
    options.receive_max = 500;
    open_with(&scene, options, 0);
    peer_write(&scene.peer, bytes, sizeof bytes);
    while (scene.witness.received < sizeof bytes)
        serve_some(&scene, 1);
    CHECK_EQ(scene.witness.largest, 500);
    close_scene(&scene);
}

/* ---- writing ------------------------------------------------------------------- */

/* Note in `extra` whether a write inside the function has sent something. */
static int write_and_look(struct witness *witness,
                          const struct fdmux_stream_event *event)
{
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};
    const struct peer *peer = witness->extra;
    char byte;

    if (event->kind != FDMUX_STREAM_DATA)
        return 0;
    CHECK_EQ(fdmux_stream_write(witness->loop, event->stream, SECRET, 16), 0);
    CHECK_EQ(fdmux_stream_stats(witness->loop, event->stream, &stats), 0);
    CHECK_EQ(stats.sent,
             recv(peer->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1 ? 16 : 0);
    witness->token = stats.sent;
    return 0;
}

TEST(a_caller_that_gathers_has_its_writes_sent_at_once)
{
    for (uint32_t flags = 0; flags <= FDMUX_TLS_NO_GATHER;
         flags += FDMUX_TLS_NO_GATHER) {
        struct scene scene = {.witness = {.reaction = write_and_look}, .flags = flags};

        scene.witness.extra = &scene.peer;
        open_scene(&scene, 0);
        pump(&scene.peer); /* the tickets of TLS 1.3 */
        peer_write(&scene.peer, "x", 1);
        while (scene.witness.counts[FDMUX_STREAM_DATA] == 0)
            CHECK(serve(scene.loop) >= 0);
        CHECK_EQ(scene.witness.token, flags != 0 ? 16 : 0);
        pump_until_read(scene.loop, &scene.peer, 16);
        close_scene(&scene);
    }
}

TEST(what_the_kernel_does_not_take_is_queued_as_ciphertext)
{
    static unsigned char bytes[100000];
    struct scene scene = {0};

    open_scene(&scene, 0);
    set_buffer(fdmux_stream_fd(scene.loop, scene.stream), SO_SNDBUF, 4096);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, bytes, sizeof bytes), 0);
    CHECK(queued(scene.loop, scene.stream) > 64000);
    peer_write(&scene.peer, "x", 1); /* over the high-water mark: not read */
    for (int i = 0; i < 5; i++)
        CHECK_EQ(serve(scene.loop), 0);
    CHECK_EQ(scene.witness.received, 0);
    pump_until_read(scene.loop, &scene.peer, sizeof bytes);
    serve_some(&scene, 5);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_WRITABLE], 1);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_DRAINED], 1);
    CHECK_EQ(scene.witness.received, 1);
    CHECK_EQ(queued(scene.loop, scene.stream), 0);
    close_scene(&scene);
}

TEST(a_queue_over_its_limit_ends_the_stream)
{
    static unsigned char bytes[1 << 20];
    struct scene scene = {0};

    open_scene(&scene, 0);
    set_buffer(fdmux_stream_fd(scene.loop, scene.stream), SO_SNDBUF, 4096);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, bytes, sizeof bytes),
             -ENOBUFS);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, ENOBUFS);
    close_scene(&scene);
}

TEST(the_total_limit_counts_what_is_held)
{
    static unsigned char bytes[100000];
    struct fdmux_loop *loop = check_open_loop();
    struct witness first = {0}, second = {0};
    uint64_t streams[2];
    SSL *ssls[2];
    int fds[2];

    open_sockets(fds);
    streams[0] = add_tls(loop, fds[0], &first, false, &ssls[0]);
    streams[1] = add_tls(loop, fds[1], &second, true, &ssls[1]);
    CHECK_EQ(fdmux_stream_total_max(loop, 120000), 0);
    CHECK_EQ(fdmux_stream_write(loop, streams[0], bytes, sizeof bytes), 0);
    CHECK_EQ(fdmux_stream_write(loop, streams[1], bytes, 50000), 0);
    serve_until(loop, &first.destroyed, 1);
    CHECK_EQ(first.error, ENOBUFS);
    fdmux_loop_destroy(loop);
    SSL_free(ssls[0]);
    SSL_free(ssls[1]);
}

struct crowding {
    struct fdmux_loop *loop;
    uint64_t other;
    int writes;
};

static void write_to_other(int is_sent, int version, int type, const void *bytes,
                           size_t length, SSL *ssl, void *arg)
{
    static const unsigned char zeros[60000];
    struct crowding *crowding = arg;

    (void)version, (void)bytes, (void)length;
    if (is_sent == 0 || type != SSL3_RT_HEADER || !SSL_is_init_finished(ssl) ||
        crowding->writes++ > 0)
        return;
    CHECK_EQ(fdmux_stream_write(crowding->loop, crowding->other, zeros, sizeof zeros),
             0);
}

/* A callback of OpenSSL makes the stream lose what it is about to encrypt. */
TEST(held_bytes_may_be_dropped_while_they_are_encrypted)
{
    static unsigned char bytes[100000];
    struct fdmux_loop *loop = check_open_loop();
    struct witness first = {0}, second = {0};
    struct crowding crowding = {.loop = loop};
    struct peer peer;
    uint64_t stream;
    SSL *ssls[2];
    int fds[4];

    open_sockets(fds);
    open_sockets(fds + 2);
    peer = open_peer(fds[1], true, 0);
    stream = add_tls(loop, fds[0], &first, false, &ssls[0]);
    crowding.other = add_tls(loop, fds[2], &second, true, &ssls[1]);
    SSL_set_msg_callback(ssls[0], write_to_other);
    SSL_set_msg_callback_arg(ssls[0], &crowding);
    CHECK_EQ(fdmux_stream_total_max(loop, 130000), 0);
    CHECK_EQ(fdmux_stream_write(loop, stream, bytes, sizeof bytes), 0);
    pump_until(loop, &peer, &first.destroyed, 1);
    CHECK_EQ(crowding.writes, 1);
    CHECK_EQ(first.error, ENOBUFS);
    CHECK_EQ(fdmux_stream_write(loop, crowding.other, bytes, 1000), 0);
    serve_all(loop);
    CHECK_EQ(second.destroyed, 0);
    fdmux_loop_destroy(loop);
    close_peer(&peer);
    CHECK_EQ(close(fds[3]), 0);
    SSL_free(ssls[0]);
    SSL_free(ssls[1]);
}

static int keep_writing(struct witness *witness, const struct fdmux_stream_event *event)
{
    static unsigned char bytes[16384];
    size_t *left = witness->extra;

    while (*left > 0 && event->kind != FDMUX_STREAM_CLOSED &&
           queued(witness->loop, event->stream) < 32768) {
        size_t length = *left < sizeof bytes ? *left : sizeof bytes;

        fill_pattern(bytes, length, *left);
        if (fdmux_stream_write(witness->loop, event->stream, bytes, length) < 0)
            break;
        *left -= length;
    }
    return 0;
}

/* Both ends are streams of one loop, and each sends as fast as it may without coming
 * over its high-water mark, where it would not read. */
SLOW_TEST(much_data_both_ways_at_once_arrives)
{
    struct fdmux_loop *loop = check_open_loop();
    size_t left[2] = {MUCH, MUCH};
    struct witness ends[2] = {{.reaction = keep_writing, .extra = &left[0]},
                              {.reaction = keep_writing, .extra = &left[1]}};
    SSL *ssls[2];
    int fds[2];

    open_tcp_sockets(fds);
    for (int i = 0; i < 2; i++)
        (void)add_tls(loop, fds[i], &ends[i], i == 1, &ssls[i]);
    for (int i = 0; ends[0].received < MUCH || ends[1].received < MUCH; i++) {
        CHECK(i < 200000);
        CHECK(serve(loop) >= 0);
        CHECK_EQ(ends[0].counts[FDMUX_STREAM_CLOSED], 0);
        CHECK_EQ(ends[1].counts[FDMUX_STREAM_CLOSED], 0);
    }
    CHECK_EQ(ends[0].hash, ends[1].hash);
    fdmux_loop_destroy(loop);
    SSL_free(ssls[0]);
    SSL_free(ssls[1]);
}

/* ---- many ---------------------------------------------------------------------- */

enum { PAIRS = 1000, PART = 20000 };

struct pair {
    struct witness ends[2];
    SSL *ssls[2];
};

static void allow_descriptors(rlim_t count)
{
    struct rlimit limit;

    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK(limit.rlim_max >= count);
    if (limit.rlim_cur < count)
        limit.rlim_cur = count;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static bool is_pair_done(const struct pair *pair)
{
    return pair->ends[0].received >= PART && pair->ends[1].received >= PART;
}

/* Both ends of each connection are in one loop: a client that writes other bytes than
 * all others, and a server that echoes them. */
SLOW_TEST(a_thousand_connections_get_their_own_bytes)
{
    static unsigned char bytes[PART];
    struct fdmux_loop *loop = check_open_loop();
    struct pair *pairs = calloc(PAIRS, sizeof *pairs);
    int done = 0;

    allow_descriptors(2 * PAIRS + 100);
    for (size_t i = 0; i < PAIRS; i++) {
        uint64_t client;
        int fds[2];

        pairs[i].ends[1].reaction = echo;
        open_sockets(fds);
        client = add_tls(loop, fds[0], &pairs[i].ends[0], false, &pairs[i].ssls[0]);
        (void)add_tls(loop, fds[1], &pairs[i].ends[1], true, &pairs[i].ssls[1]);
        fill_pattern(bytes, PART, i);
        CHECK_EQ(fdmux_stream_write(loop, client, bytes, PART), 0);
    }
    for (int i = 0; done < PAIRS; i++) {
        CHECK(i < 200000);
        CHECK(serve(loop) >= 0);
        while (done < PAIRS && is_pair_done(&pairs[done]))
            done++;
    }
    fdmux_loop_destroy(loop);
    for (size_t i = 0; i < PAIRS; i++) {
        fill_pattern(bytes, PART, i);
        CHECK_EQ(pairs[i].ends[0].hash, hash_bytes(HASH_START, bytes, PART));
        CHECK_EQ(pairs[i].ends[1].hash, pairs[i].ends[0].hash);
        SSL_free(pairs[i].ssls[0]);
        SSL_free(pairs[i].ssls[1]);
    }
    free(pairs);
}

/* ---- new keys ------------------------------------------------------------------ */

TEST(keys_are_updated_in_the_middle)
{
    struct scene scene = {.witness = {.reaction = echo}};

    open_scene(&scene, 0);
    for (size_t i = 1; i < 6; i++) {
        CHECK_EQ(SSL_key_update(scene.peer.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        peer_write(&scene.peer, SECRET, 16);
        pump_until_read(scene.loop, &scene.peer, 16 * i);
        CHECK_EQ(SSL_key_update(scene.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    }
    CHECK_EQ(scene.witness.received, 5 * 16);
    close_scene(&scene);
}

/* While it goes on, SSL_write wants to read: what is written is held. */
TEST(tls_1_2_is_renegotiated_in_the_middle)
{
    struct scene scene = {.witness = {.reaction = echo}};
    int fds[2];

    scene.loop = check_open_loop();
    open_sockets(fds);
    scene.peer = open_peer(fds[1], true, TLS1_2_VERSION);
#ifdef SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    (void)SSL_set_options(scene.peer.ssl, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
#endif
    scene.stream = add_tls(scene.loop, fds[0], &scene.witness, false, &scene.ssl);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    CHECK_EQ(SSL_renegotiate(scene.ssl), 1);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, SECRET, 16), 0);
    CHECK_EQ(queued(scene.loop, scene.stream), 16);
    pump_until_read(scene.loop, &scene.peer, 16);
    CHECK_EQ(queued(scene.loop, scene.stream), 0);
    peer_write(&scene.peer, SECRET, 16);
    pump_until_read(scene.loop, &scene.peer, 32);
    close_scene(&scene);
}
