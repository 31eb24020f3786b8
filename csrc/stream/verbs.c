/* verbs.c: the functions of fdmux_stream.h for an existing stream, except writes.
 *
 * Each finds the stream by its token. None frees it: end.c does, later. */
#include "stream.h"

#include <errno.h>
#include <string.h>

#include "../platform/sys.h"

int fdmux_stream_shutdown(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__stream *stream;
    int r = fdmux__stream_find(loop, token, &stream);

    if (r < 0)
        return r;
    if ((stream->state & FDMUX__STREAM_LAYERED) != 0) {
        stream->state |= FDMUX__STREAM_SHUTTING;
        stream->layer->hooks->shutdown(loop, stream);
        return 0;
    }
    /* Linux aborts a connection attempt on a socket that is shut down. */
    if ((stream->state & (FDMUX__STREAM_SHUTTING | FDMUX__STREAM_CONNECTING)) == 0 &&
        stream->queue_count == 0 && fdmux__is_fd(stream->fd))
        (void)fdmux__sys_shutdown(stream->fd); /* ENOTCONN: the peer has reset it */
    stream->state |= FDMUX__STREAM_SHUTTING;
    return 0;
}

static int set_paused(struct fdmux_loop *loop, uint64_t token, bool is_paused)
{
    struct fdmux__stream *stream;
    int r = fdmux__stream_find(loop, token, &stream);

    if (r < 0)
        return r;
    if (is_paused)
        stream->state |= FDMUX__STREAM_PAUSED;
    else
        stream->state &= ~(uint32_t)FDMUX__STREAM_PAUSED;
    fdmux__stream_watch(loop, stream);
    return 0;
}

int fdmux_stream_pause(struct fdmux_loop *loop, uint64_t token)
{
    return set_paused(loop, token, true);
}

int fdmux_stream_resume(struct fdmux_loop *loop, uint64_t token)
{
    return set_paused(loop, token, false);
}

int fdmux_stream_close(struct fdmux_loop *loop, uint64_t token, uint32_t flags)
{
    struct fdmux__stream *stream;
    int r = fdmux__stream_find(loop, token, &stream);

    if (r < 0)
        return r;
    if ((flags & ~(uint32_t)FDMUX_STREAM_DROP) != 0)
        return -EINVAL;
    stream->state |= FDMUX__STREAM_CLOSING;
    if ((flags & FDMUX_STREAM_DROP) == 0 &&
        (stream->state & FDMUX__STREAM_LAYERED) != 0)
        stream->layer->hooks->close(loop, stream);
    else if (stream->queue_count == 0 || (flags & FDMUX_STREAM_DROP) != 0)
        fdmux__stream_fail(loop, stream, 0);
    else
        fdmux__stream_watch(loop, stream);
    if ((flags & FDMUX_STREAM_DROP) != 0 &&
        (stream->state & FDMUX__STREAM_BORROWED) != 0)
        fdmux__stream_release_fd(loop, stream);
    return 0;
}

int fdmux_stream_fd(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__stream *stream;
    int r = fdmux__stream_find(loop, token, &stream);

    if (r == 0 && !fdmux__is_fd(stream->fd))
        r = -EIDRM;
    return r < 0 ? r : fdmux__fd_result(stream->fd);
}

int fdmux_stream_set_handler(struct fdmux_loop *loop, uint64_t token,
                             const struct fdmux_stream_handler *handler)
{
    const struct fdmux__hub *hub;
    struct fdmux__stream *stream;
    int r = fdmux__options_check(handler, sizeof *handler);

    if (r == 0)
        r = handler->fn == NULL ? -EINVAL : fdmux__loop_check(loop);
    if (r < 0 && r != -ECHILD)
        return r;
    hub = fdmux__hub_of(
        loop); /* allowed in a child of fork(), before fdmux_loop_after_fork */
    stream = hub == NULL ? NULL : fdmux__slots_find(&hub->streams, token);
    if (stream == NULL)
        return r < 0 ? r : -EIDRM;
    stream->fn = handler->fn;
    stream->buffer_fn = handler->buffer_fn;
    fdmux__watcher_hand_on(&stream->base, handler->destroyed, handler->userdata);
    return 0;
}

int fdmux_stream_await_writable(struct fdmux_loop *loop, uint64_t token,
                                uint32_t queue_low)
{
    struct fdmux__stream *stream;
    int r = fdmux__stream_find(loop, token, &stream);

    if (r < 0)
        return r;
    stream->queue_low = queue_low;
    stream->state |= FDMUX__STREAM_WRITABLE_WANTED;
    return 0;
}

int fdmux_stream_peer(struct fdmux_loop *loop, uint64_t token, void *address,
                      size_t size)
{
    struct fdmux__stream *stream;
    int r = address == NULL ? -EFAULT
                            : fdmux__stream_find_until_closed(loop, token, &stream);

    if (r < 0)
        return r;
    if (stream->peer_size > size)
        return -ENOSPC;
    memcpy(address, stream->peer, stream->peer_size);
    return stream->peer_size;
}

int fdmux_stream_stats(struct fdmux_loop *loop, uint64_t token,
                       struct fdmux_stream_stats *stats)
{
    struct fdmux__stream *stream;
    int r = fdmux__options_check(stats, sizeof *stats);
    bool is_listener;

    if (r == 0)
        r = fdmux__stream_find(loop, token, &stream);
    if (r != 0)
        return r;
    is_listener = (stream->state & FDMUX__STREAM_LISTENER) != 0;
    stats->received = is_listener ? stream->limits->totals.received : stream->received;
    stats->sent = is_listener ? stream->limits->totals.sent : stream->sent;
    stats->queued = is_listener ? (uint32_t)stream->limits->totals.queued
                                : fdmux__stream_queued(stream);
    stats->connections = stream->connections;
    stats->accepted = is_listener ? stream->received : 0;
    stats->refused = is_listener ? stream->sent : 0;
    return 0;
}
