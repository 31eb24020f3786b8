/* send.c: writes to the socket, and queues what the kernel does not take.
 *
 * Bytes leave in the order of the writes. When that is impossible, the stream ends with
 * an error. No queue grows over its limit, nor all queues together over theirs. */
#include "stream.h"

#include <errno.h>
#include <string.h>

#include "../platform/sys.h"

#define PARTS_MAX 64
#define QUEUE_MIN 4096

/* ---- the queue ----------------------------------------------------------------- */

void fdmux__stream_drop_queue(struct fdmux__hub *hub, struct fdmux__stream *stream)
{
    hub->queued_total -= stream->queue_count;
    fdmux__count(&stream->limits->totals.queued, -(uint64_t)stream->queue_count);
    fdmux__sys_free(stream->queue);
    stream->queue = NULL;
    stream->queue_first = stream->queue_count = stream->queue_capacity = 0;
}

/* Make room at the end of the queue: move its bytes to the front, or grow it. */
static int reserve(struct fdmux__stream *stream, uint32_t length)
{
    uint32_t needed = stream->queue_count + length;
    uint32_t capacity =
        stream->queue_capacity < QUEUE_MIN ? QUEUE_MIN : stream->queue_capacity;
    unsigned char *queue;

    if (stream->queue_first + needed <= stream->queue_capacity)
        return 0;
    if (stream->queue_first > 0) {
        memmove(stream->queue, stream->queue + stream->queue_first,
                stream->queue_count);
        stream->queue_first = 0;
    }
    while (capacity < needed)
        capacity *= 2;
    if (capacity == stream->queue_capacity)
        return 0;
    queue = fdmux__sys_realloc(stream->queue, capacity);
    if (queue == NULL)
        return -ENOMEM;
    stream->queue = queue;
    stream->queue_capacity = capacity;
    return 0;
}

/* From three quarters of the common limit on, no stream with a queue is read. */
static bool is_total_over_high_water(const struct fdmux__hub *hub)
{
    return hub->queued_total >= hub->queued_total_max - hub->queued_total_max / 4;
}

/* O(streams). */
static struct fdmux__stream *longest_queue(struct fdmux__hub *hub,
                                           struct fdmux__stream *longest)
{
    uint32_t count = fdmux__load(&hub->streams.slot_count);

    for (uint32_t i = 0; i < count; i++) {
        struct fdmux__stream *stream = fdmux__hub_at(hub, i);

        if (fdmux__slot_is_live(&stream->base.slot) &&
            fdmux__stream_queued(stream) > fdmux__stream_queued(longest))
            longest = stream;
    }
    return longest;
}

int fdmux__stream_make_room(struct fdmux_loop *loop, struct fdmux__stream *stream,
                            size_t length)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);

    if (length > stream->limits->queue_max - fdmux__stream_queued(stream))
        return -ENOBUFS;
    while (hub->queued_total > hub->queued_total_max ||
           length > hub->queued_total_max - hub->queued_total) {
        struct fdmux__stream *longest = longest_queue(hub, stream);

        if (longest == stream)
            return -ENOBUFS;
        fdmux__count(&longest->limits->totals.dropped, fdmux__stream_queued(longest));
        fdmux__stream_drop_queue(hub, longest);
        if ((longest->state & FDMUX__STREAM_LAYERED) != 0)
            longest->layer->hooks->drop(hub, longest);
        fdmux__stream_fail(loop, longest, ENOBUFS);
    }
    return 0;
}

static int append(struct fdmux_loop *loop, struct fdmux__stream *stream,
                  const void *data, size_t length)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);

    if (fdmux__stream_make_room(loop, stream, length) < 0)
        return -ENOBUFS;
    if (reserve(stream, (uint32_t)length) < 0)
        return -ENOMEM;
    memcpy(stream->queue + stream->queue_first + stream->queue_count, data, length);
    stream->queue_count += (uint32_t)length;
    hub->queued_total += length;
    fdmux__count(&stream->limits->totals.queued, length);
    return 0;
}

/* Queue the parts without their first `sent` bytes. */
static int append_rest(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       const struct fdmux__part *parts, int count, size_t sent)
{
    int r = 0;

    for (int i = 0; i < count && r == 0; i++) {
        size_t skip = sent < parts[i].size ? sent : parts[i].size;

        sent -= skip;
        if (skip < parts[i].size)
            r = append(loop, stream, (const char *)parts[i].base + skip,
                       parts[i].size - skip);
    }
    return r;
}

