/* flush.c: see flush.h. */
#include "flush.h"

#include "glue.h"

struct fdmux__stream *fdmux_py_live_stream(struct fdmux__hub *hub, uint32_t slot)
{
    struct fdmux__stream *stream;

    if (slot >= fdmux__load(&hub->streams.slot_count))
        return NULL;
    stream = fdmux__hub_at(hub, slot);
    return (fdmux__load(&stream->base.slot.generation) & 1) != 0 ? stream : NULL;
}

static bool continues(const struct iovec *last, const struct iovec *next)
{
    return (char *)last->iov_base + last->iov_len == (char *)next->iov_base;
}

/* Bytes that lie side by side become one part. */
static void gather(struct fdmux_py_flush *flush, struct iovec part)
{
    struct iovec *last = &flush->parts[flush->part_count];

    if (flush->part_count > 0 && continues(last - 1, &part))
        last[-1].iov_len += part.iov_len;
    else
        flush->parts[flush->part_count++] = part;
}

void fdmux_py_flush_init(struct fdmux_py_flush *flush, struct fdmux_loop *loop,
                         struct fdmux__hub *hub)
{
    flush->loop = loop;
    flush->hub = hub;
    flush->slot = 0;
    flush->part_count = 0; /* the parts are not worth the clearing */
}

void fdmux_py_flush_finish(struct fdmux_py_flush *flush)
{
    struct fdmux__stream *stream = fdmux_py_live_stream(flush->hub, flush->slot);

    if (stream != NULL && flush->part_count > 0)
        (void)fdmux__stream_send(flush->loop, stream, flush->parts, flush->part_count);
    flush->part_count = 0;
}

void fdmux_py_flush_add(struct fdmux_py_flush *flush, uint64_t word, struct iovec part)
{
    if (SLOT(word) != flush->slot || flush->part_count == PARTS_MAX)
        fdmux_py_flush_finish(flush);
    flush->slot = SLOT(word);
    gather(flush, part);
}

void fdmux_py_flush_end(struct fdmux_py_flush *flush, uint64_t word)
{
    struct fdmux__stream *stream;
    uint64_t token;

    fdmux_py_flush_finish(flush);
    stream = fdmux_py_live_stream(flush->hub, SLOT(word));
    if (stream == NULL)
        return;
    token = fdmux__slots_token(&flush->hub->streams, SLOT(word));
    if (VERB(word) == FDMUX_PY_SHUTDOWN)
        (void)fdmux_stream_shutdown(flush->loop, token); /* the stream is live */
    else
        (void)fdmux_stream_close(flush->loop, token,
                                 VERB(word) == FDMUX_PY_DROP ? FDMUX_STREAM_DROP : 0);
}

int fdmux_py_begin_batch(struct fdmux_loop *loop, struct fdmux__hub *hub)
{
    int r = 0;

    hub->batch->record_count = 0;
    hub->batch->arena_used = 0;
    hub->batch_number++;
    if (hub->collected.first != FDMUX__SLOT_NONE)
        r = fdmux__hub_serve(loop);
    return r < 0 ? r : (int)hub->batch->record_count;
}
