/* stream_glue.c: what Python wrote during one batch of streams, in one call (glue.h).
 */
#include "glue.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/uio.h>

#include "stream.h"

#define PARTS_MAX 64
#define VERB(word) ((uint32_t)(word) & 0xf0000000u)
#define SLOT(word) ((uint32_t)(word) & 0x0fffffffu)
#define OPERAND(word) ((uint32_t)((word) >> 32))

/* The state of one flush: what lies before it, and parts for one stream. */
struct flush {
    struct fdmux_loop *loop;
    struct fdmux__hub *hub;
    const char *joined;
    size_t joined_left;
    struct iovec parts[PARTS_MAX];
    int part_count;
};

static struct fdmux__stream *live_stream(struct fdmux__hub *hub, uint32_t slot)
{
    struct fdmux__stream *stream;

    if (slot >= fdmux__load(&hub->streams.slot_count))
        return NULL;
    stream = fdmux__hub_at(hub, slot);
    return (fdmux__load(&stream->base.slot.generation) & 1) != 0 ? stream : NULL;
}

/* The bytes that stream `slot` received in this batch; false if there are none. */
static bool data_of(const struct flush *flush, uint32_t slot, struct iovec *ret_part)
{
    const struct fdmux__stream *source;

    if (slot >= fdmux__load(&flush->hub->streams.slot_count))
        return false;
    source = fdmux__hub_at(flush->hub, slot); /* it may have ended since */
    if (source->data_batch != flush->hub->batch_number)
        return false;
    *ret_part = (struct iovec){flush->hub->batch->arena + source->data_offset,
                               source->data_length};
    return true;
}

static bool next_joined(struct flush *flush, uint32_t length, struct iovec *ret_part)
{
    if (length > flush->joined_left)
        return false;
    *ret_part = (struct iovec){(void *)(uintptr_t)flush->joined, length};
    flush->joined += length;
    flush->joined_left -= length;
    return true;
}

static bool part_of_arena(const struct flush *flush, uint32_t first, uint64_t length,
                          struct iovec *ret_part)
{
    const struct fdmux_stream_batch *batch = flush->hub->batch;

    if (first > batch->arena_used || length > batch->arena_used - first)
        return false;
    *ret_part = (struct iovec){batch->arena + first, (size_t)length};
    return true;
}

/* The bytes that the word at *index sends; a verb with two words steps to the second.
 */
static bool part_of(struct flush *flush, const uint64_t *words, uint32_t count,
                    uint32_t *index, struct iovec *ret_part)
{
    uint64_t word = words[*index];

    switch (VERB(word)) {
    case FDMUX_PY_ECHO:
        return data_of(flush, SLOT(word), ret_part);
    case FDMUX_PY_SEND:
        return next_joined(flush, OPERAND(word), ret_part);
    case FDMUX_PY_PASS:
        return data_of(flush, OPERAND(word), ret_part);
    default:
        return ++*index < count &&
               part_of_arena(flush, OPERAND(word), words[*index], ret_part);
    }
}

static bool continues(const struct iovec *last, const struct iovec *next)
{
    return (char *)last->iov_base + last->iov_len == (char *)next->iov_base;
}

/* Bytes that lie side by side become one part. */
static void gather(struct flush *flush, struct iovec part)
{
    struct iovec *last = &flush->parts[flush->part_count];

    if (flush->part_count > 0 && continues(last - 1, &part))
        last[-1].iov_len += part.iov_len;
    else
        flush->parts[flush->part_count++] = part;
}

static void send_gathered(struct flush *flush, uint32_t slot)
{
    struct fdmux__stream *stream = live_stream(flush->hub, slot);

    /* What fails has failed the stream, which its CLOSED record will say. */
    if (stream != NULL && flush->part_count > 0)
        (void)fdmux__stream_send(flush->loop, stream, flush->parts, flush->part_count);
    flush->part_count = 0;
}

static void end_stream(struct flush *flush, uint32_t slot, uint32_t verb)
{
    struct fdmux__stream *stream = live_stream(flush->hub, slot);
    uint64_t token;

    if (stream == NULL)
        return;
    token = fdmux__slots_token(&flush->hub->streams, slot);
    if (verb == FDMUX_PY_SHUTDOWN)
        (void)fdmux_stream_shutdown(flush->loop, token); /* the stream is live */
    else
        (void)fdmux_stream_close(flush->loop, token,
                                 verb == FDMUX_PY_DROP ? FDMUX_STREAM_DROP : 0);
}

