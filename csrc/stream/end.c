/* end.c: how a stream ends.
 *
 * Whatever ends a stream puts it on the list of pending streams; only
 * fdmux__stream_finish, which the loop calls for that list, delivers CLOSED and frees
 * it. So no stream is freed while in use. */
#include "stream.h"

#include <errno.h>

#include "../platform/sys.h"

void fdmux__stream_mark_failed(struct fdmux_loop *loop, struct fdmux__stream *stream,
                               int error)
{
    if ((stream->state & FDMUX__STREAM_FAILED) != 0)
        return;
    stream->state |= FDMUX__STREAM_FAILED;
    stream->error = error;
    fdmux__hub_add_pending(loop, stream);
}

void fdmux__stream_fail(struct fdmux_loop *loop, struct fdmux__stream *stream,
                        int error)
{
    if ((stream->state & FDMUX__STREAM_FAILED) != 0)
        return;
    fdmux__stream_mark_failed(loop, stream, error);
    fdmux__stream_watch(loop, stream);
}

static void uncount_connection(struct fdmux__hub *hub,
                               const struct fdmux__stream *stream)
{
    struct fdmux__stream *listener;

    if (stream->listener == FDMUX__SLOT_NONE)
        return;
    listener = fdmux__hub_at(hub, stream->listener);
    /* The listener may have ended, and another stream may have its slot. */
    if (listener->limits == stream->limits && listener->connections > 0)
        listener->connections--;
}

void fdmux__stream_release_fd(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if (!fdmux__is_fd(stream->fd))
        return;
    (void)fdmux_io_remove(loop, stream->io); /* -ESTALE when the loop is closing */
    if ((stream->state & FDMUX__STREAM_BORROWED) == 0)
        (void)fdmux__sys_close(stream->fd); /* close(2): released in any case */
    stream->fd = FDMUX_NO_FD;
}

static void release(struct fdmux_loop *loop, struct fdmux__hub *hub,
                    struct fdmux__stream *stream)
{
    uint32_t slot = fdmux__hub_slot(stream);

    fdmux__stream_release_fd(loop, stream);
    fdmux__count(&stream->limits->totals.dropped, fdmux__stream_queued(stream));
    fdmux__stream_drop_queue(hub, stream);
    if ((stream->state & FDMUX__STREAM_LAYERED) != 0) {
        stream->layer->hooks->release(loop, stream);
        stream->state &= ~(uint32_t)FDMUX__STREAM_LAYERED;
        stream->layer = NULL;
    }
    if (fdmux__stream_has_timeout(stream))
        fdmux__hub_count_timed(loop, -1);
    if ((stream->state & FDMUX__STREAM_NO_BUFFERS) != 0)
        fdmux__hub_count_timed(loop, -1);
    if (stream->backoff_ticks > 0) {
        hub->backed_off_count--;
        fdmux__hub_count_timed(loop, -1);
    }
    uncount_connection(hub, stream);
    fdmux__stream_release_limits(stream->limits);
    stream->limits = NULL;
    fdmux__slots_kill(&hub->streams, slot);
    stream->base.slot.next_free = hub->first_retired;
    hub->first_retired = slot;
}

static int deliver_closed(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if ((stream->state & FDMUX__STREAM_CLOSED_DELIVERED) != 0)
        return 0;
    stream->state |= FDMUX__STREAM_CLOSED_DELIVERED;
    if ((stream->state & FDMUX__STREAM_LAYERED) != 0)
        stream->layer->hooks->ended(stream);
    return fdmux__hub_deliver(loop, stream,
                              (struct fdmux_stream_event){.kind = FDMUX_STREAM_CLOSED,
                                                          .error = stream->error});
}

int fdmux__stream_finish(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    int r = deliver_closed(loop, stream);
    fdmux_destroyed_fn destroyed = stream->base.destroyed;
    void *userdata = stream->base.userdata;

    if (fdmux__loop_check(loop) == -ECHILD) {
        fdmux__hub_add_pending(
            loop,
            stream); /* not in a child of fork(): it would change the parent's set */
        return r;
    }
    release(loop, hub, stream);
    if (destroyed != NULL)
        destroyed(userdata);
    if (hub->backed_off_count > 0 && !atomic_load(&loop->is_closed))
        fdmux__listeners_retry(loop);
    return r;
}
