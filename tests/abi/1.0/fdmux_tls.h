/* fdmux_tls.h: TLS on streams. Optional, on top of fdmux_stream.h.
 *
 * The caller makes an SSL with OpenSSL, verifies the peer and frees it; the core moves
 * the bytes. The core does not link OpenSSL: it calls the functions of a table that the
 * caller fills, and works with any library that has them.
 *
 * Threads and errors: as in fdmux_stream.h. */
#ifndef FDMUX_TLS_H
#define FDMUX_TLS_H

#include "fdmux_stream.h"

#ifdef __cplusplus
extern "C" {
#endif

/* cffi:begin */

/* The functions of OpenSSL that the core calls, none of them NULL. `ssl` is an SSL,
 * `bio` a BIO, `method` a BIO_METHOD. FDMUX_TLS_OPENSSL fills this structure.
 *
 * They are called on the dispatching thread only. The error queue of that thread is
 * empty after each call of the core. */
struct fdmux_tls_functions {
    size_t struct_size;
    int (*do_handshake)(void *ssl);
    int (*read)(void *ssl, void *buffer, int size);
    int (*write)(void *ssl, const void *data, int length);
    int (*shutdown)(void *ssl);
    int (*get_error)(const void *ssl, int result);
    void (*clear_error)(void);
    unsigned long (*peek_last_error)(void);
    void (*set_bio)(void *ssl, void *read_bio, void *write_bio);
    void (*set_read_ahead)(void *ssl, int is_on);
    void *(*bio_meth_new)(int type, const char *name);
    void (*bio_meth_free)(void *method);
    int (*bio_meth_set_read)(void *method, int (*read)(void *, char *, int));
    int (*bio_meth_set_write)(void *method, int (*write)(void *, const char *, int));
    int (*bio_meth_set_ctrl)(void *method, long (*ctrl)(void *, int, long, void *));
    void *(*bio_new)(const void *method);
    void (*bio_set_init)(void *bio, int is_on);
    void (*bio_set_flags)(void *bio, int flags);
    void (*bio_clear_flags)(void *bio, int flags);
};

/* Called for a step of the handshake, instead of SSL_do_handshake: when it begins, and
 * each time bytes have arrived. It may close the stream.
 *
 * Returns 1 when the handshake is done, 0 when it wants more bytes, or -errno, with
 * which the stream closes; an alert that OpenSSL has written is sent first. */
typedef int (*fdmux_tls_handshake_fn)(struct fdmux_loop *loop, uint64_t stream,
                                      void *userdata);

/* Flags of fdmux_tls_options. EOF_ENDS: if the peer ends the connection between two
 * records, that is an END, also without close_notify, and none is sent in return;
 * whoever cuts the connection can then make a part look like the whole. NO_GATHER: the
 * caller gathers the writes of a function of the stream itself; each is encrypted and
 * sent when it is made. */
#define FDMUX_TLS_EOF_ENDS 0x1
#define FDMUX_TLS_NO_GATHER 0x2

/* Options of fdmux_stream_start_tls. `ssl` is in connect or accept state. It stays the
 * caller's. The core gives it a BIO of its own, in place of any others, and takes it
 * away just before CLOSED. It uses `ssl` and `functions` until then: free `ssl` in
 * CLOSED, or in `destroyed`. Nobody else may read, write or shut down `ssl`. */
struct fdmux_tls_options {
    size_t struct_size;
    const struct fdmux_tls_functions *functions;
    void *ssl;
    const void *received; /* ciphertext that the caller has received already; copied */
    size_t received_length;
    uint32_t handshake_timeout_ms; /* from its beginning to its end; 0: none */
    uint32_t shutdown_timeout_ms; /* see fdmux_stream_start_tls; 0: do not wait */
    uint32_t flags; /* FDMUX_TLS_EOF_ENDS etc., or 0 */
    uint32_t reserved; /* 0 */
    fdmux_tls_handshake_fn handshake; /* NULL: SSL_do_handshake */
    void *userdata; /* of `handshake` */
};

/* Encrypt a connected stream, or one that connects, from now on.
 *
 * Order: what was written before is sent as it was, first. What is written from now on
 * is held until the handshake is done, and counts as queued. The handshake begins in
 * the next batch, or once the stream is connected. FDMUX_STREAM_TLS is delivered once,
 * when the handshake is done; CONNECTED comes before it, DATA after it. Nothing is
 * delivered, and no function of the caller is called, inside this call.
 *
 * Reading: DATA has plaintext; a stream reads at most receive_max bytes of ciphertext
 * in a batch. The handshake goes on while the stream is paused.
 *
 * Writing: inside a function of the stream that got TLS or DATA, writes to it are
 * gathered; they are encrypted and sent when it returns. So an error of such a write
 * may be that of CLOSED only. Limits and `queued` count ciphertext, and held plaintext;
 * `received` and `sent` count plaintext, `sent` once it is encrypted.
 *
 * Ends: END means the peer's close_notify. CLOSED has ECONNABORTED if the peer ended
 * without it, EPROTO after an error of TLS (see fdmux_stream_tls_error), ETIMEDOUT
 * after a timeout. fdmux_stream_shutdown sends close_notify once the queue is encrypted
 * and leaves the socket open. fdmux_stream_close does so too; it then waits for the
 * peer's close_notify, and discards what arrives, for at most shutdown_timeout_ms
 * from the call on, after which CLOSED has ETIMEDOUT; with 0 it closes as soon as the
 * queue is sent. With DROP, and when the loop is destroyed, nothing is sent. In a child
 * of fork(), close with DROP: the parent uses the same session.
 *
 * Timeouts are rounded up to 250 ms. Cost: one small allocation for each stream; none
 * for a message, except OpenSSL's own and the queue's.
 *
 * Returns 0, -EALREADY for the second time, -EINVAL for a listener or wrong options,
 * -EPIPE after shutdown or close, or -ENOMEM. On failure the stream and `ssl` are as
 * before. */
FDMUX_API int fdmux_stream_start_tls(struct fdmux_loop *loop, uint64_t stream,
                                     const struct fdmux_tls_options *options);

/* Store the code of the OpenSSL error that has ended the stream, as ERR_get_error
 * returns them; 0 if there was none. Also allowed in CLOSED while the loop is
 * destroyed. Returns 0, or -EINVAL for a stream without TLS. */
FDMUX_API int fdmux_stream_tls_error(struct fdmux_loop *loop, uint64_t stream,
                                     uint64_t *ret_code);

/* The functions above for callers that do not link the core: fdmux_api.tls. It only
 * grows, at its end. */
struct fdmux_tls_api {
    size_t struct_size;
    int (*start_tls)(struct fdmux_loop *loop, uint64_t stream,
                     const struct fdmux_tls_options *options);
    int (*tls_error)(struct fdmux_loop *loop, uint64_t stream, uint64_t *ret_code);
};

/* cffi:end */

/* The initializer of a struct fdmux_tls_functions, for programs that link OpenSSL and
 * have included <openssl/ssl.h> and <openssl/err.h>. The casts change the pointers to
 * objects only, which all have one representation. */
#define FDMUX_TLS_OPENSSL                                                              \
    {sizeof(struct fdmux_tls_functions),                                               \
     (int (*)(void *))SSL_do_handshake,                                                \
     (int (*)(void *, void *, int))SSL_read,                                           \
     (int (*)(void *, const void *, int))SSL_write,                                    \
     (int (*)(void *))SSL_shutdown,                                                    \
     (int (*)(const void *, int))SSL_get_error,                                        \
     ERR_clear_error,                                                                  \
     ERR_peek_last_error,                                                              \
     (void (*)(void *, void *, void *))SSL_set_bio,                                    \
     (void (*)(void *, int))SSL_set_read_ahead,                                        \
     (void *(*)(int, const char *))BIO_meth_new,                                       \
     (void (*)(void *))BIO_meth_free,                                                  \
     (int (*)(void *, int (*)(void *, char *, int)))BIO_meth_set_read,                 \
     (int (*)(void *, int (*)(void *, const char *, int)))BIO_meth_set_write,          \
     (int (*)(void *, long (*)(void *, int, long, void *)))BIO_meth_set_ctrl,          \
     (void *(*)(const void *))BIO_new,                                                 \
     (void (*)(void *, int))BIO_set_init,                                              \
     (void (*)(void *, int))BIO_set_flags,                                             \
     (void (*)(void *, int))BIO_clear_flags}

#ifdef __cplusplus
}
#endif

#endif /* FDMUX_TLS_H */
