/* receive.c: from the socket into the arena, or to a function.
 *
 * One recv(2) a stream and batch, of at most 64 KiB: so none starves another. What is
 * offered costs nothing, since the arena advances only by what came. */
#include "stream.h"

#include <errno.h>

#include "../core/sys.h"

/* The peer is done. A stream that was closing, or whose user wants nothing more, lives
 * on for its queue; everybody else is told. */
static int end(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    stream->state |= FDMUX__STREAM_ENDED;
    fdmux__stream_watch(loop, stream);
    return fdmux__hub_deliver(
        loop, stream, (struct fdmux_stream_record){.kind = FDMUX_STREAM_END}, NULL);
}

static int deliver_data(struct fdmux_loop *loop, struct fdmux__hub *hub,
                        struct fdmux__stream *stream, const unsigned char *data,
                        uint32_t length)
{
    struct fdmux_stream_record record = {.kind = FDMUX_STREAM_DATA, .last = length};

    stream->received += length;
    fdmux__count(&stream->limits->totals.received, length);
    stream->tick = hub->tick;
    if (stream->fn == NULL) {
        record.first = hub->batch->arena_used;
        record.last = record.first + length;
        stream->data_offset = record.first;
        stream->data_length = length;
        stream->data_batch = hub->batch_number;
        hub->batch->arena_used += length;
    }
    return fdmux__hub_deliver(loop, stream, record, data);
}

int fdmux__stream_receive(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__hub *hub = loop->extension_data;
    unsigned char *buffer;
    int count;

    if (!fdmux__stream_is_reading(loop, stream))
        return 0; /* paused since it was found readable */
    if (stream->fn == NULL && stream->data_batch == hub->batch_number) {
        fdmux__stream_leave_edge(loop, stream); /* once a batch: reported again */
        return 0;
    }
    if (!fdmux__hub_has_room(hub, stream)) {
        fdmux__stream_defer(loop, stream);
        return 0;
    }
    buffer =
        stream->fn != NULL ? hub->scratch : hub->batch->arena + hub->batch->arena_used;
    do {
        count = fdmux__sys_recv(stream->fd, buffer, stream->limits->receive_max);
    } while (count == -EINTR);
    fdmux__stream_count_receive(loop, stream, count);
    if (count > 0)
        return deliver_data(loop, hub, stream, buffer, (uint32_t)count);
    if (count == 0)
        return end(loop, stream);
    if (count != -EAGAIN)
        fdmux__stream_fail(loop, stream, -count);
    return 0;
}
