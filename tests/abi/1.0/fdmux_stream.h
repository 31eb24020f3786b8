/* fdmux_stream.h: buffered connections. Optional, on top of fdmux.h.
 *
 * A stream owns a connected socket; a listener is a stream that accepts others. When a
 * stream is readable, the core receives and calls the stream's function. When it
 * writes, the core queues what the kernel does not take. Both are limited.
 *
 * Threads: the dispatching thread only, or any one thread while no thread dispatches.
 * Errors common to all: as in fdmux.h; -EIDRM for a stream that has ended. */
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
#define FDMUX_STREAM_WRITABLE 5 /* the queue has fallen to the low-water mark */
#define FDMUX_STREAM_DRAINED 6 /* the queue is empty again */
#define FDMUX_STREAM_CLOSED 7 /* the stream has ended; its last event */
#define FDMUX_STREAM_REFUSED 8 /* a listener cannot accept now; it will retry */
#define FDMUX_STREAM_TLS 9 /* the handshake of fdmux_stream_start_tls is done */

/* An event of one stream; valid during the call, like `data`. A stream receives once in
 * a batch, so that a busy one does not delay the others. */
struct fdmux_stream_event {
    uint64_t stream;
    uint64_t listener; /* ACCEPTED: the listener that has accepted it; else 0 */
    const void *data; /* DATA: the bytes; else NULL */
    uint32_t length; /* DATA: how many bytes; else 0 */
    uint32_t kind; /* FDMUX_STREAM_ACCEPTED and so on */
    int error; /* CLOSED and REFUSED: an errno; 0 if it was closed as asked */
    uint32_t reserved;
};

/* Called for each event of a stream. A negative result ends the batch, as with every
 * function given to a loop. */
typedef int (*fdmux_stream_fn)(struct fdmux_loop *loop,
                               const struct fdmux_stream_event *event, void *userdata);

/* Called before each receive, to choose the buffer.
 *
 * On entry `*ret_buffer` is the buffer that the loop's streams share and `*ret_size` is
 * receive_max: a function that changes neither receives there. It may set another
 * buffer, which must stay valid until the next event of this stream, and its size. A
 * size above receive_max is lowered to receive_max; the shared buffer has room for that
 * many bytes.
 *
 * With a size of 0 nothing is received this time. The socket stays readable, so the
 * function is called again at each wait, and the loop spins: to wait longer, call
 * fdmux_stream_pause. A negative result ends the batch. */
typedef int (*fdmux_stream_buffer_fn)(struct fdmux_loop *loop, uint64_t stream,
                                      void **ret_buffer, size_t *ret_size,
                                      void *userdata);

/* Flags of fdmux_stream_close. */
#define FDMUX_STREAM_DROP 0x1 /* discard the queue and close at once */

/* Flags of struct fdmux_stream_options. BORROW: the descriptor stays the caller's.
 *
 * The stream still watches the descriptor while CLOSED is delivered. Close it in
 * `destroyed`, or once fdmux_stream_close with DROP has returned. */
#define FDMUX_STREAM_BORROW 0x1

/* Options of a stream; 0 selects the default of a limit. The streams that a listener
 * accepts have its options, except `destroyed` and BORROW. */
struct fdmux_stream_options {
    size_t struct_size;
    fdmux_stream_fn fn; /* not NULL */
    fdmux_stream_buffer_fn buffer_fn; /* NULL: receive into the shared buffer */
    void *userdata;
    fdmux_destroyed_fn destroyed; /* of this stream; not of accepted ones */
    uint32_t receive_max; /* bytes received in a batch; 65536, at most 262144 */
    uint32_t queue_max; /* bytes queued at most; 262144 */
    uint32_t queue_high; /* with so many queued, reading stops; 65536 */
    uint32_t queue_low; /* with so few queued, it goes on; 16384 */
    uint32_t connection_max; /* of a listener; 0: no limit */
    uint32_t flags; /* FDMUX_STREAM_BORROW or 0 */
    /* While bytes are queued, the stall timeout replaces the idle one, if set. */
    int64_t idle_timeout_ns; /* no byte sent or received; 0: none */
    int64_t stall_timeout_ns; /* bytes queued and none sent; 0: none */
};

/* The bytes of a listener are those of all streams it has accepted, ended ones
 * included. */
