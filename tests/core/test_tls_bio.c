/* test_tls_bio.c: the BIO of a stream: whose bytes it moves, and when. */
#include "tls_fixtures.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct scene {
    struct fdmux_loop *loop;
    struct witness witness;
    struct peer peer;
    SSL *ssl;
    uint64_t stream;
};

static void open_in(struct scene *scene, struct fdmux_loop *loop)
{
    int fds[2];

    scene->loop = loop;
    open_sockets(fds);
    scene->peer = open_peer(fds[1], false, 0);
    scene->stream = add_tls(loop, fds[0], &scene->witness, true, &scene->ssl);
    shake_hands(loop, &scene->peer, &scene->witness);
}

static void close_ends(struct scene *scene)
{
    CHECK_EQ(scene->witness.destroyed, 1);
    close_peer(&scene->peer);
    SSL_free(scene->ssl);
}

static void close_scene(struct scene *scene)
{
    fdmux_loop_destroy(scene->loop);
    close_ends(scene);
}

/* ---- nobody else's ------------------------------------------------------------- */

TEST(nobody_else_receives_through_the_ssl)
{
    struct scene scene = {0};
    char byte;

    open_in(&scene, check_open_loop());
    peer_write(&scene.peer, SECRET, 16);
    fdmux_testing_fail(FDMUX_CALL_RECV, 0, 0, 0);
    CHECK_EQ(SSL_read(scene.ssl, &byte, 1), -1);
    CHECK_EQ(fdmux_testing_calls(), 0);
    serve_until(scene.loop, &scene.witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(scene.witness.received, 16);
    close_scene(&scene);
}

TEST(nobody_else_sends_through_the_ssl)
{
    struct scene scene = {0};

    open_in(&scene, check_open_loop());
    fdmux_testing_fail(FDMUX_CALL_SEND, 0, 0, 0);
    CHECK_EQ(SSL_write(scene.ssl, SECRET, 16), -1);
    CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, FDMUX_STREAM_DROP), 0);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(fdmux_testing_calls(), 0);
    close_scene(&scene);
}

static int look_at_ssl(struct witness *witness, const struct fdmux_stream_event *event)
{
    const struct scene *scene = witness->extra;

    CHECK_EQ(SSL_get_rbio(scene->ssl) == NULL, event->kind == FDMUX_STREAM_CLOSED);
    return 0;
}

TEST(the_ssl_has_no_bio_in_closed_and_can_be_used_for_questions)
{
    struct scene scene = {.witness = {.reaction = look_at_ssl, .extra = &scene}};
    char byte;

    open_in(&scene, check_open_loop());
    fdmux_loop_destroy(scene.loop);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_CLOSED], 1);
    CHECK_EQ(SSL_version(scene.ssl), TLS1_3_VERSION);
    CHECK_EQ(SSL_read(scene.ssl, &byte, 1), -1);
    ERR_clear_error();
    close_ends(&scene);
}

/* ---- two streams at once ------------------------------------------------------- */

/* Calls of OpenSSL inside a handshake: each writes to another stream. */
struct tail {
    struct scene scene;
    struct scene *other;
    int writes;
};

static void write_to_other(int is_sent, int version, int type, const void *bytes,
                           size_t length, SSL *ssl, void *userdata)
{
    struct tail *tail = userdata;

    (void)version, (void)type, (void)bytes, (void)length, (void)ssl;
    if (is_sent == 0)
        return;
    CHECK_EQ(fdmux_stream_write(tail->scene.loop, tail->other->stream, "x", 1), 0);
    tail->writes++;
}

TEST(a_write_inside_a_handshake_reaches_its_own_peer)
{
    struct fdmux_loop *loop = check_open_loop();
    struct scene other = {0};
    struct tail tail = {.scene.loop = loop, .other = &other};
    int fds[2];

    open_in(&other, loop);
    open_sockets(fds);
    tail.scene.peer = open_peer(fds[1], false, 0);
    tail.scene.stream =
        add_tls(loop, fds[0], &tail.scene.witness, true, &tail.scene.ssl);
    SSL_set_msg_callback(tail.scene.ssl, write_to_other);
    SSL_set_msg_callback_arg(tail.scene.ssl, &tail);
    shake_hands(loop, &tail.scene.peer, &tail.scene.witness);
    CHECK_EQ(SSL_is_init_finished(tail.scene.peer.ssl), 1);
    CHECK(tail.writes > 4);
    pump_until_read(loop, &other.peer, (size_t)tail.writes);
    SSL_set_msg_callback(tail.scene.ssl, NULL);
    CHECK_EQ(fdmux_stream_write(loop, tail.scene.stream, SECRET, 16), 0);
    pump_until_read(loop, &tail.scene.peer, 16);
    CHECK_EQ(other.peer.read, (size_t)tail.writes);
    fdmux_loop_destroy(loop);
    close_ends(&other);
    close_ends(&tail.scene);
}

/* ---- the end of the socket ----------------------------------------------------- */

