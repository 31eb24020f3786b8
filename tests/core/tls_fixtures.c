/* tls_fixtures.c: see tls_fixtures.h. */
#include "tls_fixtures.h"

#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

const struct fdmux_tls_functions openssl = FDMUX_TLS_OPENSSL;

/* ---- sessions ------------------------------------------------------------------ */

static EVP_PKEY *make_key(void)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
    EVP_PKEY *key = NULL;

    CHECK(EVP_PKEY_keygen_init(context) == 1);
    CHECK(EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1) == 1);
    CHECK(EVP_PKEY_keygen(context, &key) == 1);
    EVP_PKEY_CTX_free(context);
    return key;
}

static X509 *make_certificate(EVP_PKEY *key)
{
    X509 *certificate = X509_new();
    X509_NAME *name = X509_get_subject_name(certificate);

    CHECK(X509_set_version(certificate, 2) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) == 1);
    CHECK(X509_gmtime_adj(X509_getm_notBefore(certificate), 0) != NULL);
    CHECK(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600) != NULL);
    CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                     (const unsigned char *)"test", -1, -1, 0) == 1);
    CHECK(X509_set_issuer_name(certificate, name) == 1);
    CHECK(X509_set_pubkey(certificate, key) == 1);
    CHECK(X509_sign(certificate, key, EVP_sha256()) > 0);
    return certificate;
}

