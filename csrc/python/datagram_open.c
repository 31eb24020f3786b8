/* datagram_open.c: opens an endpoint of Python, and links it with its delivery and the
 * core.
 *
 * While an endpoint is open, its delivery owns a reference to it and the core has its
 * address. So it outlives whoever made it, and the garbage collector sees the
 * reference. */
#include "datagram_object.h"
#include "probe.h"

#include <errno.h>
#include <string.h>

static void link_open(struct endpoint_object *endpoint)
{
    struct delivery *delivery = endpoint->delivery;

    Py_INCREF((PyObject *)endpoint);
    endpoint->previous_open = NULL;
    endpoint->next_open = delivery->first_endpoint;
    if (delivery->first_endpoint != NULL)
        delivery->first_endpoint->previous_open = endpoint;
    delivery->first_endpoint = endpoint;
}

static bool is_linked(const struct endpoint_object *endpoint)
{
    return endpoint->previous_open != NULL || endpoint->next_open != NULL ||
           (endpoint->delivery != NULL &&
            endpoint->delivery->first_endpoint == endpoint);
}

void endpoint_unlink(struct endpoint_object *endpoint)
{
    if (!is_linked(endpoint))
        return;
    if (endpoint->previous_open != NULL)
        endpoint->previous_open->next_open = endpoint->next_open;
    else
        endpoint->delivery->first_endpoint = endpoint->next_open;
    if (endpoint->next_open != NULL)
        endpoint->next_open->previous_open = endpoint->previous_open;
    endpoint->previous_open = endpoint->next_open = NULL;
    Py_DECREF((PyObject *)endpoint);
}

/* ---- for the delivery ---------------------------------------------------------- */

/* Each is a reference. */
void delivery_add_unsent_endpoint(struct delivery *delivery,
                                  struct endpoint_object *endpoint)
{
    Py_INCREF((PyObject *)endpoint);
    endpoint->is_unsent = true;
    endpoint->next_unsent = NULL;
    if (delivery->first_unsent == NULL)
        delivery->first_unsent = endpoint;
    else
        delivery->last_unsent->next_unsent = endpoint;
    delivery->last_unsent = endpoint;
}

static struct endpoint_object *take_unsent(struct delivery *delivery)
{
    struct endpoint_object *endpoint = delivery->first_unsent;

    delivery->first_unsent = endpoint->next_unsent;
    endpoint->next_unsent = NULL;
    endpoint->is_unsent = false;
    return endpoint;
}

/* An owner that gets FULL may send more, at the end of the list. */
void delivery_flush_endpoints(struct delivery *delivery)
{
    while (delivery->first_unsent != NULL) {
        struct endpoint_object *endpoint = take_unsent(delivery);

        endpoint_flush(endpoint);
        Py_DECREF((PyObject *)endpoint);
    }
}

static int ignore_event(struct fdmux_loop *loop,
                        const struct fdmux_datagram_event *event, void *userdata)
{
    (void)loop, (void)event, (void)userdata;
    return 0;
}

/* Close an endpoint and replace its function, so that the core no longer has the
 * address of the Python object. Works in a child of fork() too. */
static void disown(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_datagram_handler nobody = {.struct_size = sizeof nobody,
                                            .fn = ignore_event};

    /* Both fail on a closed loop, which calls no function any more. */
    (void)fdmux_datagram_set_handler(loop, token, &nobody);
    (void)fdmux_datagram_close(loop, token, FDMUX_DATAGRAM_DROP);
}

void delivery_drop_endpoints(struct delivery *delivery)
{
    while (delivery->first_unsent != NULL) {
        struct endpoint_object *endpoint = take_unsent(delivery);

        endpoint_drop_outgoing(endpoint);
        Py_DECREF((PyObject *)endpoint);
    }
    while (delivery->first_endpoint != NULL) {
        struct endpoint_object *endpoint = delivery->first_endpoint;

        if (delivery->loop != NULL)
            disown(delivery->loop, endpoint->token);
        endpoint->is_over = true;
        endpoint->is_open = false;
        endpoint_unlink(endpoint);
    }
}

/* The reference of the list of unsent endpoints is short-lived, that of the open ones
 * is not. */
