/* delivery.h: streams for Python: from an event of the core to a callback, and from
 * what the callback wrote to the socket.
 *
 * The module fdmux._delivery uses the published table and the limited API alone, as any
 * extension could. Everything here runs with the GIL held. */
#ifndef FDMUX_DELIVERY_H
#define FDMUX_DELIVERY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#if !defined(FDMUX_TABLE_SHARED)
#define FDMUX_TABLE_EXTERN
#endif
#include "fdmux_python.h"

struct delivered;
struct fdmux_frame;
struct delivery_rest;

/* What the streams of one loop share. Owns every stream that is open. */
struct delivery {
    PyObject head;
    struct fdmux_loop *loop; /* NULL: closed, or a parent's */
    PyObject *memory; /* a capsule that keeps the loop's memory, as long as `loop` */
    const void *address; /* of the loop, for whoever raises `error` */
    struct delivered *first_open;
    struct delivered **unsent; /* those with gathered writes; each a reference */
    uint32_t unsent_count;
    uint32_t unsent_capacity;
    unsigned long thread; /* who runs the loop; 0: nobody */
    unsigned int depth; /* callbacks under way */
    bool is_gathering; /* outside of callbacks too, while the loop runs */
    bool is_one_batch; /* a dispatch returns after each batch */
    unsigned long long call_count;
    /* What stopped a batch; raised by whoever called dispatch. */
    PyObject *error;
    struct delivery *next_failed;
    /* Where the next receive goes: new bytes, or a protocol's own buffer. */
    PyObject *incoming;
    struct fdmux_frame *frame; /* where framers put what they find; or NULL */
    /* asyncio: calls that are ready, and timers; see delivery_has_work. */
    PyObject *ready;
    PyObject *scheduled;
    Py_ssize_t scheduled_count;
};

/* One stream: of a handler, or the inside of another object, its owner. */
struct delivered {
    PyObject head;
    struct delivery *delivery; /* a reference */
    uint64_t token; /* 0: not open */
    struct delivered *previous_open;
    struct delivered *next_open;
    PyObject *owner; /* who is told of events; NULL: the stream itself */
    PyObject *on_data; /* NULL: what comes is dropped */
    PyObject *run; /* of the context that callbacks run in, or NULL */
    PyObject *handler; /* the user's */
    PyObject *data; /* the user's */
    PyObject *error; /* what on_close will get */
    /* Gathered writes: bytes objects; the first lies here, as most are alone. */
    PyObject *chunk;
    PyObject **chunks;
    uint32_t chunk_count; /* with the first */
    uint32_t chunk_capacity;
    uint32_t gathered_size;
    uint32_t queue_high; /* of an owner's flow control */
    PyObject *framer; /* a capsule, or NULL: bytes are delivered */
    struct delivery_rest *rest; /* of a frame that is not whole */
    uint32_t queued; /* in C, after the last send */
    bool is_unsent; /* in the delivery's list */
    bool can_write;
    bool is_open; /* has not been asked to end */
    bool is_over; /* has ended */
    bool is_large; /* the last receive was */
    bool is_buffered; /* on_data is of a BufferedProtocol */
    bool has_flow; /* the owner is told when the queue is too long */
};

/* Names of methods that are called here. */
struct delivery_names {
    PyObject *event;
    PyObject *callback_failed;
    PyObject *get_buffer;
    PyObject *buffer_updated;
};
extern struct delivery_names delivery_names;
extern PyTypeObject *delivery_type;
extern PyTypeObject *delivered_type;

/* Kinds of events beside those of fdmux_stream.h, for owners with flow control. */
#define DELIVERY_FULL 100 /* the queue is longer than wanted */
#define DELIVERY_LOST 101 /* nothing can be sent any more; CLOSED follows */

/* delivery.c */
int delivery_register(PyObject *module, bool is_main);
/* Send what every stream has gathered. */
void delivery_flush(struct delivery *delivery);
int delivery_note_unsent(struct delivery *delivery, struct delivered *stream);
/* Keep the exception that is set, to be raised by whoever called dispatch. Returns what
 * ends the batch. */
int delivery_keep_error(struct delivery *delivery);
PyObject *delivery_raise_error(PyObject *module, PyObject *loop_address);

/* deliver.c: what the core calls. */
int delivery_on_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                      void *userdata);
int delivery_on_buffer(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                       size_t *ret_size, void *userdata);

/* write.c */
/* Send, or gather, `data`, a bytes object. Returns 0, or -1 with an exception. */
int delivered_write_bytes(struct delivered *stream, PyObject *data);
/* The same for what a callback has returned: it leaves now, with what was gathered. */
int delivered_answer(struct delivered *stream, PyObject *data);
PyObject *delivered_write(PyObject *self, PyObject *data);
PyObject *delivered_writelines(PyObject *self, PyObject *lines);
void delivered_flush(struct delivered *stream);
void delivered_drop_chunks(struct delivered *stream);

/* delivered.c */
int delivered_register(PyObject *module, bool is_main);
/* Returns 0, or -1 with a RuntimeError for a thread other than the loop's. */
int delivered_check_thread(const struct delivered *stream, const char *attempted);
/* Tell the core whether to ask where to receive: only for what is large, or goes into a
 * buffer of a protocol. */
void delivered_choose_buffer(const struct delivered *stream);
/* It has ended, or is to be forgotten. */
void delivered_leave(struct delivered *stream);

/* Members that Python sets hold None where C would leave NULL. */
static inline bool delivery_is_set(const PyObject *object)
{
    return object != NULL && object != Py_None;
}

/* Py_VISIT for each of `objects`, some of which may be NULL. */
static inline int delivery_visit(PyObject *const *objects, size_t count,
                                 visitproc visit, void *arg)
{
    int r = 0;

    for (size_t i = 0; i < count && r == 0; i++)
        r = objects[i] == NULL ? 0 : visit(objects[i], arg);
    return r;
}

static inline PyObject *delivery_new_ref(PyObject *object)
{
    Py_XINCREF(object);
    return object;
}

#endif
