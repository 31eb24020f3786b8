/* tls.c: starts TLS on a stream, and keeps its timeouts and errors.
 *
 * The layer's table of hooks is here; the other files of this folder have a step each:
 * handshake, decrypt, encrypt, closing. */
#include "tls.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "../platform/sys.h"

/* SSL_get_error(3). These are part of OpenSSL's interface, and the same in LibreSSL and
 * BoringSSL. */
enum {
    ERROR_SSL = 1,
    ERROR_SYSCALL = 5,
    ERROR_ZERO_RETURN = 6,
};

int fdmux__tls_outcome(struct fdmux__tls *tls, int result)
{
    switch (tls->functions->get_error(tls->ssl, result)) {
    case ERROR_ZERO_RETURN:
        return FDMUX__TLS_ENDED;
    case ERROR_SSL:
    case ERROR_SYSCALL:
        if (tls->error_code == 0)
            tls->error_code = tls->functions->peek_last_error();
        tls->functions->clear_error(); /* the next user of this thread's queue */
        return FDMUX__TLS_FAILED;
    default: /* also a function of the caller that is not done: asked again later */
        return FDMUX__TLS_WANTS_BYTES;
    }
}

void fdmux__tls_fail(struct fdmux_loop *loop, struct fdmux__stream *stream, int error)
{
    if (fdmux__stream_has_failed(stream))
        return;
    fdmux__tls_drain(fdmux__tls_of(stream));
    if (fdmux__stream_has_failed(stream))
        stream->error = error; /* of the two, the one that came first */
    else
        fdmux__stream_fail(loop, stream, error);
}

/* ---- what the state asks for --------------------------------------------------- */

static bool has_timeout(const struct fdmux__tls *tls)
{
    const uint32_t handshake = FDMUX__TLS_BEGUN | FDMUX__TLS_DONE;

    return ((tls->state & handshake) == FDMUX__TLS_BEGUN && tls->handshake_ticks > 0) ||
           ((tls->state & FDMUX__TLS_CLOSING) != 0 && tls->shutdown_ticks > 0);
}

static void set_timed(struct fdmux_loop *loop, struct fdmux__tls *tls, bool is_timed)
{
    if (((tls->state & FDMUX__TLS_TIMED) != 0) == is_timed)
        return;
    tls->state ^= FDMUX__TLS_TIMED;
    fdmux__hub_count_timed(loop, is_timed ? 1 : -1);
}

void fdmux__tls_update(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);
    bool must_read = (tls->state & FDMUX__TLS_DONE) == 0;

    if ((tls->state & FDMUX__TLS_CLOSING) != 0)
        must_read = must_read || tls->shutdown_ticks > 0 || tls->layer.held_count > 0;
    if (must_read)
        stream->state |= FDMUX__STREAM_LAYER_READS;
    else
        stream->state &= ~(uint32_t)FDMUX__STREAM_LAYER_READS;
    set_timed(loop, tls, has_timeout(tls));
    fdmux__stream_watch(loop, stream);
}

static void tick(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    const struct fdmux__tls *tls = fdmux__tls_of(stream);
    uint32_t now = fdmux__hub_of(loop)->tick;
    bool is_late;

    if ((tls->state & FDMUX__TLS_TIMED) == 0)
        return;
    is_late = (tls->state & FDMUX__TLS_DONE) == 0 && tls->handshake_ticks > 0 &&
              now - tls->handshake_tick > tls->handshake_ticks;
    is_late =
        is_late || ((tls->state & FDMUX__TLS_CLOSING) != 0 && tls->shutdown_ticks > 0 &&
                    now - tls->close_tick > tls->shutdown_ticks);
    if (is_late)
        fdmux__stream_fail(loop, stream, ETIMEDOUT);
}

/* ---- the layer ----------------------------------------------------------------- */

static int proceed(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    const struct fdmux__tls *tls = fdmux__tls_of(stream);

    if ((stream->state & FDMUX__STREAM_CONNECTING) != 0)
        return 0; /* pending again once it is connected */
    if ((tls->state & FDMUX__TLS_DONE) == 0)
        return fdmux__tls_handshake(loop, stream);
    if ((stream->state & FDMUX__STREAM_LEFTOVER) == 0 ||
        !fdmux__stream_is_reading(loop, stream))
        return 0; /* pending again when it is resumed */
    if (tls->batch != loop->batch)
        return fdmux__tls_receive(loop, stream);
    fdmux__hub_add_pending(loop, stream); /* once in a batch */
    return 0;
}

static void ended(struct fdmux__stream *stream)
{
    fdmux__tls_detach(fdmux__tls_of(stream));
}

static void release(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__tls_shared *shared = fdmux__tls_shared_of(loop);
    struct fdmux__tls *tls = fdmux__tls_of(stream);

    /* Left behind in a child of fork(), or if a function has destroyed the loop. */
    if (shared->owner == tls) {
        shared->owner = NULL;
        shared->gathered = 0;
    }
    if (shared->out_owner == tls)
        shared->out_owner = NULL;
    fdmux__tls_drop_held(fdmux__hub_of(loop), stream);
    set_timed(loop, tls, false);
    fdmux__sys_free(tls->early);
    fdmux__sys_free(tls);
}

