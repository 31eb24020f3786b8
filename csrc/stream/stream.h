/* stream.h: the structures behind fdmux_stream.h, and what its parts ask of each other.
 *
 * A hub is what the streams of one loop share: their slots, the buffer they receive
 * into, the bound on all queues, and the list of streams that are about to end.
 * Everything here belongs to the dispatching thread: no locks. */
#ifndef FDMUX_STREAM_INTERNAL_H
#define FDMUX_STREAM_INTERNAL_H

#include "fdmux_stream.h"

#include <stdbool.h>

#include "../core/batch.h"
#include "../core/extension.h"
#include "../core/gate.h"
#include "../core/hold.h"
#include "../core/host.h"
#include "../core/io.h"

struct iovec;

#define FDMUX__KIND_STREAM 4
#define FDMUX__RECEIVE_MAX 262144
#define FDMUX__RECEIVE_DEFAULT 65536
#define FDMUX__PEER_MAX 28 /* struct sockaddr_in6 */

/* State bits. */
enum {
    FDMUX__STREAM_LISTENER = 0x001,
    FDMUX__STREAM_CONNECTING = 0x002,
    FDMUX__STREAM_PENDING = 0x004, /* in the list of the hub */
    FDMUX__STREAM_PAUSED = 0x010, /* by the user */
    FDMUX__STREAM_CHOKED = 0x020, /* by the high-water mark */
    FDMUX__STREAM_ENDED = 0x040, /* the peer sends no more */
    FDMUX__STREAM_SHUTTING = 0x080,
    FDMUX__STREAM_CLOSING = 0x100, /* when the queue is empty */
    FDMUX__STREAM_FAILED = 0x200, /* CLOSED is to be delivered */
    FDMUX__STREAM_SENDING = 0x400, /* the kernel was full: waits for WRITE */
    FDMUX__STREAM_STARVED = 0x800, /* the kernel has no buffers: waits for a tick */
    FDMUX__STREAM_EDGE = 0x1000, /* while it only reads: watched for edges */
    FDMUX__STREAM_BORROWED = 0x2000, /* its descriptor is somebody else's to close */
    FDMUX__STREAM_AWAITED = 0x4000, /* WRITABLE is wanted, also if it never choked */
    FDMUX__STREAM_TOLD = 0x8000, /* CLOSED was delivered */
};

/* Of a listener and all that it has accepted. Written by the dispatching thread; who
 * reads them in another sees each as it was at some moment. */
struct fdmux__stream_totals {
    _Atomic uint64_t received; /* bytes */
    _Atomic uint64_t sent;
    _Atomic uint64_t queued;
    _Atomic uint64_t dropped; /* queued when their stream ended */
    _Atomic uint64_t accepted;
    _Atomic uint64_t refused;
};

/* Shared by a listener and what it accepts; lives as long as the last of them. */
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
    /* What every message touches lies together: caches are cold at 1,000 streams. */
    struct fdmux__stream_limits *limits;
    int fd;
    uint32_t state;
    uint32_t interest; /* what the io watcher was told */
    uint32_t queue_count;
    uint32_t tick; /* of the last byte either way */
    uint32_t stall_tick; /* of the last byte sent, or the first queued */
    uint64_t received; /* of a listener: connections accepted */
    uint64_t sent; /* of a listener: connections refused */
    /* The rest. */
    uint64_t io;
    unsigned char *queue;
    uint32_t queue_first;
    uint32_t queue_capacity;
    int error;
    uint32_t next_pending;
    uint32_t listener; /* slot of the one that accepted it, or NONE */
    uint32_t connections;
    unsigned char peer[FDMUX__PEER_MAX]; /* a struct sockaddr */
    uint8_t peer_size; /* 0: not of the Internet families */
    uint8_t short_receives; /* in a row, while not watched for edges */
    uint8_t backoff_ticks; /* of a listener without descriptors; 0: it accepts */
};

struct fdmux__hub {
    struct fdmux__slots streams;
    unsigned char *memory;
    unsigned char *scratch; /* in it: where streams without a buffer_fn receive */
    uint32_t first_pending; /* streams that are to end, linked by next_pending */
    uint32_t last_pending;
    uint32_t first_retired; /* over, their slots not yet to be used again */
    uint32_t starved_count; /* listeners without descriptors */
    uint32_t timed_count; /* streams that ticks matter to */
    uint32_t tick;
    uint64_t timer;
    bool has_edges; /* the backend can report them */
    size_t queued_total;
    size_t queued_total_max;
};