int delivery_visit_endpoints(struct delivery *delivery, visitproc visit, void *arg)
{
    int r = 0;

    for (struct endpoint_object *it = delivery->first_endpoint; r == 0 && it != NULL;
         it = it->next_open)
        r = visit((PyObject *)it, arg);
    for (struct endpoint_object *it = delivery->first_unsent; r == 0 && it != NULL;
         it = it->next_unsent)
        r = visit((PyObject *)it, arg);
    return r;
}

static int append_all(const struct delivery *delivery, PyObject *list)
{
    for (struct endpoint_object *it = delivery->first_endpoint; it != NULL;
         it = it->next_open) {
        if (PyList_Append(list, (PyObject *)it) < 0)
            return -1;
    }
    return 0;
}

PyObject *delivery_endpoints(PyObject *self, PyObject *unused)
{
    PyObject *list = PyList_New(0);

    (void)unused;
    if (list != NULL && append_all((struct delivery *)self, list) < 0)
        Py_CLEAR(list);
    return list;
}

/* ---- opening ------------------------------------------------------------------- */

/* _bind(delivery, on_datagrams, on_datagram, owner): set what gets the datagrams and
 * the events. Once, before the endpoint is opened. */
PyObject *endpoint_bind(PyObject *self, PyObject *args)
{
    struct endpoint_object *endpoint = (struct endpoint_object *)self;
    PyObject *delivery, *on_datagrams, *on_datagram, *owner;

    if (!PyArg_ParseTuple(args, "O!OOO:_bind", delivery_type, &delivery, &on_datagrams,
                          &on_datagram, &owner))
        return NULL;
    if (endpoint->delivery != NULL)
        return PyErr_Format(PyExc_RuntimeError,
                            "bind an endpoint: it is bound already");
    endpoint->delivery = (struct delivery *)delivery_new_ref(delivery);
    endpoint->on_datagrams =
        on_datagrams == Py_None ? NULL : delivery_new_ref(on_datagrams);
    endpoint->on_datagram =
        on_datagram == Py_None ? NULL : delivery_new_ref(on_datagram);
    endpoint->owner = owner == Py_None ? NULL : delivery_new_ref(owner);
    return delivery_new_ref(Py_None);
}

/* An observed loop has another one. */
static fdmux_datagram_fn event_fn_of(const struct endpoint_object *endpoint)
{
    return endpoint->delivery->probe == NULL ? endpoint_on_event : probe_on_endpoint;
}

void endpoint_choose_function(struct endpoint_object *endpoint)
{
    struct fdmux_datagram_handler handler = {
        .struct_size = sizeof handler,
        .fn = event_fn_of(endpoint),
        .userdata = endpoint,
    };

    if (endpoint_is_live(endpoint)) /* -EIDRM: it has ended, and receives nothing */
        (void)fdmux_datagram_set_handler(endpoint->delivery->loop, endpoint->token,
                                         &handler);
}

static int start(struct endpoint_object *endpoint, fdmux_fd fd,
                 struct fdmux_datagram_options *options)
{
    struct fdmux_loop *loop = endpoint->delivery->loop;
    uint64_t token = 0;
    int r;

    if (loop == NULL)
        return -ESTALE;
    options->fn = event_fn_of(endpoint);
    options->userdata = endpoint;
    r = fdmux_datagram_add(loop, fd, options, &token);
    if (r < 0)
        return r;
    endpoint->token = token;
    endpoint->is_open = true;
    endpoint->has_facts =
        (options->flags & (FDMUX_DATAGRAM_LOCAL | FDMUX_DATAGRAM_ECN)) != 0;
    link_open(endpoint);
    return 0;
}

/* _open(fd, family, options): take over a socket; `options` is the memory of a struct
 * fdmux_datagram_options. Returns 0 or -errno. */
PyObject *endpoint_open(PyObject *self, PyObject *args)
{
    struct endpoint_object *endpoint = (struct endpoint_object *)self;
    struct fdmux_datagram_options options;
    Py_buffer given;
    int fd, family;
    int r = -EINVAL;

    if (!PyArg_ParseTuple(args, "iiy*:_open", &fd, &family, &given))
        return NULL;
    if (given.len == (Py_ssize_t)sizeof options && endpoint->delivery != NULL &&
        endpoint->token == 0) {
        memcpy(&options, given.buf, sizeof options);
        endpoint->family = family;
        r = start(endpoint, (fdmux_fd)fd, &options);
    }
    PyBuffer_Release(&given);
    return PyLong_FromLong(r);
}