TEST(data_that_comes_with_the_end_of_the_socket_is_delivered_first)
{
    static unsigned char bytes[50000];
    struct scene scene = {0};

    open_in(&scene, check_open_loop());
    peer_write(&scene.peer, bytes, sizeof bytes);
    CHECK_EQ(BIO_ctrl_pending(SSL_get_wbio(scene.peer.ssl)), 0);
    CHECK_EQ(shutdown(scene.peer.fd, SHUT_WR), 0);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.received, sizeof bytes);
    CHECK_EQ(scene.witness.error, ECONNABORTED);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_END], 0);
    close_scene(&scene);
}

/* ---- a full socket ------------------------------------------------------------- */

/* OpenSSL answers a key update while it reads. It never has to wait for the socket. */
TEST(what_reading_makes_openssl_send_waits_in_the_queue)
{
    static unsigned char bytes[30000];
    struct scene scene = {0};
    uint32_t before;

    open_in(&scene, check_open_loop());
    set_buffer(fdmux_stream_fd(scene.loop, scene.stream), SO_SNDBUF, 4096);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, bytes, sizeof bytes), 0);
    before = queued(scene.loop, scene.stream);
    CHECK(before > 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(SSL_key_update(scene.peer.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        peer_write(&scene.peer, SECRET, 16);
        CHECK_EQ(serve(scene.loop), 0);
        CHECK_EQ(scene.witness.received, 16U * (unsigned)(i + 1));
    }
    CHECK(queued(scene.loop, scene.stream) > before);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, SECRET, 16), 0);
    pump_until_read(scene.loop, &scene.peer, sizeof bytes + 16);
    CHECK(!scene.peer.is_broken);
    close_scene(&scene);
}

/* A peer that only asks for new keys and never reads is bounded by the queue. */
TEST(a_flood_of_key_updates_is_bounded)
{
    struct scene scene = {0};
    struct fdmux_stream_options options;
    struct fdmux_tls_options tls;
    uint32_t most = 0;
    int fds[2];

    scene.loop = check_open_loop();
    open_sockets(fds);
    scene.peer = open_peer(fds[1], false, 0);
    options = options_for(scene.loop, &scene.witness);
    options.queue_high = 2048;
    scene.stream = add_stream_with(scene.loop, fds[0], &options);
    scene.ssl = new_ssl(true, 0);
    tls = tls_options(scene.ssl);
    CHECK_EQ(fdmux_stream_start_tls(scene.loop, scene.stream, &tls), 0);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    set_buffer(fds[0], SO_SNDBUF, 4096);
    for (int i = 0; i < 2000; i++) {
        CHECK_EQ(SSL_key_update(scene.peer.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        CHECK_EQ(SSL_do_handshake(scene.peer.ssl), 1);
        peer_write(&scene.peer, NULL, 0);
        CHECK_EQ(serve(scene.loop), 0);
        if (queued(scene.loop, scene.stream) > most)
            most = queued(scene.loop, scene.stream);
    }
    CHECK(most >= 2048 && most < 16384); /* high water, and one receive more */
    close_scene(&scene);
}

/* ---- fork ---------------------------------------------------------------------- */

static int write_twice_and_fork(struct witness *witness,
                                const struct fdmux_stream_event *event)
{
    pid_t *child = witness->extra;

    if (event->kind != FDMUX_STREAM_DATA)
        return 0;
    CHECK_EQ(fdmux_stream_write(witness->loop, event->stream, SECRET, 8), 0);
    CHECK_EQ(fdmux_stream_write(witness->loop, event->stream, SECRET, 8), 0);
    if (child != NULL)
        *child = fork();
    return 0;
}

/* The parent's function has not returned: its writes are still gathered here. */
static int go_on_in_child(struct scene *old)
{
    static const unsigned char twice[] = "PLAINTEXPLAINTEX";
    struct scene scene = {.witness = {.reaction = write_twice_and_fork}};

    CHECK_EQ(fdmux_loop_after_fork(old->loop), 0);
    CHECK_EQ(fdmux_stream_close(old->loop, old->stream, FDMUX_STREAM_DROP), 0);
    serve_until(old->loop, &old->witness.destroyed, 1);
    open_in(&scene, old->loop);
    peer_write(&scene.peer, "x", 1);
    fdmux_testing_fail(FDMUX_CALL_SEND, 0, 0, 0);
    serve_until(old->loop, &scene.witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(fdmux_testing_calls(), 1); /* they are gathered again */
    pump(&scene.peer);
    CHECK_EQ(scene.peer.read, 16);
    CHECK_EQ(scene.peer.hash, hash_bytes(HASH_START, twice, 16));
    return 0;
}

TEST(a_child_forgets_what_was_gathered_in_its_parent)
{
    pid_t child = -1;
    struct scene scene = {
        .witness = {.reaction = write_twice_and_fork, .extra = &child}};
    int status = 1;
    int r;

    open_in(&scene, check_open_loop());
    peer_write(&scene.peer, "x", 1);
    r = fdmux_loop_dispatch(scene.loop, 0, NULL, 0);
    if (child == 0)
        _exit(r == -ECHILD ? go_on_in_child(&scene) : 1);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    pump_until_read(scene.loop, &scene.peer, 16);
    close_scene(&scene);
}
