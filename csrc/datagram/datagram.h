/* datagram.h: endpoints of datagrams, and what those of one loop share.
 *
 * They share the memory that datagrams are received into, the structures of the batch
 * calls, and the list of pending endpoints. A pending endpoint is one that has ended
 * and whose CLOSED event is to be delivered, or that has noted an error.
 *
 * Only the dispatching thread uses endpoints, so there are no locks here. */
#ifndef FDMUX_DATAGRAM_INTERNAL_H
#define FDMUX_DATAGRAM_INTERNAL_H

#include "fdmux_datagram.h"

#include <stdalign.h>
#include <stdbool.h>

#include "../core/batch.h"
#include "../core/gate.h"
#include "../core/host.h"
#include "../core/io.h"
#include "../core/sockaddr.h"
#include "../platform/message.h"

#define FDMUX__KIND_DATAGRAM 5
#define FDMUX__BATCH_MAX 64 /* messages of one system call */
#define FDMUX__SEGMENTS_MAX 128 /* of one message: UDP_MAX_SEGMENTS of Linux */
/* With GRO each message may be that many datagrams, so fewer messages are received. */
#define FDMUX__GRO_BATCH_MAX 16
#define FDMUX__DATAGRAM_SIZE_MAX 262144
#define FDMUX__DATAGRAM_COST 64 /* in the queue, besides its bytes */
/* Room for IPV6_PKTINFO, IPV6_TCLASS and UDP_GRO. */
#define FDMUX__CONTROL_SIZE 128

/* State bits. */
enum {
    FDMUX__ENDPOINT_PENDING = 0x01, /* in the list of pending endpoints */
    FDMUX__ENDPOINT_CLOSING = 0x02, /* closed once the queue is empty */
    FDMUX__ENDPOINT_FAILED = 0x04, /* ended: CLOSED is to be delivered */
    FDMUX__ENDPOINT_CLOSED_DELIVERED = 0x08,
    FDMUX__ENDPOINT_SENDING = 0x10, /* the kernel takes no more: waits for WRITE */
    FDMUX__ENDPOINT_RETRYING = 0x20, /* it waits for its timer instead */
    FDMUX__ENDPOINT_WRITABLE_WANTED = 0x40,
    FDMUX__ENDPOINT_HAS_TIMER = 0x80, /* an unconnected Unix socket, see backlog.c */
    FDMUX__ENDPOINT_PAUSED = 0x200, /* by the user */
    FDMUX__ENDPOINT_GRO = 0x100, /* the kernel joins datagrams */
    FDMUX__ENDPOINT_UNIX = 0x400,
};

struct fdmux__endpoint {
    struct fdmux__watcher base;
    fdmux_datagram_fn fn;
    fdmux_fd fd;
    uint32_t state;
    uint32_t flags; /* of the options */
    uint32_t interest; /* the events of its io watcher */
    uint64_t io;
    uint64_t timer;
    uint32_t size_max;
    uint32_t queue_max;
    uint32_t queue_low;
    /* The queue: records one after the other (backlog.c). */
    uint32_t queued_count;
    uint32_t queued; /* what counts for queue_max */
    uint32_t queue_first; /* in bytes of `queue`, like the next two */
    uint32_t queue_end;
    uint32_t queue_capacity;
    uint32_t head_offset; /* bytes of the first record that are sent already */
    unsigned char *queue;
    int error; /* of CLOSED */
    int noted_error; /* to be told by ERROR; 0: none */
    uint32_t noted_size;
    uint32_t next_pending;
    union fdmux__sockaddr noted_address;
    struct fdmux_datagram_stats stats;
};

/* What a receive fills, and the datagrams made of it. */
struct fdmux__inbox {
    struct fdmux__message messages[FDMUX__BATCH_MAX];
    struct fdmux__part parts[FDMUX__BATCH_MAX];
    union fdmux__sockaddr addresses[FDMUX__BATCH_MAX];
    union fdmux__local locals[FDMUX__BATCH_MAX];
    alignas(16) unsigned char control[FDMUX__BATCH_MAX][FDMUX__CONTROL_SIZE];
    struct fdmux_datagram datagrams[FDMUX__GRO_BATCH_MAX * FDMUX__SEGMENTS_MAX];
    uint32_t size_max; /* the messages are prepared for datagrams of this size */
    uint32_t used; /* messages that the last call has changed */
    unsigned char *memory; /* what they point to */
};

/* What a send reads. */
struct fdmux__outbox {
    struct fdmux__message messages[FDMUX__BATCH_MAX];
    struct fdmux__part parts[FDMUX__BATCH_MAX];
    alignas(16) unsigned char control[FDMUX__BATCH_MAX][FDMUX__CONTROL_SIZE];
    struct fdmux_datagram queued[FDMUX__BATCH_MAX]; /* views of the queue */
};

struct fdmux__datagrams {
    struct fdmux__slots endpoints;
    uint32_t first_pending; /* linked by next_pending */
    uint32_t last_pending;
    uint32_t first_retired; /* freed in this batch: slots to recycle before the next */
    int features; /* FDMUX_DATAGRAM_CAN_ bits, or -1 until the kernel was asked */
    bool has_receive_many; /* false once the kernel has refused it */
    bool has_send_many;
    bool has_gso;
    struct fdmux__inbox inbox;
    struct fdmux__outbox outbox;
};

