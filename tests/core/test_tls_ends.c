/* test_tls_ends.c: how a stream with TLS ends: close_notify both ways, truncation,
 * errors, timeouts, ends inside functions, and fork. */
#include "tls_fixtures.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stream.h"

struct scene {
    struct fdmux_loop *loop;
    struct witness witness;
    struct peer peer;
    SSL *ssl;
    uint64_t stream;
};

static void open_with(struct scene *scene, const struct fdmux_tls_options *wanted)
{
    struct fdmux_tls_options options;
    int fds[2];

    scene->loop = check_open_loop();
    open_sockets(fds);
    scene->peer = open_peer(fds[1], false, 0);
    scene->stream = add_stream(scene->loop, fds[0], &scene->witness);
    scene->ssl = new_ssl(true, 0);
    options = tls_options(scene->ssl);
    options.handshake_timeout_ms = wanted->handshake_timeout_ms;
    options.shutdown_timeout_ms = wanted->shutdown_timeout_ms;
    options.handshake = wanted->handshake;
    options.userdata = wanted->userdata;
    options.flags = wanted->flags;
    CHECK_EQ(fdmux_stream_start_tls(scene->loop, scene->stream, &options), 0);
}

static void open_scene(struct scene *scene)
{
    struct fdmux_tls_options wanted = {0};

    open_with(scene, &wanted);
}

static void close_scene(struct scene *scene)
{
    fdmux_loop_destroy(scene->loop);
    CHECK_EQ(scene->witness.destroyed, 1);
    CHECK_EQ(scene->witness.counts[FDMUX_STREAM_CLOSED], 1);
    close_peer(&scene->peer);
    SSL_free(scene->ssl);
}

/* ---- close_notify -------------------------------------------------------------- */

TEST(close_notify_of_the_peer_is_the_end)
{
    struct scene scene = {0};

    open_scene(&scene);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    CHECK_EQ(SSL_shutdown(scene.peer.ssl), 0);
    pump_until(scene.loop, &scene.peer, &scene.witness.counts[FDMUX_STREAM_END], 1);
    CHECK(!scene.peer.is_notified);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, SECRET, 16), 0);
    pump_until_read(scene.loop, &scene.peer, 16); /* writing goes on */
    CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, 0), 0);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, 0);
    pump(&scene.peer);
    CHECK(scene.peer.is_notified); /* it was answered */
    close_scene(&scene);
}

TEST(shutdown_sends_close_notify_and_reading_goes_on)
{
    struct scene scene = {0};

    open_scene(&scene);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, SECRET, 16), 0);
    CHECK_EQ(fdmux_stream_shutdown(scene.loop, scene.stream), 0); /* while it is held */
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, SECRET, 16), -EPIPE);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    CHECK_EQ(scene.peer.read, 16);
    CHECK(scene.peer.is_notified);
    CHECK(!scene.peer.is_ended); /* the socket is open both ways */
    peer_write(&scene.peer, "more", 4);
    pump_until(scene.loop, &scene.peer, &scene.witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(fdmux_stream_shutdown(scene.loop, scene.stream), 0);
    CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, 0), 0);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    close_scene(&scene);
}

static int answer_and_close(struct witness *witness,
                            const struct fdmux_stream_event *event)
{
    if (event->kind == FDMUX_STREAM_DATA) {
        CHECK_EQ(fdmux_stream_write(witness->loop, event->stream, SECRET, 16), 0);
        CHECK_EQ(fdmux_stream_close(witness->loop, event->stream, 0), 0);
    }
    return 0;
}

TEST(answer_and_close_notify_share_a_send)
{
    struct scene scene = {.witness = {.reaction = answer_and_close}};

    open_scene(&scene);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    peer_write(&scene.peer, "x", 1);
    fdmux_testing_fail(FDMUX_CALL_SEND, 0, 0, 0);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(fdmux_testing_calls(), 1);
    CHECK_EQ(scene.witness.error, 0);
    pump(&scene.peer);
    CHECK_EQ(scene.peer.read, 16);
    CHECK(scene.peer.is_notified);
    close_scene(&scene);
}