/* ---- sending ------------------------------------------------------------------- */

/* The kernel has no memory for buffers. The socket may be reported writable all the
 * same and waiting for that would spin, so the stream waits for the next tick. */
static void wait_for_buffers(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if ((stream->state & FDMUX__STREAM_NO_BUFFERS) != 0)
        return;
    stream->state |= FDMUX__STREAM_NO_BUFFERS;
    fdmux__hub_count_timed(loop, 1);
}

void fdmux__stream_retry_send(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if ((stream->state & FDMUX__STREAM_NO_BUFFERS) == 0)
        return;
    stream->state &= ~(uint32_t)FDMUX__STREAM_NO_BUFFERS;
    fdmux__hub_count_timed(loop, -1);
    fdmux__stream_watch(loop, stream);
}

/* Returns how many bytes the kernel took, 0 if none, or the error that ends the stream.
 */
static int send_parts(struct fdmux_loop *loop, struct fdmux__stream *stream,
                      struct fdmux__part *parts, int count)
{
    int r;

    do {
        r = fdmux__sys_send(stream->fd, parts, count);
    } while (r == -EINTR);
    if (r == -ENOBUFS || r == -ENOMEM)
        wait_for_buffers(loop, stream);
    if (r == -EAGAIN || r == -ENOBUFS || r == -ENOMEM)
        return 0;
    if (r > 0 && (stream->state & FDMUX__STREAM_LAYERED) == 0) {
        stream->sent += (uint32_t)r;
        fdmux__count(&stream->limits->totals.sent, (uint32_t)r);
    }
    return r;
}

static size_t total_of(const struct fdmux__part *parts, int count)
{
    size_t total = 0;

    for (int i = 0; i < count; i++)
        total += parts[i].size;
    return total;
}

void fdmux__stream_check_high_water(const struct fdmux_loop *loop,
                                    struct fdmux__stream *stream)
{
    if (fdmux__stream_queued(stream) >= stream->limits->queue_high ||
        is_total_over_high_water(fdmux__hub_of(loop)))
        stream->state |= FDMUX__STREAM_OVER_HIGH_WATER;
}

int fdmux__stream_put(struct fdmux_loop *loop, struct fdmux__stream *stream,
                      struct fdmux__part *parts, int count)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    int sent = 0;
    int r;

    if (stream->queue_count == 0 && (stream->state & FDMUX__STREAM_CONNECTING) == 0)
        sent = send_parts(loop, stream, parts, count);
    if (sent < 0) {
        fdmux__stream_fail(loop, stream, -sent);
        return 0;
    }
    if (sent > 0 || stream->queue_count == 0)
        stream->tick = stream->stall_tick = hub->tick;
    if ((size_t)sent == total_of(parts, count))
        return 0;
    r = append_rest(loop, stream, parts, count, (size_t)sent);
    if (r < 0) {
        fdmux__stream_fail(loop, stream, -r);
        return r;
    }
    stream->state |= FDMUX__STREAM_SENDING;
    fdmux__stream_check_high_water(loop, stream);
    fdmux__stream_watch(loop, stream);
    return 0;
}

static int send_or_queue(struct fdmux_loop *loop, struct fdmux__stream *stream,
                         struct fdmux__part *parts, int count)
{
    if ((stream->state & (FDMUX__STREAM_SHUTTING | FDMUX__STREAM_CLOSING |
                          FDMUX__STREAM_LISTENER | FDMUX__STREAM_FAILED)) != 0)
        return -EPIPE;
    return fdmux__stream_put(loop, stream, parts, count);
}

/* Counts as dropped whatever is neither sent nor queued. */
int fdmux__stream_send(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       struct fdmux__part *parts, int count)
{
    uint64_t before = stream->sent + stream->queue_count;
    int r;

    if ((stream->state & FDMUX__STREAM_LAYERED) != 0)
        return stream->layer->hooks->send(loop, stream, parts, count);
    r = send_or_queue(loop, stream, parts, count);
    if (r < 0 || (stream->state & FDMUX__STREAM_FAILED) != 0)
        fdmux__count(&stream->limits->totals.dropped,
                     total_of(parts, count) -
                         (stream->sent + stream->queue_count - before));
    return r;
}