static SSL_CTX *make_server(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = make_key();
    X509 *certificate = make_certificate(key);

    CHECK(SSL_CTX_use_certificate(context, certificate) == 1);
    CHECK(SSL_CTX_use_PrivateKey(context, key) == 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return context;
}

SSL *new_ssl(bool is_server, int version)
{
    static SSL_CTX *server, *client;
    SSL *ssl;

    if (server == NULL) {
        server = make_server();
        client = SSL_CTX_new(TLS_client_method());
    }
    ssl = SSL_new(is_server ? server : client);
    CHECK(ssl != NULL);
    if (version != 0)
        CHECK(SSL_set_max_proto_version(ssl, version) == 1);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    if (is_server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    return ssl;
}

struct fdmux_tls_options tls_options(SSL *ssl)
{
    return (struct fdmux_tls_options){
        .struct_size = sizeof(struct fdmux_tls_options),
        .functions = &openssl,
        .ssl = ssl,
    };
}

uint64_t add_tls(struct fdmux_loop *loop, int fd, struct witness *witness,
                 bool is_server, SSL **ret_ssl)
{
    uint64_t stream = add_stream(loop, fd, witness);
    struct fdmux_tls_options options;

    *ret_ssl = new_ssl(is_server, 0);
    options = tls_options(*ret_ssl);
    CHECK_EQ(fdmux_stream_start_tls(loop, stream, &options), 0);
    return stream;
}

/* ---- a peer -------------------------------------------------------------------- */

struct peer open_peer(int fd, bool is_server, int version)
{
    return (struct peer){
        .ssl = new_ssl(is_server, version), .fd = fd, .hash = HASH_START};
}

void close_peer(struct peer *peer)
{
    SSL_free(peer->ssl);
    if (peer->fd >= 0)
        CHECK_EQ(close(peer->fd), 0);
    peer->fd = -1;
}

static void send_out(struct peer *peer)
{
    char bytes[4096];
    BIO *bio = SSL_get_wbio(peer->ssl);
    int waiting = (int)BIO_ctrl_pending(bio);

    while (waiting > 0 && !peer->is_ended) {
        char *first = NULL;
        ssize_t sent;

        (void)BIO_get_mem_data(bio, &first);
        sent = send(peer->fd, first, (size_t)waiting, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0)
            return;
        for (ssize_t left = sent; left > 0;)
            left -=
                BIO_read(bio, bytes,
                         left < (ssize_t)sizeof bytes ? (int)left : (int)sizeof bytes);
        waiting = (int)BIO_ctrl_pending(bio);
    }
}

static void take_in(struct peer *peer)
{
    static char bytes[65536];
    size_t size = peer->step > 0 ? peer->step : sizeof bytes;
    ssize_t count = recv(peer->fd, bytes, size, MSG_DONTWAIT);

    if (count == 0 || (count < 0 && errno != EAGAIN))
        peer->is_ended = true;
    if (count <= 0)
        return;
    CHECK(memmem(bytes, (size_t)count, SECRET, strlen(SECRET)) == NULL);
    CHECK_EQ(BIO_write(SSL_get_rbio(peer->ssl), bytes, (int)count), count);
}

static void read_all(struct peer *peer)
{
    static unsigned char bytes[32768];
    int r = 1;

    while (r > 0) {
        ERR_clear_error();
        r = SSL_read(peer->ssl, bytes, sizeof bytes);
        if (r > 0) {
            peer->read += (size_t)r;
            peer->hash = hash_bytes(peer->hash, bytes, (size_t)r);
        }
    }
    r = SSL_get_error(peer->ssl, r);
    if (r == SSL_ERROR_ZERO_RETURN)
        peer->is_notified = true;
    else if (r == SSL_ERROR_SSL || r == SSL_ERROR_SYSCALL)
        peer->is_broken = true;
    ERR_clear_error();
}

void pump(struct peer *peer)
{
    send_out(peer);
    if (!peer->is_ended)
        take_in(peer);
    if (!peer->is_broken)
        read_all(peer); /* SSL_read makes the handshake too */
    send_out(peer);
}

void peer_write(struct peer *peer, const void *data, size_t length)
{
    if (length > 0)
        CHECK_EQ(SSL_write(peer->ssl, data, (int)length), (int)length);
    send_out(peer);
}

void pump_until(struct fdmux_loop *loop, struct peer *peer, const int *counter,
                int count)
{
    for (int i = 0; *counter < count; i++) {
        CHECK(i < 200000);
        pump(peer);
        CHECK(serve(loop) >= 0);
    }
}

void pump_until_read(struct fdmux_loop *loop, struct peer *peer, size_t count)
{
    for (int i = 0; peer->read < count; i++) {
        CHECK(i < 200000);
        CHECK(serve(loop) >= 0);
        pump(peer);
    }
}

void shake_hands(struct fdmux_loop *loop, struct peer *peer, struct witness *witness)
{
    pump_until(loop, peer, &witness->counts[FDMUX_STREAM_TLS], 1);
    for (int i = 0; i < 5 || !SSL_is_init_finished(peer->ssl); i++) {
        CHECK(i < 1000);
        pump(peer);
        CHECK(serve(loop) >= 0);
    }
}

/* ---- OpenSSL that fails -------------------------------------------------------- */

static struct {
    enum fault_of function;
    int nth;
    bool is_persistent;
    int calls;
} fault;

void fail_openssl(enum fault_of function, int nth, bool is_persistent)
{
    fault.function = function;
    fault.nth = nth;
    fault.is_persistent = is_persistent;
    fault.calls = 0;
}

int openssl_calls(void)
{
    return fault.calls;
}

static bool fails(enum fault_of function)
{
    if (function != fault.function)
        return false;
    fault.calls++;
    return fault.calls == fault.nth || (fault.is_persistent && fault.calls > fault.nth);
}

static bool raises(enum fault_of function)
{
    if (!fails(function))
        return false;
    ERR_put_error(ERR_LIB_USER, 0, 42, __FILE__, __LINE__);
    return true;
}

static int do_handshake(void *ssl)
{
    return raises(FAIL_HANDSHAKE) ? -1 : SSL_do_handshake(ssl);
}

static int read_some(void *ssl, void *buffer, int size)
{
    return raises(FAIL_READ) ? -1 : SSL_read(ssl, buffer, size);
}

static int write_some(void *ssl, const void *data, int length)
{
    return raises(FAIL_WRITE) ? -1 : SSL_write(ssl, data, length);
}

static int shut_down(void *ssl)
{
    return raises(FAIL_SHUTDOWN) ? -1 : SSL_shutdown(ssl);
}

static int get_error(const void *ssl, int result)
{
    return SSL_get_error(ssl, result);
}

static void set_bio(void *ssl, void *read_bio, void *write_bio)
{
    SSL_set_bio(ssl, read_bio, write_bio);
}

static void set_read_ahead(void *ssl, int is_on)
{
    SSL_set_read_ahead(ssl, is_on);
}

static void *meth_new(int type, const char *name)
{
    return fails(FAIL_METH_NEW) ? NULL : BIO_meth_new(type, name);
}

static void meth_free(void *method)
{
    BIO_meth_free(method);
}

static int meth_set_read(void *method, int (*function)(void *, char *, int))
{
    return fails(FAIL_METH_SET)
               ? 0
               : BIO_meth_set_read(method, (int (*)(BIO *, char *, int))function);
}

static int meth_set_write(void *method, int (*function)(void *, const char *, int))
{
    return fails(FAIL_METH_SET)
               ? 0
               : BIO_meth_set_write(method,
                                    (int (*)(BIO *, const char *, int))function);
}

static int meth_set_ctrl(void *method, long (*function)(void *, int, long, void *))
{
    return fails(FAIL_METH_SET)
               ? 0
               : BIO_meth_set_ctrl(method,
                                   (long (*)(BIO *, int, long, void *))function);
}

static void *bio_new(const void *method)
{
    return fails(FAIL_BIO_NEW) ? NULL : BIO_new(method);
}

static void bio_set_init(void *bio, int is_on)
{
    BIO_set_init(bio, is_on);
}

static void bio_set_flags(void *bio, int flags)
{
    BIO_set_flags(bio, flags);
}

static void bio_clear_flags(void *bio, int flags)
{
    BIO_clear_flags(bio, flags);
}

const struct fdmux_tls_functions failing_openssl = {
    sizeof failing_openssl,
    do_handshake,
    read_some,
    write_some,
    shut_down,
    get_error,
    ERR_clear_error,
    ERR_peek_last_error,
    set_bio,
    set_read_ahead,
    meth_new,
    meth_free,
    meth_set_read,
    meth_set_write,
    meth_set_ctrl,
    bio_new,
    bio_set_init,
    bio_set_flags,
    bio_clear_flags,
};
