/* stream_object.h: one stream as Python holds it: the type fdmux._delivery.Stream, or
 * the first part of a transport of asyncio (aio_transport.h), a subclass of another
 * type. The functions of streams work on both. */
#ifndef FDMUX_STREAM_OBJECT_H
#define FDMUX_STREAM_OBJECT_H

#include "delivery.h"

struct delivery_rest;

struct stream_object {
    PyObject head;
    PyObject *data; /* the user's attribute; of a transport, the slot _extra */
    union {
        struct {
            PyObject *framer; /* a capsule, if is_framed: on_data gets frames */
            struct delivery_rest *rest; /* of an incomplete frame */
        };
        struct { /* of a transport: the other slots of asyncio's class */
            PyObject *high_water;
            PyObject *loop;
            PyObject *low_water;
            PyObject *protocol_paused;
        };
    };
    /* Every message uses the next fields: they share cache lines. */
    struct delivery *delivery; /* a reference */
    uint64_t token; /* 0: not open */
    PyObject *on_data; /* gets the data; NULL: data is dropped */
    PyObject *handler; /* of a fdmux.Stream; the protocol of a transport */
    PyObject *context; /* that callbacks of a transport run in; or NULL */
    PyObject *tls; /* a TlsSession, or NULL; set once */
    /* Gathered writes, as bytes objects. Most often there is one: it needs no array. */
    PyObject *chunk;
    uint32_t chunk_count; /* `chunk` included */
    uint32_t gathered_size;
    uint32_t queued; /* of a transport: in the core, after the last send */
    uint32_t queue_high; /* of a transport: with more queued, its protocol is paused */
    bool is_unsent; /* in the delivery's array of unsent streams */
    bool can_write; /* neither shut down nor closed */
    bool is_open; /* neither closed nor asked to close */
    bool is_over; /* CLOSED was delivered */
    bool is_large; /* the last receive had LARGE_SIZE bytes or more */
    bool is_buffered; /* on_data is a BufferedProtocol */
    bool is_framed; /* there is a framer */
    bool is_transport;
    /* The rest is for what is rare. */
    PyObject **chunks;
    uint32_t chunk_capacity;
    struct stream_object *previous_open;
    struct stream_object *next_open;
};

/* Can the core be asked about it? Not once it has ended or the loop is closed. */
static inline bool stream_is_live(const struct stream_object *stream)
{
    return stream->token != 0 && !stream->is_over && stream->delivery != NULL &&
           stream->delivery->loop != NULL;
}

/* write.c */
/* Send any bytes-like object, or gather it. The stream can write. Returns 0, or -1 with
 * an exception. */
int stream_write_any(struct stream_object *stream, PyObject *data);
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
/* Its loop is observed from now on, or no longer. */
void stream_choose_functions(const struct stream_object *stream);
/* Take it out of the delivery's list of open streams, which owns a reference. */
void stream_unlink(struct stream_object *stream);

/* stream_type.c */
int stream_type_register(PyObject *module);
int stream_traverse(PyObject *self, visitproc visit, void *arg);
int stream_clear(PyObject *self);
void stream_dealloc(PyObject *self);

/* aio_flow.c: of a transport */
/* After a send: tell it if the send has failed, and pause the protocol if more than
 * queue_high bytes are queued. */
void aio_transport_sent(struct stream_object *stream, int result);
/* Call function(first, second) in the context of the transport; either may be NULL: no
 * such argument. Returns as PyObject_Call. */
PyObject *aio_transport_call(const struct stream_object *stream, PyObject *function,
                             PyObject *first, PyObject *second);
/* The queue is below its lower limit, or empty. Returns as PyObject_Call. */
PyObject *aio_transport_writable(struct stream_object *stream);

/* Methods: of stream_open.c, write.c and stream_methods.c. */
PyObject *stream_bind(PyObject *self, PyObject *args);
PyObject *stream_open(PyObject *self, PyObject *args);
PyObject *stream_adopt(PyObject *self, PyObject *number);
PyObject *stream_write(PyObject *self, PyObject *data);
PyObject *stream_writelines(PyObject *self, PyObject *lines);
PyObject *stream_shutdown(PyObject *self, PyObject *unused);
PyObject *stream_close(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *stream_abort(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *stream_pause_reading(PyObject *self, PyObject *unused);
PyObject *stream_resume_reading(PyObject *self, PyObject *unused);
PyObject *stream_fileno(PyObject *self, PyObject *unused);
PyObject *stream_stats(PyObject *self, PyObject *unused);
PyObject *stream_peer(PyObject *self, PyObject *unused);
PyObject *stream_refuse_thread(PyObject *self, PyObject *attempted);
/* Returns 0, or -1 with a RuntimeError on a thread other than the loop's. */
int stream_check_thread(const struct stream_object *stream, const char *attempted);

#endif
