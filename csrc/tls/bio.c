/* bio.c: the BIO through which OpenSSL receives and sends.
 *
 * It receives from the socket into OpenSSL's own buffer, and only while the stream is
 * to receive; at other times it has nothing. It sends what OpenSSL encrypts from
 * OpenSSL's own buffer, behind what waits in `out`. It never fails: errors of the
 * socket are kept for the stream, and OpenSSL sees no more than "not now". */
#include "tls.h"

#include <errno.h>
#include <string.h>

#include "../platform/sys.h"

/* <openssl/bio.h>; the same in LibreSSL and BoringSSL. */
enum {
    FLAG_READ = 0x1,
    FLAGS_OF_RETRY = 0xf, /* read, write, special, should retry */
    FLAG_SHOULD_RETRY = 0x8,
    TYPE_SOURCE_SINK = 0x400,
    CONTROL_FLUSH = 11,
};

#define RECORD_HEADER 5

/* Which stream is inside OpenSSL. A BIO knows its data only through OpenSSL, and so
 * through a table that belongs to the stream. */
static _Thread_local struct fdmux__tls *current;

/* NULL if somebody else uses the SSL: nothing is sent or received for them. */
static struct fdmux__tls *of(const void *bio)
{
    return current != NULL && current->bio == bio ? current : NULL;
}

/* ---- receiving ----------------------------------------------------------------- */

/* Follow the records as they pass. Each has a header of five bytes, of which the last
 * two are its length (RFC 8446, 5.1). */
static void follow_records(struct fdmux__tls *tls, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count;) {
        size_t skipped = count - i < tls->record_left ? count - i : tls->record_left;

        tls->record_left = (uint16_t)(tls->record_left - skipped);
        i += skipped;
        if (i == count)
            return;
        tls->header_count++;
        if (tls->header_count == RECORD_HEADER - 1)
            tls->length_begin = (uint8_t)bytes[i];
        if (tls->header_count == RECORD_HEADER) {
            tls->record_left = (uint16_t)(tls->length_begin << 8 | (uint8_t)bytes[i]);
            tls->header_count = 0;
        }
        i++;
    }
}

bool fdmux__tls_is_between_records(const struct fdmux__tls *tls)
{
    return tls->record_left == 0 && tls->header_count == 0;
}

static int take_early(struct fdmux__tls *tls, void *buffer, size_t size)
{
    uint32_t count = size < tls->early_count ? (uint32_t)size : tls->early_count;

    memcpy(buffer, tls->early + tls->early_first, count);
    tls->early_first += count;
    tls->early_count -= count;
    if (tls->early_count == 0) {
        fdmux__sys_free(tls->early);
        tls->early = NULL;
    }
    return (int)count;
}

static int take(struct fdmux__tls *tls, void *buffer, size_t size)
{
    struct fdmux__stream *stream = tls->stream;
    int count;

    if (size > tls->receivable)
        size = tls->receivable;
    count = fdmux__stream_recv(tls->loop, stream, buffer, size);
    if (count <= 0 && count != -EAGAIN)
        tls->ended = count == 0 ? FDMUX__TLS_SOCKET_ENDED : -count;
    /* A short receive has emptied the socket, or the kernel will report it again. */
    if (count <= 0 || fdmux__sys_was_short(count, size))
        tls->receivable = 0;
    else
        tls->receivable -= (uint32_t)count;
    if (count > 0)
        stream->tick = fdmux__hub_of(tls->loop)->tick;
    return count;
}

static int read_stream(void *bio, char *buffer, int size)
{
    struct fdmux__tls *tls = of(bio);
    int count = 0;

    if (tls == NULL || size <= 0)
        return -1;
    tls->functions->bio_clear_flags(bio, FLAGS_OF_RETRY);
    if (tls->receivable > 0 && tls->early_count > 0)
        count = take_early(tls, buffer, (size_t)size);
    else if (tls->receivable > 0)
        count = take(tls, buffer, (size_t)size);
    if (count > 0 && (tls->flags & FDMUX_TLS_EOF_ENDS) != 0)
        follow_records(tls, buffer, (size_t)count);
    if (count > 0)
        return count;
    tls->functions->bio_set_flags(bio, FLAG_READ | FLAG_SHOULD_RETRY);
    return -1;
}

