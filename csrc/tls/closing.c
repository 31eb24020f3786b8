/* closing.c: sends close_notify, and closes the stream when all is sent.
 *
 * TLS ends each direction with close_notify; the socket is never shut down for writing,
 * since OpenSSL may still have to answer (an alert, a key update). */
#include "tls.h"

#include <errno.h>

static void notify(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);
    struct fdmux__tls *outer;
    int r;

    if (fdmux__tls_shared_of(loop)->owner == tls)
        fdmux__tls_encrypt_gathered(loop, stream, false);
    if (fdmux__stream_has_failed(stream) || tls->layer.held_count > 0 ||
        (tls->state & (FDMUX__TLS_DONE | FDMUX__TLS_NOTIFIED)) != FDMUX__TLS_DONE)
        return; /* not yet; SSL_shutdown(3): an error during the handshake */
    tls->state |= FDMUX__TLS_NOTIFIED;
    tls->functions->clear_error();
    outer = fdmux__tls_enter(tls);
    r = tls->functions->shutdown(tls->ssl);
    fdmux__tls_leave(outer);
    if (r < 0) {
        (void)fdmux__tls_outcome(tls, -1); /* keeps the code; failed in any case */
        fdmux__tls_fail(loop, stream, EPROTO);
    }
    fdmux__tls_drain(tls);
}

void fdmux__tls_go_on_closing(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    const struct fdmux__tls *tls = fdmux__tls_of(stream);
    bool is_done = (tls->state & FDMUX__TLS_DONE) != 0;

    if ((stream->state & (FDMUX__STREAM_SHUTTING | FDMUX__STREAM_CLOSING)) == 0)
        return;
    notify(loop, stream);
    if ((stream->state & FDMUX__STREAM_CLOSING) == 0 || tls->layer.held_count > 0 ||
        stream->queue_count > 0)
        return;
    if (!is_done || tls->shutdown_ticks == 0 ||
        (stream->state & FDMUX__STREAM_PEER_ENDED) != 0)
        fdmux__stream_fail(loop, stream, 0);
}

void fdmux__tls_shutdown(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    fdmux__tls_go_on_closing(loop, stream);
}

void fdmux__tls_close(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);

    if ((tls->state & FDMUX__TLS_CLOSING) == 0)
        tls->close_tick = fdmux__hub_of(loop)->tick;
    tls->state |= FDMUX__TLS_CLOSING;
    fdmux__tls_go_on_closing(loop, stream);
    if (!fdmux__stream_has_failed(stream))
        fdmux__tls_update(loop, stream);
}

int fdmux__tls_drained(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    fdmux__tls_send_held(loop, stream);
    fdmux__tls_go_on_closing(loop, stream);
    if (fdmux__stream_has_failed(stream) || fdmux__stream_queued(stream) > 0 ||
        (stream->state & FDMUX__STREAM_CLOSING) != 0)
        return 0;
    return fdmux__hub_deliver(
        loop, stream, (struct fdmux_stream_event){.kind = FDMUX_STREAM_DRAINED});
}
