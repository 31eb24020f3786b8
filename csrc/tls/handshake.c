/* handshake.c: the steps of the handshake, from the first until it is done.
 *
 * A step is made by the caller's function or by SSL_do_handshake: when the stream is
 * connected, and each time bytes have arrived. */
#include "tls.h"

#include <errno.h>

static void begin(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);

    if ((tls->state & FDMUX__TLS_BEGUN) != 0)
        return;
    tls->state |= FDMUX__TLS_BEGUN;
    tls->handshake_tick = fdmux__hub_of(loop)->tick;
    fdmux__tls_update(loop, stream);
}

static int step(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);
    struct fdmux__tls *outer = fdmux__tls_enter(tls);
    int outcome;
    int r;

    tls->receivable = stream->limits->receive_max;
    if (tls->handshake != NULL) {
        r = tls->handshake(
            loop,
            fdmux__slots_token(&fdmux__hub_of(loop)->streams, fdmux__hub_slot(stream)),
            tls->userdata);
        fdmux__tls_leave(outer);
        return r;
    }
    tls->functions->clear_error();
    r = tls->functions->do_handshake(tls->ssl);
    fdmux__tls_leave(outer);
    if (r == 1)
        return 1;
    outcome = fdmux__tls_outcome(tls, r);
    if (outcome == FDMUX__TLS_WANTS_BYTES)
        return 0;
    return outcome == FDMUX__TLS_ENDED ? -ECONNABORTED : -EPROTO;
}

/* Deliver TLS. Then send what was held, what the function has written, and the end of
 * the handshake, and look for bytes that came with it. */
static int finish(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    int r = 0;

    fdmux__tls_of(stream)->state |= FDMUX__TLS_DONE;
    fdmux__tls_update(loop, stream);
    if (fdmux__stream_has_failed(stream))
        return 0; /* its watcher could not be updated */
    if ((stream->state & FDMUX__STREAM_CLOSING) == 0) {
        fdmux__tls_begin_function(loop, stream);
        r = fdmux__hub_deliver(loop, stream,
                               (struct fdmux_stream_event){.kind = FDMUX_STREAM_TLS});
        if (fdmux__loop_is_forked(loop))
            return r;
        fdmux__tls_end_function(loop, stream);
    }
    fdmux__tls_send_held(loop, stream);
    fdmux__tls_drain(fdmux__tls_of(stream));
    fdmux__tls_go_on_closing(loop, stream);
    stream->state |= FDMUX__STREAM_LEFTOVER;
    fdmux__stream_watch(loop, stream);
    return r;
}

int fdmux__tls_handshake(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    int r;

    begin(loop, stream);
    r = step(loop, stream);
    if (fdmux__loop_is_forked(loop))
        return fdmux__fork_return(loop);
    if (fdmux__stream_has_failed(stream) || loop->is_closed)
        return 0;
    if (r > 0)
        return finish(loop, stream);
    fdmux__tls_of(stream)->receivable = 0;
    if (r < 0)
        fdmux__tls_fail(loop, stream, -r);
    else
        fdmux__tls_drain(fdmux__tls_of(stream));
    if (r == 0)
        fdmux__tls_check_socket(loop, stream);
    return 0;
}