TEST(drop_sends_nothing)
{
    struct scene scene = {0};

    open_scene(&scene);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    fdmux_testing_fail(FDMUX_CALL_SEND, 0, 0, 0);
    CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, FDMUX_STREAM_DROP), 0);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(fdmux_testing_calls(), 0);
    close_scene(&scene);
}

TEST(close_waits_for_close_notify_if_asked_and_discards_data)
{
    struct fdmux_tls_options wanted = {.shutdown_timeout_ms = 60000};
    struct scene scene = {0};

    open_with(&scene, &wanted);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, 0), 0);
    peer_write(&scene.peer, SECRET, 16);
    for (int i = 0; i < 10; i++) {
        pump(&scene.peer);
        CHECK_EQ(serve(scene.loop), 0);
    }
    CHECK(scene.peer.is_notified);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_CLOSED], 0);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_DATA], 0);
    CHECK_EQ(SSL_shutdown(scene.peer.ssl), 1);
    pump_until(scene.loop, &scene.peer, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, 0);
    close_scene(&scene);
}

TEST(close_waits_no_longer_than_the_timeout)
{
    struct fdmux_tls_options wanted = {.shutdown_timeout_ms = 1000};
    struct scene scene = {0};

    open_with(&scene, &wanted);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, 0), 0);
    fdmux__hub_tick(scene.loop, 4);
    CHECK_EQ(serve(scene.loop), 0);
    CHECK_EQ(scene.witness.destroyed, 0);
    fdmux__hub_tick(scene.loop, 1);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, ETIMEDOUT);
    close_scene(&scene);
}

TEST(a_socket_that_ends_is_enough_for_a_close_that_waits)
{
    struct fdmux_tls_options wanted = {.shutdown_timeout_ms = 1000};
    struct scene scene = {0};

    open_with(&scene, &wanted);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, 0), 0);
    CHECK_EQ(shutdown(scene.peer.fd, SHUT_WR), 0);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, 0);
    close_scene(&scene);
}

/* ---- timeouts of the handshake ------------------------------------------------- */

TEST(a_handshake_that_does_not_end_times_out)
{
    struct fdmux_tls_options wanted = {.handshake_timeout_ms = 1000};
    struct scene scene = {0};

    open_with(&scene, &wanted);
    CHECK_EQ(serve(scene.loop), 0);
    fdmux__hub_tick(scene.loop, 4);
    CHECK_EQ(serve(scene.loop), 0);
    CHECK_EQ(scene.witness.destroyed, 0);
    fdmux__hub_tick(scene.loop, 1);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, ETIMEDOUT);
    close_scene(&scene);
}

TEST(the_timeout_is_over_with_the_handshake)
{
    struct fdmux_tls_options wanted = {.handshake_timeout_ms = 1000};
    struct scene scene = {0};

    open_with(&scene, &wanted);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    fdmux__hub_tick(scene.loop, 1000);
    CHECK_EQ(serve(scene.loop), 0);
    CHECK_EQ(scene.witness.destroyed, 0);
    close_scene(&scene);
}

/* ---- truncation ---------------------------------------------------------------- */

/* What a client sends in a short session, all of it. */
static size_t record_session(unsigned char *bytes, size_t size)
{
    struct peer client = open_peer(-1, false, 0), server = open_peer(-1, true, 0);
    size_t length = 0;

    for (int i = 0; i < 6; i++) {
        BIO *from = SSL_get_wbio(i % 2 == 0 ? client.ssl : server.ssl);
        BIO *to = SSL_get_rbio(i % 2 == 0 ? server.ssl : client.ssl);
        char moved[16384];
        int r;

        (void)SSL_do_handshake(i % 2 == 0 ? client.ssl : server.ssl);
        if (i == 4) {
            CHECK_EQ(SSL_write(client.ssl, "hello", 5), 5);
            CHECK_EQ(SSL_shutdown(client.ssl), 0);
        }
        r = BIO_read(from, moved, sizeof moved);
        if (r > 0 && i % 2 == 0) {
            CHECK(length + (size_t)r <= size);
            memcpy(bytes + length, moved, (size_t)r);
            length += (size_t)r;
        }
        if (r > 0)
            CHECK_EQ(BIO_write(to, moved, r), r);
    }
    close_peer(&client);
    close_peer(&server);
    return length;
}

