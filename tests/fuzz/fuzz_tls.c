/* fuzz_tls.c: turns bytes into a TLS session that somebody disturbs.
 *
 * A stream with TLS talks to OpenSSL over a socket pair. The input says what is done to
 * the bytes of the peer (passed on, cut, flipped, dropped, repeated, mixed with
 * garbage), what both ends do, and which system calls fail. Whatever happens: the
 * stream delivers a prefix of what the peer has encrypted, END only after the peer's
 * close_notify, and no plaintext is on the wire; `destroyed` is called once, and memory
 * balances. Anything else aborts. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fuzz_core.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fdmux_tls.h"
#include "testing.h"

#define MUST(condition)                                                                \
    do {                                                                               \
        if (!(condition)) {                                                            \
            (void)fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__,         \
                          #condition);                                                 \
            abort();                                                                   \
        }                                                                              \
    } while (0)

enum { STEPS_MAX = 200, WIRE_MAX = 1 << 17 };

static const struct fdmux_tls_functions openssl = FDMUX_TLS_OPENSSL;
static SSL_CTX *contexts[2]; /* client, server */

struct run {
    const uint8_t *bytes;
    size_t left;
    struct fdmux_loop *loop;
    uint64_t stream;
    SSL *ssl;
    SSL *peer;
    int fd; /* of the peer */
    size_t written; /* by the peer; byte n is pattern(n) */
    size_t received; /* by the stream */
    bool is_notified; /* the peer has sent close_notify */
    int destroyed;
    size_t last_size;
    unsigned char last[4096]; /* what was passed on last */
};

static uint8_t take(struct run *run)
{
    if (run->left == 0)
        return 0;
    run->left--;
    return *run->bytes++;
}

static unsigned char pattern(size_t position)
{
    return (unsigned char)(0x80 | (position * 31 + (position >> 7)));
}

/* ---- sessions ------------------------------------------------------------------ */

