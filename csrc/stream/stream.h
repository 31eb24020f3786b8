/* stream.h: the structures behind fdmux_stream.h, and the functions that the files of
 * this folder share.
 *
 * The streams of one loop share a hub: it has their slots, the buffer they receive
 * into, the common limit of all queues, and the list of pending streams. A pending
 * stream is one that has ended and whose CLOSED event is to be delivered.
 *
 * Only the dispatching thread uses streams, so there are no locks here. */
#ifndef FDMUX_STREAM_INTERNAL_H
#define FDMUX_STREAM_INTERNAL_H

#include "fdmux_stream.h"

#include <stdbool.h>

#include "../core/batch.h"
#include "../core/gate.h"
#include "../core/hold.h"
#include "../core/host.h"
#include "../core/io.h"
#include "layer.h"

struct fdmux__hub;

#define FDMUX__KIND_STREAM 4
#define FDMUX__RECEIVE_MAX 262144
#define FDMUX__RECEIVE_DEFAULT 65536
#define FDMUX__PEER_MAX 28 /* struct sockaddr_in6 */

/* State bits. */
enum {
    FDMUX__STREAM_LISTENER = 0x001,
    FDMUX__STREAM_CONNECTING = 0x002,
    FDMUX__STREAM_PENDING = 0x004, /* in the hub's list of pending streams */
    FDMUX__STREAM_PAUSED = 0x010, /* by the user */
    FDMUX__STREAM_OVER_HIGH_WATER = 0x020, /* not read until the queue is short */
    FDMUX__STREAM_PEER_ENDED = 0x040, /* the peer sends no more */
    FDMUX__STREAM_SHUTTING = 0x080, /* shut down once the queue is empty */
    FDMUX__STREAM_CLOSING = 0x100, /* closed once the queue is empty */
    FDMUX__STREAM_FAILED = 0x200, /* ended: CLOSED is to be delivered */
    FDMUX__STREAM_SENDING = 0x400, /* the socket's buffer is full: waits for WRITE */
    FDMUX__STREAM_NO_BUFFERS = 0x800, /* the kernel has no memory: waits for a tick */
    FDMUX__STREAM_EDGE = 0x1000, /* edge-triggered while it waits for READ alone */
    FDMUX__STREAM_BORROWED = 0x2000, /* the caller closes the descriptor */
    FDMUX__STREAM_WRITABLE_WANTED = 0x4000, /* by fdmux_stream_await_writable */
    FDMUX__STREAM_CLOSED_DELIVERED = 0x8000,
    FDMUX__STREAM_LAYERED = 0x10000, /* `layer` is set */
    FDMUX__STREAM_LAYER_READS =
        0x20000, /* even if paused, over high water or closing */
    FDMUX__STREAM_LEFTOVER = 0x40000, /* the layer has bytes that no event reports */
};

/* Of a listener and all streams that it has accepted. The dispatching thread writes
 * them; another thread that reads them sees each as it was at some moment. */
struct fdmux__stream_totals {
    _Atomic uint64_t received; /* bytes */
    _Atomic uint64_t sent;
    _Atomic uint64_t queued;
    _Atomic uint64_t dropped; /* queued when their stream ended */
    _Atomic uint64_t accepted;
    _Atomic uint64_t refused;
};

/* Shared by a listener and the streams it accepts, or by other streams with the same
 * options; freed with the last of them. */
struct fdmux__stream_limits {
    _Atomic uint32_t reference_count;
    uint32_t receive_max;
    uint32_t queue_max;
    uint32_t queue_high;
    uint32_t queue_low;
    uint32_t connection_max;
    uint32_t idle_ticks;
    uint32_t stall_ticks;
    struct fdmux__stream_totals totals;
};

struct fdmux__stream {
    struct fdmux__watcher base;
    fdmux_stream_fn fn;
    fdmux_stream_buffer_fn buffer_fn;
    /* Every message uses the next fields: they share cache lines, since with 1,000
     * streams none of them is in the cache. */
    struct fdmux__stream_limits *limits;
    fdmux_fd fd;
    uint32_t state;
    uint32_t interest; /* the events of its io watcher */
    uint32_t queue_count;
    uint32_t tick; /* of the last byte sent or received */
    uint32_t stall_tick; /* of the last byte sent, or the first queued */
    uint64_t received; /* of a listener: connections accepted */
    uint64_t sent; /* of a listener: connections refused */
    uint64_t io;
    struct fdmux__layer *layer; /* NULL, unless LAYERED */
    unsigned char *queue;
    uint32_t queue_first;
    uint32_t queue_capacity;
    uint32_t queue_low; /* as in the limits, or of fdmux_stream_await_writable */
    int error;
    uint32_t next_pending;
    uint32_t listener; /* slot of the one that accepted it, or NONE */
    uint32_t connections;
    unsigned char peer[FDMUX__PEER_MAX]; /* a struct sockaddr */
    uint8_t peer_size; /* 0: not of the Internet families */
    uint8_t short_receives; /* in a row, while level-triggered */
    uint8_t backoff_ticks; /* of a listener out of descriptors; 0: it accepts */
};

