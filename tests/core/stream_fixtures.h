/* stream_fixtures.h: streams that tell what happens to them.
 *
 * A witness notes each event of the streams it is given, in order. Every dispatch made
 * here is followed by a check of the loop's and the streams' structures. */
#ifndef FDMUX_TESTS_STREAM_FIXTURES_H
#define FDMUX_TESTS_STREAM_FIXTURES_H

#include "fdmux_stream.h"
#include "fixtures.h"

#define KINDS 9

struct witness {
    struct fdmux_loop *loop;
    /* What to do about an event, after it was noted; NULL: nothing. */
    int (*reaction)(struct witness *witness, const struct fdmux_stream_event *event);
    int counts[KINDS]; /* by kind of event */
    int destroyed;
    int error; /* of the last CLOSED or REFUSED */
    uint32_t last_kind;
    uint64_t token; /* of the last stream accepted */
    uint64_t received; /* bytes */
    uint64_t hash; /* of these bytes, in order */
    uint32_t largest; /* DATA event */
    void *extra; /* the case's own */
};

/* Options for a stream of this loop, to be completed. */
struct fdmux_stream_options options_for(struct fdmux_loop *loop,
                                        struct witness *witness);
uint64_t add_stream(struct fdmux_loop *loop, int fd, struct witness *witness);
uint64_t add_stream_with(struct fdmux_loop *loop, int fd,
                         const struct fdmux_stream_options *options);
/* On loopback; the port goes to *ret_port. */
uint64_t listen_on_loopback(struct fdmux_loop *loop,
                            const struct fdmux_stream_options *options,
                            uint16_t *ret_port);
uint64_t connect_to_loopback(struct fdmux_loop *loop, uint16_t port,
                             const struct fdmux_stream_options *options);
/* The function of a witness's streams, for those that get it otherwise. */
int note_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
               void *userdata);
void note_destroyed(void *userdata);

/* Dispatch without waiting. What dispatch returned. */
int serve(struct fdmux_loop *loop);
/* Serve until *counter is at least `count`; fails after ten seconds. */
void serve_until(struct fdmux_loop *loop, const int *counter, int count);
/* Serve until one iteration brings nothing more, 200 at most. */
void serve_all(struct fdmux_loop *loop);
/* The loop's structures and the streams' are sound. */
void verify_streams(struct fdmux_loop *loop);

/* A reaction: write what came. */
int echo(struct witness *witness, const struct fdmux_stream_event *event);

/* The peer's side: these bytes, or the end, must come. */
void expect_bytes(int fd, const char *bytes);
void expect_end(int fd);
/* End a TCP connection with a reset. */
void reset(int fd);
/* A blocking client of a listener; -1 if it was refused. */
int connect_client(uint16_t port);
void fill_pattern(unsigned char *bytes, size_t length, uint64_t seed);
uint64_t hash_bytes(uint64_t hash, const unsigned char *bytes, size_t length);
void set_buffer(int fd, int option, int size); /* SO_SNDBUF, SO_RCVBUF */
uint32_t queued(struct fdmux_loop *loop, uint64_t stream);

#define HASH_START UINT64_C(14695981039346656037)

#endif
