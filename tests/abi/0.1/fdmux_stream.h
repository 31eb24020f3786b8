/* fdmux_stream.h: buffered connections, served in batches. Optional, on top of fdmux.h.
 *
 * A stream owns a connected socket; a listener is a stream that accepts others. The
 * core receives for every ready stream, keeps what the kernel does not take when
 * writing, and bounds both. A stream with a function is *called*, in C, for each
 * record; one without is *collected*: records and data of all ready streams fill one
 * batch, which whoever dispatches the loop reads afterwards.
 *
 * Threads: the dispatching thread only, or any one thread while nobody dispatches.
 * Errors common to all: as in fdmux.h; -ENOENT for a stream that is over. */
#ifndef FDMUX_STREAM_H
#define FDMUX_STREAM_H

#include "fdmux.h"

#ifdef __cplusplus
extern "C" {
#endif

/* cffi:begin */

/* Kinds of records. */
#define FDMUX_STREAM_ACCEPTED 1 /* a new stream */
#define FDMUX_STREAM_CONNECTED 2 /* fdmux_stream_connect has succeeded */
#define FDMUX_STREAM_DATA 3 /* bytes have arrived */
#define FDMUX_STREAM_END 4 /* the peer sends no more; writing goes on */
#define FDMUX_STREAM_WRITABLE 5 /* the queue fell to the low-water mark */
#define FDMUX_STREAM_DRAINED 6 /* the queue is empty again */
#define FDMUX_STREAM_CLOSED 7 /* over, with an error or as asked; the last */
#define FDMUX_STREAM_REFUSED 8 /* a listener cannot accept now; it goes on trying */

/* What happened to one stream. The slot is unique among live streams of a loop and
 * small, so it can index a table. A stream has one DATA record in a batch at most. */
struct fdmux_stream_record {
    uint32_t slot;
    uint32_t kind;
    uint32_t first; /* DATA: where it begins in the arena. ACCEPTED: listener's slot. */
    uint32_t last; /* DATA: where it ends. CLOSED and REFUSED: an errno, or 0. */
    uint64_t stream;
};

/* Where collected streams deliver. The memory is the caller's and must stay; the core
 * appends until the caller sets record_count and arena_used back to 0. */
struct fdmux_stream_batch {
    size_t struct_size;
    struct fdmux_stream_record *records;
    unsigned char *arena;
    uint32_t record_capacity; /* at least 16 */
    uint32_t arena_size; /* at least 65536 */
    uint32_t record_count;
    uint32_t arena_used;
};

/* For DATA, `data` is `last - first` bytes, valid during the call. A negative result
 * ends the batch, as with every function given to a loop. */
typedef int (*fdmux_stream_fn)(struct fdmux_loop *loop,
                               const struct fdmux_stream_record *record,
                               const void *data, void *userdata);

/* Flags of a stream. */
#define FDMUX_STREAM_DROP 0x1 /* fdmux_stream_close: do not send what is queued */

/* Limits: 0 means the default that stands behind each. A listener hands its options to
 * the streams it accepts. */
struct fdmux_stream_options {
    size_t struct_size;
    fdmux_stream_fn fn; /* NULL: collected */
    void *userdata;
    fdmux_destroyed_fn destroyed; /* of this stream; not of those it accepts */
    uint32_t receive_max; /* bytes a batch, at most and by default 65536 */
    uint32_t queue_max; /* bytes not yet sent; by default 262144 */
    uint32_t queue_high; /* from here on reading pauses; 65536 */
    uint32_t queue_low; /* until here; 16384 */
    uint32_t connection_max; /* of a listener; 0: no limit but descriptors */
    uint32_t reserved;
    /* With bytes queued the stall timeout takes the idle one's place, if it is set. */
    int64_t idle_timeout_ns; /* without a byte either way; 0: none */
    int64_t stall_timeout_ns; /* with bytes queued and none taken; 0: none */
};

/* A listener's bytes are those of all it has accepted, those that are over included. */
struct fdmux_stream_stats {
    size_t struct_size;
    uint64_t received; /* bytes */
    uint64_t sent;
    uint32_t queued;
    uint32_t connections; /* of a listener: open now */
    uint64_t accepted;
    uint64_t refused; /* over connection_max */
};

/* Say where collected streams of this loop deliver; NULL for nowhere: they wait. */
FDMUX_API int fdmux_stream_collect(struct fdmux_loop *loop,
                                   struct fdmux_stream_batch *batch);

/* Bound what all streams of the loop queue together; 64 MiB by default. From three
 * quarters of it on, a stream with a queue is not read; who would pass it ends, or
 * whoever queues more, with ENOBUFS. */
FDMUX_API int fdmux_stream_total_max(struct fdmux_loop *loop, size_t bytes_max);

/* Serve a connected, non-blocking socket. On success the stream owns `fd` and closes it
 * at its end. Returns 0, -EBADF, -ENOMEM, -ENOBUFS for a collected stream while nothing
 * collects, or as fdmux_io_add. */
FDMUX_API int fdmux_stream_add(struct fdmux_loop *loop, int fd,
                               const struct fdmux_stream_options *options,
                               uint64_t *ret_stream);

/* Accept on a bound, listening, non-blocking socket; ownership as fdmux_stream_add.
 * At most 16 connections an iteration; out of descriptors it pauses, and tries again
 * when a stream of the loop closes, or after 250 ms, later 1 s. */
FDMUX_API int fdmux_stream_listen(struct fdmux_loop *loop, int fd,
                                  const struct fdmux_stream_options *options,
                                  uint64_t *ret_stream);

/* Serve a non-blocking socket on which connect(2) has returned EINPROGRESS or 0:
 * CONNECTED, or CLOSED with the error, follows. Ownership as fdmux_stream_add. */
FDMUX_API int fdmux_stream_connect(struct fdmux_loop *loop, int fd,
                                   const struct fdmux_stream_options *options,
                                   uint64_t *ret_stream);

/* An address: either `host`, numeric, IPv4 or IPv6, with `port`; or `path`, Unix. */
#define FDMUX_STREAM_REUSE_PORT 0x1 /* several listeners share a port, SO_REUSEPORT */
struct fdmux_stream_address {
    size_t struct_size;
    const char *host;
    const char *path;
    uint16_t port; /* listening on 0: the kernel chooses, see getsockname(2) */
    uint16_t reserved;
    uint32_t flags;
    int backlog; /* 0: 128 */
};

/* Make a socket, bind, listen, and fdmux_stream_listen. Returns 0; -EINVAL for an
 * address that is none; -EADDRINUSE, -EACCES, -EADDRNOTAVAIL, -EMFILE. */
FDMUX_API int fdmux_stream_listen_at(struct fdmux_loop *loop,
                                     const struct fdmux_stream_address *address,
                                     const struct fdmux_stream_options *options,
                                     uint64_t *ret_stream);

/* Make a socket, begin to connect, and fdmux_stream_connect. Returns 0 or an error that
 * is known at once; -EAGAIN for a Unix socket whose backlog is full: try later. */
FDMUX_API int fdmux_stream_connect_to(struct fdmux_loop *loop,
                                      const struct fdmux_stream_address *address,
                                      const struct fdmux_stream_options *options,
                                      uint64_t *ret_stream);

/* Send, now as far as the kernel takes it, the rest later and in order.
 *
 * Copies what it must keep. Returns 0; -EPIPE after shutdown or close; -ENOBUFS when
 * the queue would pass its bound, which also ends the stream with that error. What the
 * kernel refuses ends the stream with a CLOSED record, not with a result here. */
FDMUX_API int fdmux_stream_write(struct fdmux_loop *loop, uint64_t stream,
                                 const void *data, size_t length);

struct fdmux_stream_write_op {
    uint64_t stream;
    const void *data;
    size_t length;
};

/* Many writes in one call; neighbours to one stream go out in one sendmsg(2). A stream
 * that is over is passed by. Returns the count of writes that were accepted. */
FDMUX_API int fdmux_stream_write_batch(struct fdmux_loop *loop,
                                       const struct fdmux_stream_write_op *ops,
                                       uint32_t count);

/* End the writing side when the queue is empty; reading goes on. Returns 0. */
FDMUX_API int fdmux_stream_shutdown(struct fdmux_loop *loop, uint64_t stream);

/* Receive nothing, accept nothing, until resumed. Returns 0. */
FDMUX_API int fdmux_stream_pause(struct fdmux_loop *loop, uint64_t stream);
FDMUX_API int fdmux_stream_resume(struct fdmux_loop *loop, uint64_t stream);

/* End a stream: at once with FDMUX_STREAM_DROP, else when what is queued has been sent;
 * nothing is received any more. A CLOSED record follows in either case. Returns 0. */
FDMUX_API int fdmux_stream_close(struct fdmux_loop *loop, uint64_t stream,
                                 uint32_t flags);

/* The socket of a live stream; it stays the stream's. */
FDMUX_API int fdmux_stream_fd(struct fdmux_loop *loop, uint64_t stream);

/* Fill `stats`, whose struct_size the caller has set. Returns 0. */
FDMUX_API int fdmux_stream_stats(struct fdmux_loop *loop, uint64_t stream,
                                 struct fdmux_stream_stats *stats);

/* The functions above, for callers that do not link us: fdmux_api.stream. Append-only,
 * like the table it hangs from. */
struct fdmux_stream_api {
    size_t struct_size;
    int (*collect)(struct fdmux_loop *loop, struct fdmux_stream_batch *batch);
    int (*total_max)(struct fdmux_loop *loop, size_t bytes_max);
    int (*add)(struct fdmux_loop *loop, int fd,
               const struct fdmux_stream_options *options, uint64_t *ret_stream);
    int (*listen)(struct fdmux_loop *loop, int fd,
                  const struct fdmux_stream_options *options, uint64_t *ret_stream);
    int (*connect)(struct fdmux_loop *loop, int fd,
                   const struct fdmux_stream_options *options, uint64_t *ret_stream);
    int (*listen_at)(struct fdmux_loop *loop,
                     const struct fdmux_stream_address *address,
                     const struct fdmux_stream_options *options, uint64_t *ret_stream);
    int (*connect_to)(struct fdmux_loop *loop,
                      const struct fdmux_stream_address *address,
                      const struct fdmux_stream_options *options, uint64_t *ret_stream);
    int (*write)(struct fdmux_loop *loop, uint64_t stream, const void *data,
                 size_t length);
    int (*write_batch)(struct fdmux_loop *loop, const struct fdmux_stream_write_op *ops,
                       uint32_t count);
    int (*shutdown)(struct fdmux_loop *loop, uint64_t stream);
    int (*pause)(struct fdmux_loop *loop, uint64_t stream);
    int (*resume)(struct fdmux_loop *loop, uint64_t stream);
    int (*close)(struct fdmux_loop *loop, uint64_t stream, uint32_t flags);
    int (*fd)(struct fdmux_loop *loop, uint64_t stream);
    int (*stats)(struct fdmux_loop *loop, uint64_t stream,
                 struct fdmux_stream_stats *stats);
};

/* cffi:end */

#ifdef __cplusplus
}
#endif

#endif /* FDMUX_STREAM_H */