static int do_words(struct flush *flush, const uint64_t *words, uint32_t count)
{
    uint32_t slot = 0;
    struct iovec part;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t word = words[i];
        bool is_end = VERB(word) >= FDMUX_PY_CLOSE;

        if (SLOT(word) != slot || flush->part_count == PARTS_MAX || is_end)
            send_gathered(flush, slot);
        slot = SLOT(word);
        if (is_end)
            end_stream(flush, slot, VERB(word));
        else if (part_of(flush, words, count, &i, &part))
            gather(flush, part);
        else
            return -EINVAL;
    }
    send_gathered(flush, slot);
    return 0;
}

static int do_all(struct fdmux_loop *loop, struct fdmux__hub *hub, const void *words,
                  uint32_t count, const void *joined, size_t joined_size)
{
    struct flush flush; /* its parts are not worth the clearing */

    flush.loop = loop;
    flush.hub = hub;
    flush.joined = joined;
    flush.joined_left = joined_size;
    flush.part_count = 0;
    return hub->batch == NULL ? -EINVAL : do_words(&flush, words, count);
}

int fdmux_py_stream_settle(struct fdmux_py_streams *streams, const void *words,
                           uint32_t count, const void *joined, size_t joined_size)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(streams->loop, &hub);

    return r < 0 ? r : do_all(streams->loop, hub, words, count, joined, joined_size);
}

int fdmux_py_stream_flush(struct fdmux_py_streams *streams, const void *words,
                          uint32_t count, const void *joined, size_t joined_size)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(streams->loop, &hub);

    if (r == 0)
        r = do_all(streams->loop, hub, words, count, joined, joined_size);
    if (r < 0)
        return r;
    hub->batch->record_count = 0;
    hub->batch->arena_used = 0;
    hub->batch_number++;
    if (hub->collected.first != FDMUX__SLOT_NONE)
        r = fdmux__hub_serve(streams->loop);
    return r < 0 ? r : (int)hub->batch->record_count;
}

int fdmux_py_stream_turn(struct fdmux_py_streams *streams, const void *words,
                         uint32_t count, const void *joined, size_t joined_size)
{
    int r = fdmux_py_stream_flush(streams, words, count, joined, joined_size);

    if (r != 0)
        return r < 0 ? r : 0;
    return fdmux_py_select(streams->select, streams->timeout_ns);
}

int fdmux_py_stream_serve(struct fdmux_loop *loop)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    return r < 0 ? r : fdmux__hub_serve(loop);
}

int64_t fdmux_py_stream_token(struct fdmux_loop *loop, uint32_t slot)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    if (r < 0)
        return r;
    if (live_stream(hub, slot) == NULL)
        return -ENOENT;
    return (int64_t)fdmux__slots_token(&hub->streams, slot);
}

void *fdmux_py_totals_hold(struct fdmux_loop *loop, uint32_t slot)
{
    struct fdmux__hub *hub;
    struct fdmux__stream *stream;

    if (fdmux__hub_get(loop, &hub) < 0)
        return NULL;
    stream = live_stream(hub, slot);
    if (stream == NULL)
        return NULL;
    atomic_fetch_add(&stream->limits->reference_count, 1);
    return stream->limits;
}

void fdmux_py_totals_read(void *held, struct fdmux_py_stream_totals *ret_totals)
{
    const struct fdmux__stream_totals *totals =
        &((struct fdmux__stream_limits *)held)->totals;

    *ret_totals = (struct fdmux_py_stream_totals){
        .received = totals->received,
        .sent = totals->sent,
        .queued = totals->queued,
        .dropped = totals->dropped,
        .accepted = totals->accepted,
        .refused = totals->refused,
    };
}

void fdmux_py_totals_release(void *held)
{
    fdmux__stream_release_limits(held);
}

int fdmux_py_stream_tick(struct fdmux_loop *loop, uint32_t ticks)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    if (r == 0)
        fdmux__hub_tick(loop, ticks);
    return r;
}
