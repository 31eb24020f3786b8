/* stream.c: the life of a stream.
 *
 * A stream ends in one place, fdmux__stream_finish, reached through the pending list:
 * no stream is freed while in use. */
#include "stream.h"

#include <errno.h>
#include <string.h>

#include "../platform/sys.h"

#define TICKS_PER_S 4

/* ---- limits -------------------------------------------------------------------- */

/* Rounded up: a timeout comes late, never early. */
static uint32_t ticks_of(int64_t timeout_ns)
{
    int64_t ticks;

    if (timeout_ns <= 0)
        return 0;
    ticks = (timeout_ns - 1) / (FDMUX__NS_PER_S / TICKS_PER_S) + 1;
    return ticks >= INT32_MAX ? INT32_MAX : (uint32_t)ticks;
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value == 0 ? otherwise : value;
}

static int check_options(const struct fdmux_stream_options *options)
{
    if (fdmux__options_check(options, sizeof *options) < 0 || options->fn == NULL ||
        (options->flags & ~(uint32_t)FDMUX_STREAM_BORROW) != 0 ||
        options->receive_max > FDMUX__RECEIVE_MAX || options->queue_max > INT32_MAX ||
        options->idle_timeout_ns < 0 || options->stall_timeout_ns < 0)
        return -EINVAL;
    return 0;
}

static struct fdmux__stream_limits *
new_limits(const struct fdmux_stream_options *options)
{
    struct fdmux__stream_limits *limits = fdmux__sys_calloc(1, sizeof *limits);

    if (limits == NULL)
        return NULL;
    limits->reference_count = 1;
    limits->receive_max = or_default(options->receive_max, FDMUX__RECEIVE_DEFAULT);
    limits->queue_max = or_default(options->queue_max, 256 << 10);
    limits->queue_high = or_default(options->queue_high, 64 << 10);
    limits->queue_low = or_default(options->queue_low, 16 << 10);
    limits->connection_max = options->connection_max;
    limits->idle_ticks = ticks_of(options->idle_timeout_ns);
    limits->stall_ticks = ticks_of(options->stall_timeout_ns);
    return limits;
}

void fdmux__stream_release_limits(struct fdmux__stream_limits *limits)
{
    if (atomic_fetch_sub(&limits->reference_count, 1) == 1)
        fdmux__sys_free(limits);
}

static bool is_timed(const struct fdmux__stream *stream)
{
    return (stream->state & FDMUX__STREAM_LISTENER) == 0 &&
           (stream->limits->idle_ticks | stream->limits->stall_ticks) != 0;
}

/* ---- interest ------------------------------------------------------------------ */

/* Edges are for streams that only read: what cannot be written is level-triggered. */
static uint32_t with_edge(const struct fdmux__stream *stream, uint32_t events)
{
    if (events != FDMUX_READ || (stream->state & FDMUX__STREAM_EDGE) == 0)
        return events;
    return FDMUX_READ | FDMUX_PEER_CLOSED | FDMUX_PRIORITY | FDMUX_EDGE;
}

static uint32_t wanted(const struct fdmux__stream *stream)
{
    uint32_t state = stream->state;
    uint32_t no_reading = FDMUX__STREAM_PAUSED | FDMUX__STREAM_CHOKED |
                          FDMUX__STREAM_ENDED | FDMUX__STREAM_CLOSING |
                          FDMUX__STREAM_CONNECTING;
    uint32_t events = (state & no_reading) == 0 ? FDMUX_READ : 0;

    if ((state & FDMUX__STREAM_FAILED) != 0)
        return 0;
    if ((state & (FDMUX__STREAM_SENDING | FDMUX__STREAM_CONNECTING)) != 0 &&
        (state & FDMUX__STREAM_STARVED) == 0)
        events |= FDMUX_WRITE;
    return with_edge(stream, events);
}

static void mark_failed(struct fdmux_loop *loop, struct fdmux__stream *stream,
                        int error)
{
    if ((stream->state & FDMUX__STREAM_FAILED) != 0)
        return;
    stream->state |= FDMUX__STREAM_FAILED;
    stream->error = error;
    fdmux__hub_pend(loop, stream);
}

