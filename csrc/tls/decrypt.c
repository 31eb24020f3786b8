/* decrypt.c: receives ciphertext, and calls the function of the stream with plaintext.
 *
 * A stream decrypts once in a batch. What is left in OpenSSL, because the buffer was
 * full or the stream was paused, is marked LEFTOVER, since no event of the kernel
 * reports it: the stream is pending until it is read. */
#include "tls.h"

#include <errno.h>

/* ---- ciphertext ---------------------------------------------------------------- */

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

/* Receive into the read BIO. Returns whether something has arrived. */
static bool take(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    const struct fdmux__tls *tls = fdmux__tls_of(stream);
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    int count =
        fdmux__stream_recv(loop, stream, hub->scratch, stream->limits->receive_max);

    if (count == 0)
        end(loop, stream);
    else if (count < 0 && count != -EAGAIN)
        fdmux__stream_fail(loop, stream, -count);
    if (count <= 0)
        return false;
    stream->tick = hub->tick;
    /* BIO_write(3) of a memory BIO takes all, unless memory runs out. */
    if (tls->functions->bio_write(tls->read_bio, hub->scratch, count) != count)
        fdmux__tls_fail(loop, stream, ENOMEM);
    return !fdmux__stream_has_failed(stream);
}

/* ---- plaintext ----------------------------------------------------------------- */

/* Decrypt up to `size` bytes. Returns MORE if the buffer is full, or why it is not. */
static int decrypt(struct fdmux_loop *loop, struct fdmux__stream *stream,
                   unsigned char *buffer, size_t size, uint32_t *ret_length)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);
    bool was_drained = false;
    uint32_t length = 0;

    tls->functions->clear_error();
    *ret_length = 0;
    while (length < size) {
        int r = tls->functions->read(tls->ssl, buffer + length, (int)(size - length));
        int outcome;

        if (r > 0) {
            *ret_length = length += (uint32_t)r;
            continue;
        }
        outcome = fdmux__tls_outcome(tls, r);
        if (outcome != FDMUX__TLS_WANTS_DRAIN)
            return outcome;
        if (was_drained)
            return FDMUX__TLS_FAILED; /* a memory BIO always takes more */
        was_drained = true;
        fdmux__tls_drain(loop, stream);
    }
    return FDMUX__TLS_MORE;
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
    } else if (outcome != FDMUX__TLS_WANTS_BYTES) {
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
    int outcome = decrypt(loop, stream, buffer, size, &length);
    int r = 0;

    fdmux__tls_of(stream)->batch = loop->batch;
    stream->state &= ~(uint32_t)FDMUX__STREAM_LEFTOVER;
    if (fdmux__stream_has_failed(stream))
        return 0;
    if (length == 0) {
        fdmux__tls_drain(loop, stream); /* perhaps a key update has been answered */
        return follow(loop, stream, outcome, 0);
    }
    fdmux__tls_gather(loop, stream);
    r = fdmux__stream_deliver_data(loop, stream, buffer, length);
    if (fdmux__loop_is_forked(loop))
        return r;
    fdmux__tls_end_gathering(loop, stream);
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
        outcome = decrypt(loop, stream, scratch, FDMUX__RECEIVE_MAX, &length);
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
    fdmux__tls_drain(loop, stream);
    fdmux__tls_send_held(loop, stream);
    fdmux__tls_go_on_closing(loop, stream);
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
    if (r < 0 || size == 0 || (stream->state & FDMUX__STREAM_LEFTOVER) != 0)
        fdmux__stream_leave_edge(loop, stream); /* no edge reports these bytes again */
    if (r < 0 || size == 0)
        return r;
    if ((stream->state & FDMUX__STREAM_LEFTOVER) == 0 && !take(loop, stream))
        return 0;
    return decrypt_and_deliver(loop, stream, buffer, size);
}

int fdmux__tls_receive(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if (!fdmux__stream_is_reading(loop, stream))
        return 0; /* paused or closed since the wait */
    if ((fdmux__tls_of(stream)->state & FDMUX__TLS_DONE) == 0)
        return take(loop, stream) ? fdmux__tls_handshake(loop, stream) : 0;
    if ((stream->state & FDMUX__STREAM_CLOSING) == 0)
        return receive_data(loop, stream);
    if ((stream->state & FDMUX__STREAM_LEFTOVER) != 0 || take(loop, stream))
        discard(loop, stream);
    return 0;
}
