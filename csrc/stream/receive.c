/* receive.c: from the socket to the stream's function.
 *
 * One recv(2) a stream and batch, so that none starves another: into the buffer that
 * buffer_fn names, or into one that all streams share. */
#include "stream.h"

#include <errno.h>

#include "../platform/sys.h"

/* The peer is done. A stream that was closing, or whose user wants nothing more, lives
 * on for its queue; everybody else is told. */
static int end(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    stream->state |= FDMUX__STREAM_PEER_ENDED;
    fdmux__stream_watch(loop, stream);
    return fdmux__hub_deliver(loop, stream,
                              (struct fdmux_stream_event){.kind = FDMUX_STREAM_END});
}

static int deliver_data(struct fdmux_loop *loop, struct fdmux__hub *hub,
                        struct fdmux__stream *stream, const void *data, uint32_t length)
{
    stream->received += length;
    fdmux__count(&stream->limits->totals.received, length);
    stream->tick = hub->tick;
    return fdmux__hub_deliver(loop, stream,
                              (struct fdmux_stream_event){.kind = FDMUX_STREAM_DATA,
                                                          .data = data,
                                                          .length = length});
}

/* Where to receive; a size of 0 for not now. */
static int find_buffer(struct fdmux_loop *loop, struct fdmux__hub *hub,
                       struct fdmux__stream *stream, void **ret_buffer,
                       size_t *ret_size)
{
    int r;

    *ret_buffer = hub->scratch;
    *ret_size = stream->limits->receive_max;
    if (stream->buffer_fn == NULL)
        return 0;
    r = stream->buffer_fn(loop,
                          fdmux__slots_token(&hub->streams, fdmux__hub_slot(stream)),
                          ret_buffer, ret_size, stream->base.userdata);
    r = fdmux__fn_result(loop, r);
    if (*ret_size > stream->limits->receive_max)
        *ret_size = stream->limits->receive_max;
    if (!fdmux__stream_is_reading(loop, stream)) /* the function has paused or closed */
        *ret_size = 0;
    return r;
}

int fdmux__stream_receive(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    void *buffer;
    size_t size;
    int count;

    if (!fdmux__stream_is_reading(loop, stream))
        return 0; /* paused since it was found readable */
    /* With many streams out of cache: here by the time the bytes are. */
    __builtin_prefetch(stream->base.userdata, 1);
    __builtin_prefetch((const char *)stream->base.userdata + 64, 1);
    __builtin_prefetch((const char *)stream->base.userdata + 128, 1);
    count = find_buffer(loop, hub, stream, &buffer, &size);
    if (count < 0 || size == 0) {
        fdmux__stream_leave_edge(loop, stream); /* an edge would not come again */
        return count;
    }
    do {
        count = fdmux__sys_recv(stream->fd, buffer, size);
    } while (count == -EINTR);
    fdmux__stream_count_receive(loop, stream, count, size);
    if (count > 0)
        return deliver_data(loop, hub, stream, buffer, (uint32_t)count);
    if (count == 0)
        return end(loop, stream);
    if (count != -EAGAIN)
        fdmux__stream_fail(loop, stream, -count);
    return 0;
}
