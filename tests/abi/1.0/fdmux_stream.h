/* fdmux_stream.h: buffered connections. Optional, on top of fdmux.h.
 *
 * A stream owns a connected socket; a listener is a stream that accepts others. The
 * core receives for a ready stream, calls its function, and keeps what the kernel does
 * not take when writing; it bounds both.
 *
 * Threads: the dispatching thread only, or any one thread while nobody dispatches.
 * Errors common to all: as in fdmux.h; -ENOENT for a stream that is over. */
#ifndef FDMUX_STREAM_H
#define FDMUX_STREAM_H

#include "fdmux.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* a struct and a function of one name */
#endif

/* cffi:begin */

/* Kinds of events. */
#define FDMUX_STREAM_ACCEPTED 1 /* a new stream */
#define FDMUX_STREAM_CONNECTED 2 /* fdmux_stream_connect has succeeded */
#define FDMUX_STREAM_DATA 3 /* bytes have arrived */
#define FDMUX_STREAM_END 4 /* the peer sends no more; writing goes on */
#define FDMUX_STREAM_WRITABLE 5 /* the queue fell to the low-water mark */
#define FDMUX_STREAM_DRAINED 6 /* the queue is empty again */
#define FDMUX_STREAM_CLOSED 7 /* over, with an error or as asked; the last */
#define FDMUX_STREAM_REFUSED 8 /* a listener cannot accept now; it goes on trying */

/* What happened to one stream; valid during the call. A stream receives once in a
 * batch, so none starves another. */
struct fdmux_stream_event {
    uint64_t stream;
    uint64_t listener; /* ACCEPTED: who has accepted it; else 0 */
    const void *data;  /* DATA: what has arrived; else NULL */
    uint32_t length;   /* DATA: how many bytes; else 0 */
    uint32_t kind;     /* FDMUX_STREAM_ACCEPTED and so on */
    int error;         /* CLOSED and REFUSED: an errno, or 0; else 0 */
    uint32_t reserved;
};

/* Takes what happened. A negative result ends the batch, as with every function given
 * to a loop. */
typedef int (*fdmux_stream_fn)(struct fdmux_loop *loop,
                               const struct fdmux_stream_event *event, void *userdata);

/* Says where to receive, before each receive: `*ret_size` bytes at `*ret_buffer`, which
 * stay valid until the next event of this stream. A size of 0 receives nothing this
 * time. A negative result ends the batch. */
typedef int (*fdmux_stream_buffer_fn)(struct fdmux_loop *loop, uint64_t stream,
                                      void **ret_buffer, size_t *ret_size,
                                      void *userdata);

/* Flags of fdmux_stream_close. */
#define FDMUX_STREAM_DROP 0x1 /* do not send what is queued */

/* Flags of struct fdmux_stream_options: the descriptor stays the caller's, who closes
 * it after CLOSED or fdmux_stream_close with DROP. */
#define FDMUX_STREAM_BORROW 0x1

/* Limits: 0 means the default that stands behind each. A listener hands its options to
 * the streams it accepts. */
