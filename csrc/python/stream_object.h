/* stream_object.h: one stream as Python holds it, the type fdmux._delivery.Stream.
 *
 * It is either a fdmux.Stream, whose handler gets the events, or the core of a
 * transport of asyncio, its owner, which gets them instead. */
#ifndef FDMUX_STREAM_OBJECT_H
#define FDMUX_STREAM_OBJECT_H

#include "delivery.h"

struct delivery_rest;

struct stream_object {
    PyObject head;
    struct delivery *delivery; /* a reference */
    uint64_t token; /* 0: not open */
    struct stream_object *previous_open;
    struct stream_object *next_open;
    PyObject *owner; /* gets the events; NULL: the stream itself gets them */
    PyObject *on_data; /* gets the data; NULL: data is dropped */
    union {
        PyObject *run; /* of the context that callbacks run in; or NULL */
        PyObject *framer; /* a capsule, if is_framed: on_data gets frames */
    };
    PyObject *handler; /* of a fdmux.Stream */
    PyObject *data; /* the user's attribute */
    /* Gathered writes, as bytes objects. Most often there is one: it needs no array. */
    PyObject *chunk;
    PyObject **chunks;
    uint32_t chunk_count; /* `chunk` included */
    uint32_t chunk_capacity;
    uint32_t gathered_size;
    uint32_t queue_high; /* with more queued, the owner gets FULL; see has_flow */
    struct delivery_rest *rest; /* of an incomplete frame */
    uint32_t queued; /* in the core, after the last send */
    bool is_unsent; /* in the delivery's array of unsent streams */
    bool can_write; /* neither shut down nor closed */
    bool is_open; /* neither closed nor asked to close */
    bool is_over; /* CLOSED was delivered */
    bool is_large; /* the last receive had LARGE_SIZE bytes or more */
    bool is_buffered; /* on_data is a BufferedProtocol */
    bool is_framed; /* there is a framer */
    bool has_flow; /* the owner does flow control */
};

/* Can the core be asked about it? Not once it has ended or the loop is closed. */
static inline bool stream_is_live(const struct stream_object *stream)
{
    return stream->token != 0 && !stream->is_over && stream->delivery != NULL &&
           stream->delivery->loop != NULL;
}

static inline PyObject *stream_target(struct stream_object *stream)
{
    return delivery_is_set(stream->owner) ? stream->owner : (PyObject *)stream;
}

/* write.c */
/* Send `data`, a bytes object, or gather it. Returns 0, or -1 with an exception. */
int stream_write_bytes(struct stream_object *stream, PyObject *data);
/* Send what a callback has returned, after what is gathered. Returns as above. */
int stream_write_now(struct stream_object *stream, PyObject *data);
/* Send what is gathered. */
void stream_flush(struct stream_object *stream);
void stream_drop_chunks(struct stream_object *stream);

/* errors.c */
/* The callback `what` has raised: report it, which ends the stream. KeyboardInterrupt
 * and SystemExit end the batch instead. Returns 0, or what ends the batch. */
int stream_callback_raised(struct stream_object *stream, const char *what);

/* stream_open.c */
/* Choose the buffer that the core receives into: ours for large data and for a
 * BufferedProtocol, otherwise the one that all streams share. */
void stream_choose_buffer(const struct stream_object *stream);
/* Take it out of the delivery's list of open streams, which owns a reference. */
void stream_unlink(struct stream_object *stream);

/* stream_type.c */
int stream_type_register(PyObject *module);

/* Methods: of stream_open.c, write.c and stream_methods.c. */
PyObject *stream_bind(PyObject *self, PyObject *args);
PyObject *stream_open(PyObject *self, PyObject *args);
PyObject *stream_adopt(PyObject *self, PyObject *number);
PyObject *stream_write(PyObject *self, PyObject *data);
PyObject *stream_writelines(PyObject *self, PyObject *lines);
PyObject *stream_write_raw(PyObject *self, PyObject *data);
PyObject *stream_flush_gathered(PyObject *self, PyObject *unused);
PyObject *stream_shutdown(PyObject *self, PyObject *unused);
PyObject *stream_close(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *stream_abort(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *stream_pause_reading(PyObject *self, PyObject *unused);
PyObject *stream_resume_reading(PyObject *self, PyObject *unused);
PyObject *stream_fileno(PyObject *self, PyObject *unused);
PyObject *stream_stats(PyObject *self, PyObject *unused);
PyObject *stream_peer(PyObject *self, PyObject *unused);
PyObject *stream_await_writable(PyObject *self, PyObject *number);
PyObject *stream_set_flow(PyObject *self, PyObject *number);
/* Returns 0, or -1 with a RuntimeError on a thread other than the loop's. */
int stream_check_thread(const struct stream_object *stream, const char *attempted);

#endif
