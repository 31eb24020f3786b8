/* fdmux_datagram.h: datagrams in batches. Optional, on top of fdmux.h.
 *
 * An endpoint owns a datagram socket: UDP over IPv4 or IPv6, or Unix. When it is
 * readable, the core receives up to 64 datagrams with one system call and calls the
 * endpoint's function once. What the kernel does not take is queued, up to a limit.
 *
 * Threads: the dispatching thread only, or any one thread while no thread dispatches.
 * Errors common to all: as in fdmux.h; -EIDRM for an endpoint that has ended. */
#ifndef FDMUX_DATAGRAM_H
#define FDMUX_DATAGRAM_H

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
#define FDMUX_DATAGRAM_RECEIVED 1 /* datagrams have arrived */
#define FDMUX_DATAGRAM_ERROR 2 /* one was not delivered, or could not be sent */
#define FDMUX_DATAGRAM_WRITABLE 3 /* the queue has fallen to queue_low */
#define FDMUX_DATAGRAM_CLOSED 4 /* the endpoint has ended; its last event */

/* Flags of a received datagram. */
#define FDMUX_DATAGRAM_TRUNCATED 0x1 /* it was longer than size_max */
#define FDMUX_DATAGRAM_HAS_ECN 0x2 /* `ecn` is known */

/* One datagram: received, or to be sent. What was received can be sent as it is, back
 * to where it came from. */
struct fdmux_datagram {
    const void *data; /* NULL is allowed if `length` is 0 */
    const void *address; /* a struct sockaddr: of the sender, or where to send; NULL: of
                          * the peer of a connected socket, or a Unix socket without a
                          * name */
    /* A struct sockaddr_in or sockaddr_in6 without a port: the address of this machine
     * that the datagram was sent to, with FDMUX_DATAGRAM_LOCAL; or that it is to be
     * sent from. NULL: not asked for; the kernel chooses. */
    const void *local;
    uint32_t length; /* of `data` */
    uint32_t interface_index; /* received, with LOCAL: where it arrived; else ignored */
    uint16_t address_size;
    uint16_t local_size;
    uint16_t segment_size; /* to send: divide `data` into datagrams of this size, all in
                            * one system call if the kernel can (GSO); 0: do not */
    uint8_t flags; /* received: FDMUX_DATAGRAM_TRUNCATED, _HAS_ECN; else ignored */
    uint8_t ecn; /* received, with HAS_ECN: 0 to 3, RFC 3168; else ignored */
};

/* An event of one endpoint; valid during the call, like all it points to. An endpoint
 * receives once in a batch, so that a busy one does not delay the others. */
struct fdmux_datagram_event {
    uint64_t endpoint;
    const struct fdmux_datagram *datagrams; /* RECEIVED; else NULL */
    const void *address; /* ERROR: where the datagram was to go; NULL: not known, or the
                          * peer of a connected socket */
    uint32_t count; /* RECEIVED: of `datagrams`; else 0 */
    uint32_t address_size;
    uint32_t kind; /* FDMUX_DATAGRAM_RECEIVED and so on */
    int error; /* ERROR and CLOSED: an errno; 0 if it was closed as asked */
};

/* Called for each event of an endpoint. A negative result ends the batch, as with every
 * function given to a loop. */
typedef int (*fdmux_datagram_fn)(struct fdmux_loop *loop,
                                 const struct fdmux_datagram_event *event,
                                 void *userdata);

/* Flags of fdmux_datagram_close. */
#define FDMUX_DATAGRAM_DROP 0x1 /* discard the queue and close at once */

/* Flags of struct fdmux_datagram_options. */
#define FDMUX_DATAGRAM_BORROW 0x1 /* the descriptor stays the caller's */
#define FDMUX_DATAGRAM_LOCAL 0x2 /* tell `local` of each datagram */
#define FDMUX_DATAGRAM_ECN 0x4 /* tell `ecn` of each datagram */
/* Tell what the network reports about datagrams that were sent, such as ECONNREFUSED,
 * with the address. Otherwise only the errors of a connected socket are told. */
#define FDMUX_DATAGRAM_ERRORS 0x8
/* Let the kernel join datagrams of one sender that follow each other (UDP GRO); the
 * core divides them again. Ignored where the kernel cannot, and for Unix sockets. */
#define FDMUX_DATAGRAM_GRO 0x10

/* Options of an endpoint; 0 selects the default of a limit. */
struct fdmux_datagram_options {
    size_t struct_size;
    fdmux_datagram_fn fn; /* not NULL */
    void *userdata;
    fdmux_destroyed_fn destroyed;
    uint32_t size_max; /* bytes of a received datagram; 65536, at most 262144 */
    uint32_t queue_max; /* bytes queued at most, 64 for each datagram included; 262144
                         */
    uint32_t queue_low; /* see fdmux_datagram_await_writable; 16384 */
    uint32_t flags;
};

