/* encrypt.c: encrypts what the user writes, and sends what OpenSSL makes of it.
 *
 * No plaintext is handed to the stream's queue here: it is encrypted, gathered (for the
 * time of a function), or held (while OpenSSL cannot encrypt: during a handshake). */
#include "tls.h"

#include <errno.h>
#include <string.h>

#include "../platform/sys.h"

#define HELD_MIN 4096

/* Encrypt one record. Returns how many bytes of `data`, or 0: not now, or failed. */
static uint32_t encrypt_record(struct fdmux_loop *loop, struct fdmux__stream *stream,
                               const unsigned char *data, size_t length, bool is_last)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);
    int size = length < FDMUX__TLS_RECORD ? (int)length : FDMUX__TLS_RECORD;
    struct fdmux__tls *outer;
    int r;

    tls->functions->clear_error();
    /* With a queue there is no sendmsg(2) to save, and the user may look at `queued`.
     */
    if ((is_last && length <= FDMUX__TLS_RECORD) || stream->queue_count > 0)
        tls->state |= FDMUX__TLS_DIRECT;
    outer = fdmux__tls_enter(tls);
    r = tls->functions->write(tls->ssl, data, size);
    fdmux__tls_leave(outer);
    tls->state &= ~(uint32_t)FDMUX__TLS_DIRECT;
    if (r > 0) {
        stream->sent += (uint32_t)r;
        fdmux__count(&stream->limits->totals.sent, (uint32_t)r);
        return (uint32_t)r;
    }
    if (fdmux__tls_outcome(tls, r) != FDMUX__TLS_WANTS_BYTES)
        fdmux__tls_fail(loop, stream, EPROTO);
    return 0;
}

/* ---- held plaintext ------------------------------------------------------------ */

void fdmux__tls_drop_held(struct fdmux__hub *hub, struct fdmux__stream *stream)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);

    hub->queued_total -= tls->layer.held_count;
    fdmux__count(&stream->limits->totals.queued, -(uint64_t)tls->layer.held_count);
    fdmux__sys_free(tls->held);
    tls->held = NULL;
    tls->layer.held_count = tls->held_first = tls->held_capacity = 0;
}

static int reserve(struct fdmux__tls *tls, uint32_t needed)
{
    uint32_t capacity = tls->held_capacity < HELD_MIN ? HELD_MIN : tls->held_capacity;
    unsigned char *held;

    if (tls->held_first > 0) {
        memmove(tls->held, tls->held + tls->held_first, tls->layer.held_count);
        tls->held_first = 0;
    }
    while (capacity < needed)
        capacity *= 2;
    if (capacity == tls->held_capacity)
        return 0;
    held = fdmux__sys_realloc(tls->held, capacity);
    if (held == NULL)
        return -ENOMEM;
    tls->held = held;
    tls->held_capacity = capacity;
    return 0;
}

/* What encryption adds at most: what is held must fit into the queue afterwards. */
static size_t extra(size_t length)
{
    return (length / FDMUX__TLS_RECORD + 1) * FDMUX__TLS_RECORD_EXTRA;
}

static void hold(struct fdmux_loop *loop, struct fdmux__stream *stream,
                 const unsigned char *data, size_t length)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    int r = 0;

    if (length > stream->limits->queue_max ||
        fdmux__stream_make_room(loop, stream,
                                length + extra(tls->layer.held_count + length)) < 0)
        r = -ENOBUFS;
    if (r == 0)
        r = reserve(tls, tls->layer.held_count + (uint32_t)length);
    if (r < 0) {
        fdmux__stream_fail(loop, stream, -r);
        return;
    }
    if (fdmux__stream_queued(stream) == 0)
        stream->tick = stream->stall_tick = hub->tick;
    memcpy(tls->held + tls->held_first + tls->layer.held_count, data, length);
    tls->layer.held_count += (uint32_t)length;
    hub->queued_total += length;
    fdmux__count(&stream->limits->totals.queued, length);
    fdmux__stream_check_high_water(loop, stream);
    fdmux__stream_watch(loop, stream);
}

static void forget_held(struct fdmux_loop *loop, struct fdmux__stream *stream,
                        uint32_t length)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);

    tls->held_first += length;
    tls->layer.held_count -= length;
    fdmux__hub_of(loop)->queued_total -= length;
    fdmux__count(&stream->limits->totals.queued, -(uint64_t)length);
}

void fdmux__tls_send_held(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__tls *tls = fdmux__tls_of(stream);
    uint32_t length = tls->layer.held_count > 0 ? 1 : 0;

    if (length == 0)
        return;
    while (length > 0 && tls->held != NULL && tls->layer.held_count > 0 &&
           stream->queue_count == 0 && !fdmux__stream_has_failed(stream)) {
        length = encrypt_record(loop, stream, tls->held + tls->held_first,
                                tls->layer.held_count, false);
        /* A callback of OpenSSL may have written so much that this was dropped. */
        if (tls->held != NULL)
            forget_held(loop, stream, length);
    }
    fdmux__tls_drain(tls);
    if (fdmux__stream_has_failed(stream) || tls->layer.held_count > 0)
        return;
    fdmux__tls_drop_held(fdmux__hub_of(loop), stream);
    /* A socket that is writable brings DRAINED and WRITABLE, which are due now. */
    stream->state |= FDMUX__STREAM_SENDING;
    fdmux__tls_update(loop, stream);
    fdmux__tls_go_on_closing(loop, stream);
}

