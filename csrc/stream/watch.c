/* watch.c: which events a stream waits for.
 *
 * The one place that turns the state of a stream into the events of its io watcher. */
#include "stream.h"

#include <errno.h>

/* Only a stream that waits for READ alone is edge-triggered. */
static uint32_t with_edge(const struct fdmux__stream *stream, uint32_t events)
{
    if (events != FDMUX_READ || (stream->state & FDMUX__STREAM_EDGE) == 0)
        return events;
    return FDMUX_READ | FDMUX_PEER_CLOSED | FDMUX_PRIORITY | FDMUX_EDGE;
}

uint32_t fdmux__stream_wanted(const struct fdmux__stream *stream)
{
    uint32_t state = stream->state;
    uint32_t no_reading = FDMUX__STREAM_PAUSED | FDMUX__STREAM_OVER_HIGH_WATER |
                          FDMUX__STREAM_PEER_ENDED | FDMUX__STREAM_CLOSING |
                          FDMUX__STREAM_CONNECTING;
    uint32_t events;

    if ((state & FDMUX__STREAM_LAYER_READS) != 0)
        no_reading = FDMUX__STREAM_PEER_ENDED | FDMUX__STREAM_CONNECTING;
    events = (state & no_reading) == 0 ? FDMUX_READ : 0;
    if ((state & FDMUX__STREAM_FAILED) != 0)
        return 0;
    if ((state & (FDMUX__STREAM_SENDING | FDMUX__STREAM_CONNECTING)) != 0 &&
        (state & FDMUX__STREAM_NO_BUFFERS) == 0)
        events |= FDMUX_WRITE;
    return with_edge(stream, events);
}

void fdmux__stream_watch(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    const struct fdmux__hub *hub = fdmux__hub_of(loop);
    uint32_t events = fdmux__stream_wanted(stream);
    int r;

    /* A listener out of descriptors is not watched until its back-off has passed. */
    if (stream->backoff_ticks > 0 && hub->tick - stream->tick < stream->backoff_ticks)
        events = 0;
    if ((events & FDMUX_READ) != 0 && (stream->state & FDMUX__STREAM_LEFTOVER) != 0)
        fdmux__hub_add_pending(loop, stream); /* reads again: no event reports them */
    if (events == stream->interest || !fdmux__is_fd(stream->fd))
        return;
    r = fdmux_io_update(loop, stream->io, events);
    if (r < 0 && (events & FDMUX_EDGE) != 0) {
        /* Another watcher of this descriptor is level-triggered: so are we. */
        stream->state &= ~(uint32_t)FDMUX__STREAM_EDGE;
        events = FDMUX_READ;
        r = events == stream->interest ? 0 : fdmux_io_update(loop, stream->io, events);
    }
    if (r == 0)
        stream->interest = events;
    else if (!atomic_load(&loop->is_closed) && r != -ECHILD)
        fdmux__stream_mark_failed(loop, stream, -r); /* no event would reach it */
}
