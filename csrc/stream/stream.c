/* stream.c: creates streams, and reacts when their sockets are ready.
 *
 * Their options are in limits.c, what they wait for in watch.c, their end in end.c. */
#include "stream.h"

#include <errno.h>
#include <string.h>

#include "../platform/sys.h"

/* ---- creation ------------------------------------------------------------------ */

int fdmux__stream_find(struct fdmux_loop *loop, uint64_t token,
                       struct fdmux__stream **ret_stream)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    if (r < 0)
        return r;
    *ret_stream = fdmux__slots_find(&hub->streams, token);
    return *ret_stream == NULL ? -EIDRM : 0;
}

int fdmux__stream_find_until_closed(struct fdmux_loop *loop, uint64_t token,
                                    struct fdmux__stream **ret_stream)
{
    const struct fdmux__hub *hub;
    int r = fdmux__loop_check(loop);

    if (r < 0 && r != -ESTALE)
        return r;
    hub = loop->extensions[FDMUX__STREAMS].data;
    *ret_stream = hub == NULL ? NULL : fdmux__slots_find(&hub->streams, token);
    if (*ret_stream != NULL)
        return 0;
    return r < 0 ? r : -EIDRM;
}

static int watch_first(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = stream->fd,
        .events = fdmux__stream_wanted(stream),
        .fn = fdmux__stream_ready,
        .userdata = stream, /* slots do not move; the watcher ends before the stream */
    };

    if (!fdmux__is_fd(stream->fd))
        return -EBADF; /* a watcher may begin without a descriptor, but no stream */
    stream->interest = options.events;
    return fdmux_io_add(loop, &options, &stream->io);
}

static void apply_options(struct fdmux__hub *hub, struct fdmux__stream *stream,
                          const struct fdmux__stream *parent,
                          const struct fdmux_stream_options *options)
{
    if (parent != NULL) {
        stream->fn = parent->fn;
        stream->buffer_fn = parent->buffer_fn;
        stream->base.userdata = parent->base.userdata;
        stream->limits = parent->limits;
        stream->limits->reference_count++;
        stream->listener = fdmux__hub_slot(parent);
    } else {
        stream->fn = options->fn;
        stream->buffer_fn = options->buffer_fn;
        stream->base.userdata = options->userdata;
        stream->base.destroyed = options->destroyed;
        stream->limits = (stream->state & FDMUX__STREAM_LISTENER) != 0
                             ? fdmux__stream_create_limits(options)
                             : fdmux__stream_share_limits(hub, options);
        stream->listener = FDMUX__SLOT_NONE;
    }
    if (stream->limits != NULL)
        stream->queue_low = stream->limits->queue_low;
}

static void discard(struct fdmux__hub *hub, struct fdmux__stream *stream)
{
    uint32_t slot = fdmux__hub_slot(stream);

    fdmux__stream_release_limits(stream->limits);
    fdmux__slots_kill(&hub->streams, slot);
    fdmux__slots_recycle(&hub->streams, slot);
}

int fdmux__stream_create(struct fdmux_loop *loop, fdmux_fd fd, uint32_t state,
                         const struct fdmux__stream *parent,
                         const struct fdmux_stream_options *options,
                         struct fdmux__stream **ret_stream)
{
    struct fdmux__hub *hub;
    struct fdmux__stream *stream;
    uint32_t slot;
    int r = fdmux__hub_get(loop, &hub);

    if (r == 0)
        r = fdmux__slots_take(&hub->streams, &slot);
    if (r != 0)
        return r;
    stream = fdmux__hub_at(hub, slot);
    stream->base.slot.next_free = slot;
    stream->fd = fd;
    fdmux__sys_adopt(fd);
    stream->state = state;
    stream->tick = stream->stall_tick = hub->tick;
    apply_options(hub, stream, parent, options);
    r = stream->limits == NULL ? -ENOMEM : watch_first(loop, stream);
    if (r < 0) {
        discard(hub, stream);
        return r;
    }
    if (fdmux__stream_has_timeout(stream))
        fdmux__hub_count_timed(loop, 1);
    *ret_stream = stream;
    return 0;
}

static void note_peer(struct fdmux__stream *stream)
{
    int size = fdmux__sys_peer(stream->fd, stream->peer, sizeof stream->peer);

    stream->peer_size = size > 0 ? (uint8_t)size : 0;
}

