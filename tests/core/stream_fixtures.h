/* stream_fixtures.h: streams that record their events.
 *
 * A witness records each event of its streams, in order. After every dispatch made
 * here, the structures of the loop and the streams are verified. */
#ifndef FDMUX_TESTS_STREAM_FIXTURES_H
#define FDMUX_TESTS_STREAM_FIXTURES_H

#include "fdmux_stream.h"
#include "fixtures.h"

#define KINDS 10

struct witness {
    struct fdmux_loop *loop;
    /* Called after an event was recorded; may be NULL. */
    int (*reaction)(struct witness *witness, const struct fdmux_stream_event *event);
    int counts[KINDS]; /* by kind of event */
    int destroyed;
    int error; /* of the last CLOSED or REFUSED */
    uint32_t last_kind;
    uint64_t token; /* of the last stream accepted */
    uint64_t received; /* in bytes */
    uint64_t hash; /* of the received bytes, in order */
    uint32_t largest; /* of the DATA events, in bytes */
    void *extra; /* free for the test case */
};

/* Options for a stream of this loop; the caller completes them. */
struct fdmux_stream_options options_for(struct fdmux_loop *loop,
                                        struct witness *witness);
uint64_t add_stream(struct fdmux_loop *loop, int fd, struct witness *witness);
uint64_t add_stream_with(struct fdmux_loop *loop, int fd,
                         const struct fdmux_stream_options *options);
/* Listen on loopback. The port goes to *ret_port. */
uint64_t listen_on_loopback(struct fdmux_loop *loop,
                            const struct fdmux_stream_options *options,
                            uint16_t *ret_port);
uint64_t connect_to_loopback(struct fdmux_loop *loop, uint16_t port,
                             const struct fdmux_stream_options *options);
/* The event function of a witness, to be set by hand. */
int note_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
               void *userdata);
void note_destroyed(void *userdata);

/* Dispatch without waiting. Returns what dispatch returned. */
int serve(struct fdmux_loop *loop);
/* Dispatch until *counter is at least `count`; fails after ten seconds. */
void serve_until(struct fdmux_loop *loop, const int *counter, int count);
/* Dispatch until an iteration finds nothing to do, at most 200 times. */
void serve_all(struct fdmux_loop *loop);
/* Verify the structures of the loop and its streams. */
void verify_streams(struct fdmux_loop *loop);

/* A reaction that writes back the received bytes. */
int echo(struct witness *witness, const struct fdmux_stream_event *event);

/* For the peer: these bytes, or the end of the stream, must arrive. */
void expect_bytes(int fd, const char *bytes);
void expect_end(int fd);
/* End a TCP connection with a reset. */
void reset(int fd);
/* Connect a blocking client to a listener. Returns -1 if it was refused. */
int connect_client(uint16_t port);
void fill_pattern(unsigned char *bytes, size_t length, uint64_t seed);
uint64_t hash_bytes(uint64_t hash, const unsigned char *bytes, size_t length);
void set_buffer(int fd, int option, int size); /* SO_SNDBUF, SO_RCVBUF */
uint32_t queued(struct fdmux_loop *loop, uint64_t stream);

#define HASH_START UINT64_C(14695981039346656037)

#endif