void fdmux__stream_watch(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    const struct fdmux__hub *hub = loop->extension_data;
    uint32_t events = wanted(stream);
    int r;

    /* A listener out of descriptors looks away until its back-off has passed. */
    if (stream->backoff_ticks > 0 && hub->tick - stream->tick < stream->backoff_ticks)
        events = 0;
    if (events == stream->interest || stream->fd < 0)
        return;
    r = fdmux_io_update(loop, stream->io, events);
    if (r < 0 &&
        (events & FDMUX_EDGE) != 0) { /* others watch it otherwise: no matter */
        stream->state &= ~(uint32_t)FDMUX__STREAM_EDGE;
        events = FDMUX_READ;
        r = events == stream->interest ? 0 : fdmux_io_update(loop, stream->io, events);
    }
    if (r == 0)
        stream->interest = events;
    else if (!atomic_load(&loop->is_closed) && r != -ECHILD)
        mark_failed(loop, stream, -r); /* could hear nothing any more */
}

/* ---- birth --------------------------------------------------------------------- */

int fdmux__stream_find(struct fdmux_loop *loop, uint64_t token,
                       struct fdmux__stream **ret_stream)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    if (r < 0)
        return r;
    *ret_stream = fdmux__slots_find(&hub->streams, token);
    return *ret_stream == NULL ? -ENOENT : 0;
}

static int watch_first(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = stream->fd,
        .events = wanted(stream),
        .fn = fdmux__stream_ready,
        .userdata = stream, /* slots do not move; the watcher ends first */
    };

    stream->interest = options.events;
    return fdmux_io_add(loop, &options, &stream->io);
}

static void fill(struct fdmux__stream *stream, const struct fdmux__stream *parent,
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
        stream->limits = new_limits(options);
        stream->listener = FDMUX__SLOT_NONE;
    }
}

static void unmake(struct fdmux__hub *hub, struct fdmux__stream *stream)
{
    uint32_t slot = fdmux__hub_slot(stream);

    if (stream->limits != NULL)
        fdmux__stream_release_limits(stream->limits);
    fdmux__slots_kill(&hub->streams, slot);
    fdmux__slots_recycle(&hub->streams, slot);
}

int fdmux__stream_make(struct fdmux_loop *loop, int fd, uint32_t state,
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
    stream->state = state;
    stream->tick = stream->stall_tick = hub->tick;
    fill(stream, parent, options);
    r = stream->limits == NULL ? -ENOMEM : watch_first(loop, stream);
    if (r < 0) {
        unmake(hub, stream);
        return r;
    }
    if (is_timed(stream))
        fdmux__hub_count_timed(loop, 1);
    *ret_stream = stream;
    return 0;
}

static void note_peer(struct fdmux__stream *stream)
{
    int size = fdmux__sys_peer(stream->fd, stream->peer, sizeof stream->peer);

    stream->peer_size = size > 0 ? (uint8_t)size : 0;
}

static int add(struct fdmux_loop *loop, int fd, uint32_t state,
               const struct fdmux_stream_options *options, uint64_t *ret_token)
{
    struct fdmux__stream *stream;
    struct fdmux__hub *hub;
    int r = check_options(options);

    if (r < 0 || ret_token == NULL)
        return -EINVAL;
    r = fdmux__hub_get(loop, &hub);
    if (r < 0)
        return r;
    if ((options->flags & FDMUX_STREAM_BORROW) != 0)
        state |= FDMUX__STREAM_BORROWED;
    r = fdmux__stream_make(loop, fd, state, NULL, options, &stream);
    if (r != 0)
        return r;
    if ((state & (FDMUX__STREAM_LISTENER | FDMUX__STREAM_CONNECTING)) == 0)
        note_peer(stream);
    *ret_token = fdmux__slots_token(&hub->streams, fdmux__hub_slot(stream));
    return 0;
}

int fdmux_stream_add(struct fdmux_loop *loop, int fd,
                     const struct fdmux_stream_options *options, uint64_t *ret_stream)
{
    return add(loop, fd, 0, options, ret_stream);
}

int fdmux_stream_listen(struct fdmux_loop *loop, int fd,
                        const struct fdmux_stream_options *options,
                        uint64_t *ret_stream)
{
    return add(loop, fd, FDMUX__STREAM_LISTENER, options, ret_stream);
}

int fdmux_stream_connect(struct fdmux_loop *loop, int fd,
                         const struct fdmux_stream_options *options,
                         uint64_t *ret_stream)
{
    return add(loop, fd, FDMUX__STREAM_CONNECTING, options, ret_stream);
}

/* ---- events -------------------------------------------------------------------- */

