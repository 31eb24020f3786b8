/* aio_transport.h: the memory of a transport of asyncio, for the files that write,
 * pause and make the type. */
#ifndef FDMUX_AIO_TRANSPORT_H
#define FDMUX_AIO_TRANSPORT_H

#include "aio.h"
#include "stream_object.h"

struct transport {
    struct stream_object stream;
    uint32_t queue_low;
    unsigned int lost_count; /* 0: connected; then 1 and the writes since */
    bool is_closing;
    bool is_reading_paused;
};

/* Names of the methods that C calls. */
struct aio_transport_names {
    PyObject *write_slowly;
    PyObject *writelines_slowly;
    PyObject *drained;
    PyObject *log_debug;
    PyObject *flow_failed;
    PyObject *pause_writing;
    PyObject *resume_writing;
    PyObject *join;
};
extern struct aio_transport_names aio_transport_names;

static inline struct transport *as_transport(PyObject *self)
{
    return (struct transport *)self;
}

/* aio_flow.c */
void aio_flow_set_paused(struct transport *transport, bool is_paused);
/* Set the limits; None is what asyncio takes for one that is not given. Returns 0, or
 * -1 with an exception. */
int aio_flow_choose_limits(struct transport *transport, PyObject *high, PyObject *low);

/* Methods: of aio_flow.c and aio_transport.c. */
PyObject *aio_flow_size(PyObject *self, PyObject *unused);
PyObject *aio_flow_set_limits(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *aio_flow_set_limits_and_pause(PyObject *self, PyObject *args,
                                        PyObject *keywords);
PyObject *aio_transport_write(PyObject *self, PyObject *data);
PyObject *aio_transport_writelines(PyObject *self, PyObject *lines);
PyObject *aio_transport_write_bytes(PyObject *self, PyObject *data);
PyObject *aio_transport_flush(PyObject *self, PyObject *unused);
PyObject *aio_transport_is_reading(PyObject *self, PyObject *unused);
PyObject *aio_transport_is_closing(PyObject *self, PyObject *unused);
PyObject *aio_transport_pause_reading(PyObject *self, PyObject *unused);
PyObject *aio_transport_resume_reading(PyObject *self, PyObject *unused);

#endif