static const struct fdmux__layer_hooks hooks = {
    .receive = fdmux__tls_receive,
    .proceed = proceed,
    .send = fdmux__tls_send,
    .drained = fdmux__tls_drained,
    .shutdown = fdmux__tls_shutdown,
    .close = fdmux__tls_close,
    .tick = tick,
    .ended = ended,
    .drop = fdmux__tls_drop_held,
    .release = release,
};

/* ---- the start ----------------------------------------------------------------- */

static int check_functions(const struct fdmux_tls_functions *functions)
{
    int r = fdmux__options_check(functions, sizeof *functions);

    if (r < 0)
        return r;
    if (functions->do_handshake == NULL || functions->read == NULL ||
        functions->write == NULL || functions->shutdown == NULL ||
        functions->get_error == NULL || functions->clear_error == NULL ||
        functions->peek_last_error == NULL || functions->set_bio == NULL ||
        functions->set_read_ahead == NULL || functions->bio_meth_new == NULL ||
        functions->bio_meth_free == NULL || functions->bio_meth_set_read == NULL ||
        functions->bio_meth_set_write == NULL || functions->bio_meth_set_ctrl == NULL ||
        functions->bio_new == NULL || functions->bio_set_init == NULL ||
        functions->bio_set_flags == NULL || functions->bio_clear_flags == NULL)
        return -EINVAL;
    return 0;
}

#define FLAGS ((uint32_t)FDMUX_TLS_EOF_ENDS | FDMUX_TLS_NO_GATHER)

static int check_options(const struct fdmux_tls_options *options)
{
    int r = fdmux__options_check(options, sizeof *options);

    if (r == 0)
        r = check_functions(options->functions);
    if (r < 0)
        return r;
    if (options->ssl == NULL ||
        (options->received == NULL && options->received_length > 0))
        return -EFAULT;
    if (options->received_length > INT_MAX || (options->flags & ~FLAGS) != 0 ||
        options->reserved != 0)
        return -EINVAL;
    return 0;
}

static int check_stream(const struct fdmux__stream *stream)
{
    const uint32_t over = FDMUX__STREAM_FAILED | FDMUX__STREAM_SHUTTING |
                          FDMUX__STREAM_CLOSING | FDMUX__STREAM_PEER_ENDED;

    if ((stream->state & FDMUX__STREAM_LISTENER) != 0)
        return -EINVAL;
    if ((stream->state & FDMUX__STREAM_LAYERED) != 0)
        return -EALREADY;
    return (stream->state & over) != 0 ? -EPIPE : 0;
}

static int share(struct fdmux_loop *loop)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);

    if (hub->layer_data == NULL)
        hub->layer_data = fdmux__sys_calloc(1, sizeof(struct fdmux__tls_shared));
    return hub->layer_data == NULL ? -ENOMEM : 0;
}

/* Keep a copy of what the caller has received, for the BIO. */
static int keep_early(struct fdmux__tls *tls, const struct fdmux_tls_options *options)
{
    if (options->received_length == 0)
        return 0;
    tls->early = fdmux__sys_calloc(1, options->received_length);
    if (tls->early == NULL)
        return -ENOMEM;
    memcpy(tls->early, options->received, options->received_length);
    tls->early_count = (uint32_t)options->received_length;
    return 0;
}

static int create(struct fdmux_loop *loop, struct fdmux__stream *stream,
                  const struct fdmux_tls_options *options)
{
    struct fdmux__tls *tls = fdmux__sys_calloc(1, sizeof *tls);

    int r;

    if (tls == NULL)
        return -ENOMEM;
    tls->layer.hooks = &hooks;
    tls->loop = loop;
    tls->stream = stream;
    tls->functions = options->functions;
    tls->ssl = options->ssl;
    tls->flags = options->flags;
    tls->handshake = options->handshake;
    tls->userdata = options->userdata;
    tls->handshake_ticks =
        fdmux__ticks_of(options->handshake_timeout_ms * FDMUX__NS_PER_MS);
    tls->shutdown_ticks =
        fdmux__ticks_of(options->shutdown_timeout_ms * FDMUX__NS_PER_MS);
    r = keep_early(tls, options);
    if (r == 0)
        r = fdmux__tls_attach(tls); /* last: it changes the SSL */
    if (r < 0) {
        fdmux__sys_free(tls->early);
        fdmux__sys_free(tls);
        return r;
    }
    stream->layer = &tls->layer;
    return 0;
}

int fdmux_stream_start_tls(struct fdmux_loop *loop, uint64_t token,
                           const struct fdmux_tls_options *options)
{
    struct fdmux__stream *stream;
    int r = fdmux__stream_find(loop, token, &stream);

    if (r == 0)
        r = check_options(options);
    if (r == 0)
        r = check_stream(stream);
    if (r == 0)
        r = share(loop);
    if (r == 0)
        r = create(loop, stream, options);
    if (r < 0)
        return r;
    stream->state |= FDMUX__STREAM_LAYERED;
    fdmux__tls_update(loop, stream);
    fdmux__hub_add_pending(loop, stream);
    return 0;
}

int fdmux_stream_tls_error(struct fdmux_loop *loop, uint64_t token, uint64_t *ret_code)
{
    struct fdmux__stream *stream;
    int r = ret_code == NULL ? -EFAULT
                             : fdmux__stream_find_until_closed(loop, token, &stream);

    if (r < 0)
        return r;
    if ((stream->state & FDMUX__STREAM_LAYERED) == 0)
        return -EINVAL;
    *ret_code = fdmux__tls_of(stream)->error_code;
    return 0;
}