static void use_new_certificate(SSL_CTX *context)
{
    EVP_PKEY_CTX *maker = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
    X509 *certificate = X509_new();
    EVP_PKEY *key = NULL;

    MUST(EVP_PKEY_keygen_init(maker) == 1 &&
         EVP_PKEY_CTX_set_ec_paramgen_curve_nid(maker, NID_X9_62_prime256v1) == 1 &&
         EVP_PKEY_keygen(maker, &key) == 1);
    MUST(X509_gmtime_adj(X509_getm_notBefore(certificate), 0) != NULL &&
         X509_gmtime_adj(X509_getm_notAfter(certificate), 1 << 20) != NULL &&
         X509_set_pubkey(certificate, key) == 1 &&
         X509_sign(certificate, key, EVP_sha256()) > 0);
    MUST(SSL_CTX_use_certificate(context, certificate) == 1 &&
         SSL_CTX_use_PrivateKey(context, key) == 1);
    EVP_PKEY_CTX_free(maker);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void open_contexts(void)
{
    if (contexts[0] != NULL)
        return;
    contexts[0] = SSL_CTX_new(TLS_client_method());
    contexts[1] = SSL_CTX_new(TLS_server_method());
    MUST(contexts[0] != NULL && contexts[1] != NULL);
    use_new_certificate(contexts[1]);
}

static SSL *new_ssl(bool is_server, bool is_1_2)
{
    SSL *ssl = SSL_new(contexts[is_server]);

    MUST(ssl != NULL);
    if (is_1_2)
        MUST(SSL_set_max_proto_version(ssl, TLS1_2_VERSION) == 1);
    if (is_server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    return ssl;
}

/* ---- the stream ---------------------------------------------------------------- */

static void check_data(struct run *run, const struct fdmux_stream_event *event)
{
    const unsigned char *data = event->data;

    for (uint32_t i = 0; i < event->length; i++)
        MUST(data[i] == pattern(run->received + i));
    run->received += event->length;
    MUST(run->received <= run->written);
}

static void write_some(struct run *run)
{
    static const unsigned char bytes[40000] = "PLAINTEXT-SECRET";

    (void)fdmux_stream_write(run->loop, run->stream, bytes, 16U << (take(run) % 12));
}

static void act(struct run *run)
{
    switch (take(run) % 8) {
    case 0:
        (void)fdmux_stream_close(run->loop, run->stream, 0);
        break;
    case 1:
        (void)fdmux_stream_close(run->loop, run->stream, FDMUX_STREAM_DROP);
        break;
    case 2:
        (void)fdmux_stream_shutdown(run->loop, run->stream);
        break;
    case 3:
        (void)fdmux_stream_pause(run->loop, run->stream);
        break;
    case 4:
        (void)fdmux_stream_resume(run->loop, run->stream);
        break;
    default:
        write_some(run);
    }
}

static int on_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                    void *userdata)
{
    struct run *run = userdata;

    MUST(loop == run->loop && run->destroyed == 0);
    if (event->kind == FDMUX_STREAM_DATA)
        check_data(run, event);
    if (event->kind == FDMUX_STREAM_END)
        MUST(run->is_notified && run->received == run->written);
    if (event->kind != FDMUX_STREAM_CLOSED && take(run) % 4 == 3)
        act(run);
    return 0;
}

static void on_destroyed(void *userdata)
{
    ((struct run *)userdata)->destroyed++;
}

/* ---- the peer ------------------------------------------------------------------ */

static void pass(struct run *run, const void *bytes, size_t size)
{
    (void)send(run->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT); /* or is lost */
}

/* Pass on up to `size` bytes of the peer's ciphertext, and remember them. */
static void pass_on(struct run *run, size_t size)
{
    int count = BIO_read(SSL_get_wbio(run->peer), run->last,
                         size < sizeof run->last ? (int)size : (int)sizeof run->last);

    if (count <= 0)
        return;
    run->last_size = (size_t)count;
    pass(run, run->last, run->last_size);
}

static void pass_all(struct run *run)
{
    while (BIO_ctrl_pending(SSL_get_wbio(run->peer)) > 0)
        pass_on(run, sizeof run->last);
}

static void flip(struct run *run)
{
    int count = BIO_read(SSL_get_wbio(run->peer), run->last, sizeof run->last);

    if (count <= 0)
        return;
    run->last_size = (size_t)count;
    run->last[(take(run) << 8 | take(run)) % count] ^= (unsigned char)(take(run) | 1);
    pass(run, run->last, run->last_size);
}

static void peer_reads(struct run *run)
{
    static unsigned char wire[WIRE_MAX];
    ssize_t count = recv(run->fd, wire, sizeof wire, MSG_DONTWAIT);
    int r = 1;

    if (count > 0) {
        MUST(memmem(wire, (size_t)count, "PLAINTEXT-SECRET", 16) == NULL);
        MUST(BIO_write(SSL_get_rbio(run->peer), wire, (int)count) == count);
    }
    while (r > 0)
        r = SSL_read(run->peer, wire, sizeof wire);
    ERR_clear_error();
}

static void peer_writes(struct run *run)
{
    static unsigned char bytes[32768];
    size_t size = 1U << (take(run) % 16);

    for (size_t i = 0; i < size; i++)
        bytes[i] = pattern(run->written + i);
    if (!run->is_notified && SSL_is_init_finished(run->peer) &&
        SSL_write(run->peer, bytes, (int)size) == (int)size)
        run->written += size;
    ERR_clear_error();
}

static void peer_ends(struct run *run)
{
    if (!SSL_is_init_finished(run->peer))
        return;
    run->is_notified = true;
    (void)SSL_shutdown(run->peer); /* an error of the session */
    ERR_clear_error();
}

static void peer_renews(struct run *run)
{
    if (SSL_version(run->peer) == TLS1_3_VERSION && SSL_is_init_finished(run->peer))
        (void)SSL_key_update(run->peer, SSL_KEY_UPDATE_REQUESTED); /* or not now */
    ERR_clear_error();
}

static void insert_garbage(struct run *run)
{
    size_t size = take(run) % 64;

    if (size > run->left)
        size = run->left;
    pass(run, run->bytes, size);
    run->bytes += size;
    run->left -= size;
}

static void fail_soon(struct run *run)
{
    static const int errors[] = {ENOMEM, EPIPE, ECONNRESET, ENOBUFS};
    uint8_t choice = take(run);

    fdmux_testing_fail(FDMUX_CALL_RECV | FDMUX_CALL_SEND | FDMUX_CALL_MEMORY,
                       1 + (choice >> 4), errors[choice & 3], 0);
}

static void step(struct run *run)
{
    switch (take(run) % 16) {
    case 0:
        pass_on(run, take(run));
        break;
    case 1:
        flip(run);
        break;
    case 2:
        run->last_size = 0;
        (void)BIO_read(SSL_get_wbio(run->peer), run->last, take(run)); /* is lost */
        break;
    case 3:
        pass(run, run->last, run->last_size);
        break;
    case 4:
        insert_garbage(run);
        break;
    case 5:
        (void)shutdown(run->fd, SHUT_WR); /* again: no effect */
        break;
    case 6:
        peer_ends(run);
        break;
    case 7:
        peer_renews(run);
        break;
    case 8:
        act(run);
        break;
    case 9:
        fail_soon(run);
        break;
    case 10:
        fdmux_testing_short(take(run) % 8);
        break;
    case 11:
    case 12:
        peer_writes(run);
        break;
    default:
        pass_all(run);
        peer_reads(run);
    }
}

/* ---- one input ----------------------------------------------------------------- */

static void open_run(struct run *run)
{
    struct fdmux_stream_options options = {.struct_size = sizeof options};
    struct fdmux_tls_options tls = {.struct_size = sizeof tls};
    uint8_t choice = take(run);
    int fds[2];

    MUST(fdmux_loop_create(NULL, &run->loop) == 0);
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    run->fd = fds[1];
    run->ssl = new_ssl((choice & 1) != 0, (choice & 2) != 0);
    run->peer = new_ssl((choice & 1) == 0, (choice & 2) != 0);
    SSL_set_bio(run->peer, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    options.fn = on_event;
    options.destroyed = on_destroyed;
    options.userdata = run;
    options.receive_max = (choice & 4) != 0 ? 1 + take(run) : 0;
    MUST(fdmux_stream_add(run->loop, fds[0], &options, &run->stream) == 0);
    tls.functions = &openssl;
    tls.ssl = run->ssl;
    tls.shutdown_timeout_ms = (choice & 8) != 0 ? 1000 : 0;
    MUST(fdmux_stream_start_tls(run->loop, run->stream, &tls) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run run = {.bytes = data, .left = size};
    int64_t allocations = fdmux_testing_allocations();
    int r = 0;

    open_contexts();
    open_run(&run);
    /* Most inputs begin with a handshake that nobody disturbs. */
    for (int i = 0; i < 4 && (size & 3) != 0; i++) {
        peer_reads(&run);
        pass_all(&run);
        MUST(fdmux_loop_dispatch(run.loop, 0, NULL, 0) == 0);
    }
    for (int i = 0; i < STEPS_MAX && run.left > 0 && r == 0; i++) {
        step(&run);
        r = fdmux_loop_dispatch(run.loop, 0, NULL, 0);
        MUST(fdmux_testing_verify(run.loop) == 0);
    }
    fdmux_testing_fail(0, 0, 0, 0);
    fdmux_testing_short(0);
    (void)fdmux_loop_destroy(run.loop);
    MUST(run.destroyed == 1);
    MUST(fdmux_testing_allocations() == allocations);
    SSL_free(run.ssl);
    SSL_free(run.peer);
    MUST(close(run.fd) == 0);
    return 0;
}