/* hub.c */
int fdmux__hub_get(struct fdmux_loop *loop, struct fdmux__hub **ret_hub);
void fdmux__hub_pend(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* Call the stream's function. */
int fdmux__hub_deliver(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       struct fdmux_stream_event event);
/* Keep the tick timer running exactly while somebody counts ticks. */
void fdmux__hub_count_timed(struct fdmux_loop *loop, int change);
void fdmux__hub_tick(struct fdmux_loop *loop, uint32_t ticks);
/* Let a foreign host know that a stream is pending; inside a dispatch it will anyway.
 */
void fdmux__hub_announce(struct fdmux_loop *loop);
/* Finish the streams that were ended, outside of a dispatch. */
int fdmux__hub_serve(struct fdmux_loop *loop);

/* stream.c (and verbs.c, which nobody else calls) */
int fdmux__stream_find(struct fdmux_loop *loop, uint64_t token,
                       struct fdmux__stream **ret_stream);
int fdmux__stream_make(struct fdmux_loop *loop, int fd, uint32_t state,
                       const struct fdmux__stream *parent,
                       const struct fdmux_stream_options *options,
                       struct fdmux__stream **ret_stream);
void fdmux__stream_release_limits(struct fdmux__stream_limits *limits); /* any thread */
/* Ends the stream when the pending list is served, with a CLOSED event. */
void fdmux__stream_fail(struct fdmux_loop *loop, struct fdmux__stream *stream,
                        int error);
int fdmux__stream_finish(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* Leave the descriptor, which may have been left already. */
void fdmux__stream_let_go(struct fdmux_loop *loop, struct fdmux__stream *stream);
/* Tell the io watcher what the state asks for. */
void fdmux__stream_watch(struct fdmux_loop *loop, struct fdmux__stream *stream);
int fdmux__stream_ready(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                        void *userdata);

/* edge.c */
/* Note what recv(2) returned: enough short receives, and the stream is watched for
 * edges; anything else, and it no longer is. */
void fdmux__stream_count_receive(struct fdmux_loop *loop, struct fdmux__stream *stream,
                                 int count, size_t offered);
void fdmux__stream_leave_edge(struct fdmux_loop *loop, struct fdmux__stream *stream);

/* receive.c, accept.c, send.c */
int fdmux__stream_receive(struct fdmux_loop *loop, struct fdmux__stream *stream);
int fdmux__stream_accept(struct fdmux_loop *loop, struct fdmux__stream *listener);
void fdmux__stream_starve(struct fdmux_loop *loop, struct fdmux__stream *listener);
void fdmux__stream_feed(struct fdmux_loop *loop); /* a descriptor became free */
void fdmux__stream_fatten(struct fdmux_loop *loop,
                          struct fdmux__stream *stream); /* buffers may have */
int fdmux__stream_flush(struct fdmux_loop *loop, struct fdmux__stream *stream);
int fdmux__stream_send(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       struct iovec *parts, int count);
void fdmux__stream_drop_queue(struct fdmux__hub *hub, struct fdmux__stream *stream);

/* ---- asked for each message ---------------------------------------------------- */

static inline struct fdmux__stream *fdmux__hub_at(const struct fdmux__hub *hub,
                                                  uint32_t slot)
{
    return fdmux__slots_at(&hub->streams, slot);
}

/* A live stream's own slot number lies where the free list would be. */
static inline uint32_t fdmux__hub_slot(const struct fdmux__stream *stream)
{
    return stream->base.slot.next_free;
}

/* May it receive or accept now? Not after a function has paused or ended it. */
static inline bool fdmux__stream_is_reading(const struct fdmux_loop *loop,
                                            const struct fdmux__stream *stream)
{
    return (stream->interest & FDMUX_READ) != 0 &&
           (stream->state & FDMUX__STREAM_FAILED) == 0 &&
           !atomic_load_explicit(&loop->is_closed, memory_order_relaxed);
}

#endif