/* The peer makes a handshake, sends data and close_notify, but its bytes end early. */
static void truncate_at(size_t left, uint32_t flags, struct witness *ret_witness)
{
    struct fdmux_tls_options wanted = {.flags = flags};
    struct scene scene = {0};

    open_with(&scene, &wanted);
    for (int i = 0; i < 200 && scene.witness.destroyed == 0; i++) {
        BIO *out = SSL_get_wbio(scene.peer.ssl);
        char bytes[4096];
        int count = left < sizeof bytes ? (int)left : (int)sizeof bytes;

        if (i == 5 && SSL_is_init_finished(scene.peer.ssl))
            CHECK_EQ(SSL_write(scene.peer.ssl, "hello", 5), 5);
        if (i == 6 && SSL_is_init_finished(scene.peer.ssl))
            CHECK_EQ(SSL_shutdown(scene.peer.ssl), 0);
        count = count == 0 ? 0 : BIO_read(out, bytes, count);
        if (count > 0)
            CHECK_EQ(send(scene.peer.fd, bytes, (size_t)count, MSG_NOSIGNAL), count);
        left -= count > 0 ? (size_t)count : 0;
        if (i == 20)
            CHECK_EQ(shutdown(scene.peer.fd, SHUT_WR), 0);
        CHECK_EQ(serve(scene.loop), 0);
        count = (int)recv(scene.peer.fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (count > 0)
            CHECK_EQ(BIO_write(SSL_get_rbio(scene.peer.ssl), bytes, count), count);
        if (i < 5)
            (void)SSL_do_handshake(scene.peer.ssl);
    }
    *ret_witness = scene.witness;
    close_scene(&scene);
}

TEST(a_session_that_is_cut_at_any_byte_is_no_clean_end)
{
    static unsigned char bytes[8192];
    size_t length = record_session(bytes, sizeof bytes);
    struct witness witness;

    CHECK(length > 200);
    for (size_t left = 0; left < length; left++) {
        truncate_at(left, 0, &witness);
        CHECK_EQ(witness.error, ECONNABORTED);
        CHECK_EQ(witness.counts[FDMUX_STREAM_END], 0);
    }
    truncate_at(length, 0, &witness);
    CHECK_EQ(witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(witness.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(witness.destroyed, 0);
}

/* How many records end in the first `length` bytes, if the last one ends there; 0: it
 * does not. */
static int count_records(const unsigned char *bytes, size_t length)
{
    size_t end = 0;
    int count = 0;

    while (end + 5 <= length) {
        end += 5 + ((size_t)bytes[end + 3] << 8 | bytes[end + 4]);
        count++;
    }
    return end == length ? count : 0;
}

TEST(eof_is_an_end_between_records_if_the_caller_says_so)
{
    static unsigned char bytes[8192];
    size_t length = record_session(bytes, sizeof bytes);
    int last = count_records(bytes, length); /* close_notify, after one of data */
    struct witness witness;

    CHECK(last > 2);
    for (size_t left = 0; left < length; left++) {
        int count = count_records(bytes, left);
        bool is_end = count > 0 && count >= last - 2; /* after the handshake */

        truncate_at(left, FDMUX_TLS_EOF_ENDS, &witness);
        CHECK_EQ(witness.counts[FDMUX_STREAM_END], is_end);
        CHECK_EQ(witness.error, is_end ? 0 : ECONNABORTED);
    }
    truncate_at(length, FDMUX_TLS_EOF_ENDS, &witness);
    CHECK_EQ(witness.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(witness.destroyed, 0);
}

TEST(after_eof_writing_goes_on_and_no_close_notify_is_sent)
{
    struct fdmux_tls_options wanted = {.flags = FDMUX_TLS_EOF_ENDS,
                                       .shutdown_timeout_ms = 60000};
    struct scene scene = {0};

    open_with(&scene, &wanted);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    CHECK_EQ(shutdown(scene.peer.fd, SHUT_WR), 0);
    pump_until(scene.loop, &scene.peer, &scene.witness.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, SECRET, 16), 0);
    CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, 0), 0);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, 0);
    while (!scene.peer.is_ended)
        pump(&scene.peer);
    CHECK_EQ(scene.peer.read, 16);
    CHECK(!scene.peer.is_notified);
    close_scene(&scene);
}