static int connected(struct fdmux_loop *loop, struct fdmux__stream *stream,
                     uint32_t events)
{
    int r = fdmux__sys_connect_result(stream->fd);

    if (r == -EINPROGRESS && (events & FDMUX_HANGUP) == 0)
        return 0;
    if (r == -EINPROGRESS)
        r = -ENOTCONN; /* it never will be: nothing is under way */
    if (r < 0) {
        fdmux__stream_fail(loop, stream, -r);
        return 0;
    }
    stream->state &= ~(uint32_t)FDMUX__STREAM_CONNECTING;
    if (stream->queue_count > 0) /* written while it connected */
        stream->state |= FDMUX__STREAM_SENDING;
    else if ((stream->state & FDMUX__STREAM_SHUTTING) != 0)
        (void)fdmux__sys_shutdown(stream->fd); /* ENOTCONN: reset meanwhile */
    fdmux__stream_watch(loop, stream);
    fdmux__sys_no_delay(stream->fd);
    note_peer(stream);
    r = fdmux__hub_deliver(loop, stream,
                           (struct fdmux_stream_event){.kind = FDMUX_STREAM_CONNECTED});
    if (r < 0 || (stream->state & FDMUX__STREAM_FAILED) != 0 || loop->is_closed ||
        stream->queue_count == 0)
        return r;
    return fdmux__stream_flush(loop, stream); /* it is writable now */
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
        fdmux__stream_leave_edge(loop, stream); /* there is more than bytes */
    if ((stream->state & FDMUX__STREAM_LISTENER) != 0)
        return fdmux__stream_accept(loop, stream);
    if ((stream->state & FDMUX__STREAM_CONNECTING) != 0)
        return connected(loop, stream, events);
    if ((events & FDMUX_WRITE) != 0)
        r = fdmux__stream_flush(loop, stream);
    if (r < 0 || (events & FDMUX_READ) == 0)
        return r;
    return fdmux__stream_receive(loop, stream);
}

/* ---- death --------------------------------------------------------------------- */

void fdmux__stream_fail(struct fdmux_loop *loop, struct fdmux__stream *stream,
                        int error)
{
    if ((stream->state & FDMUX__STREAM_FAILED) != 0)
        return;
    mark_failed(loop, stream, error);
    fdmux__stream_watch(loop, stream);
}

static void leave_listener(struct fdmux__hub *hub, const struct fdmux__stream *stream)
{
    struct fdmux__stream *listener;

    if (stream->listener == FDMUX__SLOT_NONE)
        return;
    listener = fdmux__hub_at(hub, stream->listener);
    /* The listener may be gone, and its slot another's. */
    if (listener->limits == stream->limits && listener->connections > 0)
        listener->connections--;
}

void fdmux__stream_let_go(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if (stream->fd < 0)
        return;
    (void)fdmux_io_remove(loop, stream->io); /* -ESTALE when the loop is closing */
    if ((stream->state & FDMUX__STREAM_BORROWED) == 0)
        (void)fdmux__sys_close(stream->fd); /* close(2): released in any case */
    stream->fd = -1;
}

static void release(struct fdmux_loop *loop, struct fdmux__hub *hub,
                    struct fdmux__stream *stream)
{
    uint32_t slot = fdmux__hub_slot(stream);

    fdmux__stream_let_go(loop, stream);
    fdmux__count(&stream->limits->totals.dropped, stream->queue_count);
    fdmux__stream_drop_queue(hub, stream);
    if (is_timed(stream))
        fdmux__hub_count_timed(loop, -1);
    if ((stream->state & FDMUX__STREAM_STARVED) != 0)
        fdmux__hub_count_timed(loop, -1);
    if (stream->backoff_ticks > 0) {
        hub->starved_count--;
        fdmux__hub_count_timed(loop, -1);
    }
    leave_listener(hub, stream);
    fdmux__stream_release_limits(stream->limits);
    stream->limits = NULL;
    fdmux__slots_kill(&hub->streams, slot);
    stream->base.slot.next_free = hub->first_retired;
    hub->first_retired = slot;
}

static int say_closed(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if ((stream->state & FDMUX__STREAM_TOLD) != 0)
        return 0;
    stream->state |= FDMUX__STREAM_TOLD;
    return fdmux__hub_deliver(loop, stream,
                              (struct fdmux_stream_event){.kind = FDMUX_STREAM_CLOSED,
                                                          .error = stream->error});
}

int fdmux__stream_finish(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__hub *hub = loop->extension_data;
    int r = say_closed(loop, stream);
    fdmux_destroyed_fn destroyed = stream->base.destroyed;
    void *userdata = stream->base.userdata;

    if (fdmux__loop_check(loop) == -ECHILD) {
        fdmux__hub_pend(loop, stream); /* ends when the child may change its set */
        return r;
    }
    release(loop, hub, stream);
    if (destroyed != NULL)
        destroyed(userdata);
    if (hub->starved_count > 0 && !atomic_load(&loop->is_closed))
        fdmux__stream_feed(loop);
    return r;
}
