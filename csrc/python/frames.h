/* frames.h: a stream whose handler gets frames instead of bytes. */
#ifndef FDMUX_PYTHON_FRAMES_H
#define FDMUX_PYTHON_FRAMES_H

#include "delivery.h"
#include "fdmux_frame.h"

/* Call the handler with the list of frames that are whole now; what it returned, or
 * NULL with an exception. `ret_error` is 0, or what the framer has against the rest. */
PyObject *frames_deliver(struct delivered *stream,
                         const struct fdmux_stream_event *event, int *ret_error);
/* The answer is written: tell the stream of that error. Returns 0, or -1 with an
 * exception. */
int frames_finish(struct delivered *stream, int error);
void frames_drop_rest(struct delivered *stream);

/* Methods and functions of the module. */
PyObject *frames_take_rest(PyObject *self, PyObject *unused);
int frames_set_framer(PyObject *self, PyObject *value, void *unused);
PyObject *frames_delimited(PyObject *module, PyObject *args);
PyObject *frames_length_prefixed(PyObject *module, PyObject *args);

#endif