/* ---- errors -------------------------------------------------------------------- */

static int keep_code(struct witness *witness, const struct fdmux_stream_event *event)
{
    if (event->kind == FDMUX_STREAM_CLOSED)
        CHECK_EQ(fdmux_stream_tls_error(witness->loop, event->stream, witness->extra),
                 0);
    return 0;
}

TEST(garbage_instead_of_a_handshake_is_eproto_and_an_alert)
{
    uint64_t code = 0;
    struct scene scene = {.witness = {.reaction = keep_code, .extra = &code}};
    unsigned char bytes[100];

    open_scene(&scene);
    CHECK_EQ(send(scene.peer.fd, "GET / HTTP/1.0\r\n\r\n", 18, 0), 18);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, EPROTO);
    CHECK_EQ(ERR_GET_REASON(code), SSL_R_HTTP_REQUEST);
    CHECK_EQ(ERR_peek_error(), 0);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_TLS], 0);
    (void)recv(scene.peer.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    close_scene(&scene);
}

TEST(garbage_between_records_is_eproto_and_an_alert)
{
    uint64_t code = 0;
    struct scene scene = {.witness = {.reaction = keep_code, .extra = &code}};

    open_scene(&scene);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    CHECK_EQ(send(scene.peer.fd, "\x17\x03\x03\0\x20" SECRET SECRET, 37, 0), 37);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, EPROTO);
    CHECK(code != 0);
    pump(&scene.peer);
    CHECK(scene.peer.is_broken); /* by the alert: no bare end */
    close_scene(&scene);
}

TEST(a_reset_is_what_it_was_without_tls)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    int fds[2];
    SSL *ssl;

    open_tcp_sockets(fds);
    (void)add_tls(loop, fds[0], &witness, true, &ssl);
    CHECK_EQ(serve(loop), 0);
    reset(fds[1]);
    serve_until(loop, &witness.destroyed, 1);
    CHECK_EQ(witness.error, ECONNRESET);
    fdmux_loop_destroy(loop);
    SSL_free(ssl);
}

/* ---- a handshake function of the caller ---------------------------------------- */

static int refuse(struct fdmux_loop *loop, uint64_t stream, void *userdata)
{
    struct scene *scene = userdata;
    int r = SSL_do_handshake(scene->ssl);

    (void)loop, (void)stream;
    return r == 1 ? -EACCES : 0;
}

TEST(the_callers_handshake_may_refuse)
{
    struct scene scene = {0};
    struct fdmux_tls_options wanted = {.handshake = refuse, .userdata = &scene};

    open_with(&scene, &wanted);
    pump_until(scene.loop, &scene.peer, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, EACCES);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_TLS], 0);
    close_scene(&scene);
}

static int drop_it(struct fdmux_loop *loop, uint64_t stream, void *userdata)
{
    (void)userdata;
    CHECK_EQ(fdmux_stream_close(loop, stream, FDMUX_STREAM_DROP), 0);
    return 1;
}

TEST(the_callers_handshake_may_drop_the_stream)
{
    struct scene scene = {0};
    struct fdmux_tls_options wanted = {.handshake = drop_it};

    open_with(&scene, &wanted);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.error, 0);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_TLS], 0);
    close_scene(&scene);
}

static int destroy_it(struct fdmux_loop *loop, uint64_t stream, void *userdata)
{
    (void)stream, (void)userdata;
    fdmux_loop_destroy(loop);
    return 1;
}

TEST(the_callers_handshake_may_destroy_the_loop)
{
    struct scene scene = {0};
    struct fdmux_tls_options wanted = {.handshake = destroy_it};

    open_with(&scene, &wanted);
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, 0, NULL, 0), -ESTALE);
    CHECK_EQ(scene.witness.destroyed, 1);
    close_peer(&scene.peer);
    SSL_free(scene.ssl);
}

/* ---- ends inside functions ----------------------------------------------------- */

