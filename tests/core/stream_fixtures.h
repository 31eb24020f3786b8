/* stream_fixtures.h: streams that tell what happens to them, called or collected alike.
 *
 * A desk is a loop and the batch it collects into. A witness notes each record of the
 * streams it is given, in order; for collected streams, when the desk reads the batch.
 * So a case runs both ways from one text. */
#ifndef FDMUX_TESTS_STREAM_FIXTURES_H
#define FDMUX_TESTS_STREAM_FIXTURES_H

#include "fdmux_stream.h"
#include "fixtures.h"

#define ARENA_MIN 65536u
#define RECORDS_MIN 16u
#define KINDS 9

struct desk;

struct witness {
    struct desk *desk;
    /* What to do about a record, after it was noted; NULL: nothing. */
    int (*reaction)(struct witness *witness, const struct fdmux_stream_record *record,
                    const unsigned char *data);
    bool is_called;
    int counts[KINDS]; /* by kind of record */
    int destroyed;
    int error; /* of the last CLOSED or REFUSED */
    uint32_t last_kind;
    uint64_t token; /* of the last stream accepted */
    uint64_t received; /* bytes */
    uint64_t hash; /* of these bytes, in order */
    uint32_t largest; /* DATA record */
    void *extra; /* the case's own */
};

struct desk {
    struct fdmux_loop *loop;
    bool is_collected;
    struct fdmux_stream_batch batch;
    struct witness *witnesses[4096]; /* of collected streams, by slot */
};

/* A desk with room for `records` and `arena` bytes. */
void open_desk(struct desk *desk, bool is_collected, uint32_t records, uint32_t arena);
void close_desk(struct desk *desk);
/* Run a scenario, which closes the desk, with called streams and collected ones. */
void on_both_desks(void (*scenario)(struct desk *desk));

/* Options for this desk, to be completed. */
struct fdmux_stream_options options_for(struct desk *desk, struct witness *witness);
uint64_t add_stream(struct desk *desk, int fd, struct witness *witness);
uint64_t add_stream_with(struct desk *desk, int fd,
                         const struct fdmux_stream_options *options);
/* On loopback; the port goes to *ret_port. */
uint64_t listen_on_loopback(struct desk *desk,
                            const struct fdmux_stream_options *options,
                            uint16_t *ret_port);
uint64_t connect_to_loopback(struct desk *desk, uint16_t port,
                             const struct fdmux_stream_options *options);

/* Read the batch, tell the witnesses, and empty it. */
void read_batch(struct desk *desk);
/* Dispatch without waiting, and read what came. What dispatch returned. */
int serve(struct desk *desk);
/* Serve until *counter is at least `count`; fails after ten seconds. */
void serve_until(struct desk *desk, const int *counter, int count);
/* Serve until one iteration brings nothing more, 200 at most. */
void serve_all(struct desk *desk);
/* The loop's structures and the streams' are sound. */
void verify_desk(struct desk *desk);

/* A reaction: write what came. */
int echo(struct witness *witness, const struct fdmux_stream_record *record,
         const unsigned char *data);

/* The peer's side: these bytes, or the end, must come. */
void expect_bytes(int fd, const char *bytes);
void expect_end(int fd);
/* A blocking client of a listener; -1 if it was refused. */
int connect_client(uint16_t port);
void fill_pattern(unsigned char *bytes, size_t length, uint64_t seed);
uint64_t hash_bytes(uint64_t hash, const unsigned char *bytes, size_t length);
void set_buffer(int fd, int option, int size); /* SO_SNDBUF, SO_RCVBUF */
uint32_t queued(struct desk *desk, uint64_t stream);

#define HASH_START UINT64_C(14695981039346656037)

#endif
