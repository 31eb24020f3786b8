/* tls.h: the state of a stream's TLS, and the functions that the files of this folder
 * share.
 *
 * OpenSSL receives and sends through a BIO of ours (bio.c). What it sends goes to the
 * stream, which queues what the kernel does not take. So a stream's queue has
 * ciphertext, and what was written before TLS. What the user writes while OpenSSL
 * cannot encrypt is held here.
 *
 * Nothing here calls OpenSSL but through struct fdmux_tls_functions. After CLOSED,
 * nothing calls it at all. */
#ifndef FDMUX_TLS_INTERNAL_H
#define FDMUX_TLS_INTERNAL_H

#include "fdmux_tls.h"

#include "../stream/stream.h"

#define FDMUX__TLS_RECORD 16384 /* plaintext of the largest record, RFC 8446, 5.1 */
#define FDMUX__TLS_RECORD_EXTRA 128 /* at most what encryption adds to one */
#define FDMUX__TLS_SOCKET_ENDED (-1) /* no errno */

/* State bits. */
enum {
    FDMUX__TLS_BEGUN = 0x1, /* the handshake */
    FDMUX__TLS_DONE = 0x2,
    FDMUX__TLS_NOTIFIED = 0x4, /* our close_notify is on its way */
    FDMUX__TLS_TIMED = 0x8, /* counted by fdmux__hub_count_timed */
    FDMUX__TLS_CLOSING = 0x10, /* close_tick is set */
    FDMUX__TLS_DIRECT = 0x20, /* what is encrypted now is sent at once */
};

/* What a call of OpenSSL that did not succeed means. */
enum {
    FDMUX__TLS_MORE, /* it did succeed, and there may be more */
    FDMUX__TLS_WANTS_BYTES,
    FDMUX__TLS_ENDED, /* the peer's close_notify */
    FDMUX__TLS_FAILED,
};

struct fdmux__tls {
    struct fdmux__layer layer;
    const struct fdmux_tls_functions *functions;
    void *ssl;
    void *bio; /* ours, of the method; NULL when CLOSED was delivered */
    void *method;
    struct fdmux_loop *loop; /* a BIO has no other way to find them */
    struct fdmux__stream *stream;
    uint32_t state;
    uint32_t flags; /* of the options */
    uint32_t receivable; /* bytes that the BIO may still receive now; 0: none */
    uint16_t record_left; /* of FDMUX_TLS_EOF_ENDS: bytes of this record to come */
    uint8_t length_begin; /* the first byte of its length */
    uint8_t header_count; /* bytes of its header that have come */
    int ended; /* the error of the socket, or SOCKET_ENDED; 0: neither */
    uint32_t early_first;
    uint32_t early_count;
    unsigned char *early; /* ciphertext that the caller had received */
    uint32_t batch; /* of the loop, in which the stream last decrypted */
    uint32_t handshake_ticks;
    uint32_t shutdown_ticks;
    uint32_t handshake_tick;
    uint32_t close_tick;
    uint32_t held_first;
    uint32_t held_capacity;
    unsigned char *held; /* layer.held_count bytes from held_first on */
    fdmux_tls_handshake_fn handshake;
    void *userdata;
    uint64_t error_code;
};

/* Shared by the streams of a loop: hub->layer_data. While a function of `owner` runs,
 * what it writes is gathered, to become few records. `out` has ciphertext that is sent
 * with what follows, or when the layer is done with the stream. Four records share a
 * sendmsg(2), the last of which is not copied: 3 % less than two at a message of 100
 * KiB. More would bring a stream far over its high-water mark at once. */
struct fdmux__tls_shared {
    struct fdmux__tls *owner;
    struct fdmux__tls *out_owner; /* NULL: `out` is empty */
    uint32_t gathered;
    uint32_t out_count;
    unsigned char gather[FDMUX__TLS_RECORD];
    unsigned char out[3 * (FDMUX__TLS_RECORD + FDMUX__TLS_RECORD_EXTRA)];
};

/* tls.c */
/* What the result of a failed call means; keeps the code of an error. */
int fdmux__tls_outcome(struct fdmux__tls *tls, int result);
/* Send the alert, if there is one and the kernel takes it, and end the stream. */
void fdmux__tls_fail(struct fdmux_loop *loop, struct fdmux__stream *stream, int error);
/* The state has changed: read although paused, and count a timeout, or no longer. */
void fdmux__tls_update(struct fdmux_loop *loop, struct fdmux__stream *stream);

/* bio.c */
/* Give the SSL our BIO. Returns 0, or -ENOMEM. */
int fdmux__tls_attach(struct fdmux__tls *tls);
/* Take it away, for CLOSED. Idempotent. */
void fdmux__tls_detach(struct fdmux__tls *tls);
/* Around each call of OpenSSL that may use the BIO. */
struct fdmux__tls *fdmux__tls_enter(struct fdmux__tls *tls);
void fdmux__tls_leave(struct fdmux__tls *outer);
/* Whether what was received ends with a record. */
bool fdmux__tls_is_between_records(const struct fdmux__tls *tls);
/* Send what waits in `out`. May end the stream. */
void fdmux__tls_drain(struct fdmux__tls *tls);

/* handshake.c: a step of the handshake, and what follows the last one. */
int fdmux__tls_handshake(struct fdmux_loop *loop, struct fdmux__stream *stream);

/* decrypt.c */
int fdmux__tls_receive(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* End the stream if the BIO has found the end or an error of the socket. */
void fdmux__tls_check_socket(struct fdmux_loop *loop, struct fdmux__stream *stream);

/* encrypt.c; each may end the stream. */
int fdmux__tls_send(struct fdmux_loop *loop, struct fdmux__stream *stream,
                    const struct fdmux__part *parts, int count);
/* Around a function of the stream: gather what it writes, if the caller does not do so,
 * and then send it. */
void fdmux__tls_begin_function(struct fdmux_loop *loop, struct fdmux__stream *stream);
void fdmux__tls_end_function(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* Encrypt what was gathered so far; with `is_last` send it, too. */
void fdmux__tls_encrypt_gathered(struct fdmux_loop *loop, struct fdmux__stream *stream,
                                 bool is_last);
/* Encrypt and send what was held, as long as the kernel takes it. */
void fdmux__tls_send_held(struct fdmux_loop *loop, struct fdmux__stream *stream);
void fdmux__tls_drop_held(struct fdmux__hub *hub, struct fdmux__stream *stream);

/* closing.c */
void fdmux__tls_shutdown(struct fdmux_loop *loop, struct fdmux__stream *stream);
void fdmux__tls_close(struct fdmux_loop *loop, struct fdmux__stream *stream);
int fdmux__tls_drained(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* If it is shut down or closes: send close_notify once all is encrypted, and end the
 * stream once all is sent. */
void fdmux__tls_go_on_closing(struct fdmux_loop *loop, struct fdmux__stream *stream);

static inline struct fdmux__tls *fdmux__tls_of(const struct fdmux__stream *stream)
{
    return (struct fdmux__tls *)stream->layer;
}

static inline struct fdmux__tls_shared *
fdmux__tls_shared_of(const struct fdmux_loop *loop)
{
    return fdmux__hub_of(loop)->layer_data;
}

static inline bool fdmux__stream_has_failed(const struct fdmux__stream *stream)
{
    return (stream->state & FDMUX__STREAM_FAILED) != 0;
}

#endif