/* shared.c */
int fdmux__datagrams_get(struct fdmux_loop *loop, struct fdmux__datagrams **ret_shared);
void fdmux__endpoint_add_pending(struct fdmux_loop *loop,
                                 struct fdmux__endpoint *endpoint);
int fdmux__endpoint_deliver(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                            struct fdmux_datagram_event event);
/* Ask the kernel once what it can. Returns as fdmux_datagram_features. */
int fdmux__datagrams_probe(struct fdmux__datagrams *shared);

/* endpoint.c */
int fdmux__endpoint_find(struct fdmux_loop *loop, uint64_t token,
                         struct fdmux__endpoint **ret_endpoint);
int fdmux__endpoint_check_options(const struct fdmux_datagram_options *options);
/* Update the io watcher to the events that the state asks for. */
void fdmux__endpoint_watch(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint);

/* ending.c */
/* End the endpoint: it receives nothing more, and is on the pending list. 0 as `error`
 * means that the user closed it. */
void fdmux__endpoint_fail(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                          int error);
/* The same for fdmux__endpoint_watch, which cannot update the watcher. */
void fdmux__endpoint_mark_failed(struct fdmux_loop *loop,
                                 struct fdmux__endpoint *endpoint, int error);
/* Deliver CLOSED and free the endpoint. For the pending list only. */
int fdmux__endpoint_finish(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint);
/* Stop watching the descriptor, and close it unless it is borrowed. Idempotent. */
void fdmux__endpoint_release_fd(struct fdmux_loop *loop,
                                struct fdmux__endpoint *endpoint);

/* control.c */
/* Set what a datagram's control messages tell. Returns the size of the datagrams that
 * the kernel has joined to this one, or 0. */
uint32_t fdmux__control_read(struct fdmux__message *message, union fdmux__local *local,
                             struct fdmux_datagram *datagram);
/* Write what the kernel has to know to send. `segment_size` 0: it sends one datagram.
 */
void fdmux__control_write(struct fdmux__message *message, unsigned char *control,
                          const struct fdmux_datagram *datagram, uint16_t segment_size);

/* errors.c */
/* Can recvmsg(2) or sendmsg(2) return this because of a datagram that was sent before?
 */
bool fdmux__is_peer_error(int error);
/* Deliver ERROR later, outside of the present call. Keeps the first one. */
void fdmux__endpoint_note_error(struct fdmux_loop *loop,
                                struct fdmux__endpoint *endpoint, int error,
                                const struct fdmux_datagram *datagram);
/* Deliver the error that was noted. */
int fdmux__endpoint_tell_error(struct fdmux_loop *loop,
                               struct fdmux__endpoint *endpoint);
/* Deliver what the kernel reports about sent datagrams. */
int fdmux__endpoint_read_errors(struct fdmux_loop *loop,
                                struct fdmux__endpoint *endpoint);

/* receive.c */
int fdmux__endpoint_receive(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint);
/* Prepare the inbox for datagrams of that size. */
void fdmux__inbox_prepare(struct fdmux__inbox *inbox, uint32_t size_max);
size_t fdmux__inbox_memory_size(void);

/* transmit.c */
/* How far a list of datagrams was sent. */
struct fdmux__progress {
    uint32_t index; /* the first that is not */
    uint32_t offset; /* bytes of it that are sent, if it has segments */
    uint32_t failed_count;
    uint32_t failed_index; /* of the first that has failed */
    int error; /* why: -errno; 0: none has */
};
/* Send what the kernel takes; those that cannot be sent count as failed. Returns true
 * when nothing is left, false when the kernel takes no more now. */
bool fdmux__endpoint_transmit(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                              const struct fdmux_datagram *datagrams, uint32_t count,
                              struct fdmux__progress *progress);

/* backlog.c */
/* Queue a datagram without its first `offset` bytes. Returns 0, -ENOBUFS or -ENOMEM. */
int fdmux__endpoint_queue(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                          const struct fdmux_datagram *datagram, uint32_t offset);
/* Send from the queue as much as the kernel takes. */
int fdmux__endpoint_flush(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint);
/* Count what is left in the queue as dropped, and free it. */
void fdmux__endpoint_drop_queue(struct fdmux__endpoint *endpoint);
/* The timer of an unconnected Unix socket has expired. */
int fdmux__endpoint_retry(struct fdmux_loop *loop, uint64_t timer, void *userdata);

/* ---- inline -------------------------------------------------------------------- */

/* NULL until the loop has its first endpoint. */
static inline struct fdmux__datagrams *
fdmux__datagrams_of(const struct fdmux_loop *loop)
{
    return loop->extensions[FDMUX__DATAGRAMS].data;
}

static inline struct fdmux__endpoint *
fdmux__endpoint_at(const struct fdmux__datagrams *shared, uint32_t slot)
{
    return fdmux__slots_at(&shared->endpoints, slot);
}

/* A live endpoint keeps its own slot number in the field of the free list. */
static inline uint32_t fdmux__endpoint_slot(const struct fdmux__endpoint *endpoint)
{
    return endpoint->base.slot.next_free;
}

/* May it receive now? Not after a function has closed it. */
static inline bool fdmux__endpoint_is_reading(const struct fdmux_loop *loop,
                                              const struct fdmux__endpoint *endpoint)
{
    return (endpoint->state & (FDMUX__ENDPOINT_FAILED | FDMUX__ENDPOINT_CLOSING |
                               FDMUX__ENDPOINT_PAUSED)) == 0 &&
           !atomic_load_explicit(&loop->is_closing, memory_order_relaxed);
}

#endif
