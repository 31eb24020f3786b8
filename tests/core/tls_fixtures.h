/* tls_fixtures.h: sessions of the system's OpenSSL for streams, and a peer on a socket.
 *
 * The certificate is made in memory once a process. A peer is OpenSSL on the other end
 * of a connection: it shows what is on the wire. `calls` fails calls of OpenSSL. */
#ifndef FDMUX_TESTS_TLS_FIXTURES_H
#define FDMUX_TESTS_TLS_FIXTURES_H

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "fdmux_tls.h"
#include "stream_fixtures.h"

/* Never on the wire. */
#define SECRET "PLAINTEXT-SECRET"

extern const struct fdmux_tls_functions openssl;

/* With two memory BIOs, which a stream replaces; freed by SSL_free. `version` 0:
 * whichever both have. */
SSL *new_ssl(bool is_server, int version);
struct fdmux_tls_options tls_options(SSL *ssl);
/* Add a stream with TLS; the SSL goes to *ret_ssl. */
uint64_t add_tls(struct fdmux_loop *loop, int fd, struct witness *witness,
                 bool is_server, SSL **ret_ssl);

/* ---- a peer ----------------------------------------------------------------- */

struct peer {
    SSL *ssl;
    int fd;
    size_t read; /* bytes of plaintext */
    uint64_t hash; /* of them */
    bool is_ended; /* the socket */
    bool is_notified; /* close_notify has come */
    bool is_broken; /* an error of TLS: an alert, for one */
    size_t step; /* receive at most so many bytes at once; 0: all */
};

struct peer open_peer(int fd, bool is_server, int version);
void close_peer(struct peer *peer);
/* Move bytes both ways; fails if plaintext was on the wire. */
void pump(struct peer *peer);
/* Pump and serve until the stream has delivered TLS and the peer is done too. */
void shake_hands(struct fdmux_loop *loop, struct peer *peer, struct witness *witness);
void peer_write(struct peer *peer, const void *data, size_t length);
/* Serve and pump until the peer has read `count` bytes, or the counter has a value. */
void pump_until_read(struct fdmux_loop *loop, struct peer *peer, size_t count);
void pump_until(struct fdmux_loop *loop, struct peer *peer, const int *counter,
                int count);

/* ---- OpenSSL that fails ------------------------------------------------------- */

enum fault_of {
    FAIL_HANDSHAKE,
    FAIL_READ,
    FAIL_WRITE,
    FAIL_SHUTDOWN,
    FAIL_METH_NEW,
    FAIL_METH_SET,
    FAIL_BIO_NEW,
    FAULT_COUNT
};

/* As `openssl`, but the nth call of one function fails. */
extern const struct fdmux_tls_functions failing_openssl;
void fail_openssl(enum fault_of function, int nth, bool is_persistent);
int openssl_calls(void); /* of that function, since then */

#endif