struct fdmux__hub {
    struct fdmux__slots streams;
    unsigned char *memory;
    unsigned char *scratch; /* in `memory`: streams without a buffer_fn receive here */
    uint32_t first_pending; /* linked by next_pending */
    uint32_t last_pending;
    uint32_t first_retired; /* freed in this batch: slots to recycle before the next */
    uint32_t backed_off_count; /* listeners out of descriptors */
    uint32_t timed_count; /* streams that need the tick timer */
    uint32_t tick;
    uint64_t timer;
    bool has_edges; /* the backend has FDMUX_FEATURE_EDGE */
    size_t queued_total;
    size_t queued_total_max;
    fdmux_stream_fn prefetched_fn; /* of the streams that `prefetch` is for */
    fdmux_stream_prefetch_fn prefetch; /* or NULL */
    struct fdmux__stream_limits *last_limits; /* of fdmux__stream_share_limits */
    void *layer_data; /* one allocation that the layers of all streams share */
};

/* hub.c */
int fdmux__hub_get(struct fdmux_loop *loop, struct fdmux__hub **ret_hub);
void fdmux__hub_add_pending(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* Call the function of the stream. Returns its result. */
int fdmux__hub_deliver(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       struct fdmux_stream_event event);
/* One stream more (1) or less (-1) needs the tick timer, which runs while any does. */
void fdmux__hub_count_timed(struct fdmux_loop *loop, int change);
/* Let `ticks` pass: end overdue streams, retry listeners and sends. O(streams). */
void fdmux__hub_tick(struct fdmux_loop *loop, uint32_t ticks);

/* limits.c */
int fdmux__stream_check_options(const struct fdmux_stream_options *options);
struct fdmux__stream_limits *
fdmux__stream_create_limits(const struct fdmux_stream_options *options);
/* For a stream that no listener has accepted. Streams with the same options share one
 * object, since every message uses it, and many of them would not stay in the cache. */
struct fdmux__stream_limits *
fdmux__stream_share_limits(struct fdmux__hub *hub,
                           const struct fdmux_stream_options *options);
/* Any thread; also NULL. */
void fdmux__stream_release_limits(struct fdmux__stream_limits *limits);

uint32_t fdmux__ticks_of(int64_t timeout_ns);

/* watch.c */
/* The events that the state of the stream asks for. */
uint32_t fdmux__stream_wanted(const struct fdmux__stream *stream);
/* Update the io watcher to them. */
void fdmux__stream_watch(struct fdmux_loop *loop, struct fdmux__stream *stream);

/* stream.c; nothing in csrc/stream calls verbs.c */
int fdmux__stream_find(struct fdmux_loop *loop, uint64_t token,
                       struct fdmux__stream **ret_stream);
/* The same, also while the loop closes: it keeps each stream until it is CLOSED. */
int fdmux__stream_find_until_closed(struct fdmux_loop *loop, uint64_t token,
                                    struct fdmux__stream **ret_stream);
int fdmux__stream_create(struct fdmux_loop *loop, fdmux_fd fd, uint32_t state,
                         const struct fdmux__stream *parent,
                         const struct fdmux_stream_options *options,
                         struct fdmux__stream **ret_stream);
int fdmux__stream_ready(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                        void *userdata);

/* end.c */
/* End the stream: it receives nothing more, and is on the pending list. 0 as `error`
 * means that the user closed it. */
void fdmux__stream_fail(struct fdmux_loop *loop, struct fdmux__stream *stream,
                        int error);
/* The same for fdmux__stream_watch, which cannot update the watcher. */
void fdmux__stream_mark_failed(struct fdmux_loop *loop, struct fdmux__stream *stream,
                               int error);
/* Deliver CLOSED and free the stream. For the pending list only. */
int fdmux__stream_finish(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* Stop watching the descriptor, and close it unless it is borrowed. Idempotent. */
void fdmux__stream_release_fd(struct fdmux_loop *loop, struct fdmux__stream *stream);

/* edge.c */
/* Note what recv(2) returned. After several short receives the stream becomes
 * edge-triggered; after any other result it is level-triggered again. */
void fdmux__stream_count_receive(struct fdmux_loop *loop, struct fdmux__stream *stream,
                                 int count, size_t offered);
void fdmux__stream_leave_edge(struct fdmux_loop *loop, struct fdmux__stream *stream);

/* receive.c, accept.c, send.c */
/* The buffer to receive into. A size of 0 means: receive nothing now. */
int fdmux__stream_find_buffer(struct fdmux_loop *loop, struct fdmux__stream *stream,
                              void **ret_buffer, size_t *ret_size);
/* recv(2), and note for the edge what it returned, which is the result. */
int fdmux__stream_recv(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       void *buffer, size_t size);
int fdmux__stream_deliver_data(struct fdmux_loop *loop, struct fdmux__stream *stream,
                               const void *data, uint32_t length);
/* The peer sends no more. The stream stays open for what is still to be sent. */
int fdmux__stream_deliver_end(struct fdmux_loop *loop, struct fdmux__stream *stream);
int fdmux__stream_receive(struct fdmux_loop *loop, struct fdmux__stream *stream);
int fdmux__stream_accept(struct fdmux_loop *loop, struct fdmux__stream *listener);
/* Stop watching a listener that is out of descriptors, until a retry. */
void fdmux__listener_back_off(struct fdmux_loop *loop, struct fdmux__stream *listener);
/* A descriptor was closed: all listeners that have backed off accept again. */
void fdmux__listeners_retry(struct fdmux_loop *loop);
/* A tick has passed: wait for WRITE again, if the kernel had no buffers. */
void fdmux__stream_retry_send(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* Send from the queue as much as the kernel takes. */
int fdmux__stream_flush(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* Put the user's parts on their way, through the layer if there is one. Returns 0 or
 * -errno. */
int fdmux__stream_send(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       struct fdmux__part *parts, int count);
/* Send the parts as they are, and queue what the kernel does not take. Returns 0 or
 * -errno. */
int fdmux__stream_put(struct fdmux_loop *loop, struct fdmux__stream *stream,
                      struct fdmux__part *parts, int count);
/* May `length` bytes more be queued? Closes the streams with the longest queues until
 * they fit under the common limit. Returns 0, or -ENOBUFS: the caller closes `stream`.
 */
int fdmux__stream_make_room(struct fdmux_loop *loop, struct fdmux__stream *stream,
                            size_t length);
/* Stop reading while too much is queued: the peer gets no answers, so it must wait. */
void fdmux__stream_check_high_water(const struct fdmux_loop *loop,
                                    struct fdmux__stream *stream);
void fdmux__stream_drop_queue(struct fdmux__hub *hub, struct fdmux__stream *stream);

/* ---- inline: called for each message ------------------------------------------- */

/* NULL until the loop has its first stream. */
static inline struct fdmux__hub *fdmux__hub_of(const struct fdmux_loop *loop)
{
    return loop->extensions[FDMUX__STREAMS].data;
}

static inline struct fdmux__stream *fdmux__hub_at(const struct fdmux__hub *hub,
                                                  uint32_t slot)
{
    return fdmux__slots_at(&hub->streams, slot);
}

/* A live stream keeps its own slot number in the field of the free list. */
static inline uint32_t fdmux__hub_slot(const struct fdmux__stream *stream)
{
    return stream->base.slot.next_free;
}

/* Bytes queued for the kernel, and those that the layer cannot send yet. */
static inline uint32_t fdmux__stream_queued(const struct fdmux__stream *stream)
{
    return stream->queue_count + ((stream->state & FDMUX__STREAM_LAYERED) != 0
                                      ? stream->layer->held_count
                                      : 0);
}

/* Does the idle or the stall timeout of this stream run? */
static inline bool fdmux__stream_has_timeout(const struct fdmux__stream *stream)
{
    return (stream->state & FDMUX__STREAM_LISTENER) == 0 &&
           (stream->limits->idle_ticks | stream->limits->stall_ticks) != 0;
}

/* May it receive or accept now? Not after a function has paused or closed it. */
static inline bool fdmux__stream_is_reading(const struct fdmux_loop *loop,
                                            const struct fdmux__stream *stream)
{
    return (stream->interest & FDMUX_READ) != 0 &&
           (stream->state & FDMUX__STREAM_FAILED) == 0 &&
           !atomic_load_explicit(&loop->is_closing, memory_order_relaxed);
}

#endif
