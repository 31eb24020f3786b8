/* tls.h: the state of a stream's TLS, and the functions that the files of this folder
 * share.
 *
 * OpenSSL reads ciphertext from one memory BIO and writes it to another. What arrives
 * goes into the first; what OpenSSL has put into the second is drained: sent, or queued
 * by the stream. So a stream's queue has ciphertext, and what was written before TLS.
 * What the user writes while OpenSSL cannot encrypt is held here.
 *
 * Nothing here calls OpenSSL but through struct fdmux_tls_functions. After CLOSED,
 * nothing calls it at all. */
#ifndef FDMUX_TLS_INTERNAL_H
#define FDMUX_TLS_INTERNAL_H

#include "fdmux_tls.h"

#include "../stream/stream.h"

#define FDMUX__TLS_RECORD 16384 /* plaintext of the largest record, RFC 8446, 5.1 */
#define FDMUX__TLS_RECORD_EXTRA 128 /* at most what encryption adds to one */
/* Two records share a sendmsg(2). More would bring a stream from an empty queue over
 * its high-water mark at once. */
#define FDMUX__TLS_DRAIN (2 * FDMUX__TLS_RECORD)

/* State bits. */
enum {
    FDMUX__TLS_BEGUN = 0x1, /* the handshake */
    FDMUX__TLS_DONE = 0x2,
    FDMUX__TLS_NOTIFIED = 0x4, /* our close_notify is on its way */
    FDMUX__TLS_TIMED = 0x8, /* counted by fdmux__hub_count_timed */
    FDMUX__TLS_CLOSING = 0x10, /* close_tick is set */
};

/* What a call of OpenSSL that did not succeed means. */
enum {
    FDMUX__TLS_MORE, /* it did succeed, and there may be more */
    FDMUX__TLS_WANTS_BYTES,
    FDMUX__TLS_WANTS_DRAIN,
    FDMUX__TLS_ENDED, /* the peer's close_notify */
    FDMUX__TLS_FAILED,
};

struct fdmux__tls {
    struct fdmux__layer layer;
    const struct fdmux_tls_functions *functions;
    void *ssl;
    void *read_bio;
    void *write_bio;
    uint32_t state;
    uint32_t undrained; /* bytes of plaintext encrypted since the last drain */
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
 * what it writes is gathered, to become few records. */
struct fdmux__tls_shared {
    struct fdmux__tls *owner;
    uint32_t gathered;
    unsigned char gather[FDMUX__TLS_RECORD];
    unsigned char out[FDMUX__TLS_DRAIN + 2 * FDMUX__TLS_RECORD_EXTRA];
};

/* tls.c */
/* What the result of a failed call means; keeps the code of an error. */
int fdmux__tls_outcome(struct fdmux__tls *tls, int result);
/* Send the alert, if there is one and the kernel takes it, and end the stream. */
void fdmux__tls_fail(struct fdmux_loop *loop, struct fdmux__stream *stream, int error);
/* The state has changed: read although paused, and count a timeout, or no longer. */
void fdmux__tls_update(struct fdmux_loop *loop, struct fdmux__stream *stream);

/* handshake.c: a step of the handshake, and what follows the last one. */
int fdmux__tls_handshake(struct fdmux_loop *loop, struct fdmux__stream *stream);

/* decrypt.c */
int fdmux__tls_receive(struct fdmux_loop *loop, struct fdmux__stream *stream);

/* encrypt.c; each may end the stream. */
int fdmux__tls_send(struct fdmux_loop *loop, struct fdmux__stream *stream,
                    const struct iovec *parts, int count);
/* Send what OpenSSL has put into the write BIO. */
void fdmux__tls_drain(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* Gather what the stream writes from here on, until fdmux__tls_end_gathering. */
void fdmux__tls_gather(struct fdmux_loop *loop, struct fdmux__stream *stream);
void fdmux__tls_end_gathering(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* Encrypt what was gathered so far. */
void fdmux__tls_encrypt_gathered(struct fdmux_loop *loop, struct fdmux__stream *stream);
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
