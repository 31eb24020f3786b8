/* decrypt.c: decrypts what the BIO receives, and calls the function of the stream.
 *
 * A stream decrypts once in a batch. What is left in OpenSSL, because the buffer was
 * full or the stream was paused, is marked LEFTOVER, since no event of the kernel
 * reports it: the stream is pending until it is read. */
#include "tls.h"

#include <errno.h>

/* ---- the socket ---------------------------------------------------------------- */

/* The peer has closed the connection. An end without close_notify may be an attack. */
static void end(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    const uint32_t closing = FDMUX__TLS_DONE | FDMUX__TLS_CLOSING;

    if ((fdmux__tls_of(stream)->state & closing) != closing) {
        fdmux__stream_fail(loop, stream, ECONNABORTED);
        return;
    }
    stream->state |= FDMUX__STREAM_PEER_ENDED;
    fdmux__stream_watch(loop, stream);
    fdmux__tls_go_on_closing(loop, stream);
}

void fdmux__tls_check_socket(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    int ended = fdmux__tls_of(stream)->ended;

    if (ended == FDMUX__TLS_SOCKET_ENDED)
        end(loop, stream);
    else if (ended != 0)
        fdmux__stream_fail(loop, stream, ended);
}

/* ---- plaintext ----------------------------------------------------------------- */

/* The end of the socket is as good as close_notify, if the caller says so. */
static int outcome_of(struct fdmux__tls *tls, int result)
{
    int outcome = fdmux__tls_outcome(tls, result);

    if (outcome != FDMUX__TLS_WANTS_BYTES || tls->ended != FDMUX__TLS_SOCKET_ENDED ||
        (tls->flags & FDMUX_TLS_EOF_ENDS) == 0 || !fdmux__tls_is_between_records(tls))
        return outcome;
    tls->ended = 0;
    tls->state |= FDMUX__TLS_NOTIFIED; /* it has left TLS, so it is told no more */
    return FDMUX__TLS_ENDED;
}

/* Decrypt up to `size` bytes. Returns MORE if the buffer is full, or why it is not. */
static int decrypt(struct fdmux__stream *stream, unsigned char *buffer, size_t size,
                   uint32_t *ret_length)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);
    struct fdmux__tls *outer = fdmux__tls_enter(tls);
    uint32_t length = 0;
    int r = 1;

    tls->functions->clear_error();
    tls->receivable = stream->limits->receive_max;
    while (length < size && r > 0) {
        r = tls->functions->read(tls->ssl, buffer + length, (int)(size - length));
        if (r > 0)
            length += (uint32_t)r;
    }
    tls->receivable = 0;
    fdmux__tls_leave(outer);
    *ret_length = length;
    return r > 0 ? FDMUX__TLS_MORE : outcome_of(tls, r);
}

/* The function was called; `r` is its result. Deal with what ended decrypt(). */
static int follow(struct fdmux_loop *loop, struct fdmux__stream *stream, int outcome,
                  int r)
{
    bool is_over = fdmux__stream_has_failed(stream);

    if (outcome == FDMUX__TLS_FAILED)
        fdmux__tls_fail(loop, stream, EPROTO);
    if (is_over || outcome == FDMUX__TLS_FAILED)
        return r;
    if (outcome == FDMUX__TLS_ENDED && r >= 0 &&
        fdmux__stream_is_reading(loop, stream) &&
        (stream->state & FDMUX__STREAM_CLOSING) == 0) {
        r = fdmux__stream_deliver_end(loop, stream);
    } else if (outcome == FDMUX__TLS_WANTS_BYTES) {
        fdmux__tls_check_socket(loop, stream);
    } else {
        stream->state |= FDMUX__STREAM_LEFTOVER;
        fdmux__stream_watch(loop, stream);
    }
    if (!fdmux__loop_is_forked(loop) && fdmux__tls_of(stream)->layer.held_count > 0)
        fdmux__tls_send_held(loop, stream);
    return r;
}

static int decrypt_and_deliver(struct fdmux_loop *loop, struct fdmux__stream *stream,
                               void *buffer, size_t size)
{
    uint32_t length;
    int outcome = decrypt(stream, buffer, size, &length);
    int r = 0;

    fdmux__tls_of(stream)->batch = loop->batch;
    stream->state &= ~(uint32_t)FDMUX__STREAM_LEFTOVER;
    if (fdmux__stream_has_failed(stream))
        return 0;
    if (length == 0) {
        fdmux__tls_drain(
            fdmux__tls_of(stream)); /* perhaps a key update has been answered */
        return follow(loop, stream, outcome, 0);
    }
    fdmux__tls_begin_function(loop, stream);
    r = fdmux__stream_deliver_data(loop, stream, buffer, length);
    if (fdmux__loop_is_forked(loop))
        return r;
    fdmux__tls_end_function(loop, stream);
    return follow(loop, stream, outcome, r);
}

/* Wait for the peer's close_notify. */
static void discard(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    unsigned char *scratch = fdmux__hub_of(loop)->scratch;
    int outcome = FDMUX__TLS_MORE;
    uint32_t length;

    stream->state &= ~(uint32_t)FDMUX__STREAM_LEFTOVER;
    while (outcome == FDMUX__TLS_MORE && !fdmux__stream_has_failed(stream))
        outcome = decrypt(stream, scratch, FDMUX__RECEIVE_MAX, &length);
    if (fdmux__stream_has_failed(stream))
        return;
    if (outcome == FDMUX__TLS_FAILED) {
        fdmux__tls_fail(loop, stream, EPROTO);
        return;
    }
    if (outcome == FDMUX__TLS_ENDED) {
        stream->state |= FDMUX__STREAM_PEER_ENDED;
        fdmux__stream_watch(loop, stream);
    }
    fdmux__tls_drain(fdmux__tls_of(stream));
    fdmux__tls_send_held(loop, stream);
    fdmux__tls_go_on_closing(loop, stream);
    fdmux__tls_check_socket(loop, stream);
}

static int receive_data(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    void *buffer;
    size_t size;
    int r;

    /* As in stream/receive.c. */
    __builtin_prefetch(stream->base.userdata, 1);
    __builtin_prefetch((const char *)stream->base.userdata + 64, 1);
    r = fdmux__stream_find_buffer(loop, stream, &buffer, &size);
    if (r < 0 || size == 0) {
        fdmux__stream_leave_edge(loop, stream); /* no edge reports these bytes again */
        return r;
    }
    return decrypt_and_deliver(loop, stream, buffer, size);
}

int fdmux__tls_receive(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if (!fdmux__stream_is_reading(loop, stream))
        return 0; /* paused or closed since the wait */
    if ((fdmux__tls_of(stream)->state & FDMUX__TLS_DONE) == 0)
        return fdmux__tls_handshake(loop, stream);
    if ((stream->state & FDMUX__STREAM_CLOSING) == 0)
        return receive_data(loop, stream);
    discard(loop, stream);
    return 0;
}