struct fdmux_stream_options {
    size_t struct_size;
    fdmux_stream_fn fn; /* not NULL */
    fdmux_stream_buffer_fn buffer_fn; /* NULL: into a buffer that streams share */
    void *userdata;
    fdmux_destroyed_fn destroyed; /* of this stream; not of those it accepts */
    uint32_t receive_max; /* bytes a batch; by default 65536, at most 262144 */
    uint32_t queue_max; /* bytes not yet sent; by default 262144 */
    uint32_t queue_high; /* from here on reading pauses; 65536 */
    uint32_t queue_low; /* until here; 16384 */
    uint32_t connection_max; /* of a listener; 0: no limit but descriptors */
    uint32_t flags; /* FDMUX_STREAM_BORROW or 0 */
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

/* Bound what all streams of the loop queue together; 64 MiB by default.
 *
 * From three quarters of it on, no stream with a queue is read. A write over the bound
 * closes the stream with the longest queue, with ENOBUFS. Returns 0 or -ENOMEM. */
FDMUX_API int fdmux_stream_total_max(struct fdmux_loop *loop, size_t bytes_max);

/* Serve a connected, non-blocking socket. On success the stream owns `fd` and closes it
 * at its end. It may watch it for edges, so a later fdmux_io_add of the same descriptor
 * may return -EEXIST. Returns 0, -EBADF, -ENOMEM, or as fdmux_io_add. */
FDMUX_API int fdmux_stream_add(struct fdmux_loop *loop, int fd,
                               const struct fdmux_stream_options *options,
                               uint64_t *ret_stream);

/* Accept on a bound, listening, non-blocking socket; ownership as fdmux_stream_add.
 * At most 16 connections an iteration; out of descriptors it pauses, and tries again
 * when a stream of the loop closes, or after 250 ms, later 1 s. Returns as
 * fdmux_stream_add. */
FDMUX_API int fdmux_stream_listen(struct fdmux_loop *loop, int fd,
                                  const struct fdmux_stream_options *options,
                                  uint64_t *ret_stream);

/* Serve a non-blocking socket on which connect(2) has returned EINPROGRESS or 0:
 * CONNECTED, or CLOSED with the error, follows. Ownership and result as
 * fdmux_stream_add. */
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

/* Give a stream functions and userdata of its own: an accepted one begins with those of
 * its listener. The `destroyed` that it had is called before this returns, if that is
 * not the same. Works in a child of fork() too, before fdmux_loop_after_fork. Returns
 * 0, or -EINVAL without `fn`. */
struct fdmux_stream_handler {
    size_t struct_size;
    fdmux_stream_fn fn;
    fdmux_stream_buffer_fn buffer_fn;
    void *userdata;
    fdmux_destroyed_fn destroyed;
};
FDMUX_API int fdmux_stream_set_handler(struct fdmux_loop *loop, uint64_t stream,
                                       const struct fdmux_stream_handler *handler);

/* Send, now as far as the kernel takes it, the rest later and in order.
 *
 * Copies what it must keep. Returns 0; -EPIPE after shutdown or close; -ENOBUFS when
 * the queue would pass its bound, which also closes the stream with that error. What
 * the kernel refuses closes the stream with a CLOSED event, not with a result here. */
FDMUX_API int fdmux_stream_write(struct fdmux_loop *loop, uint64_t stream,
                                 const void *data, size_t length);

/* One write of fdmux_stream_write_batch. `data` may be NULL if `length` is 0. */
struct fdmux_stream_write_op {
    uint64_t stream;
    const void *data;
    size_t length;
};

/* Many writes in one call; neighbours to one stream go out in one sendmsg(2). Writes to
 * a stream that is over are skipped. Returns the count of writes that were accepted. */
FDMUX_API int fdmux_stream_write_batch(struct fdmux_loop *loop,
                                       const struct fdmux_stream_write_op *ops,
                                       uint32_t count);

/* End the writing side when the queue is empty; reading goes on. Returns 0. */
FDMUX_API int fdmux_stream_shutdown(struct fdmux_loop *loop, uint64_t stream);

/* Receive nothing, accept nothing, until resumed. Returns 0. */
FDMUX_API int fdmux_stream_pause(struct fdmux_loop *loop, uint64_t stream);
FDMUX_API int fdmux_stream_resume(struct fdmux_loop *loop, uint64_t stream);

/* Close a stream: at once with FDMUX_STREAM_DROP, else when what is queued has been
 * sent; nothing is received any more. A CLOSED event follows in either case. With DROP
 * a borrowed descriptor is let go of before this returns. Returns 0. */
FDMUX_API int fdmux_stream_close(struct fdmux_loop *loop, uint64_t stream,
                                 uint32_t flags);

/* The socket of a live stream; it stays the stream's. Returns the descriptor. */
FDMUX_API int fdmux_stream_fd(struct fdmux_loop *loop, uint64_t stream);

/* Fill `stats`, whose struct_size the caller has set. Returns 0. */
FDMUX_API int fdmux_stream_stats(struct fdmux_loop *loop, uint64_t stream,
                                 struct fdmux_stream_stats *stats);

/* Deliver one WRITABLE event when the queue has fallen to `queue_low` bytes, also if it
 * has never reached queue_high. Sets the low-water mark of the stream's options, which
 * all that its listener has accepted share. Returns 0. */
FDMUX_API int fdmux_stream_await_writable(struct fdmux_loop *loop, uint64_t stream,
                                          uint32_t queue_low);

/* Copy the address of the peer, a struct sockaddr of the Internet families, to
 * `address`, which has room for `size` bytes; kept from the beginning, so that it is
 * known when the connection is no more. Returns its size; 0 for other families;
 * -ENOSPC. */
FDMUX_API int fdmux_stream_peer(struct fdmux_loop *loop, uint64_t stream, void *address,
                                size_t size);

/* The functions above, for callers that do not link us: fdmux_api.stream. Append-only,
 * like the table it hangs from. */
struct fdmux_stream_api {
    size_t struct_size;
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
    int (*set_handler)(struct fdmux_loop *loop, uint64_t stream,
                       const struct fdmux_stream_handler *handler);
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
    int (*await_writable)(struct fdmux_loop *loop, uint64_t stream, uint32_t queue_low);
    int (*peer)(struct fdmux_loop *loop, uint64_t stream, void *address, size_t size);
};

/* cffi:end */

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#ifdef __cplusplus
}
#endif

#endif /* FDMUX_STREAM_H */