struct fdmux_stream_stats {
    size_t struct_size;
    uint64_t received; /* bytes */
    uint64_t sent;
    uint32_t queued;
    uint32_t connections; /* of a listener: open now */
    uint64_t accepted;
    uint64_t refused; /* over connection_max */
};

/* Limit what all streams of the loop queue together; 64 MiB by default.
 *
 * From three quarters of the limit on, no stream with a queue is read. A write over the
 * limit closes the stream with the longest queue, with ENOBUFS. Returns 0 or -ENOMEM.
 * */
FDMUX_API int fdmux_stream_total_max(struct fdmux_loop *loop, size_t bytes_max);

/* Make a stream of a connected, non-blocking socket.
 *
 * On success the stream owns `fd` and closes it when it ends (but see BORROW). The
 * stream may become edge-triggered, so a later fdmux_io_add of the same descriptor may
 * return -EEXIST. Returns 0, -EBADF, -ENOMEM, or as fdmux_io_add. */
FDMUX_API int fdmux_stream_add(struct fdmux_loop *loop, fdmux_fd fd,
                               const struct fdmux_stream_options *options,
                               uint64_t *ret_stream);

/* Accept connections on a listening, non-blocking socket; ownership as
 * fdmux_stream_add.
 *
 * Accepts at most 16 connections an iteration. When descriptors run out, the listener
 * backs off: REFUSED is delivered once, and it retries when a stream of the loop
 * closes, or after 250 ms, then 500 ms, then each second. Returns as fdmux_stream_add.
 * */
FDMUX_API int fdmux_stream_listen(struct fdmux_loop *loop, fdmux_fd fd,
                                  const struct fdmux_stream_options *options,
                                  uint64_t *ret_stream);

/* Make a stream of a non-blocking socket on which connect(2) has returned EINPROGRESS
 * or 0. CONNECTED follows, or CLOSED with the error. Ownership and result as
 * fdmux_stream_add. */