/* Counts of datagrams since the endpoint was made, and what is queued now. */
struct fdmux_datagram_stats {
    size_t struct_size;
    uint64_t received;
    uint64_t received_bytes;
    uint64_t truncated;
    uint64_t sent;
    uint64_t sent_bytes;
    uint64_t dropped; /* not sent: the queue or the kernel's memory was full */
    uint64_t failed; /* not sent: the kernel has refused each with an error */
    uint64_t errors; /* sent and reported as undeliverable */
    uint64_t kernel_dropped; /* arrived while the socket's buffer was full; Linux */
    uint32_t queued; /* bytes, 64 for each datagram included */
    uint32_t queued_count;
};

/* What the kernel can do for datagrams: the result of fdmux_datagram_features. */
#define FDMUX_DATAGRAM_CAN_BATCH 0x1 /* recvmmsg(2) and sendmmsg(2) */
#define FDMUX_DATAGRAM_CAN_GSO 0x2 /* UDP_SEGMENT, udp(7) */
#define FDMUX_DATAGRAM_CAN_GRO 0x4 /* UDP_GRO, udp(7) */

/* Returns FDMUX_DATAGRAM_CAN_ bits; -EMFILE, -ENFILE, -ENOMEM. The first call for a
 * loop asks the kernel, with a socket made for that. */
FDMUX_API int fdmux_datagram_features(struct fdmux_loop *loop);

/* Make an endpoint of a non-blocking datagram socket, bound or connected or neither.
 *
 * On success the endpoint owns `fd` and closes it when it ends (but see BORROW).
 * Returns 0; -EBADF; -ENOTSOCK; -EPROTOTYPE for a socket of another type; -ENOMEM, or
 * as fdmux_io_add. */
FDMUX_API int fdmux_datagram_add(struct fdmux_loop *loop, fdmux_fd fd,
                                 const struct fdmux_datagram_options *options,
                                 uint64_t *ret_endpoint);

/* An address: either `host`, numeric, IPv4 or IPv6, with `port`; or `path`, Unix. */
#define FDMUX_DATAGRAM_REUSE_PORT 0x1 /* several share a port: SO_REUSEPORT */
struct fdmux_datagram_address {
    size_t struct_size;
    const char *host;
    const char *path; /* an abstract name begins with a NUL and needs path_length */
    uint16_t path_length; /* 0: until the first NUL */
    uint16_t port; /* bound to 0: the kernel chooses, see getsockname(2) */
    uint32_t flags;
};

/* Make a socket, bind it, and call fdmux_datagram_add. Returns 0; -EINVAL for a
 * malformed address, or with BORROW: the endpoint owns this socket; -EADDRINUSE,
 * -EACCES, -EADDRNOTAVAIL, -EMFILE. */
FDMUX_API int fdmux_datagram_bind(struct fdmux_loop *loop,
                                  const struct fdmux_datagram_address *address,
                                  const struct fdmux_datagram_options *options,
                                  uint64_t *ret_endpoint);

/* Make a socket, bind it to `own` unless that is NULL, connect it to `peer`, and call
 * fdmux_datagram_add. It then receives from that peer only. A Unix endpoint needs `own`
 * to get answers. Returns 0; -EINVAL as fdmux_datagram_bind, and for addresses of two
 * families; the error of bind(2) or connect(2). */
FDMUX_API int fdmux_datagram_connect(struct fdmux_loop *loop,
                                     const struct fdmux_datagram_address *peer,
                                     const struct fdmux_datagram_address *own,
                                     const struct fdmux_datagram_options *options,
                                     uint64_t *ret_endpoint);

/* Replace the function and the userdata of an endpoint.
 *
 * The old `destroyed` is called before this returns, unless it and its userdata stay
 * the same. Also allowed in a child of fork() before fdmux_loop_after_fork. Returns 0,
 * or -EINVAL without `fn`. */
struct fdmux_datagram_handler {
    size_t struct_size;
    fdmux_datagram_fn fn;
    void *userdata;
    fdmux_destroyed_fn destroyed;
};
FDMUX_API int fdmux_datagram_set_handler(struct fdmux_loop *loop, uint64_t endpoint,
                                         const struct fdmux_datagram_handler *handler);

