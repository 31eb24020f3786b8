/* stream_glue.c: what Python wrote during one batch of streams, in one call (glue.h).
 */
#include <Python.h>

#include "glue.h"

#include <errno.h>

#include "flush.h"

/* The state of one flush, with what lies before it. */
struct flush {
    struct fdmux_py_flush out;
    const char *joined;
    size_t joined_left;
};

/* The bytes that stream `slot` received in this batch; false if there are none. */
static bool data_of(const struct flush *flush, uint32_t slot, struct iovec *ret_part)
{
    const struct fdmux__stream *source;

    if (slot >= fdmux__load(&flush->out.hub->streams.slot_count))
        return false;
    source = fdmux__hub_at(flush->out.hub, slot); /* it may have ended since */
    if (source->data_batch != flush->out.hub->batch_number)
        return false;
    *ret_part = (struct iovec){flush->out.hub->batch->arena + source->data_offset,
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
    const struct fdmux_stream_batch *batch = flush->out.hub->batch;

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
        *index += 1;
        return *index < count
                   ? part_of_arena(flush, OPERAND(word), words[*index], ret_part)
                   : false;
    }
}

static int do_words(struct flush *flush, const uint64_t *words, uint32_t count)
{
    struct iovec part;
    int r = 0;

    for (uint32_t i = 0; i < count && r == 0; i++) {
        uint64_t word = words[i];

        if (IS_END(word))
            fdmux_py_flush_end(&flush->out, word);
        else if (part_of(flush, words, count, &i, &part))
            fdmux_py_flush_add(&flush->out, word, part);
        else
            r = -EINVAL;
    }
    fdmux_py_flush_finish(&flush->out);
    return r;
}

static int do_all(struct fdmux_loop *loop, struct fdmux__hub *hub, const void *words,
                  uint32_t count, const void *joined, size_t joined_size)
{
    struct flush flush;

    fdmux_py_flush_init(&flush.out, loop, hub);
    flush.joined = joined;
    flush.joined_left = joined_size;
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
    return r < 0 ? r : fdmux_py_begin_batch(streams->loop, hub);
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
    if (fdmux_py_live_stream(hub, slot) == NULL)
        return -ENOENT;
    return (int64_t)fdmux__slots_token(&hub->streams, slot);
}

void *fdmux_py_totals_hold(struct fdmux_loop *loop, uint32_t slot)
{
    struct fdmux__hub *hub;
    struct fdmux__stream *stream;

    if (fdmux__hub_get(loop, &hub) < 0)
        return NULL;
    stream = fdmux_py_live_stream(hub, slot);
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