/* ---- plaintext ----------------------------------------------------------------- */

/* Encrypt all of it, or hold the rest. With `is_last` it is sent, too. */
static void encrypt(struct fdmux_loop *loop, struct fdmux__stream *stream,
                    const unsigned char *data, size_t length, bool is_last)
{
    const struct fdmux__tls *tls = fdmux__tls_of(stream);

    while (length > 0 && !fdmux__stream_has_failed(stream)) {
        uint32_t count = 0;

        if (tls->layer.held_count == 0 && (tls->state & FDMUX__TLS_DONE) != 0)
            count = encrypt_record(loop, stream, data, length, is_last);
        data += count;
        length -= count;
        if (count == 0 && !fdmux__stream_has_failed(stream)) {
            hold(loop, stream, data, length);
            return;
        }
    }
}

void fdmux__tls_encrypt_gathered(struct fdmux_loop *loop, struct fdmux__stream *stream,
                                 bool is_last)
{
    struct fdmux__tls_shared *shared = fdmux__tls_shared_of(loop);
    uint32_t length = shared->gathered;

    shared->gathered = 0;
    if (length > 0 && !fdmux__stream_has_failed(stream))
        encrypt(loop, stream, shared->gather, length, is_last);
    else if (length > 0)
        fdmux__count(&stream->limits->totals.dropped, length);
}

static void begin_gathering(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__tls_shared *shared = fdmux__tls_shared_of(loop);

    if (shared->owner == NULL)
        shared->owner = fdmux__tls_of(stream);
}

static void end_gathering(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__tls_shared *shared = fdmux__tls_shared_of(loop);

    if (shared->owner != fdmux__tls_of(stream))
        return;
    fdmux__tls_encrypt_gathered(loop, stream, true);
    shared->owner = NULL;
    fdmux__tls_drain(fdmux__tls_of(stream));
}

void fdmux__tls_begin_function(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if ((fdmux__tls_of(stream)->flags & FDMUX_TLS_NO_GATHER) == 0)
        begin_gathering(loop, stream);
}

void fdmux__tls_end_function(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    end_gathering(loop, stream);
    fdmux__tls_drain(fdmux__tls_of(stream)); /* a key update may have been answered */
}

/* Full records are encrypted where they are; what remains waits for more. */
static void gather(struct fdmux_loop *loop, struct fdmux__stream *stream,
                   const unsigned char *data, size_t length)
{
    struct fdmux__tls_shared *shared = fdmux__tls_shared_of(loop);

    while (length > 0 && !fdmux__stream_has_failed(stream)) {
        size_t count = FDMUX__TLS_RECORD - shared->gathered;

        if (count > length)
            count = length;
        if (count == FDMUX__TLS_RECORD) {
            encrypt(loop, stream, data, count, false);
        } else {
            memcpy(shared->gather + shared->gathered, data, count);
            shared->gathered += (uint32_t)count;
        }
        if (shared->gathered == FDMUX__TLS_RECORD)
            fdmux__tls_encrypt_gathered(loop, stream, false);
        data += count;
        length -= count;
    }
}

/* ---- the hook ------------------------------------------------------------------ */

static void take_parts(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       const struct fdmux__part *parts, int count)
{
    const struct fdmux__tls_shared *shared = fdmux__tls_shared_of(loop);
    const struct fdmux__tls *tls = fdmux__tls_of(stream);
    bool was_gathering = shared->owner == tls;

    if (count > 1 && (tls->state & FDMUX__TLS_DONE) != 0)
        begin_gathering(loop, stream);
    for (int i = 0; i < count && !fdmux__stream_has_failed(stream); i++) {
        if (shared->owner == tls)
            gather(loop, stream, parts[i].base, parts[i].size);
        else
            encrypt(loop, stream, parts[i].base, parts[i].size, i == count - 1);
    }
    if (!was_gathering)
        end_gathering(loop, stream);
    if (!was_gathering && (tls->state & FDMUX__TLS_DONE) != 0)
        fdmux__tls_drain(fdmux__tls_of(stream));
}

/* The bytes of the user that are under way. */
static uint64_t taken(const struct fdmux_loop *loop, const struct fdmux__stream *stream)
{
    const struct fdmux__tls_shared *shared = fdmux__tls_shared_of(loop);
    const struct fdmux__tls *tls = fdmux__tls_of(stream);

    return stream->sent + tls->layer.held_count +
           (shared->owner == tls ? shared->gathered : 0);
}

int fdmux__tls_send(struct fdmux_loop *loop, struct fdmux__stream *stream,
                    const struct fdmux__part *parts, int count)
{
    const uint32_t over =
        FDMUX__STREAM_SHUTTING | FDMUX__STREAM_CLOSING | FDMUX__STREAM_FAILED;
    bool is_over = (stream->state & over) != 0;
    uint64_t before = taken(loop, stream);
    uint64_t total = 0;

    for (int i = 0; i < count; i++)
        total += parts[i].size;
    if (!is_over)
        take_parts(loop, stream, parts, count);
    if (is_over || fdmux__stream_has_failed(stream))
        fdmux__count(&stream->limits->totals.dropped,
                     total - (taken(loop, stream) - before));
    if (is_over)
        return -EPIPE;
    /* As of streams without TLS: the other errors are those of CLOSED. */
    if (fdmux__stream_has_failed(stream) &&
        (stream->error == ENOBUFS || stream->error == ENOMEM))
        return -stream->error;
    return 0;
}