FDMUX_API int fdmux_stream_connect(struct fdmux_loop *loop, fdmux_fd fd,
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

/* Make a socket, bind it, listen, and call fdmux_stream_listen. Returns 0; -EINVAL for
 * a malformed address, or with BORROW: the stream owns this socket; -EADDRINUSE,
 * -EACCES, -EADDRNOTAVAIL, -EMFILE. */
FDMUX_API int fdmux_stream_listen_at(struct fdmux_loop *loop,
                                     const struct fdmux_stream_address *address,
                                     const struct fdmux_stream_options *options,
                                     uint64_t *ret_stream);

/* Make a socket, call connect(2), and call fdmux_stream_connect. Returns 0; -EINVAL as
 * fdmux_stream_listen_at; the error of connect(2), if it is known at once; -EAGAIN for
 * a Unix socket whose backlog is full: try later. */
FDMUX_API int fdmux_stream_connect_to(struct fdmux_loop *loop,
                                      const struct fdmux_stream_address *address,
                                      const struct fdmux_stream_options *options,
                                      uint64_t *ret_stream);

/* Replace the functions and the userdata of a stream. An accepted stream starts with
 * those of its listener.
 *
 * The old `destroyed` is called before this returns, unless it and its userdata stay
 * the same. Also allowed in a child of fork() before fdmux_loop_after_fork. Returns 0,
 * or -EINVAL without `fn`. */
struct fdmux_stream_handler {
    size_t struct_size;
    fdmux_stream_fn fn;
    fdmux_stream_buffer_fn buffer_fn;
    void *userdata;
    fdmux_destroyed_fn destroyed;
};
FDMUX_API int fdmux_stream_set_handler(struct fdmux_loop *loop, uint64_t stream,
                                       const struct fdmux_stream_handler *handler);

/* Send what the kernel takes now; queue the rest and send it later, in order.
 *
 * Only the queued bytes are copied. Returns 0; -EPIPE after shutdown or close; -ENOBUFS
 * or -ENOMEM when the rest cannot be queued, which also closes the stream with that
 * error. An error of the kernel is not returned here: it is that of the CLOSED event.
 * */
FDMUX_API int fdmux_stream_write(struct fdmux_loop *loop, uint64_t stream,
                                 const void *data, size_t length);

/* One write of fdmux_stream_write_batch. `data` may be NULL if `length` is 0. */
struct fdmux_stream_write_op {
    uint64_t stream;
    const void *data;
    size_t length;
};

/* Do many writes in one call. Writes to the same stream that follow each other share
 * one sendmsg(2). Writes to a stream that has ended are skipped. Returns the count of
 * writes that were accepted. */
FDMUX_API int fdmux_stream_write_batch(struct fdmux_loop *loop,
                                       const struct fdmux_stream_write_op *ops,
                                       uint32_t count);

/* Shut down the writing side once the queue is empty; reading goes on. Returns 0. */
FDMUX_API int fdmux_stream_shutdown(struct fdmux_loop *loop, uint64_t stream);

/* Stop receiving (a listener: accepting) until fdmux_stream_resume. Returns 0. */
FDMUX_API int fdmux_stream_pause(struct fdmux_loop *loop, uint64_t stream);
FDMUX_API int fdmux_stream_resume(struct fdmux_loop *loop, uint64_t stream);

/* Close a stream: with FDMUX_STREAM_DROP at once, otherwise once the queue is sent.
 *
 * Nothing more is received. CLOSED follows in either case, not inside this call. With
 * DROP the stream no longer uses a borrowed descriptor when this returns. Returns 0. */
FDMUX_API int fdmux_stream_close(struct fdmux_loop *loop, uint64_t stream,
                                 uint32_t flags);

/* Returns the descriptor of the stream, which still owns it. */
FDMUX_API int fdmux_stream_fd(struct fdmux_loop *loop, uint64_t stream);

/* Fill `stats`, whose struct_size the caller has set. Returns 0. */
FDMUX_API int fdmux_stream_stats(struct fdmux_loop *loop, uint64_t stream,
                                 struct fdmux_stream_stats *stats);

/* Deliver one WRITABLE event when the queue has fallen to `queue_low` bytes, even if it
 * has never reached queue_high. This is the low-water mark of this stream from now on.
 * Returns 0. */
FDMUX_API int fdmux_stream_await_writable(struct fdmux_loop *loop, uint64_t stream,
                                          uint32_t queue_low);

/* Copy the address of the peer, a struct sockaddr_in or sockaddr_in6, to `address`,
 * which has room for `size` bytes. The stream stores it when it is connected, so it is
 * known in CLOSED too. Returns its size; 0 for other families; -ENOSPC. */
FDMUX_API int fdmux_stream_peer(struct fdmux_loop *loop, uint64_t stream, void *address,
                                size_t size);

/* Ask the processor to load what the streams with these `userdata` will need soon. */
typedef void (*fdmux_stream_prefetch_fn)(void *const *userdata, uint32_t count);

/* Before the loop calls `fn` for several streams, let it call `prefetch` with their
 * userdata, a few at a time. With many streams what `fn` uses is not in the cache;
 * `prefetch` can load it for all of them at once (__builtin_prefetch), while the kernel
 * works for those before. It must not wait, nor call functions of the loop. No hold is
 * entered for it: without the GIL, it must not look into objects of Python. A loop has
 * one `fn` with a prefetch, the last one given. NULL as `prefetch` ends it. Returns 0.
 */
FDMUX_API int fdmux_stream_set_prefetch(struct fdmux_loop *loop, fdmux_stream_fn fn,
                                        fdmux_stream_prefetch_fn prefetch);

/* The functions above for callers that do not link the core: fdmux_api.stream. It only
 * grows, at its end. */
struct fdmux_stream_api {
    size_t struct_size;
    int (*total_max)(struct fdmux_loop *loop, size_t bytes_max);
    int (*add)(struct fdmux_loop *loop, fdmux_fd fd,
               const struct fdmux_stream_options *options, uint64_t *ret_stream);
    int (*listen)(struct fdmux_loop *loop, fdmux_fd fd,
                  const struct fdmux_stream_options *options, uint64_t *ret_stream);
    int (*connect)(struct fdmux_loop *loop, fdmux_fd fd,
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
    int (*set_prefetch)(struct fdmux_loop *loop, fdmux_stream_fn fn,
                        fdmux_stream_prefetch_fn prefetch);
};

/* cffi:end */

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#ifdef __cplusplus
}
#endif

#endif /* FDMUX_STREAM_H */