static int add(struct fdmux_loop *loop, fdmux_fd fd, uint32_t state,
               const struct fdmux_stream_options *options, uint64_t *ret_token)
{
    struct fdmux__stream *stream;
    struct fdmux__hub *hub;
    int r = fdmux__stream_check_options(options);

    if (r == 0 && ret_token == NULL)
        r = -EFAULT;
    if (r < 0)
        return r;
    r = fdmux__hub_get(loop, &hub);
    if (r < 0)
        return r;
    if ((options->flags & FDMUX_STREAM_BORROW) != 0)
        state |= FDMUX__STREAM_BORROWED;
    r = fdmux__stream_create(loop, fd, state, NULL, options, &stream);
    if (r != 0)
        return r;
    if ((state & (FDMUX__STREAM_LISTENER | FDMUX__STREAM_CONNECTING)) == 0)
        note_peer(stream);
    *ret_token = fdmux__slots_token(&hub->streams, fdmux__hub_slot(stream));
    return 0;
}

int fdmux_stream_add(struct fdmux_loop *loop, fdmux_fd fd,
                     const struct fdmux_stream_options *options, uint64_t *ret_stream)
{
    return add(loop, fd, 0, options, ret_stream);
}

int fdmux_stream_listen(struct fdmux_loop *loop, fdmux_fd fd,
                        const struct fdmux_stream_options *options,
                        uint64_t *ret_stream)
{
    return add(loop, fd, FDMUX__STREAM_LISTENER, options, ret_stream);
}

int fdmux_stream_connect(struct fdmux_loop *loop, fdmux_fd fd,
                         const struct fdmux_stream_options *options,
                         uint64_t *ret_stream)
{
    return add(loop, fd, FDMUX__STREAM_CONNECTING, options, ret_stream);
}

/* ---- readiness ----------------------------------------------------------------- */

static int finish_connecting(struct fdmux_loop *loop, struct fdmux__stream *stream,
                             uint32_t events)
{
    int r = fdmux__sys_connect_result(stream->fd);

    if (r == -EINPROGRESS && (events & FDMUX_HANGUP) == 0)
        return 0;
    if (r == -EINPROGRESS)
        r = -ENOTCONN; /* connect(2) was never called on it */
    if (r < 0) {
        fdmux__stream_fail(loop, stream, -r);
        return 0;
    }
    stream->state &= ~(uint32_t)FDMUX__STREAM_CONNECTING;
    if (stream->queue_count > 0) /* written before it was connected */
        stream->state |= FDMUX__STREAM_SENDING;
    else if ((stream->state & FDMUX__STREAM_LAYERED) != 0)
        ; /* it begins below, and shuts down in its own way */
    else if ((stream->state & FDMUX__STREAM_SHUTTING) != 0)
        (void)fdmux__sys_shutdown(stream->fd); /* ENOTCONN: the peer has reset it */
    fdmux__stream_watch(loop, stream);
    fdmux__sys_no_delay(stream->fd);
    note_peer(stream);
    r = fdmux__hub_deliver(loop, stream,
                           (struct fdmux_stream_event){.kind = FDMUX_STREAM_CONNECTED});
    if (fdmux__loop_is_forked(loop) || (stream->state & FDMUX__STREAM_FAILED) != 0 ||
        loop->is_closed)
        return r;
    if ((stream->state & FDMUX__STREAM_LAYERED) != 0)
        fdmux__hub_add_pending(loop, stream);
    if (r < 0 || stream->queue_count == 0)
        return r;
    return fdmux__stream_flush(loop, stream); /* a new connection is writable */
}

int fdmux__stream_ready(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                        void *userdata)
{
    struct fdmux__stream *stream = userdata;
    int r = 0;

    (void)io;
    if ((stream->state & FDMUX__STREAM_FAILED) != 0)
        return 0;
    if ((events & ~(uint32_t)FDMUX_READ) != 0)
        fdmux__stream_leave_edge(loop,
                                 stream); /* something other than bytes has arrived */
    if ((stream->state & FDMUX__STREAM_LISTENER) != 0)
        return fdmux__stream_accept(loop, stream);
    if ((stream->state & FDMUX__STREAM_CONNECTING) != 0)
        return finish_connecting(loop, stream, events);
    if ((events & FDMUX_WRITE) != 0)
        r = fdmux__stream_flush(loop, stream);
    if (r < 0 || (events & FDMUX_READ) == 0)
        return r;
    if ((stream->state & FDMUX__STREAM_LAYERED) != 0)
        return stream->layer->hooks->receive(loop, stream);
    return fdmux__stream_receive(loop, stream);
}