/* What to do, and in which event. */
struct plan {
    uint32_t kind;
    int action; /* 0: close, 1: drop, 2: destroy the loop, 3: shutdown, 4: pause */
};

static int act(struct witness *witness, const struct fdmux_stream_event *event)
{
    const struct plan *plan = witness->extra;
    struct fdmux_loop *loop = witness->loop;

    if (event->kind != plan->kind || witness->counts[event->kind] > 1)
        return 0;
    if (event->kind != FDMUX_STREAM_CLOSED)
        (void)fdmux_stream_write(loop, event->stream, SECRET, 16);
    if (plan->action == 2)
        fdmux_loop_destroy(loop);
    else if (plan->action == 3)
        (void)fdmux_stream_shutdown(loop, event->stream);
    else if (plan->action == 4)
        (void)fdmux_stream_pause(loop, event->stream);
    else
        (void)fdmux_stream_close(loop, event->stream,
                                 plan->action == 1 ? FDMUX_STREAM_DROP : 0);
    return 0;
}

static void run_plan(struct plan plan)
{
    struct scene scene = {.witness = {.reaction = act, .extra = &plan}};
    int r = 0;

    open_scene(&scene);
    CHECK_EQ(fdmux_stream_write(scene.loop, scene.stream, SECRET, 16), 0);
    for (int i = 0; i < 30 && r >= 0; i++) {
        if (i == 10 && SSL_is_init_finished(scene.peer.ssl))
            peer_write(&scene.peer, SECRET, 16);
        if (i == 15 && SSL_is_init_finished(scene.peer.ssl))
            (void)SSL_shutdown(scene.peer.ssl);
        pump(&scene.peer);
        r = fdmux_loop_dispatch(scene.loop, 0, NULL, 0);
    }
    if (r >= 0 && scene.witness.destroyed == 0) {
        (void)fdmux_stream_close(scene.loop, scene.stream, 0);
        r = fdmux_loop_dispatch(scene.loop, 0, NULL, 0);
    }
    if (r >= 0)
        fdmux_loop_destroy(scene.loop);
    CHECK_EQ(scene.witness.destroyed, 1);
    CHECK_EQ(scene.witness.counts[FDMUX_STREAM_CLOSED], 1);
    close_peer(&scene.peer);
    SSL_free(scene.ssl);
}

TEST(every_function_may_end_the_stream_or_the_loop)
{
    static const uint32_t kinds[] = {FDMUX_STREAM_TLS, FDMUX_STREAM_DATA,
                                     FDMUX_STREAM_END, FDMUX_STREAM_DRAINED,
                                     FDMUX_STREAM_CLOSED};

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        for (int action = 0; action < 5; action++)
            run_plan((struct plan){kinds[i], action});
    }
}

/* ---- fork ---------------------------------------------------------------------- */

static int fork_in_data(struct witness *witness, const struct fdmux_stream_event *event)
{
    pid_t *child = witness->extra;

    if (event->kind != FDMUX_STREAM_DATA)
        return 0;
    CHECK_EQ(fdmux_stream_write(witness->loop, event->stream, SECRET, 16), 0);
    *child = fork();
    return 0;
}

/* The child must not send what the parent sends too. */
TEST(a_child_that_returns_from_a_function_sends_nothing)
{
    pid_t child = -1;
    struct scene scene = {.witness = {.reaction = fork_in_data, .extra = &child}};
    int status = 0;
    int r;

    open_scene(&scene);
    shake_hands(scene.loop, &scene.peer, &scene.witness);
    peer_write(&scene.peer, "x", 1);
    fdmux_testing_fail(FDMUX_CALL_SEND, 0, 0, 0);
    r = fdmux_loop_dispatch(scene.loop, 0, NULL, 0);
    if (child == 0)
        _exit(r == -ECHILD && fdmux_testing_calls() == 0 ? 0 : 1);
    CHECK(child > 0);
    CHECK_EQ(r, 0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    pump_until_read(scene.loop, &scene.peer, 16);
    CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, 0), 0);
    serve_until(scene.loop, &scene.witness.destroyed, 1);
    pump(&scene.peer);
    CHECK_EQ(scene.peer.read, 16);
    CHECK(scene.peer.is_notified);
    close_scene(&scene);
}
