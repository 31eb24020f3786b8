/* layer.h: what a stream asks of a layer between its socket and its user, such as TLS.
 *
 * A stream with a layer has the state bit LAYERED. The layer receives, takes what the
 * user writes, and decides when the stream is closed; streams know nothing else of it.
 * What it sends goes through the stream's queue, which so holds ciphertext. */
#ifndef FDMUX_LAYER_H
#define FDMUX_LAYER_H

#include <stdint.h>

struct fdmux_loop;
struct fdmux__hub;
struct fdmux__stream;
struct fdmux__part;

/* Results are those of the functions of streams: negative ends the batch, except that
 * of `send`, which fdmux_stream_write returns. */
struct fdmux__layer_hooks {
    int (*receive)(struct fdmux_loop *loop, struct fdmux__stream *stream);
    /* The stream was on the pending list, and has not failed. */
    int (*proceed)(struct fdmux_loop *loop, struct fdmux__stream *stream);
    int (*send)(struct fdmux_loop *loop, struct fdmux__stream *stream,
                const struct fdmux__part *parts, int count);
    /* The stream's queue has become empty. */
    int (*drained)(struct fdmux_loop *loop, struct fdmux__stream *stream);
    void (*shutdown)(struct fdmux_loop *loop, struct fdmux__stream *stream);
    void (*close)(struct fdmux_loop *loop, struct fdmux__stream *stream);
    void (*tick)(struct fdmux_loop *loop, struct fdmux__stream *stream);
    void (*ended)(struct fdmux__stream *stream); /* CLOSED follows */
    void (*drop)(struct fdmux__hub *hub,
                 struct fdmux__stream *stream); /* what it holds */
    void (*release)(struct fdmux_loop *loop, struct fdmux__stream *stream);
};

/* Every layer begins with this. */
struct fdmux__layer {
    const struct fdmux__layer_hooks *hooks;
    uint32_t held_count; /* bytes written by the user, which it cannot send yet */
    uint32_t reserved;
};

#endif