/* ---- sending ------------------------------------------------------------------- */

/* Send what waits in `out`, and the part. An error ends the stream. */
static void put(struct fdmux__tls *tls, struct fdmux__part part)
{
    struct fdmux__tls_shared *shared = fdmux__tls_shared_of(tls->loop);
    struct fdmux__part parts[2] = {{.base = shared->out}, part};

    if (shared->out_owner == tls) {
        parts[0].size = shared->out_count;
        shared->out_owner = NULL;
    }
    if (fdmux__stream_has_failed(tls->stream) || parts[0].size + part.size == 0)
        return;
    if (parts[0].size == 0)
        (void)fdmux__stream_put(tls->loop, tls->stream, parts + 1, 1);
    else
        (void)fdmux__stream_put(tls->loop, tls->stream, parts, part.size > 0 ? 2 : 1);
}

void fdmux__tls_drain(struct fdmux__tls *tls)
{
    put(tls, (struct fdmux__part){0});
}

static int write_stream(void *bio, const char *data, int length)
{
    struct fdmux__tls *tls = of(bio);
    struct fdmux__tls_shared *shared;
    size_t room;

    if (tls == NULL || length <= 0)
        return -1;
    tls->functions->bio_clear_flags(bio, FLAGS_OF_RETRY);
    shared = fdmux__tls_shared_of(tls->loop);
    /* Inside a callback of OpenSSL, a function of the caller may write to another. */
    if (shared->out_owner != NULL && shared->out_owner != tls)
        fdmux__tls_drain(shared->out_owner);
    if (shared->out_owner == NULL)
        shared->out_count = 0;
    room = sizeof shared->out - shared->out_count;
    if ((tls->state & FDMUX__TLS_DIRECT) != 0 || (size_t)length > room) {
        put(tls, (struct fdmux__part){(void *)(uintptr_t)data, (size_t)length});
        return length;
    }
    memcpy(shared->out + shared->out_count, data, (size_t)length);
    shared->out_count += (uint32_t)length;
    shared->out_owner = tls;
    return length;
}

/* OpenSSL checks the result of a flush only. */
static long control(void *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == CONTROL_FLUSH ? 1 : 0;
}

/* ---- calls of OpenSSL ---------------------------------------------------------- */

struct fdmux__tls *fdmux__tls_enter(struct fdmux__tls *tls)
{
    struct fdmux__tls *outer = current;

    current = tls;
    return outer;
}

void fdmux__tls_leave(struct fdmux__tls *outer)
{
    current = outer;
}

/* ---- life ---------------------------------------------------------------------- */

int fdmux__tls_attach(struct fdmux__tls *tls)
{
    const struct fdmux_tls_functions *functions = tls->functions;
    void *method = functions->bio_meth_new(TYPE_SOURCE_SINK, "stream of fdmux");
    bool is_set = method != NULL &&
                  functions->bio_meth_set_read(method, read_stream) == 1 &&
                  functions->bio_meth_set_write(method, write_stream) == 1 &&
                  functions->bio_meth_set_ctrl(method, control) == 1;

    tls->bio = is_set ? functions->bio_new(method) : NULL;
    if (tls->bio == NULL) {
        functions->bio_meth_free(method);
        functions->clear_error();
        return -ENOMEM;
    }
    tls->method = method;
    functions->bio_set_init(tls->bio, 1);
    functions->set_bio(tls->ssl, tls->bio, tls->bio); /* the SSL owns it */
    functions->set_read_ahead(tls->ssl, 1); /* else a record costs two receives */
    return 0;
}

void fdmux__tls_detach(struct fdmux__tls *tls)
{
    if (tls->bio == NULL)
        return;
    tls->functions->set_bio(tls->ssl, NULL, NULL); /* frees the BIO */
    tls->functions->bio_meth_free(tls->method);
    tls->bio = tls->method = NULL;
}