/* Send a datagram now, or queue it if the kernel cannot take it yet; in order.
 *
 * Only a queued datagram is copied. Returns 0; -EPIPE after close; -ENOBUFS or -ENOMEM
 * when it was dropped, since the queue or the kernel's memory is full; the error of the
 * kernel for this datagram, such as -EMSGSIZE, -ENETUNREACH or -EACCES. If it is queued
 * and fails later, ERROR tells. */
FDMUX_API int fdmux_datagram_send(struct fdmux_loop *loop, uint64_t endpoint,
                                  const struct fdmux_datagram *datagram);

/* Send many, with one system call for each 64. Those that cannot be sent are skipped
 * and counted; ERROR tells the first. Returns how many were sent or queued; -EPIPE
 * after close. */
FDMUX_API int fdmux_datagram_send_many(struct fdmux_loop *loop, uint64_t endpoint,
                                       const struct fdmux_datagram *datagrams,
                                       uint32_t count);

/* Stop receiving until fdmux_datagram_resume; what arrives waits in the socket. Returns
 * 0. */
FDMUX_API int fdmux_datagram_pause(struct fdmux_loop *loop, uint64_t endpoint);
FDMUX_API int fdmux_datagram_resume(struct fdmux_loop *loop, uint64_t endpoint);

/* Close an endpoint: with FDMUX_DATAGRAM_DROP at once, otherwise once the queue is
 * sent.
 *
 * Nothing more is received. CLOSED follows in either case, not inside this call. With
 * DROP the endpoint no longer uses a borrowed descriptor when this returns. Returns 0.
 */
FDMUX_API int fdmux_datagram_close(struct fdmux_loop *loop, uint64_t endpoint,
                                   uint32_t flags);

/* Returns the descriptor of the endpoint, which still owns it: to set options, to join
 * multicast groups. */
FDMUX_API int fdmux_datagram_fd(struct fdmux_loop *loop, uint64_t endpoint);

/* Fill `stats`, whose struct_size the caller has set. Returns 0. */
FDMUX_API int fdmux_datagram_stats(struct fdmux_loop *loop, uint64_t endpoint,
                                   struct fdmux_datagram_stats *stats);

/* Deliver one WRITABLE event when the queue has fallen to `queue_low` bytes. Without
 * this call, WRITABLE is delivered only after a datagram was dropped because the queue
 * was full. Returns 0. */
FDMUX_API int fdmux_datagram_await_writable(struct fdmux_loop *loop, uint64_t endpoint,
                                            uint32_t queue_low);

/* Returns how many bytes are queued, 64 for each datagram included; unlike
 * fdmux_datagram_stats without a system call. */
FDMUX_API int fdmux_datagram_queued(struct fdmux_loop *loop, uint64_t endpoint);

/* The functions above for callers that do not link the core: fdmux_api.datagram. It
 * only grows, at its end. */
struct fdmux_datagram_api {
    size_t struct_size;
    int (*features)(struct fdmux_loop *loop);
    int (*add)(struct fdmux_loop *loop, fdmux_fd fd,
               const struct fdmux_datagram_options *options, uint64_t *ret_endpoint);
    int (*bind)(struct fdmux_loop *loop, const struct fdmux_datagram_address *address,
                const struct fdmux_datagram_options *options, uint64_t *ret_endpoint);
    int (*connect)(struct fdmux_loop *loop, const struct fdmux_datagram_address *peer,
                   const struct fdmux_datagram_address *own,
                   const struct fdmux_datagram_options *options,
                   uint64_t *ret_endpoint);
    int (*set_handler)(struct fdmux_loop *loop, uint64_t endpoint,
                       const struct fdmux_datagram_handler *handler);
    int (*send)(struct fdmux_loop *loop, uint64_t endpoint,
                const struct fdmux_datagram *datagram);
    int (*send_many)(struct fdmux_loop *loop, uint64_t endpoint,
                     const struct fdmux_datagram *datagrams, uint32_t count);
    int (*close)(struct fdmux_loop *loop, uint64_t endpoint, uint32_t flags);
    int (*fd)(struct fdmux_loop *loop, uint64_t endpoint);
    int (*stats)(struct fdmux_loop *loop, uint64_t endpoint,
                 struct fdmux_datagram_stats *stats);
    int (*await_writable)(struct fdmux_loop *loop, uint64_t endpoint,
                          uint32_t queue_low);
    int (*queued)(struct fdmux_loop *loop, uint64_t endpoint);
    int (*pause)(struct fdmux_loop *loop, uint64_t endpoint);
    int (*resume)(struct fdmux_loop *loop, uint64_t endpoint);
};

/* cffi:end */

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#ifdef __cplusplus
}
#endif

#endif /* FDMUX_DATAGRAM_H */
