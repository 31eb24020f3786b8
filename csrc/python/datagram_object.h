/* datagram_object.h: one endpoint as Python holds it, the type
 * fdmux._delivery.Endpoint.
 *
 * It is either a fdmux.DatagramEndpoint, whose handler gets the events, or the core of
 * a transport of asyncio, its owner, which gets them instead. */
#ifndef FDMUX_DATAGRAM_OBJECT_H
#define FDMUX_DATAGRAM_OBJECT_H

#include "delivery.h"
#include "system.h"

#define ENDPOINT_FULL 101 /* to the owner: more than queue_high bytes are queued */
#define ENDPOINT_BATCH_MAX 64 /* datagrams that are gathered, and sent together */

union any_sockaddr {
    struct sockaddr generic;
    struct sockaddr_in inet;
    struct sockaddr_in6 inet6;
    struct sockaddr_un local;
};

/* A datagram that waits for the end of a callback. */
struct outgoing {
    PyObject *data; /* bytes */
    uint16_t segment_size;
    uint16_t address_size; /* 0: to the connected peer */
    uint16_t local_size; /* 0: the kernel chooses from where */
    union any_sockaddr address;
    union {
        struct sockaddr_in inet;
        struct sockaddr_in6 inet6;
    } local;
};

struct address_cache;

struct endpoint_object {
    PyObject head;
    struct delivery *delivery; /* a reference */
    uint64_t token; /* 0: not open */
    struct endpoint_object *previous_open;
    struct endpoint_object *next_open;
    struct endpoint_object *next_unsent;
    PyObject *owner; /* gets the events; NULL: the endpoint itself gets them */
    PyObject *on_datagrams; /* gets a list; or NULL */
    PyObject *on_datagram; /* gets one; or NULL */
    PyObject *run; /* of the context that callbacks run in; or NULL */
    PyObject *handler; /* of a fdmux.DatagramEndpoint */
    PyObject *data; /* the user's attribute */
    struct address_cache *cache; /* NULL until it is needed */
    struct outgoing *outgoing; /* the same */
    uint32_t outgoing_count;
    uint32_t outgoing_size; /* bytes */
    uint32_t queue_high; /* with more queued, the owner gets FULL; see has_flow */
    int family; /* of the socket */
    bool is_unsent; /* in the delivery's list of unsent endpoints */
    bool is_open; /* neither closed nor asked to close */
    bool is_over; /* CLOSED was delivered */
    bool has_facts; /* the items of lists are Datagrams */
    bool has_flow; /* the owner does flow control */
    bool is_connected; /* the owner sends without an address */
    bool is_deferring; /* the owner has datagrams that it has not delivered yet */
};

extern PyTypeObject *datagram_item_type; /* fdmux.Datagram */

/* The fields of a Datagram; the first two are what it unpacks to. */
enum { ITEM_DATA, ITEM_ADDRESS, ITEM_LOCAL, ITEM_ECN, ITEM_TRUNCATED, ITEM_COUNT };

static inline bool endpoint_is_live(const struct endpoint_object *endpoint)
{
    return endpoint->token != 0 && !endpoint->is_over && endpoint->delivery != NULL &&
           endpoint->delivery->loop != NULL;
}

static inline PyObject *endpoint_target(struct endpoint_object *endpoint)
{
    return delivery_is_set(endpoint->owner) ? endpoint->owner : (PyObject *)endpoint;
}

/* datagram_address.c */
/* The address as `socket` has it: (host, port), (host, port, flow, scope), a path, or
 * None. Returns a new reference, or NULL with an exception. */
PyObject *endpoint_address_object(struct endpoint_object *endpoint, const void *address,
                                  size_t size);
/* The host alone. */
PyObject *endpoint_host_object(const void *address);
/* The reverse. Returns the size, 0 for None, or -1 with an exception. */
int endpoint_address_from(struct endpoint_object *endpoint, PyObject *object,
                          union any_sockaddr *ret_address);
/* A host without a port. Returns as above. */
int endpoint_host_from(PyObject *host, void *ret_address);
void endpoint_drop_cache(struct endpoint_object *endpoint);

/* datagram_send.c */
/* Gather a datagram, a bytes object; send all when there are many, or at once outside
 * of callbacks. */
int endpoint_gather(struct endpoint_object *endpoint, PyObject *data,
                    const struct outgoing *to);
/* Send what the handler has returned: pairs of data and address. Returns 0, or -1 with
 * an exception. */
int endpoint_send_pairs(struct endpoint_object *endpoint, PyObject *pairs);
/* Send `data`, what on_datagram has returned, to the sender of `datagram`. */
int endpoint_answer(struct endpoint_object *endpoint, PyObject *data,
                    const struct fdmux_datagram *datagram);
void endpoint_flush(struct endpoint_object *endpoint);
void endpoint_drop_outgoing(struct endpoint_object *endpoint);
PyObject *endpoint_send(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *endpoint_send_many(PyObject *self, PyObject *pairs);
PyObject *endpoint_send_segments(PyObject *self, PyObject *const *arguments,
                                 Py_ssize_t count);

PyObject *endpoint_sendto(PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                          PyObject *names);

/* datagram_events.c: called by the core. */
int endpoint_on_event(struct fdmux_loop *loop, const struct fdmux_datagram_event *event,
                      void *userdata);

/* datagram_open.c */
void endpoint_unlink(struct endpoint_object *endpoint);
/* Its loop is observed from now on, or no longer. */
void endpoint_choose_function(struct endpoint_object *endpoint);
PyObject *endpoint_bind(PyObject *self, PyObject *args);
PyObject *endpoint_open(PyObject *self, PyObject *args);

/* datagram_type.c */
int endpoint_type_register(PyObject *module, bool is_main);
/* Returns 0, or -1 with a RuntimeError on a thread other than the loop's. */
int endpoint_check_thread(const struct endpoint_object *endpoint,
                          const char *attempted);

#endif
