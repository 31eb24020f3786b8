/* flush.h: what is sent to streams, one after the other; neighbours to one stream leave
 * in one sendmsg(2).
 *
 * Shared by what Python says in words (stream_glue.c) and in objects
 * (transport_glue.c). Its one rule: a stream that is over is passed by; what fails has
 * failed the stream, which its CLOSED record says. */
#ifndef FDMUX_PYTHON_FLUSH_H
#define FDMUX_PYTHON_FLUSH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "stream.h"

/* A word of glue.h. */
#define VERB(word) ((uint32_t)(word) & 0xf0000000u)
#define SLOT(word) ((uint32_t)(word) & 0x0fffffffu)
#define OPERAND(word) ((uint32_t)((word) >> 32))
#define IS_END(word) (VERB(word) >= FDMUX_PY_CLOSE)

#define PARTS_MAX 64

struct fdmux_py_flush {
    struct fdmux_loop *loop;
    struct fdmux__hub *hub;
    uint32_t slot; /* of the stream that the parts are for */
    int part_count;
    struct iovec parts[PARTS_MAX];
};

void fdmux_py_flush_init(struct fdmux_py_flush *flush, struct fdmux_loop *loop,
                         struct fdmux__hub *hub);

/* Add what a word sends; whatever is for another stream leaves first. */
void fdmux_py_flush_add(struct fdmux_py_flush *flush, uint64_t word, struct iovec part);

/* Do what a word says that ends a stream, after all that was added. */
void fdmux_py_flush_end(struct fdmux_py_flush *flush, uint64_t word);

/* Send what is left. */
void fdmux_py_flush_finish(struct fdmux_py_flush *flush);

/* The stream in `slot`, or NULL if there is none. */
struct fdmux__stream *fdmux_py_live_stream(struct fdmux__hub *hub, uint32_t slot);

/* Empty the batch, and fill it with what had no room. Returns its records or -errno. */
int fdmux_py_begin_batch(struct fdmux_loop *loop, struct fdmux__hub *hub);

#endif
