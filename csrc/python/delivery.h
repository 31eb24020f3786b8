/* delivery.h: what the streams of one loop share, the type fdmux._delivery.Delivery.
 *
 * The module fdmux._delivery calls Python for each event of a stream, and writes what
 * Python returns. It uses only the published table and the limited API of Python, as
 * any extension could. Everything here runs with the GIL held. */
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
#include "gil.h"

struct stream_object;
struct endpoint_object;
struct fdmux_frame;
struct probe;

struct delivery {
    PyObject head;
    struct fdmux_loop *loop; /* NULL: closed, or the parent's after a fork */
    PyObject *memory; /* a capsule that keeps the loop's memory, as long as `loop` */
    const void *address; /* of the loop; delivery_raise_error finds `error` by it */
    struct stream_object *first_open; /* owns a reference to each open stream */
    struct stream_object **unsent; /* streams with gathered writes; each a reference */
    uint32_t unsent_count;
    uint32_t unsent_capacity;
    struct endpoint_object *first_endpoint; /* open; owns a reference to each */
    struct endpoint_object
        *first_unsent; /* with gathered datagrams; each a reference */
    struct endpoint_object *last_unsent;
    unsigned long thread; /* that runs the loop; 0: none */
    unsigned int depth; /* callbacks that are running */
    bool is_gathering; /* writes outside of callbacks too, while the loop runs */
    bool is_one_batch; /* dispatch returns after each batch */
    unsigned long long call_count;
    uint64_t accepted; /* a stream that Python is to adopt in this callback; or 0 */
    PyObject *error; /* ended a batch; the caller of dispatch raises it */
    struct delivery *next_failed; /* the next one with an `error` */
    PyObject *incoming; /* the bytes or the buffer that the core receives into */
    struct fdmux_frame *frame; /* for framers to fill; or NULL */
    PyObject *asyncio; /* the loop of asyncio that it serves, or NULL */
    struct probe *probe; /* of an observed loop, a reference; or NULL */
};

/* Interned names of the methods that this module calls. */
struct delivery_names {
    PyObject *event;
    PyObject *callback_failed;
    PyObject *keep_error;
    PyObject *get_buffer;
    PyObject *buffer_updated;
};
extern struct delivery_names delivery_names;
extern PyTypeObject *delivery_type;

/* A kind of event besides those of fdmux_stream.h, for transports of asyncio: the last
 * write has failed; CLOSED follows. */
#define DELIVERY_LOST 100

/* delivery.c */
int delivery_register(PyObject *module, bool is_main);
/* Send what all streams and endpoints have gathered. */
void delivery_flush(struct delivery *delivery);
/* Around each call of Python for an event; the end of the outermost flushes. */
void delivery_begin_call(struct delivery *delivery, struct fdmux_loop *loop);
void delivery_end_call(struct delivery *delivery);
/* Returns 0, or -1 with a RuntimeError on a thread other than the loop's. */
int delivery_check_thread(const struct delivery *delivery, const char *attempted,
                          const char *what);
/* Close a stream and replace its functions, so that the core no longer has the address
 * of a Python object. It gets a reference to `tls`, which may be NULL, as it uses that
 * until CLOSED. Works in a child of fork() too. */
void delivery_disown(struct fdmux_loop *loop, uint64_t token, PyObject *tls);
/* Remember that a stream has gathered writes. Returns 0, or -1 with an exception. */
int delivery_add_unsent(struct delivery *delivery, struct stream_object *stream);

/* errors.c */
/* Keep the exception that is set, for the caller of dispatch to raise. Returns the
 * negative result that ends the batch. */
int delivery_keep_error(struct delivery *delivery);
/* The same where there is no result that could end the batch: the loop is open, and a
 * posted call ends the next one. */
void delivery_keep_and_end_batch(struct delivery *delivery);
/* What a transport of asyncio did after a send has raised. A send has no caller to whom
 * it could raise: there may be many writes in it. */
void delivery_send_raised(struct delivery *delivery, PyObject *transport);
/* An interpreter starts, maybe again: what was kept went with the last one. */
void delivery_forget_errors(void);
PyObject *delivery_raise_error(PyObject *module, PyObject *loop_address);

/* PyPy has one interpreter, and no function that tells it. */
static inline bool delivery_is_main_interpreter(void)
{
#if defined(PYPY_VERSION)
    return true;
#else
    return PyInterpreterState_GetID(PyInterpreterState_Get()) == 0;
#endif
}

/* capsule.c */
PyObject *capsule_make(PyObject *module, PyObject *args);

/* The callback `what` has raised: `target` reports it. KeyboardInterrupt, SystemExit
 * and, unless it is of asyncio, all that is no Exception end the batch instead. Returns
 * 0, or what ends the batch. */
int delivery_callback_raised(struct delivery *delivery, PyObject *target,
                             const char *what, bool is_asyncio);

/* datagram_address.c: an address as the module socket has it; None for no name. */
PyObject *delivery_address_object(const void *address, size_t size);

/* datagram_open.c */
void delivery_add_unsent_endpoint(struct delivery *delivery,
                                  struct endpoint_object *endpoint);
void delivery_flush_endpoints(struct delivery *delivery);
/* Close every endpoint without an event. */
void delivery_drop_endpoints(struct delivery *delivery);
int delivery_visit_endpoints(struct delivery *delivery, visitproc visit, void *arg);
PyObject *delivery_endpoints(PyObject *self, PyObject *unused);

/* events.c: called by the core. */
int delivery_on_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                      void *userdata);
int delivery_on_buffer(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                       size_t *ret_size, void *userdata);
/* Runs without the GIL: it reads streams only, which live until their CLOSED event. */
void delivery_prefetch(void *const *userdata, uint32_t count);

/* Attributes that Python has set to None count as not set. */
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

/* Has a stream or an endpoint gathered something? */
static inline bool delivery_has_unsent(const struct delivery *delivery)
{
    return delivery->unsent_count > 0 || delivery->first_unsent != NULL;
}

static inline PyObject *delivery_new_ref(PyObject *object)
{
    Py_XINCREF(object);
    return object;
}

#endif
