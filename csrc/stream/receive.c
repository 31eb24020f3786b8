/* receive.c: receives from the socket and calls the function of the stream.
 *
 * A stream receives once in a batch, so that a busy one does not delay the others. It
 * receives into the buffer that its buffer_fn returns, or into the hub's buffer. */
#include "stream.h"

#include <errno.h>

#include "../platform/sys.h"

int fdmux__stream_deliver_end(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    stream->state |= FDMUX__STREAM_PEER_ENDED;
    fdmux__stream_watch(loop, stream);
    return fdmux__hub_deliver(loop, stream,
                              (struct fdmux_stream_event){.kind = FDMUX_STREAM_END});
}

int fdmux__stream_deliver_data(struct fdmux_loop *loop, struct fdmux__stream *stream,
                               const void *data, uint32_t length)
{
    stream->received += length;
    fdmux__count(&stream->limits->totals.received, length);
    stream->tick = fdmux__hub_of(loop)->tick;
    return fdmux__hub_deliver(loop, stream,
                              (struct fdmux_stream_event){.kind = FDMUX_STREAM_DATA,
                                                          .data = data,
                                                          .length = length});
}

int fdmux__stream_find_buffer(struct fdmux_loop *loop, struct fdmux__stream *stream,
                              void **ret_buffer, size_t *ret_size)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    uint32_t layered = stream->state & FDMUX__STREAM_LAYERED;
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
    /* buffer_fn may have paused or closed it, or started TLS. */
    if (!fdmux__stream_is_reading(loop, stream) ||
        (stream->state & FDMUX__STREAM_LAYERED) != layered)
        *ret_size = 0;
    return r;
}

int fdmux__stream_recv(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       void *buffer, size_t size)
{
    int count;

    do {
        count = fdmux__sys_recv(stream->fd, buffer, size);
    } while (count == -EINTR);
    fdmux__stream_count_receive(loop, stream, count, size);
    return count;
}

int fdmux__stream_receive(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    void *buffer;
    size_t size;
    int count;

    if (!fdmux__stream_is_reading(loop, stream))
        return 0; /* paused or closed since the wait */
    /* The callback needs these cache lines; they load while recv(2) copies. */
    __builtin_prefetch(stream->base.userdata, 1);
    __builtin_prefetch((const char *)stream->base.userdata + 64, 1);
    __builtin_prefetch((const char *)stream->base.userdata + 128, 1);
    count = fdmux__stream_find_buffer(loop, stream, &buffer, &size);
    if (count < 0 || size == 0) {
        fdmux__stream_leave_edge(loop, stream); /* no edge reports these bytes again */
        return count;
    }
    count = fdmux__stream_recv(loop, stream, buffer, size);
    if (count > 0)
        return fdmux__stream_deliver_data(loop, stream, buffer, (uint32_t)count);
    if (count == 0)
        return fdmux__stream_deliver_end(loop, stream);
    if (count != -EAGAIN)
        fdmux__stream_fail(loop, stream, -count);
    return 0;
}