/* The queue has become empty: shut down or close, if that was asked for. */
static int finish_queue(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);

    fdmux__stream_drop_queue(hub, stream);
    stream->state &= ~(uint32_t)FDMUX__STREAM_SENDING;
    if ((stream->state & FDMUX__STREAM_LAYERED) != 0)
        return stream->layer->hooks->drained(loop, stream);
    if ((stream->state & FDMUX__STREAM_SHUTTING) != 0)
        (void)fdmux__sys_shutdown(stream->fd); /* ENOTCONN: the peer has reset it */
    if ((stream->state & FDMUX__STREAM_CLOSING) != 0) {
        fdmux__stream_fail(loop, stream, 0);
        return 0;
    }
    return fdmux__hub_deliver(
        loop, stream, (struct fdmux_stream_event){.kind = FDMUX_STREAM_DRAINED});
}

/* Read again once the queue is short. */
static int check_low_water(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    const uint32_t waiting =
        FDMUX__STREAM_OVER_HIGH_WATER | FDMUX__STREAM_WRITABLE_WANTED;

    if ((stream->state & waiting) == 0 ||
        fdmux__stream_queued(stream) > stream->queue_low ||
        (fdmux__stream_queued(stream) > 0 &&
         is_total_over_high_water(fdmux__hub_of(loop))))
        return 0;
    stream->state &= ~waiting;
    return fdmux__hub_deliver(
        loop, stream, (struct fdmux_stream_event){.kind = FDMUX_STREAM_WRITABLE});
}

int fdmux__stream_flush(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    struct fdmux__part part = {.size = stream->queue_count};
    int sent = 0;
    int r;

    if (stream->queue_count > 0) {
        part.base = stream->queue + stream->queue_first;
        sent = send_parts(loop, stream, &part, 1);
    }
    if (sent < 0) {
        fdmux__stream_fail(loop, stream, -sent);
        return 0;
    }
    if (sent > 0)
        stream->tick = stream->stall_tick = hub->tick;
    stream->queue_first += (uint32_t)sent;
    stream->queue_count -= (uint32_t)sent;
    hub->queued_total -= (uint32_t)sent;
    fdmux__count(&stream->limits->totals.queued, -(uint64_t)(uint32_t)sent);
    r = check_low_water(loop, stream);
    if (r >= 0 && stream->queue_count == 0 &&
        (stream->state & FDMUX__STREAM_FAILED) == 0)
        r = finish_queue(loop, stream);
    fdmux__stream_watch(loop, stream);
    return r;
}

/* ---- the public functions ------------------------------------------------------ */

int fdmux_stream_write(struct fdmux_loop *loop, uint64_t token, const void *data,
                       size_t length)
{
    struct fdmux__part part = {(void *)(uintptr_t)data, length};
    struct fdmux__stream *stream;
    int r = fdmux__stream_find(loop, token, &stream);

    if (r < 0)
        return r;
    if (length > 0 && data == NULL)
        return -EFAULT;
    return length == 0 ? 0 : fdmux__stream_send(loop, stream, &part, 1);
}

static bool are_ops_valid(const struct fdmux_stream_write_op *ops, uint32_t count)
{
    bool is_valid = ops != NULL;

    for (uint32_t i = 0; is_valid && i < count; i++)
        is_valid = ops[i].length == 0 || ops[i].data != NULL;
    return is_valid;
}

int fdmux_stream_write_batch(struct fdmux_loop *loop,
                             const struct fdmux_stream_write_op *ops, uint32_t count)
{
    struct fdmux__part parts[PARTS_MAX];
    struct fdmux__hub *hub;
    int accepted = fdmux__hub_get(loop, &hub);
    uint32_t i = 0;

    if (accepted < 0)
        return accepted;
    if (count > INT32_MAX)
        return -EINVAL;
    if (count > 0 && !are_ops_valid(ops, count))
        return -EFAULT;
    while (i < count) {
        struct fdmux__stream *stream;
        uint64_t token = ops[i].stream;
        int found = fdmux__stream_find(loop, token, &stream);
        int used = 0;

        if (found < 0 && found != -EIDRM)
            return found;
        for (; i < count && ops[i].stream == token && used < PARTS_MAX; i++)
            parts[used++] =
                (struct fdmux__part){(void *)(uintptr_t)ops[i].data, ops[i].length};
        if (found == 0 && fdmux__stream_send(loop, stream, parts, used) == 0)
            accepted += used;
    }
    return accepted;
}
